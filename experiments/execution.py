"""Run the runs of a grid, several at a time; each command is a process of its own."""

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from experiments import folder
from experiments.grid import REPOSITORY
from experiments.processes import Processes, share_cores
from experiments.runs import Run, shown
from fairseq_skd.errors import UserError

_AGAIN = 2.0  # seconds between two looks whether a teacher is trained


def run_all(runs: Sequence[Run], out: Path, jobs: int = 1) -> list[Run]:
    """Run a grid's runs, in order, each as soon as its teacher is trained.

    Once a run has failed, no other is started. Runs in progress go on to their end.

    Args:
        runs: runs of a grid, in order.
        out: folder of all runs.
        jobs: runs at a time.

    Returns:
        runs that were not done, because another job has them or their teacher is missing.

    Raises:
        UserError: a command failed, or a folder holds another experiment. All failures are named.
    """
    jobs = max(1, min(jobs, len(runs)))
    commands = Commands(jobs)
    left = list(runs)
    failed: list[BaseException] = []
    working: dict[Future[bool], Run] = {}
    elsewhere: set[str] = set()  # runs that another job seems to have
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while True:
                free = 0 if failed else jobs - len(working)
                waiting = [run for run in left if run not in working.values() and run.name not in elsewhere]
                ready = [run for run in waiting if teacher_ready(run)] if free else []
                for run in ready[:free]:
                    working[pool.submit(_named, run, commands)] = run
                if not working:
                    break
                look = len(waiting) > len(ready) and len(ready) < free
                for future in wait(working, _AGAIN if look else None, FIRST_COMPLETED).done:
                    run, error = working.pop(future), future.exception()
                    if error is not None:
                        failed.append(error)
                        if names := ", ".join(other.name for other in working.values()):
                            print(f"{error}; no other run is started, these go on: {names}", flush=True)
                    elif future.result():
                        left.remove(run)
                        print(f"{run.name}: {len(runs) - len(left)} of {len(runs)} runs are done", flush=True)
                        elsewhere.clear()  # the other job may have ended by now
                        folder.collect(out)
                    else:
                        elsewhere.add(run.name)
        except BaseException:
            commands.end()  # first: the pool waits for its threads, and they wait for the commands
            raise
    for one in failed:
        if not isinstance(one, UserError):
            raise one
    if failed:
        raise UserError("; ".join(map(str, failed)))
    return left


def teacher_ready(run: Run) -> bool:
    """Tell whether the arm that a run needs is trained."""
    return run.teacher is None or folder.is_trained(run.teacher)


class Commands:
    """The commands of a grid's runs.

    Args:
        jobs: commands at a time. They share the cores.
    """

    def __init__(self, jobs: int) -> None:
        self._environment = dict(os.environ)
        self._environment["PYTHONPATH"] = f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        share_cores(self._environment, jobs)
        self._processes = Processes()

    def call(self, command: Sequence[str], log: Path, run: Run, lock: int) -> None:
        """Run a command to its end and append its output to ``log``.

        The command inherits the folder's lock: if it outlives this process, no other job starts
        in that folder.

        Raises:
            UserError: the command failed, or was not started because the commands were ended.
        """
        with log.open("ab") as output:
            done = self._processes.run(
                command, stdout=output, stderr=subprocess.STDOUT, env=self._environment, pass_fds=(lock,)
            )
        if done is None:
            raise UserError(f"{run.name}: not finished, because the commands were ended")
        if done.returncode != 0:
            raise UserError(f"{run.name}: a command failed with status {done.returncode}, see its output in {log}")

    def end(self) -> None:
        """Start no more commands, and end those in progress."""
        self._processes.end()


def _named(run: Run, commands: Commands) -> bool:
    try:
        return _run_one(run, commands)
    except OSError as error:
        raise UserError(f"{run.name}: {error}") from error


def _run_one(run: Run, commands: Commands) -> bool:
    """Train, decode, compare the spikes and write the result, without the steps done before.

    Returns:
        False if another job has the run.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    with folder.locked(run.folder / "lock") as lock:
        if lock is None:
            print(f"{run.name}: another job has it", flush=True)
            return False
        folder.claim(run)
        if folder.is_complete(run):
            print(f"{run.name}: already done", flush=True)
            return True
        if not folder.is_trained(run.folder):
            print(f"{run.name}\n{shown(run.train)}\nlog: {run.folder / folder.TRAIN_LOG}", flush=True)
            with folder.attempt(run):
                commands.call(run.train, run.folder / folder.TRAIN_LOG, run, lock)
        if not run.checkpoint.is_file():
            raise UserError(
                f"{run.name}: the training ended without {run.checkpoint}: raise optimization.max_epoch (or tries in "
                f"the grid) to at least checkpoint.save_interval and dataset.validate_interval"
            )
        (run.folder / folder.TRAINED).touch()
        (run.folder / folder.RESULT).unlink(missing_ok=True)  # an old result must not pass for the new one
        for step in (*run.decode, *run.align):
            if not folder.is_done(run, step):
                print(f"{run.name}: {step.log.stem}", flush=True)
                with folder.doing(run, step):
                    commands.call(step.command, step.log, run, lock)
        folder.write_result(run)
    return True
