r"""Run a grid of experiments: what is done is skipped, what was cut off goes on, and no two jobs work in one folder.

python experiments/run_grid.py experiments/an4.yaml --out /runs task.data=/data/manifests/an4 \
    model.w2v_path=/models/hubert_mini.pt --jobs 16
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, this folder's parent is not searched

from experiments.execution import run_all, teacher_ready
from experiments.folder import check_folder
from experiments.grid import Run, runs_of, shown
from experiments.grid_file import read_grid, tries_of
from experiments.preflight import check_runs
from experiments.results import state
from fairseq_skd.cli import quieten_libraries
from fairseq_skd.errors import UserError, run_command

# What tells the runs of a grid apart: one value for all would mix them up.
_OWN = {"common.seed": "--seeds", "checkpoint.save_dir": "--out", "hydra.run.dir": "--out"}


def _why(run: Run, out: Path) -> str:
    """Why a run is left over."""
    if teacher_ready(run, out):
        return f"{run.name} (another job is at it)"
    return (
        f"{run.name} (it needs {run.needs}, which is not done: name that among the --arms, or wait for the job at it)"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Arguments in, results out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="the grid's YAML, such as experiments/an4.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs; results.jsonl is written there")
    parser.add_argument("--arms", type=_names, help="only these, separated by commas")
    parser.add_argument("--seeds", type=_seeds, help="instead of the grid's, separated by commas")
    parser.add_argument(
        "--jobs",
        type=_count,
        default=1,
        metavar="N",
        help="runs at a time (%(default)s); they share the cores and the GPU",
    )
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
    left = run_all(runs, out, args.jobs)
    print(out / "results.jsonl")
    if left:
        raise UserError("not done: " + ", ".join(_why(run, out) for run in left))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not names separated by commas, each given once")
    return names


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


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


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("run_grid", main))
