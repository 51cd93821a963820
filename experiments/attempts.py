"""The attempts at a training that is cut off and goes on: how long they took, and with which code they ran."""

import contextlib
import math
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.grid import Run
from experiments.grid_file import REPOSITORY
from fairseq_skd.files import replacing

LOG = "train.log"  # what all of them printed
_COMMITS = "commits"
_SECONDS = "seconds"  # so far; and when the attempt began that runs or was killed, in seconds since 1970
_LATEST = "checkpoint_last.pt"


@contextlib.contextmanager
def attempt(run: Run) -> Iterator[None]:
    """Note time and code of the training inside; of those before, too, if they left a checkpoint to go on from."""
    before: float | None = 0.0
    if (run.checkpoint.parent / _LATEST).is_file():
        before = spent(run)
    else:
        (run.folder / _COMMITS).unlink(missing_ok=True)
    with (run.folder / _COMMITS).open("a", encoding="utf-8") as handle:
        handle.write(f"{_commit()}\n")
    _note(run.folder, before, time.time())
    try:
        yield
    finally:
        _note(run.folder, spent(run, time.time()))


def spent(run: Run, now: float | None = None) -> float | None:
    """Seconds of training, those of an attempt that was killed up to the last line of its log; None if not known."""
    try:
        numbers = [float(number) for number in (run.folder / _SECONDS).read_text(encoding="utf-8").split()]
        seconds, *begun = numbers
        if begun:
            (since,) = begun
            seconds += max(0.0, (now or (run.folder / LOG).stat().st_mtime) - since)
    except (OSError, ValueError):
        return None
    return seconds if math.isfinite(seconds) else None


def commits(run: Run) -> str:
    """Those that trained it, each once; empty if not known."""
    notes = run.folder / _COMMITS
    found = notes.read_text(encoding="utf-8").split() if notes.is_file() else []
    return ", ".join(dict.fromkeys(found))


def _note(folder: Path, seconds: float | None, begun: float | None = None) -> None:
    numbers = [f"{math.nan if seconds is None else seconds:.3f}", *([f"{begun:.3f}"] if begun is not None else [])]
    with replacing(folder / _SECONDS) as beside:
        beside.write_text(" ".join(numbers) + "\n", encoding="utf-8")


def _commit() -> str:
    """The checkout's commit, with a mark if files that git knows were changed."""
    git = ("git", "-C", str(REPOSITORY))
    head = subprocess.run((*git, "rev-parse", "HEAD"), capture_output=True, text=True)
    changed = subprocess.run((*git, "diff", "--quiet", "HEAD"), capture_output=True).returncode
    return head.stdout.strip() + ("-changed" if changed else "") if head.returncode == 0 else "unknown"
