"""The main job with encoders of other authors: a WavLM of Microsoft's, and a folder of transformers."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task

from fairseq_skd import infer
from tests.builders import batch, write_dictionary, write_pretrained
from tests.decoding.checkpoints import NAMES
from tests.end_to_end.training import REPOSITORY, SMALL, assert_equal, corpus, logged, parameters, train

STUDENT = 2
SHORT = (*SMALL, "optimization.max_update=6", "model.freeze_finetune_updates=1", "checkpoint.save_interval_updates=3")


class Run(NamedTuple):
    """A training run whose pretrained encoder is gone since."""

    kind: str
    folder: Path
    data: Path
    resumed: Path
    output: str


def write_encoder(kind: str, folder: Path) -> Path:
    if kind == "wavlm":
        return write_pretrained(folder / "WavLM.pt", "wavlm")
    from tests.encoders.peers import write_folder

    write_folder(folder / "transformers", "wav2vec2")
    return folder / "transformers"


@pytest.fixture(scope="module", params=["wavlm", "wav2vec2"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Six updates straight through, and the last three of them again from the checkpoint between."""
    work = tmp_path_factory.mktemp(request.param)
    encoder, data = write_encoder(request.param, work), corpus(work / "data")
    overrides = [*SHORT, f"task.data={data}", f"model.w2v_path={encoder}"]
    config = REPOSITORY / "config" / "finetune" / f"{'wavlm' if request.param == 'wavlm' else 'hubert'}_mini.yaml"
    result = train(work / "straight", overrides, config)
    assert result.returncode == 0, result.stdout[-3000:]
    (middle,) = (work / "straight").glob("checkpoint_*_3.pt")
    resumed = train(work / "resumed", [*overrides, f"checkpoint.restore_file={middle}"], config)
    assert resumed.returncode == 0, resumed.stdout[-3000:]
    assert "@ 3 updates" in resumed.stdout
    shutil.rmtree(encoder) if encoder.is_dir() else encoder.unlink()
    return Run(request.param, work / "straight", data, work / "resumed", result.stdout)


@pytest.mark.slow
def test_training_reaches_the_encoder_and_its_exits(run: Run) -> None:
    assert {"valid_wer", "valid_student_wer", "valid_infeasible"} <= set(logged(run.output, "valid")[-1])
    (middle,) = run.folder.glob("checkpoint_*_3.pt")
    before, after = parameters(middle), parameters(run.folder / "checkpoint_last.pt")
    attention = "w2v_encoder.w2v_model.encoder.layers.0.self_attn"
    moved = [f"{attention}.q_proj.weight", "w2v_encoder.proj.weight", f"student_heads.{STUDENT}.proj.weight"]
    if run.kind == "wavlm":
        moved += [f"{attention}.{name}" for name in ("relative_attention_bias.weight", "grep_a", "grep_linear.weight")]
    assert all(not torch.equal(before[name], after[name]) for name in moved)


@pytest.mark.slow
def test_a_resumed_run_is_the_same_run(run: Run) -> None:
    assert_equal(parameters(run.resumed / "checkpoint_last.pt"), parameters(run.folder / "checkpoint_last.pt"))


@pytest.mark.slow
def test_the_checkpoint_decodes_at_both_depths_by_itself(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    checkpoint = shutil.copy(run.folder / "checkpoint_last.pt", tmp_path / "model.pt")
    for layer in (4, STUDENT):
        infer.main(
            [
                "dataset.num_workers=0",
                *(f"task.data={run.data}", f"common_eval.path={checkpoint}", "dataset.gen_subset=valid"),
                *(f"decoding.layer={layer}", f"common_eval.results_path=out{layer}"),
            ]
        )
        assert all((tmp_path / f"out{layer}" / name).is_file() for name in NAMES)
    full, student = (json.loads((tmp_path / f"out{layer}" / "summary.json").read_text()) for layer in (4, STUDENT))
    assert (full["exit_layer"], student["exit_layer"]) == (4, STUDENT)
    assert student["parameters"] < full["parameters"]


@pytest.mark.slow
def test_fairseq_loads_it_from_a_folder_of_its_own(run: Run, tmp_path: Path) -> None:
    shutil.copy(run.folder / "checkpoint_last.pt", tmp_path / "model.pt")
    write_dictionary(tmp_path)
    net_input, outputs = batch([1.2, 0.8], ["A", "B"])["net_input"], {}
    for layer in (0, STUDENT):
        overrides = {"data": str(tmp_path), "label_dir": None, "w2v_path": "/gone.pt", "decode_layer": layer}
        (model,), _, _ = load_model_ensemble_and_task([str(tmp_path / "model.pt")], arg_overrides=overrides)
        outputs[layer] = model.eval()(**net_input)
    torch.testing.assert_close(outputs[STUDENT]["encoder_out"], outputs[0]["exit_logits"][STUDENT], rtol=0, atol=1e-6)
