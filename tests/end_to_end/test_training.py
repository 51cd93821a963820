"""Training with fairseq's command line, on a corpus of a few seconds."""

import shutil
from pathlib import Path

import fairseq
import pytest
import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task

from fairseq_skd.criterions.ctc import metric_names
from tests.builders import letter_dictionary, write_dictionary, write_pretrained
from tests.end_to_end.training import SMALL, assert_equal, corpus, logged, parameters, train

RECIPES = Path(fairseq.__file__).parent / "examples"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("end_to_end")


@pytest.fixture(scope="module")
def data(work):
    return corpus(work / "data")


@pytest.fixture(scope="module")
def hubert(work):
    return write_pretrained(work / "hubert.pt")


@pytest.fixture(scope="module")
def trained(work, data, hubert):
    """Train 20 updates with masks and LayerDrop, with a checkpoint after 10."""
    overrides = [*SMALL, f"task.data={data}", f"model.w2v_path={hubert}", "checkpoint.save_interval_updates=10"]
    result = train(work / "straight", overrides)
    assert result.returncode == 0, result.stdout[-3000:]
    return work / "straight", overrides, result.stdout


@pytest.mark.slow
def test_a_run_logs_its_terms(trained):
    folder, _, output = trained
    inner, valid = logged(output, "train_inner"), logged(output, "valid")
    assert [entry["num_updates"] for entry in inner] == [5, 10, 15, 20]
    assert [entry["alpha"] for entry in inner][::3] == [0.3, pytest.approx(0.7, abs=0.01)]
    assert {"loss", "ctc_teacher", "ctc_student", "skd", "blank_teacher", "blank_student", "infeasible"} <= set(
        inner[0]
    )
    of_fairseq = {"epoch", "num_updates", "wps", "wpb", "bsz", "best_student_wer"}
    names = {name.removeprefix("valid_") for name in valid[-1]} - of_fairseq
    assert names == set(metric_names("skd_ctc", [2], beam_search=False))
    last = inner[-1]
    mixed = (1 - last["alpha"]) * last["ctc_teacher"] + last["alpha"] * (last["ctc_student"] + last["skd"])
    assert last["loss"] == pytest.approx(mixed, rel=0.02)
    assert (folder / "checkpoint_best.pt").is_file() and (folder / "checkpoint_last.pt").is_file()


@pytest.mark.slow
def test_a_resumed_run_is_the_same_run(work, trained):
    folder, overrides, _ = trained
    (middle,) = folder.glob("checkpoint_*_10.pt")
    resumed = train(work / "resumed", [*overrides, f"checkpoint.restore_file={middle}"])
    assert resumed.returncode == 0, resumed.stdout[-3000:]
    assert "@ 10 updates" in resumed.stdout
    assert "with other settings" not in resumed.stdout
    straight = parameters(folder / "checkpoint_last.pt")
    assert not torch.equal(parameters(middle)["w2v_encoder.proj.weight"], straight["w2v_encoder.proj.weight"])
    assert_equal(parameters(work / "resumed" / "checkpoint_last.pt"), straight)


@pytest.mark.slow
def test_two_runs_of_one_seed_are_equal(work, trained):
    folder, overrides, _ = trained
    again = train(work / "again", overrides)
    assert again.returncode == 0, again.stdout[-3000:]
    assert_equal(parameters(work / "again" / "checkpoint_last.pt"), parameters(folder / "checkpoint_last.pt"))


