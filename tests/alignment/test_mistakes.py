"""Mistakes of the user: each gets one sentence."""

import shutil
from pathlib import Path

import pytest
import torch

from fairseq_skd import align
from fairseq_skd.alignment import output
from fairseq_skd.errors import UserError, run_command
from tests.alignment.running import BOTH, run
from tests.decoding.checkpoints import STUDENT, damaged, set_constant_symbols

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([], r"common_eval\.path is not set: give a fine-tuned checkpoint, or align\.history=DIR$"),
        (
            ["{hubert}", "align.layer=3"],
            r"^align\.layer=3: .*checkpoint_best\.pt: the checkpoint has no exit at layer 3: use 0 .*\(2\)$",
        ),
        (["{hubert}", "align.layer=0"], r"align\.layer and align\.teacher_layer are both exit 4 of .*: choose two$"),
        (
            ["{hubert}", "+common_eval.model_overrides={{decode_layer: 2}}"],
            r"^common_eval\.model_overrides is no key of this command: use align\.layer or align\.teacher_layer$",
        ),
        (["{hubert}", "align.layer=-1"], r"align\.layer=-1 is out of range"),
        (["{hubert}", "align.layer=two"], r"align\.layer=two cannot be used, it takes a whole number or null$"),
        (["{hubert}", "align.resamples=0"], r"align\.resamples=0 is out of range"),
        (
            ["{hubert}", "align.examples=[5]"],
            r"examples=\[5\]: 5 is not an utterance of .*test\.tsv: give indices from 0 to 4$",
        ),
        (["{hubert}", "align.examples=[-1]"], r"align\.examples=\[-1\] is out of range, it is at least 0$"),
        (
            ["{hubert}", "+align.lyer=1"],
            r"there is no key align\.lyer, align has: layer, teacher_path, ",
        ),
        (["{hubert}", "align=3"], r"align=3"),
        (
            ["common_eval.path={plain}"],
            r"plain\.pt has no student: give a separate teacher with align\.teacher_path=\.\.\.",
        ),
        (["{two}"], r"two\.pt has the students \[1, 2\]: choose one with align\.layer=\.\.\."),
        (
            ["{hubert}", "align.teacher_path=gone.pt"],
            r"^align\.teacher_path: checkpoint .*/gone\.pt does not exist",
        ),
        (
            ["{hubert}", "align.teacher_path={pretrained}"],
            r"^align\.teacher_path: checkpoint .*/pretrained\.pt holds model hubert, but skd_ctc is needed",
        ),
        (["{hubert}", "common.seed=-1"], r"^common\.seed=-1 is out of range, it is at least 0$"),
        (["{hubert}", "align.layers=2"], r"there is no key align\.layers, align has: layer, teacher_path, "),
        (
            ["{hubert}", "align.teacher_path={fast}"],
            r"fast\.pt and .* cannot be compared: they have a frame every 10 and 20 ms$",
        ),
        (
            ["{hubert}", "align.teacher_path={kernels}"],
            r"kernels\.pt and .* cannot be compared: .*kernels .*kernels ",
        ),
        (
            ["{hubert}", "align.teacher_path={letters}"],
            r"^align\.teacher_path: dictionary .* has 'Q' where the checkpoint was trained with 'Z'",
        ),
        (
            ["{hubert}", "align.teacher_path={hubert}"],
            r"^align\.teacher_path and common_eval\.path are both exit 4 of .*: choose another exit with align\.layer ",
        ),
        (["align.history=nowhere"], r"align\.history=.*nowhere is not a folder"),
        (
            ["align.history=."],
            r"keeps no checkpoint of an update or epoch: train with checkpoint\.save_interval_updates",
        ),
    ],
)
@pytest.mark.slow
def test_mistakes(corpus, hubert, models, overrides, sentence):
    given = [override.format(hubert=hubert, **models) for override in overrides]
    given = [f"common_eval.path={one}" if one.startswith("/") else one for one in given]
    with pytest.raises(UserError, match=sentence) as caught:
        run(corpus, *given)
    assert "\n" not in str(caught.value)
    assert not list(Path.cwd().glob("**/align.json"))


