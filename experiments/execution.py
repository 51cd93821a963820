"""Runs of a grid, so many at a time, each command of them a process of its own."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from experiments import attempts
from experiments.folder import claim, locked
from experiments.grid import Run, shown
from experiments.grid_file import REPOSITORY
from experiments.results import RESULT, TRAINED, collect, evaluations, is_trained, read_result, result_of
from fairseq_skd.corpora.workers import share_cores
from fairseq_skd.errors import UserError
from fairseq_skd.files import replacing
from fairseq_skd.processes import Processes

_AGAIN = 2.0  # seconds until it is looked again whether a teacher is trained


class Commands:
    """The commands of a grid's runs.

    Args:
        jobs: how many there can be at a time; they share the cores.
    """

    def __init__(self, jobs: int) -> None:
        self._environment = dict(os.environ)
        self._environment["PYTHONPATH"] = f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        share_cores(self._environment, jobs)
        self._processes = Processes()

    def call(self, command: Sequence[str], log: Path, run: Run, lock: int) -> None:
        """Run a command to its end, its output appended to ``log``.

        It holds the folder's lock as well: should it outlive this process, nobody else begins there.

        Raises:
            UserError: it failed, or was not begun because of :meth:`end`.
        """
        with log.open("ab") as output:
            done = self._processes.run(
                command, stdout=output, stderr=subprocess.STDOUT, env=self._environment, pass_fds=(lock,)
            )
        if done is None:
            raise UserError(f"{run.name}: not gone on with")
        if done.returncode != 0:
            raise UserError(f"{run.name}: a command failed (status {done.returncode}); what it said is in {log}")

    def end(self) -> None:
        """Begin no command any more, and end those that run."""
        self._processes.end()


def run_all(runs: Sequence[Run], out: Path, jobs: int = 1) -> list[Run]:
    """Run what can be run, the first that can be before the others; return what is left.

    What is left is another job's, or waits for its teacher. Once one has failed no other is begun, and those that run
    go on to their end.

    Args:
        runs: of a grid, in order.
        out: folder of all runs.
        jobs: how many at a time.

    Raises:
        UserError: commands failed, or folders hold other experiments: all of them.
    """
    jobs = max(1, min(jobs, len(runs)))
    commands = Commands(jobs)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            left, failed = _run_all(runs, out, jobs, lambda run: pool.submit(_run_one, run, commands))
        except BaseException:
            commands.end()  # before the pool waits for its threads, and they for the commands
            raise
    for error in failed:
        if not isinstance(error, UserError | OSError):
            raise error
    if failed:
        raise UserError("; ".join(map(str, failed))) from failed[0]
    return left


def _run_all(
    runs: Sequence[Run], out: Path, jobs: int, begin: Callable[[Run], Future[bool]]
) -> tuple[list[Run], list[BaseException]]:
    """What is left, and why others failed."""
    left = list(runs)
    failed: list[BaseException] = []
    working: dict[Future[bool], Run] = {}
    elsewhere: set[str] = set()  # those of another job, as far as is known
    while True:
        waiting = [run for run in left if run not in working.values() and run.name not in elsewhere]
        ready = [run for run in waiting if teacher_ready(run, out)] if not failed and len(working) < jobs else []
        for run in ready[: jobs - len(working)]:
            working[begin(run)] = run
        if not working:
            return left, failed
        look = len(working) < jobs and not failed and len(waiting) > len(ready)
        for future in wait(working, timeout=_AGAIN if look else None, return_when=FIRST_COMPLETED).done:
            run, error = working.pop(future), future.exception()
            if error is not None:
                failed.append(OSError(f"{run.name}: {error}") if isinstance(error, OSError) else error)
                if working:
                    told = "; nothing more is begun, what runs goes on: " + ", ".join(r.name for r in working.values())
                    print(f"{failed[-1]}{told}", flush=True)
            elif future.result():
                left.remove(run)
                elsewhere.clear()  # time has passed: the other job may have ended
                collect(out)
            else:
                elsewhere.add(run.name)


def teacher_ready(run: Run, out: Path) -> bool:
    """Whether the arm that a run needs is trained."""
    return run.needs is None or is_trained(out / run.corpus / run.needs / f"seed{run.seed}")


def _run_one(run: Run, commands: Commands) -> bool:
    """Train, decode, compare the spikes, write the result; what of it was done before is not done again.

    False if another job is at it.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with locked(run.folder / "lock") as lock:
        if lock is None:
            print(f"{run.name}: another job is at it", flush=True)
            return False
        claim(run)
        steps = evaluations(run)
        if read_result(run.folder) is not None and all(step.done() for step in steps):
            print(f"{run.name}: done before", flush=True)
            return True
        if not is_trained(run.folder):
            print(f"{run.name}\n{shown(run.train)}", flush=True)
            with attempts.attempt(run):
                commands.call(run.train, run.folder / attempts.LOG, run, lock)
        if not run.checkpoint.is_file():
            raise UserError(
                f"{run.name}: the training ended without {run.checkpoint}: its epochs have to reach "
                f"checkpoint.save_interval and dataset.validate_interval (optimization.max_epoch, or tries in the grid)"
            )
        (run.folder / TRAINED).touch()
        (run.folder / RESULT).unlink(missing_ok=True)  # one that lacks what follows must not pass for the whole
        for step in steps:
            if not step.done():
                step.begin()
                commands.call(step.command, step.log, run, lock)
        with replacing(run.folder / RESULT) as beside:
            beside.write_text(json.dumps(result_of(run)) + "\n", encoding="utf-8")
    return True