@pytest.mark.faults
@pytest.mark.slow
def test_a_complete_run_that_is_started_again_trains_nothing(work, trained):
    """fairseq trains and saves one more update per start; here it warns and keeps the files."""
    folder, overrides, _ = trained
    shutil.copytree(folder, work / "complete", ignore=shutil.ignore_patterns("hydra*", ".hydra"))
    again = train(work / "complete", overrides)
    assert again.returncode == 0, again.stdout[-3000:]
    assert "checkpoint_last.pt already has 20 updates and optimization.max_update=20" in again.stdout
    for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
        assert (work / "complete" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.slow
def test_a_checkpoint_is_self_contained(tmp_path, trained):
    """fairseq loads it at both exits from a folder with only the checkpoint and the dictionary."""
    shutil.copy(trained[0] / "checkpoint_best.pt", tmp_path / "model.pt")
    write_dictionary(tmp_path)
    source = torch.randn(1, 16000)
    outputs = {}
    for layer in (0, 2):
        overrides = {"data": str(tmp_path), "label_dir": None, "w2v_path": "/gone.pt", "decode_layer": layer}
        (model,), _, task = load_model_ensemble_and_task([str(tmp_path / "model.pt")], arg_overrides=overrides)
        assert len(task.target_dictionary) == len(letter_dictionary())
        outputs[layer] = model.eval()(source=source)
    torch.testing.assert_close(outputs[2]["encoder_out"], outputs[0]["exit_logits"][2], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_stock_checkpoint_starts_a_run(work, trained, hubert, data):
    """``checkpoint.finetune_from_model`` with fairseq's own model, which has no student head."""
    state = torch.load(trained[0] / "checkpoint_best.pt", weights_only=True)
    state["model"] = {name: tensor for name, tensor in state["model"].items() if "student" not in name}
    state["cfg"]["model"]["_name"] = "hubert_ctc"
    torch.save(state, work / "stock.pt")
    overrides = [*SMALL, f"task.data={data}", f"model.w2v_path={hubert}", "optimization.max_update=4"]
    result = train(work / "from_stock", [*overrides, f"checkpoint.finetune_from_model={work / 'stock.pt'}"])
    assert result.returncode == 0, result.stdout[-3000:]
    assert "the checkpoint has no head for student layers 2: they start untrained" in result.stdout


@pytest.mark.slow
def test_the_original_hubert_recipe_carries_over(work, data, hubert):
    """fairseq's base_10h.yaml, with model and criterion renamed and crops disabled."""
    recipe = RECIPES / "hubert" / "config" / "finetune" / "base_10h.yaml"
    overrides = [
        *("model._name=skd_ctc", "criterion._name=skd_ctc", "+model.student_layers=[1,3]"),
        *("+task.pad_audio=true", "+task.random_crop=false", f"task.data={data}", f"task.label_dir={data}"),
        *(f"model.w2v_path={hubert}", "optimization.max_update=3", "common.fp16=false", "common.cpu=true"),
        *("distributed_training.ddp_backend=legacy_ddp", "distributed_training.distributed_port=-1"),
        *("dataset.validate_after_updates=0", "dataset.validate_interval=1", "dataset.max_tokens=32000"),
        *("model.freeze_finetune_updates=2", "lr_scheduler.warmup_steps=1", "lr_scheduler.decay_steps=2"),
    ]
    result = train(work / "recipe", overrides, recipe)
    assert result.returncode == 0, result.stdout[-3000:]
    assert {"valid_wer_4", "valid_wer_1", "valid_wer_3"} <= set(logged(result.stdout, "valid")[-1])


@pytest.mark.slow
def test_the_original_wav2vec_recipe_carries_over(work, data):
    """fairseq's wav2vec 2.0 base_100h.yaml: an ``audio_finetuning`` task and a pre-LN encoder."""
    encoder = write_pretrained(work / "wav2vec.pt", "wav2vec2", "args", layer_norm_first=True)
    recipe = RECIPES / "wav2vec" / "config" / "finetuning" / "base_100h.yaml"
    overrides = [
        *("model._name=skd_ctc", "criterion._name=skd_ctc", "+model.student_layers=[2]", f"task.data={data}"),
        *(f"model.w2v_path={encoder}", "optimization.max_update=3", "common.fp16=false", "common.cpu=true"),
        *("distributed_training.ddp_backend=legacy_ddp", "distributed_training.distributed_world_size=1"),
        *("dataset.max_tokens=32000", "dataset.validate_interval=1", "dataset.valid_subset=valid"),
    ]
    result = train(work / "wav2vec", overrides, recipe)
    assert result.returncode == 0, result.stdout[-3000:]
    assert logged(result.stdout, "valid")[-1]["valid_infeasible"] == 0
    names = parameters(work / "wav2vec" / "checkpoint_last.pt")
    assert "student_heads.2.layer_norm.weight" in names


@pytest.mark.slow
def test_a_mistake_is_one_sentence_before_training(tmp_path, data, hubert):
    """This mistake shows when the encoder is read; mistakes in settings are reported earlier."""
    overrides = [*SMALL, f"task.data={data}", f"model.w2v_path={hubert}", "model.student_layers=[4]"]
    result = train(tmp_path, overrides)
    assert result.returncode != 0
    last = result.stdout.rstrip().splitlines()[-1]
    assert last.startswith("fairseq-hydra-train: ") and "4 layers are the full model itself" in last
    assert "Traceback" not in result.stdout and "begin training" not in result.stdout
