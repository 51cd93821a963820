"""The configurations in config/: complete, consistent, and equal for both versions of hydra."""

import dataclasses
import json
from pathlib import Path

import pytest
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.optim import OPTIMIZER_DATACLASS_REGISTRY
from fairseq.optim.lr_scheduler import LR_SCHEDULER_DATACLASS_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import OmegaConf

from fairseq_skd.cli import compose
from fairseq_skd.compat import to_container
from tests.baselines import BASELINES

CONFIG = Path(__file__).resolve().parents[1] / "config"
FINETUNE = sorted(path.stem for path in (CONFIG / "finetune").glob("*.yaml"))
# run/ is not for fairseq: it has a defaults list, to choose a launcher
# (tests/experiments/test_slurm.py)
ALL = sorted(path for path in CONFIG.glob("*/*.yaml") if path.parent.name != "run")
REGISTRIES = {
    "task": TASK_DATACLASS_REGISTRY,
    "model": MODEL_DATACLASS_REGISTRY,
    "criterion": CRITERION_DATACLASS_REGISTRY,
    "optimizer": OPTIMIZER_DATACLASS_REGISTRY,
    "lr_scheduler": LR_SCHEDULER_DATACLASS_REGISTRY,
}
GIVEN = ["common.user_dir=/u", "task.data=/d", "model.w2v_path=/w"]
# Keys of audio_finetuning that only some builds of fairseq have; its eval_ keys are for
# sequence-to-sequence models.
NOT_EVERYWHERE = {
    *("multi_corpus_keys", "multi_corpus_sampling_weights", "rebuild_batches", "precompute_mask_config"),
    *("post_save_script", "subsample", "target_dictionary", "precompute_mask_indices", "inferred_w2v_config"),
}
ENCODERS = ("hubert_base", "hubert_large", "wavlm_base_plus", "wavlm_large", "wav2vec_base")


def test_the_promised_configurations_exist():
    promised = {f"{encoder}_{amount}" for encoder in ENCODERS for amount in ("10h", "100h", "960h")}
    assert {*promised, "hubert_mini", "wavlm_mini"} == set(FINETUNE)
    assert set(BASELINES) == {"ctc", "pruning", "interctc", "guide", "softmax_l2", "softmax_kl"}
    assert {"viterbi", "kenlm", "lexfree"} <= {path.stem for path in (CONFIG / "decode").glob("*.yaml")}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_flat(path):
    """A defaults list composes differently in hydra 1.0 and 1.3."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# @package _group_\n")
    assert "\ndefaults:" not in text


@pytest.mark.parametrize("name", FINETUNE)
@pytest.mark.parametrize("group", REGISTRIES)
@pytest.mark.slow
def test_every_key_is_listed(name, group):
    """Hydra composes before the user dir is imported: only listed keys can be overridden."""
    listed = to_container(OmegaConf.load(CONFIG / "finetune" / f"{name}.yaml")[group])
    fields = REGISTRIES[group][listed.pop("_name")].__dataclass_fields__.values()
    own = {f.name for f in fields if not (isinstance(f.default, str) and f.default.startswith("${"))}
    own = {key for key in own - NOT_EVERYWHERE if not key.startswith("eval_")}
    assert set(listed) == own - {"_name", "w2v_args"}


@pytest.mark.parametrize("name", FINETUNE)
@pytest.mark.slow
def test_values(name):
    cfg = compose(CONFIG / "finetune", name, GIVEN)
    if cfg.task._name == "audio_finetuning":  # it always pads, and refuses these keys
        assert not {"pad_audio", "random_crop"} & set(cfg.task)
    else:
        assert cfg.task.pad_audio is True and cfg.task.random_crop is False
    assert sum(cfg.lr_scheduler.phase_ratio) == 1
    assert cfg.checkpoint.best_checkpoint_metric == ("student_wer" if cfg.model.student_layers else "wer")
    assert not cfg.checkpoint.maximize_best_checkpoint_metric
    assert cfg.model.freeze_finetune_updates < cfg.optimization.max_update
    defaults = MODEL_DATACLASS_REGISTRY["skd_ctc"]()
    types = {field.name: field.type for field in dataclasses.fields(defaults)}
    typed = OmegaConf.merge(OmegaConf.structured(defaults), cfg.model)
    assert set(typed) == set(types)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.slow
def test_a_baseline_differs_only_in_what_is_compared(name):
    finetune = CONFIG / "finetune"
    own, other = (to_container(compose(finetune, "hubert_mini", given)) for given in ([], BASELINES[name]))
    kd, compared = name in ("guide", "softmax_l2", "softmax_kl"), ("_name", "schedule", "alpha", "kd_weight")
    shared = (set(own["criterion"]) & set(other["criterion"])) - set(compared)
    assert {key: own["criterion"][key] for key in shared} == {key: other["criterion"][key] for key in shared}
    assert other["criterion"].get("method") == (name if kd else None)
    if name == "interctc":
        assert [other["criterion"][key] for key in compared[1:]] == ["constant", 0.3, 0]
    else:
        assert other["model"]["student_layers"] == []
        assert other["model"]["keep_layers"] == (0 if name == "ctc" else 6)
    for config in (own, other):
        del config["criterion"], config["checkpoint"]["best_checkpoint_metric"]
        del config["model"]["student_layers"], config["model"]["keep_layers"]
    assert own == other


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
@pytest.mark.slow
def test_composes_to_the_content_of_the_file(path):
    """Hydra drops and moves nothing, so both versions of hydra compose the same."""
    composed = OmegaConf.to_container(compose(path.parent, path.stem), resolve=False)
    written = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    composed.pop("hydra", None)
    written.pop("hydra", None)
    assert json.dumps(composed, sort_keys=True) == json.dumps(written, sort_keys=True)


@pytest.mark.parametrize("override", ["model.student_layers=[3,6]", "criterion.kd_weight=0.1", "task.normalize=true"])
@pytest.mark.slow
def test_overrides_need_no_plus(override):
    cfg = compose(CONFIG / "finetune", "hubert_mini", [override])
    key, value = override.split("=")
    assert str(OmegaConf.select(cfg, key)).replace(" ", "").lower() == value
