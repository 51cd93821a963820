"""One function over many files: order, processes, failures."""

import os

import pytest

from fairseq_skd.corpora.workers import FEW, available_cpus, default_jobs, run_over
from fairseq_skd.errors import UserError


def double(number: int) -> int:
    """Twice ``number``; 13 is unlucky, and 99 ends the process."""
    if number == 13:
        raise OSError(28, "No space left on device")
    if number == 99:
        os._exit(1)
    return 2 * number


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_keep_the_order(jobs: int, capsys):
    numbers = [number for number in range(80) if number != 13]
    assert run_over(double, numbers, jobs, "doubling") == [2 * number for number in numbers]
    assert "doubling: " in capsys.readouterr().err
    assert run_over(double, [], jobs, "nothing") == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_comes_out_as_it_is(jobs: int):
    with pytest.raises(OSError, match="No space left on device"):
        run_over(double, range(20), jobs, "failing")


def test_a_dead_worker_is_told():
    with pytest.raises(UserError, match="a worker process was ended from outside, .*; use fewer --jobs"):
        run_over(double, [1, 99], 2, "dying")


def test_jobs_by_default():
    assert default_jobs(FEW - 1) == 1
    assert default_jobs(10 * FEW) == min(available_cpus(), 16)