@pytest.mark.slow
def test_a_model_without_spikes_is_warned_of(corpus, hubert, tmp_path, capsys):
    blank = set_constant_symbols(hubert, tmp_path / "blank.pt", dict.fromkeys(BOTH, "<s>"))
    run(corpus, f"common_eval.path={blank}")
    assert capsys.readouterr().err.endswith(
        "fairseq_skd.align: the teacher and the student emitted only blanks on every utterance, so the agreement means "
        "nothing: train longer\n"
    )


def test_output_that_is_not_finite(corpus, hubert, tmp_path):
    """The weights are finite, but their products overflow."""
    state = torch.load(hubert, weights_only=True)
    state["model"][f"student_heads.{STUDENT}.proj.weight"].fill_(3e38)
    torch.save(state, tmp_path / "huge.pt")
    with pytest.raises(
        UserError, match=r"huge\.pt: the output of exit 2 is not finite for .*test\.tsv line \d: .*\.wav"
    ):
        run(corpus, f"common_eval.path={tmp_path / 'huge.pt'}")


def test_an_epoch_file_without_its_number_of_updates(corpus, hubert, tmp_path):
    shutil.copy(hubert, tmp_path / "checkpoint1.pt")
    with pytest.raises(UserError, match=r"checkpoint1\.pt does not say after how many updates it was saved"):
        run(corpus, f"align.history={tmp_path}")


def test_a_missing_library_gets_one_sentence(corpus, hubert, monkeypatch, capsys):
    real = align.require.__globals__["importlib"].util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "rapidfuzz" else real(name))
    assert run_command("fairseq_skd.align", lambda: run(corpus, f"common_eval.path={hubert}")) == 2
    sentence = "fairseq_skd.align: the alignment analysis needs rapidfuzz: pip install 'fairseq_skd[analysis]'\n"
    assert capsys.readouterr().err == sentence


@pytest.mark.slow
def test_a_damaged_checkpoint_of_a_history_is_found_before_anything_runs(corpus, hubert, tmp_path, monkeypatch):
    shutil.copy(hubert, tmp_path / "checkpoint_1_20.pt")
    (tmp_path / "checkpoint_2_40.pt").write_bytes(hubert.read_bytes()[:5000])
    monkeypatch.setattr("fairseq_skd.alignment.analysis.compare_sides", lambda *_: pytest.fail("it ran"))
    with pytest.raises(UserError, match=r"checkpoint_2_40\.pt cannot be read, it is truncated"):
        run(corpus, f"align.history={tmp_path}")


@pytest.mark.faults
@pytest.mark.slow
def test_a_full_disk_leaves_an_incomplete_folder(corpus, hubert, monkeypatch):
    """X9: new figures and audio stood beside the align.json of another run."""
    run(corpus, f"common_eval.path={hubert}")
    Path("out", "mine.txt").write_text("mine")

    def full(path, _):
        raise UserError(f"{path} cannot be written: No space left on device")

    monkeypatch.setattr(output, "_write", full)
    with pytest.raises(UserError, match=r"out/spikes-1\.png cannot be written: No space left on device$"):
        run(corpus, f"common_eval.path={hubert}", "align.examples=[1]")
    assert [path.name for path in Path("out").iterdir() if path.suffix in (".json", ".txt")] == ["mine.txt"]


@pytest.mark.faults
@pytest.mark.parametrize("indices", [(2,), (2, 1)])
@pytest.mark.slow
def test_a_corrupt_file_is_refused(corpus, hubert, tmp_path, indices):
    """F29: metrics on a part of the subset would not be comparable."""
    data = damaged(corpus, tmp_path / "data", *indices)
    with pytest.raises(UserError, match=rf"test\.tsv line {indices[-1] + 2}: .*/test{indices[-1]}\.flac"):
        run(data, f"common_eval.path={hubert}")
    assert not Path("out", "align.json").exists()
