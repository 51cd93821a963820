"""config/finetune/ against its generator and against fairseq's files; and each recipe is built."""

import math
import runpy
import shutil
import sys
from pathlib import Path

import fairseq
import pytest
import torch
from fairseq import optim, tasks
from fairseq.optim.lr_scheduler import build_lr_scheduler
from omegaconf import OmegaConf

from fairseq_skd.cli import compose
from fairseq_skd.compat import to_container
from fairseq_skd.training.checks import check_composed
from tests.builders import batch, write_dictionary, write_pretrained

CONFIG = Path(__file__).resolve().parents[1] / "config"
sys.path.append(str(CONFIG))  # the folder of generate.py

import generate  # noqa: E402

EXAMPLES = Path(fairseq.__file__).parent / "examples"
RECIPES = {recipe.name: recipe for recipe in generate.RECIPES}
NAMES = sorted(RECIPES)
# Keys in which all our files differ from fairseq's (docs/training.md), or say the same in another
# way.
EVERYWHERE = {
    *("criterion._name", "model._name", "task._name", "task.labels", "task.label_dir", "task.normalize"),
    *("checkpoint.best_checkpoint_metric", "dataset.skip_invalid_size_inputs_valid_test", "dataset.valid_subset"),
    *("common.seed", "common.tensorboard_logdir", "dataset.num_workers"),
    *("distributed_training.ddp_backend", "distributed_training.find_unused_parameters"),
    *("distributed_training.distributed_port", "distributed_training.nprocs_per_node"),
}
# HuBERT's phases in updates, which phase_ratio replaces.
STEPS = {"lr_scheduler.warmup_steps", "lr_scheduler.hold_steps", "lr_scheduler.decay_steps"}
# Family of recipes -> kind of pretrained encoder.
KINDS = {"hubert": "hubert", "wavlm": "wavlm", "wav2vec": "wav2vec2"}
LARGE = {"layer_norm_first": True, "extractor_mode": "layer_norm"}
DEPTHS = {"base": 12, "large": 24}


def size(name: str) -> str:
    return "large" if "_large_" in name else "base"


def flat(config, group: str = "") -> dict:
    """Flatten a configuration: dotted key -> value."""
    leaves = {}
    for key, value in config.items():
        leaves.update(flat(value, f"{group}{key}.") if isinstance(value, dict) else {f"{group}{key}": value})
    return leaves


def test_the_files_equal_the_generators_output():
    """They are equal byte for byte, and there are no other files."""
    written = {path: text.encode() for path, text in generate.files().items()}
    assert {path.name: path.read_bytes() for path in written} == {path.name: text for path, text in written.items()}
    yamls = {path.stem for path in (CONFIG / "finetune").glob("*.yaml")}
    assert yamls == {path.stem for path in written if path.suffix == ".yaml"} | {"hubert_mini"}


def test_the_generator_rewrites_missing_and_changed_files(tmp_path):
    copy = shutil.copytree(CONFIG, tmp_path / "config")
    page = tmp_path / "docs" / "training.md"
    page.parent.mkdir()
    text = (CONFIG.parent / "docs" / "training.md").read_text(encoding="utf-8")
    page.write_text(text.replace("| 25k |", "| 26k |"), encoding="utf-8")
    yaml = copy / "finetune" / "wavlm_large_10h.yaml"
    yaml.write_text(yaml.read_text(encoding="utf-8").replace("seed: 1", "seed: 2"), encoding="utf-8")
    (copy / "finetune" / "wavlm_mini.yaml").unlink()
    runpy.run_path(str(copy / "generate.py"), run_name="__main__")
    for path in CONFIG.rglob("*.*"):
        assert path.suffix == ".pyc" or (copy / path.relative_to(CONFIG)).read_bytes() == path.read_bytes()
    assert page.read_text(encoding="utf-8") == text


