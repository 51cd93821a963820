r"""Run a grid of experiments: what is done is skipped, what was cut off goes on, and no two jobs work in one folder.

python experiments/run_grid.py experiments/an4.yaml --out /runs task.data=/data/manifests/an4 \
    model.w2v_path=/models/hubert_mini.pt
"""

import argparse
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, this folder's parent is not searched

from experiments.grid import REPOSITORY, Run, read_grid, runs_of, shown, tries_of
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files import replacing
from fairseq_skd.reporting.logs import read_log

RESULT = "result.json"
_SCORES = ("wer", "cer", "word_errors", "words", "character_errors", "characters", "sentences", "parameters")
_ALIGNMENT = ("frame_disagreement", "spike_disagreement", "spike_miss", "offset")


def run_all(runs: Sequence[Run], out: Path) -> list[Run]:
    """Run what can be run, in order, until nothing more can; return what is left (another job has it, or its teacher).

    Raises:
        UserError: a command failed, or a folder holds another experiment.
    """
    left = list(runs)
    while left:
        waiting = []
        for run in left:
            if not _teacher_ready(run, runs, out) or not _run_one(run):
                waiting.append(run)
            else:
                _collect(out)
        if len(waiting) == len(left):
            break
        left = waiting
    return left


def _teacher_ready(run: Run, runs: Sequence[Run], out: Path) -> bool:
    return run.needs is None or (out / run.corpus / run.needs / f"seed{run.seed}" / RESULT).is_file()


def _run_one(run: Run) -> bool:
    """Train, decode, compare the spikes, write the result; False if another job is at it."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with _locked(run.folder) as mine:
        if not mine:
            print(f"{run.name}: another job is at it", flush=True)
            return False
        _claim(run)
        result = run.folder / RESULT
        if result.is_file():
            print(f"{run.name}: done before", flush=True)
            return True
        print(f"{run.name}\n{shown(run.train)}", flush=True)
        _call(run.train, run.folder / "train.log", run, run.folder / "seconds")
        for (subset, layer), command in run.decode.items():
            _call(command, run.folder / f"decode-{subset}-layer{layer}.log", run)
        for layer, command in run.align.items():
            _call(command, run.folder / f"align-layer{layer}.log", run)
        with replacing(result) as beside:
            beside.write_text(json.dumps(_result(run)) + "\n", encoding="utf-8")
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether this process holds the folder; the system frees it when the process ends, however it ends."""
    with (folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _claim(run: Run) -> None:
    """Remember the command; a folder that was begun with another one is not mixed with this."""
    command = run.folder / "command.txt"
    wanted = shown(run.train) + "\n"
    if not command.is_file():
        with replacing(command) as beside:
            beside.write_text(wanted, encoding="utf-8")
    elif command.read_text(encoding="utf-8") != wanted:
        raise UserError(f"{run.folder} holds a run of another command ({command}): move it away, or give another --out")


def _call(command: Sequence[str], log: Path, run: Run, seconds: Path | None = None) -> None:
    """One process, its output appended to ``log``; its wall time added to what ``seconds`` holds."""
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    try:
        with log.open("ab") as output:
            status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment).returncode
    finally:
        if seconds is not None:
            before = float(seconds.read_text()) if seconds.is_file() else 0.0
            with replacing(seconds) as beside:
                beside.write_text(f"{before + time.monotonic() - started:.3f}\n")
    if status != 0:
        raise UserError(f"{run.name}: a command failed (status {status}); what it said is in {log}")


def _result(run: Run) -> dict[str, Any]:
    scores = []
    for subset, layer in run.decode:
        summary = json.loads((run.folder / "decode" / f"{subset}-layer{layer}" / "summary.json").read_text())
        scores.append({"subset": subset, "exit": layer, **{key: summary[key] for key in _SCORES}})
    alignment = []
    for layer in run.align:
        found = json.loads((run.folder / "align" / f"layer{layer}" / "align.json").read_text())
        alignment.append({"exit": layer, "teacher": run.needs or run.arm, **{key: found[key] for key in _ALIGNMENT}})
    curves = read_log(run.folder / "hydra_train.log")
    data = next(part.partition("=")[2] for part in reversed(run.train) if part.startswith("task.data="))
    return {
        "corpus": run.corpus,
        "arm": run.arm,
        "seed": run.seed,
        "commit": _commit(),
        "command": shown(run.train),
        "data_sha256": data_hash(Path(data)),
        "updates": int(max(update for update, _ in curves["valid_loss"])),
        "seconds": float((run.folder / "seconds").read_text()),
        "scores": scores,
        "alignment": alignment,
    }


def data_hash(folder: Path) -> str:
    """SHA-256 over manifests (without their root line) and labels, by name: equal where the same data is trained on."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".tsv", ".ltr", ".spm", ".wrd"):
            content = file.read_bytes()
            digest.update(file.name.encode() + b"\0")
            digest.update(content.partition(b"\n")[2] if file.suffix == ".tsv" else content)
    return digest.hexdigest()


def _commit() -> str:
    """The checkout's commit, with a mark if files that git knows were changed."""
    git = ("git", "-C", str(REPOSITORY))
    head = subprocess.run((*git, "rev-parse", "HEAD"), capture_output=True, text=True)
    changed = subprocess.run((*git, "diff", "--quiet", "HEAD"), capture_output=True).returncode
    return head.stdout.strip() + ("-changed" if changed else "") if head.returncode == 0 else "unknown"


def _collect(out: Path) -> None:
    """All results below ``out`` in one file, a line each."""
    lines = [path.read_text(encoding="utf-8") for path in sorted(out.glob(f"*/*/seed*/{RESULT}"))]
    with replacing(out / "results.jsonl") as beside:
        beside.write_text("".join(lines), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Arguments in, results out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="the grid's YAML, such as experiments/an4.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs; results.jsonl is written there")
    parser.add_argument("--arms", help="only these, separated by commas")
    parser.add_argument("--seeds", help="instead of the grid's, separated by commas")
    parser.add_argument("--tries", action="store_true", help="instead of the arms, the short tries of their weights")
    parser.add_argument("--list", action="store_true", help="show the commands and what is done, run nothing")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for every training: task.data=..., ...")
    args = parser.parse_intermixed_args(arguments)
    given = {override.partition("=")[0] for override in args.overrides}
    for key in ("task.data", "model.w2v_path"):
        if key not in given:
            raise UserError(f"{key} is not set: give {key}=..., an absolute path")
    seeds = [int(seed) for seed in args.seeds.split(",")] if args.seeds else None
    arms = args.arms.split(",") if args.arms else None
    out = args.out.absolute()
    grid = read_grid(args.grid)
    runs = runs_of(tries_of(grid) if args.tries else grid, out, args.overrides, arms, seeds)
    if args.list:
        for run in runs:
            print(f"{run.name}: {'done' if (run.folder / RESULT).is_file() else 'to do'}\n  {shown(run.train)}")
        return
    left = run_all(runs, out)
    print(out / "results.jsonl")
    if left:
        names = ", ".join(f"{run.name}" + f" (needs {run.needs})" * (run.needs is not None) for run in left)
        raise UserError(f"not done, since another job is at it or at what it needs, or that was not run: {names}")


if __name__ == "__main__":
    sys.exit(run_command("run_grid", main))
