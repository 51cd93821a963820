"""What is kept of a grid's runs: a file of each, a line of each, and the lock of their folders."""

import fcntl
import hashlib
import itertools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.grid import Run, aligned, decoded, shown
from experiments.grid_file import REPOSITORY
from fairseq_skd.files import replacing
from fairseq_skd.reporting.logs import read_log

RESULT = "result.json"
_SCORES = ("wer", "cer", "word_errors", "words", "character_errors", "characters", "sentences", "parameters")
_ALIGNMENT = ("frame_disagreement", "spike_disagreement", "spike_miss", "offset")


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[int | None]:
    """The descriptor of a lock that this process holds, or None if another one does.

    The system frees it when this process and those that it was passed on to have ended, however they end.
    """
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield handle.fileno()


def summaries(run: Run) -> dict[tuple[str, int], Path]:
    """What each decoding of a run leaves behind when it is done, by subset and exit."""
    return {key: decoded(run.folder, *key) / "summary.json" for key in run.decode}


def analyses(run: Run) -> dict[int, Path]:
    """What each comparison of spikes leaves behind when it is done, by exit."""
    return {layer: aligned(run.folder, layer) / "align.json" for layer in run.align}


def note_commit(run: Run) -> None:
    """Add the code that trains from here on to what trained before."""
    notes = run.folder / "commits"
    with notes.open("a", encoding="utf-8") as handle:
        handle.write(f"{_commit()}\n")


def result_of(run: Run) -> dict[str, Any]:
    """The line of a run that is done."""
    scores = []
    for (subset, layer), file in summaries(run).items():
        summary = json.loads(file.read_text(encoding="utf-8"))
        scores.append({"subset": subset, "exit": layer, **{key: summary[key] for key in _SCORES}})
    alignment = []
    for layer, file in analyses(run).items():
        found = json.loads(file.read_text(encoding="utf-8"))
        metrics = {key: found[key] for key in _ALIGNMENT}
        alignment.append({"exit": layer, "teacher": run.needs or run.arm, "subset": found["subset"], **metrics})
    curves = read_log(run.folder / "hydra_train.log")
    return {
        "corpus": run.corpus,
        "arm": run.arm,
        "seed": run.seed,
        "commit": ", ".join(dict.fromkeys((run.folder / "commits").read_text(encoding="utf-8").split())),
        "command": shown(run.train),
        "data_sha256": data_hash(*run.data),
        "updates": int(max(update for update, _ in curves["valid_loss"])),
        "seconds": float((run.folder / "seconds").read_text()),
        "scores": scores,
        "alignment": alignment,
    }


def data_hash(*folders: Path) -> str:
    """SHA-256 over manifests (without their root line) and labels, by name: equal where the same data is trained on."""
    digest = hashlib.sha256()
    for file in itertools.chain.from_iterable(sorted(folder.iterdir()) for folder in folders):
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


def collect(out: Path) -> None:
    """All results below ``out`` in one file, a line each; one job at a time, so that the last one writes them all."""
    with locked(out / "results.lock", wait=True):
        lines = [path.read_text(encoding="utf-8") for path in sorted(out.glob(f"*/*/seed*/{RESULT}"))]
        with replacing(out / "results.jsonl") as beside:
            beside.write_text("".join(lines), encoding="utf-8")
