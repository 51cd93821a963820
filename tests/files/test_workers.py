"""One function over many files: order, processes, failures."""

import os
import time

import pytest

from fairseq_skd.errors import UserError
from fairseq_skd.files.workers import FEW, available_cpus, default_jobs, run_over


def double(number: int) -> int:
    """Double ``number``; 13 raises an error, 99 ends the process."""
    if number == 13:
        raise OSError(28, "No space left on device")
    if number == 99:
        os._exit(1)
    return 2 * number


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_keep_the_order(jobs: int):
    numbers = [number for number in range(80) if number != 13]
    assert [*run_over(double, numbers, jobs, "doubling")] == [2 * number for number in numbers]
    assert [*run_over(double, [], jobs, "nothing")] == []


def dawdle(number: int) -> int:
    """Return ``number`` after a while."""
    time.sleep(0.02)
    return number


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.slow
def test_long_work_shows_progress_and_short_work_none(jobs: int, capsys, monkeypatch):
    assert [*run_over(dawdle, range(5), jobs, "dawdling")] == [*range(5)]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("fairseq_skd.files.progress.PATIENCE", 0.05)
    assert [*run_over(dawdle, range(30), jobs, "dawdling")] == [*range(30)]
    assert "dawdling: 30 of 30 (100 %)" in capsys.readouterr().err


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_is_raised_unchanged(jobs: int):
    with pytest.raises(OSError, match="No space left on device"):
        list(run_over(double, range(20), jobs, "failing"))


def test_a_dead_worker_is_reported():
    with pytest.raises(UserError, match="a worker process was killed, .*; use fewer --jobs"):
        list(run_over(double, [1, 99], 2, "dying"))


def test_jobs_by_default():
    assert default_jobs(FEW - 1) == 1
    assert default_jobs(10 * FEW) == min(available_cpus(), 16)


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_bar_is_there_before_the_first_result(at_once: None, jobs: int, capsys):
    """A search or a recording can take minutes."""
    assert [*run_over(double, [1, 2, 3], jobs, "doubling", unit="run")] == [2, 4, 6]
    assert "doubling: 3 of 3 (100 %)" in capsys.readouterr().err
