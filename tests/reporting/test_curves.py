import pytest

from fairseq_skd.errors import UserError
from fairseq_skd.reporting.folders import read_log
from fairseq_skd.reporting.page import draw_curves
from tests.reporting.conftest import LINES


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "hydra_train.log"
    path.write_text("\n".join(LINES))
    return path


def test_curves_of_a_log(log):
    """Other lines, NaN, and a line cut off in the middle are left out."""
    curves = read_log(log)
    assert curves["ctc_teacher"] == [(10, 8.5), (20, 8.5), (30, 8.5)]
    assert curves["valid_wer"] == [(30, 90.5)]
    assert curves["valid_student_wer"] == [(30, 95)]
    assert "loss" not in curves and "cut" not in curves


def test_a_loss_that_overflowed_is_left_out(tmp_path):
    told = '[x][valid][INFO] - {{"valid_num_updates": "{}", "valid_loss": "{}"}}\n'
    path = tmp_path / "hydra_train.log"
    path.write_text(told.format(10, "inf") + told.format(20, "3e38") + told.format(30, 1.5))
    assert read_log(path)["valid_loss"] == [(20, 3e38), (30, 1.5)]
    draw_curves({"a run": read_log(path)})


def test_updates_that_were_repeated_count_once(tmp_path):
    """Updates 20 to 60, resumed at 40; then started again, and cut off."""
    inner = '[x][train_inner][INFO] - {{"num_updates": "{}", "loss": "{}"}}\n'
    valid = '[x][valid][INFO] - {{"valid_num_updates": "{}", "valid_loss": "{}"}}\n'
    first = inner.format(20, 9) + inner.format(40, 8) + valid.format(50, 8) + inner.format(60, 7)
    resumed = inner.format(60, 6) + valid.format(60, 5) + inner.format(80, 4)
    path = tmp_path / "hydra_train.log"
    path.write_text(first + inner.format(50, 6.5) + resumed)
    curves = read_log(path)
    assert curves["loss"] == [(20, 9), (40, 8), (50, 6.5), (60, 6), (80, 4)]
    assert curves["valid_loss"] == [(60, 5)]
    path.write_text(first + resumed + inner.format(20, 10))
    assert read_log(path) == {"num_updates": [(20, 20)], "loss": [(20, 10)]}


def lines_of(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def test_panels(log):
    losses, shares, wer = draw_curves({"a run": read_log(log)}).axes
    assert set(lines_of(losses)) == {"ctc_teacher", "ctc_student", "skd"}
    assert lines_of(shares)["alpha"] == [[10, 0.3], [20, 0.3], [30, 0.3]]
    assert lines_of(wer) == {"valid_wer": [[30, 90.5]], "valid_student_wer": [[30, 95]]}


def test_legends_name_several_runs(log):
    losses, *_ = draw_curves({"A": read_log(log), "B": {"loss": [(1, 2)]}}).axes
    assert set(lines_of(losses)) == {"A ctc_teacher", "A ctc_student", "A skd", "B loss"}


def test_other_criteria():
    losses, shares, wer = draw_curves(
        {"kd": {"ctc": [(1, 4)], "kd": [(1, 2)], "loss": [(1, 6)], "valid_wer": [(1, 9)]}}
    ).axes
    assert set(lines_of(losses)) == {"ctc", "kd"} and wer.axison
    assert not shares.axison and shares.get_title() == ""  # without curves, no empty frame
    assert losses.get_yscale() == "log"


def test_a_term_below_zero_is_drawn():
    """The term of Guide-CTC: minus the posteriors at the teacher's spikes."""
    losses, *_ = draw_curves({"guide": {"ctc": [(1, 400), (2, 90)], "kd": [(1, -1.8), (2, -44.9)]}}).axes
    assert losses.get_yscale() == "symlog"
    low, high = losses.get_ylim()
    assert low < -44.9 and high > 400


@pytest.mark.parametrize(("text", "sentence"), [(None, "does not exist"), ("chatter", "has no JSON lines: train with")])
def test_files_that_are_not_logs(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "log").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_log(tmp_path / "log")
