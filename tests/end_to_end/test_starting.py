"""Start from a fine-tuned checkpoint, or resume one, with fairseq's command line."""

import shutil

import pytest
import torch

from tests.builders import LETTERS, write_pretrained
from tests.end_to_end.training import SMALL, assert_equal, corpus, logged, parameters, train
from tests.end_to_end.workers import train_on_two

pytestmark = pytest.mark.faults
STRAIGHT = ("optimization.max_update=4", "checkpoint.save_interval_updates=3", "common.log_interval=1")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("starting")


@pytest.fixture(scope="module")
def settings(work):
    data, hubert = corpus(work / "data"), write_pretrained(work / "hubert.pt")
    return [*SMALL, f"task.data={data}", f"model.w2v_path={hubert}", *STRAIGHT]


@pytest.fixture(scope="module")
def trained(work, settings):
    """Train four updates, with a checkpoint after three."""
    result = train(work / "straight", settings)
    assert result.returncode == 0, result.stdout[-3000:]
    return work / "straight", logged(result.stdout, "valid")[-1]


@pytest.fixture(scope="module")
def reordered(work, settings):
    """Copy the corpus, with the letters of the dictionary in another order."""
    folder = work / "reordered"
    shutil.copytree(work / "data", folder)
    (folder / "dict.ltr.txt").write_text("".join(f"{letter} 1\n" for letter in LETTERS[::-1]), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_start_with_the_letters_in_another_order(work, settings, trained, reordered):
    """F1: with a learning rate of 1e-9, validation equals the checkpoint's."""
    folder, expected = trained
    overrides = [*settings, f"task.data={reordered}", "optimization.max_update=2", "optimization.lr=[1e-9]"]
    start = f"checkpoint.finetune_from_model={folder / 'checkpoint_last.pt'}"
    result = train(work / "started", [*overrides, start])
    assert result.returncode == 0, result.stdout[-3000:]
    assert "32 mapped, 0 new, 0 dropped" in result.stdout
    found = logged(result.stdout, "valid")[-1]
    for name in ("valid_ctc_teacher", "valid_ctc_student", "valid_wer", "valid_uer", "valid_student_uer"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4), name
    first = logged(result.stdout, "train_inner")[0]
    assert first["alpha"] == 0.3  # the first update of this run, not the fifth of the other


@pytest.mark.slow
def test_two_workers_start_from_a_checkpoint_and_resume(work, settings, trained, reordered):
    """X15, F1: worker 0 reads and maps, and sends the result to worker 1.

    A resumed run equals the uninterrupted one.
    """
    settings = [*settings, f"task.data={reordered}", "optimization.lr=[1e-5]"]
    outputs = train_on_two(
        work / "two", [*settings, f"checkpoint.finetune_from_model={trained[0] / 'checkpoint_last.pt'}"]
    )
    assert "32 mapped, 0 new, 0 dropped" in outputs[0]
    straight, start = (parameters(path / "checkpoint_last.pt") for path in (work / "two", trained[0]))
    order = [0, 1, 2, 3, *range(31, 3, -1)]
    for name, tensor in start.items():
        mapped = tensor[order] if name.startswith(("w2v_encoder.proj.", "student_heads.2.proj.")) else tensor
        # Four updates of Adam move a weight by at most four learning rates; rows differ by more.
        torch.testing.assert_close(straight[name], mapped, rtol=0, atol=5e-5, msg=name)

    (middle,) = (work / "two").glob("checkpoint_*_3.pt")
    outputs = train_on_two(work / "two_resumed", [*settings, f"checkpoint.restore_file={middle}"])
    assert "@ 3 updates" in outputs[0]
    assert not torch.equal(parameters(middle)["w2v_encoder.proj.weight"], straight["w2v_encoder.proj.weight"])
    assert_equal(parameters(work / "two_resumed" / "checkpoint_last.pt"), straight)


@pytest.mark.slow
def test_a_resume_with_another_training_set_is_refused(work, settings, trained):
    """It ended in fairseq's traceback: "please report this to the fairseq developers"."""
    (middle,) = trained[0].glob("checkpoint_*_3.pt")
    result = train(work / "else", [*settings, "dataset.train_subset=valid", f"checkpoint.restore_file={middle}"])
    assert result.returncode != 0
    last = result.stdout.rstrip().splitlines()[-1]
    assert last.startswith("fairseq-hydra-train: ")
    assert "was saved in an epoch with more batches than dataset.train_subset has now" in last
