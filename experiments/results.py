"""What is kept of a grid's runs: a file of each, a line of each, and the lock of their folders."""

import fcntl
import hashlib
import itertools
import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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


class Evaluation(NamedTuple):
    """A command that follows a training, and what it leaves behind.

    Attributes:
        command: decoding, or the comparison of spikes.
        result: the last file that it writes.
        log: its output; beside it stands the command that made the result.
    """

    command: Sequence[str]
    result: Path
    log: Path

    def done(self) -> bool:
        """Whether the result is there and this command made it."""
        made_by = self.log.with_suffix(".txt")
        return (
            self.result.is_file() and made_by.is_file() and made_by.read_text(encoding="utf-8") == shown(self.command)
        )

    def begin(self) -> None:
        """Take away what another command left, and note this one."""
        self.result.unlink(missing_ok=True)
        with replacing(self.log.with_suffix(".txt")) as beside:
            beside.write_text(shown(self.command), encoding="utf-8")


def evaluations(run: Run) -> list[Evaluation]:
    """What follows the training of a run, in order."""
    decodings = [
        Evaluation(command, _summary(run, *key), run.folder / f"decode-{key[0]}-layer{key[1]}.log")
        for key, command in run.decode.items()
    ]
    comparisons = [
        Evaluation(command, _analysis(run, layer), run.folder / f"align-layer{layer}.log")
        for layer, command in run.align.items()
    ]
    return decodings + comparisons


def _summary(run: Run, subset: str, layer: int) -> Path:
    return decoded(run.folder, subset, layer) / "summary.json"


def _analysis(run: Run, layer: int) -> Path:
    return aligned(run.folder, layer) / "align.json"


def note_commit(run: Run) -> None:
    """Add the code that trains from here on to what trained before."""
    notes = run.folder / "commits"
    with notes.open("a", encoding="utf-8") as handle:
        handle.write(f"{_commit()}\n")


def result_of(run: Run) -> dict[str, Any]:
    """The line of a run that is done."""
    scores = []
    for subset, layer in run.decode:
        summary = json.loads(_summary(run, subset, layer).read_text(encoding="utf-8"))
        scores.append({"subset": subset, "exit": layer, **{key: summary[key] for key in _SCORES}})
    alignment = []
    for layer in run.align:
        found = json.loads(_analysis(run, layer).read_text(encoding="utf-8"))
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
