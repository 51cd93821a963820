"""Several runs at a time, with commands that train nothing."""

import fcntl
import os
import sys
from dataclasses import replace

import pytest

from experiments import execution
from experiments.grid import runs_of
from experiments.run_grid import main
from fairseq_skd.errors import UserError
from tests.experiments.grids import GIVEN, TRAIN, stub

# Waits until the other one has begun as well: alone it would never end.
MEET = """
import os, pathlib, sys, time
here, other = map(pathlib.Path, sys.argv[3:5])
here.write_text(os.environ.get("OMP_NUM_THREADS", ""))
until = time.monotonic() + 60
while not other.exists() and time.monotonic() < until:
    time.sleep(0.02)
assert other.exists()
"""


def command(text, run, *arguments):
    return (sys.executable, "-c", text, str(run.folder), "", *map(str, arguments))


def test_two_run_at_a_time_and_share_the_cores(grid, tmp_path, data, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    runs = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc", "skd"], [1])]
    notes = [tmp_path / run.arm for run in runs]
    meeting = [
        replace(run, train=command(MEET + TRAIN, run, *places))
        for run, places in zip(runs, (notes, notes[::-1]), strict=True)
    ]
    assert execution.run_all(meeting, tmp_path, jobs=2) == []
    assert [note.read_text() for note in notes] == ["4", "4"]
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2


def test_a_run_begins_as_soon_as_its_teacher_is_there(grid, tmp_path, data):
    """And before those that stand behind it in the grid."""
    runs = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN)]
    assert execution.run_all(runs, tmp_path, jobs=1) == []
    begun = sorted(runs, key=lambda run: (run.folder / "command.txt").stat().st_mtime_ns)
    assert [(run.arm, run.seed) for run in begun] == [(run.arm, run.seed) for run in runs]
    held = tmp_path / "again"
    runs = [stub(run, data) for run in runs_of(grid, held, GIVEN, seeds=[1])]
    waits = replace(runs[1], train=command("import time; time.sleep(1)\n" + TRAIN, runs[1]))
    assert execution.run_all([runs[2], runs[0], waits], held, jobs=2) == []
    times = {run.arm: (run.folder / "trained").stat().st_mtime_ns for run in runs}
    assert times["ctc"] < times["kd"] < times["skd"]


def test_the_others_come_to_their_end_when_one_fails(grid, tmp_path, data, capsys):
    runs = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc", "skd"])]
    slow = replace(runs[1], train=command("import time; time.sleep(1)\n" + TRAIN, runs[1]))
    broken = replace(runs[0], train=(sys.executable, "-c", "exit(3)"))
    with pytest.raises(UserError, match=r"tiny ctc seed 1: a command failed \(status 3\)"):
        execution.run_all([broken, slow, *runs[2:]], tmp_path, jobs=2)
    assert "waiting for tiny skd seed 1" in capsys.readouterr().out
    assert (slow.folder / "checkpoints" / "checkpoint_best.pt").is_file()  # trained to its end
    assert not (runs[2].folder / "tries").exists() and not list(slow.folder.glob("decode/*"))


def test_what_another_job_has_is_tried_again(grid, tmp_path, data, capsys):
    runs = [stub(run, data) for run in runs_of(grid, tmp_path, GIVEN, ["ctc", "skd"], [1])]
    runs[0].folder.mkdir(parents=True)
    frees = command(f"import pathlib; pathlib.Path({str(tmp_path / 'free')!r}).touch()\n" + TRAIN, runs[1])
    with (runs[0].folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        real = execution.collect

        def freed(out):
            fcntl.flock(held, fcntl.LOCK_UN)
            real(out)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(execution, "collect", freed)
            assert execution.run_all([runs[0], replace(runs[1], train=frees)], tmp_path, jobs=2) == []
    assert "tiny ctc seed 1: another job is at it" in capsys.readouterr().out


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5"])
def test_a_number_of_jobs_that_cannot_be(tmp_path, capsys, jobs):
    with pytest.raises(SystemExit):
        main(["grid.yaml", "--out", str(tmp_path), f"--jobs={jobs}"])
    assert f"argument --jobs: '{jobs}' is not a whole number from 1 on" in capsys.readouterr().err