def test_the_minis_differ_only_in_comments():
    hubert, wavlm = (compose(CONFIG / "finetune", f"{name}_mini") for name in ("hubert", "wavlm"))
    assert hubert == wavlm


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_values_equal_the_published_ones_except_named_changes(name):
    chosen = RECIPES[name]
    source = EXAMPLES / chosen.source
    if not source.is_file():
        pytest.skip(f"this build of fairseq lacks {source}")
    published = flat(OmegaConf.to_container(OmegaConf.load(source)))
    ours = flat(OmegaConf.to_container(OmegaConf.load(CONFIG / "finetune" / f"{name}.yaml")))
    changed = {key for change in chosen.changes for key in change.values}
    if "lr_scheduler.phase_ratio" in changed:
        assert published["lr_scheduler.warmup_steps"] + published["lr_scheduler.decay_steps"] == 80_000
        changed |= STEPS
    compared = {key for key in published if not key.startswith("hydra.")} - EVERYWHERE - changed
    assert {"optimization.max_update", "model.mask_prob", "dataset.max_tokens"} <= compared
    assert {key: ours[key] for key in compared} == {key: published[key] for key in compared}
    for change in chosen.changes:
        assert any(value != published.get(key) for key, value in change.values.items()), f"{change} changes nothing"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_batches(name):
    """Each update has as many seconds of speech as in the papers."""
    cfg = compose(CONFIG / "finetune", name)
    (repeat,) = cfg.optimization.update_freq
    seconds = cfg.dataset.max_tokens / cfg.task.sample_rate
    times = {"hubert_large": 24 if name.endswith("960h") else 20, "wavlm_large": 24}.get(name.rsplit("_", 1)[0], 8)
    assert cfg.distributed_training.distributed_world_size * repeat == times
    text = (CONFIG / "finetune" / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"with only one: 1, and optimization.update_freq=[{times}]" in text
    assert seconds == (80 if size(name) == "large" else 200)


@pytest.mark.parametrize("name", NAMES)
def test_every_change_and_derivation_is_described_in_the_file(name):
    chosen = RECIPES[name]
    head = (CONFIG / "finetune" / f"{name}.yaml").read_text(encoding="utf-8").partition("\ncommon:")[0]
    words = " ".join(head.replace("#", " ").split())
    assert f"fairseq's examples/{chosen.source}." in words
    assert ("Derived" in words) == (not (chosen.encoder == "wav2vec_base" or name == "hubert_base_10h"))
    for change in chosen.changes:
        assert f"- {change.what}: {change.why}." in words


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Pretrained encoders of full depth and small width: (kind, size) -> checkpoint."""
    folder = tmp_path_factory.mktemp("pretrained")
    return {
        (kind, size): write_pretrained(
            folder / f"{kind}_{size}.pt",
            kind,
            normalize=size == "large",
            encoder_layers=depth,
            **(LARGE if size == "large" else {}),
        )
        for kind in set(KINDS.values())
        for size, depth in DEPTHS.items()
    }


def training_config(name: str, data: Path, checkpoint: Path):
    """Read a YAML as fairseq-hydra-train does, with fairseq's defaults filled in."""
    given = ["common.user_dir=null", f"task.data={data}", f"model.w2v_path={checkpoint}", "common.cpu=true"]
    return check_composed(compose(CONFIG / "finetune", name, given))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_model_criterion_and_schedule_are_built(name, pretrained, tmp_path):
    write_dictionary(tmp_path)
    family, large = name.partition("_")[0], size(name) == "large"
    cfg = training_config(name, tmp_path, pretrained[KINDS[family], size(name)])
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    depth = DEPTHS[size(name)]
    assert model.exits == (depth, depth // 2)
    assert cfg.model.normalize is large
    assert cfg.dataset.validate_after_updates in (0, cfg.model.freeze_finetune_updates)

    optimizer = optim.build_optimizer(cfg.optimizer, [p for p in model.parameters() if p.requires_grad])
    scheduler = build_lr_scheduler(cfg.lr_scheduler, optimizer)
    updates, rate = cfg.optimization.max_update, cfg.optimization.lr[0]
    assert scheduler.warmup_steps + scheduler.hold_steps + scheduler.decay_steps == updates
    assert scheduler.step_update(updates // 2) == rate
    assert math.isclose(scheduler.step_update(updates), 0.05 * rate)

    sample = batch([1.2, 0.8], ["GO ON", "A"], normalize=large)
    for done, frozen in ((0, cfg.model.freeze_finetune_updates > 0), (cfg.model.freeze_finetune_updates, False)):
        model.set_num_updates(done)
        model.train().zero_grad()
        loss, sample_size, log = criterion(model, sample)
        loss.backward()
        assert torch.isfinite(loss) and sample_size == 2 and log["infeasible"] == 0
        trained = [n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        assert any("w2v_model" in n for n in trained) is not frozen
        assert not any("feature_extractor" in n for n in trained)
        assert "student_heads" in " ".join(trained) and "w2v_encoder.proj.weight" in trained


@pytest.mark.parametrize("name", ["hubert_base_10h", "wavlm_large_960h"])
@pytest.mark.slow
def test_an_encoder_of_the_other_size_is_refused(name, pretrained, tmp_path):
    write_dictionary(tmp_path)
    other = {"base": "large", "large": "base"}[size(name)]
    cfg = training_config(name, tmp_path, pretrained["hubert", other])
    with pytest.raises(ValueError, match=r"set task\.normalize="):
        tasks.setup_task(cfg.task).build_model(cfg.model)


def test_file_names_with_a_plus_need_no_quotes():
    """WavLM-Base+.pt, as at the head of its YAML."""
    cfg = compose(CONFIG / "finetune", "wavlm_base_plus_10h", ["model.w2v_path=/abs/WavLM-Base+.pt"])
    assert to_container(cfg.model.w2v_path) == "/abs/WavLM-Base+.pt"
