r"""Run a grid of experiments. Finished runs are skipped, interrupted ones resume.

python -m experiments.run_grid experiments/an4.yaml --out /runs task.data=/data/manifests/an4 \
    model.w2v_path=/models/hubert_mini.pt --jobs 16

Two jobs never work in one folder.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.execution import run_all, teacher_ready
from experiments.folder import check_folder, state
from experiments.grid import read_grid
from experiments.runs import Run, runs_of, shown
from fairseq_skd.cli import compose, quieten_libraries
from fairseq_skd.encoders.checkpoint import load_pretrained
from fairseq_skd.encoders.pretrained import PretrainedEncoder
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files.progress import tracked
from fairseq_skd.files.subset import read_manifest
from fairseq_skd.models.heads import check_student_layers
from fairseq_skd.training.checks import check_composed

# Keys that tell the runs of a grid apart: one value for all would mix them up.
_OWN = {"common.seed": "--seeds", "checkpoint.save_dir": "--out", "hydra.run.dir": "--out"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the grid, or list its runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="the grid's YAML, such as experiments/an4.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs and of results.jsonl")
    parser.add_argument("--arms", type=_names, help="arms to run, separated by commas (default: all)")
    parser.add_argument("--seeds", type=_seeds, help="seeds to run, separated by commas (default: the grid's)")
    parser.add_argument(
        "--jobs",
        type=_count,
        default=1,
        metavar="N",
        help="runs at a time (%(default)s); they share the cores and the GPU",
    )
    parser.add_argument(
        "--tries", action="store_true", help="run the short tries that weights are chosen from, not the arms"
    )
    parser.add_argument("--list", action="store_true", help="show commands and progress, run nothing")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="setting of every training")
    args = parser.parse_intermixed_args(arguments)
    given = _settings(args.overrides)
    out = args.out.absolute()
    grid = read_grid(args.grid)
    runs = runs_of(grid.short_tries() if args.tries else grid, out, given, args.arms, args.seeds)
    check_runs(runs)
    if args.list:
        for run in runs:
            print(f"{run.name}: {state(run)}\n  {shown(run.train)}")
        return
    for run in tracked(runs, "checking folders", "run"):
        check_folder(run)
    left = run_all(runs, out, args.jobs)
    print(out / "results.jsonl")
    if left:
        raise UserError("not done: " + ", ".join(map(_why, left)))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different names separated by commas")
    return names


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _seeds(text: str) -> list[int]:
    if not all(seed.isdecimal() for seed in _names(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers separated by commas")
    return [int(seed) for seed in _names(text)]


def _settings(overrides: Sequence[str]) -> dict[str, object]:
    """Read the overrides and make their paths absolute.

    Raises:
        UserError: a path is not given or does not exist, or the grid sets a key for each run.
    """
    given: dict[str, object] = dict(override.partition("=")[::2] for override in overrides)
    bare = {key.lstrip("+~") for key in given}
    for key, instead in _OWN.items():
        if key in bare:
            raise UserError(f"{key} is set by the grid for each run: give {instead} instead")
    for key in ("task.data", "model.w2v_path"):
        if key not in given:
            raise UserError(f"{key} is not set: give {key}=...")
    for key in {"task.data", "model.w2v_path", "task.label_dir"} & set(given):
        path = Path(str(given[key])).absolute()
        if not path.exists():
            raise UserError(f"{key}={path} does not exist: give another path")
        given[key] = path
    return given


def check_runs(runs: Sequence[Run]) -> None:
    """Check all arms before the first run starts, so that no late arm fails.

    Raises:
        UserError: a key is unknown, a value is out of range, a subset lacks manifest or labels, the
            encoder cannot be used, or a model will not have an exit of its arm.
    """
    first = {run.arm: run for run in reversed(runs)}  # seeds of an arm do not differ in what is checked
    encoders: dict[str, PretrainedEncoder] = {}
    seen: set[tuple[str, ...]] = set()
    for arm in tracked(dict.fromkeys(run.arm for run in runs), "checking arms", "arm"):
        try:
            _check(first[arm], encoders, seen)
        except UserError as error:
            raise UserError(f"arm {arm}: {error}") from error


def _check(run: Run, encoders: dict[str, PretrainedEncoder], seen: set[tuple[str, ...]]) -> None:
    training = check_composed(_composed(run.train))
    for step in (*run.decode, *run.align):
        keys = tuple(part.partition("=")[0] for part in step.command)
        if keys not in seen:  # only subsets, exits and paths differ otherwise
            _composed(step.command)
            seen.add(keys)
    for subset in dict.fromkeys(step.subset for step in run.decode):
        read_manifest(run.data.manifests, subset, f"the grid's subset {subset}")
        missing = next((file for file in run.data.files(subset) if not file.is_file()), None)
        if missing is not None:
            raise UserError(
                f"the grid's subset {subset}: label file {missing} does not exist: write it beside the others"
            )
    model = training.model
    if model.w2v_path not in encoders:
        encoders[model.w2v_path] = load_pretrained(model.w2v_path)
    encoder = encoders[model.w2v_path]
    if bool(training.task.normalize) != encoder.normalize:
        raise UserError(
            f"task.normalize={training.task.normalize}, but the encoder has normalize={encoder.normalize}: give that"
        )
    if model.keep_layers != 0:
        encoder = encoder.first_layers(model.keep_layers)
    exits = {encoder.depth, *check_student_layers(model.student_layers, encoder.depth)}
    for layer in run.exits:
        if layer not in exits:
            raise UserError(
                f"exits has {layer}, the model will have {', '.join(map(str, sorted(exits)))}: change exits"
            )


def _composed(command: Sequence[str]) -> Any:
    """Compose the configuration of a command with --config-dir, --config-name and overrides."""
    folder, name = (command[command.index(option) + 1] for option in ("--config-dir", "--config-name"))
    overrides = command[command.index(name) + 1 :]
    return compose(folder, name, [one for one in overrides if not one.startswith("hydra.")])


def _why(run: Run) -> str:
    if teacher_ready(run):
        return f"{run.name} (another job has it)"
    return f"{run.name} (it needs {run.needs}, which is not done: add that to --arms, or wait for the job that has it)"


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("run_grid", main))
