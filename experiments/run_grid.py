r"""Run a grid of experiments: what is done is skipped, what was cut off goes on, and no two jobs work in one folder.

python experiments/run_grid.py experiments/an4.yaml --out /runs task.data=/data/manifests/an4 \
    model.w2v_path=/models/hubert_mini.pt
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, this folder's parent is not searched

from experiments import attempts
from experiments.folder import check_folder, claim, locked
from experiments.grid import Run, runs_of, shown
from experiments.grid_file import REPOSITORY, read_grid, tries_of
from experiments.preflight import check_runs
from experiments.results import RESULT, TRAINED, collect, evaluations, is_trained, read_result, result_of, state
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files import replacing
from fairseq_skd.infer import quieten_libraries

# What tells the runs of a grid apart: one value for all would mix them up.
_OWN = {"common.seed": "--seeds", "checkpoint.save_dir": "--out", "hydra.run.dir": "--out"}


def run_all(runs: Sequence[Run], out: Path) -> list[Run]:
    """Run what can be run, in order, until nothing more can; return what is left (another job has it, or its teacher).

    Raises:
        UserError: a command failed, or a folder holds another experiment.
    """
    left = list(runs)
    while left:
        waiting = []
        for run in left:
            if not _teacher_ready(run, out) or not _run_one(run):
                waiting.append(run)
            else:
                collect(out)
        if len(waiting) == len(left):
            break
        left = waiting
    return left


def _teacher_ready(run: Run, out: Path) -> bool:
    return run.needs is None or is_trained(out / run.corpus / run.needs / f"seed{run.seed}")


def _why(run: Run, out: Path) -> str:
    """Why a run is left over."""
    if _teacher_ready(run, out):
        return f"{run.name} (another job is at it)"
    return (
        f"{run.name} (it needs {run.needs}, which is not done: name that among the --arms, or wait for the job at it)"
    )


def _run_one(run: Run) -> bool:
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
                _call(run.train, run.folder / attempts.LOG, run, lock)
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
                _call(step.command, step.log, run, lock)
        with replacing(run.folder / RESULT) as beside:
            beside.write_text(json.dumps(result_of(run)) + "\n", encoding="utf-8")
    return True


def _call(command: Sequence[str], log: Path, run: Run, lock: int) -> None:
    """One process, its output appended to ``log``.

    It holds the folder's lock as well: should it outlive this process, nobody else begins there.
    """
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with log.open("ab") as output:
        status = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, pass_fds=(lock,)
        ).returncode
    if status != 0:
        raise UserError(f"{run.name}: a command failed (status {status}); what it said is in {log}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Arguments in, results out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="the grid's YAML, such as experiments/an4.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs; results.jsonl is written there")
    parser.add_argument("--arms", type=_names, help="only these, separated by commas")
    parser.add_argument("--seeds", type=_seeds, help="instead of the grid's, separated by commas")
    parser.add_argument("--tries", action="store_true", help="instead of the arms, the short tries of their weights")
    parser.add_argument("--list", action="store_true", help="show the commands and what is done, run nothing")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every training")
    args = parser.parse_intermixed_args(arguments)
    given = _settings(args.overrides)
    out = args.out.absolute()
    grid = read_grid(args.grid)
    runs = runs_of(tries_of(grid) if args.tries else grid, out, given, args.arms, args.seeds)
    check_runs(runs)
    if args.list:
        for run in runs:
            print(f"{run.name}: {state(run)}\n  {shown(run.train)}")
        return
    for run in runs:
        check_folder(run)
    left = run_all(runs, out)
    print(out / "results.jsonl")
    if left:
        raise UserError("not done: " + ", ".join(_why(run, out) for run in left))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not names separated by commas, each given once")
    return names


def _seeds(text: str) -> list[int]:
    if not all(seed.isdecimal() for seed in _names(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not whole numbers separated by commas")
    return [int(seed) for seed in _names(text)]


def _settings(overrides: Sequence[str]) -> dict[str, object]:
    """What was given, key by key, with absolute paths of what has to be there.

    Raises:
        UserError: it is not given, or is not there; or it is a key that tells the runs apart.
    """
    given: dict[str, object] = dict(override.partition("=")[::2] for override in overrides)
    bare = {key.lstrip("+~") for key in given}
    for key, instead in _OWN.items():
        if key in bare:
            raise UserError(f"{key} is set by the grid for each run: give {instead}")
    for key in ("task.data", "model.w2v_path"):
        if key not in given:
            raise UserError(f"{key} is not set: give {key}=...")
    for key in {"task.data", "model.w2v_path", "task.label_dir"} & set(given):
        path = Path(str(given[key])).absolute()
        if not path.exists():
            raise UserError(f"{key}={path} is not there")
        given[key] = path
    return given


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt  # so that a kill, too, ends the command that runs, and notes its time


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    quieten_libraries()
    sys.exit(run_command("run_grid", main))
