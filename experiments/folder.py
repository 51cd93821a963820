"""The folder of a run: its lock, inputs, progress and result.

``run.json`` is written by the job that holds the lock. It has the command, the hashes of data and
encoder, one entry per attempt at the training, and the steps that are done, each with the command
and data that made it.
"""

import fcntl
import functools
import hashlib
import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.grid import REPOSITORY
from experiments.runs import CHECKPOINT, Run, Step, shown
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import file_hash, replacing
from fairseq_skd.reporting.folders import read_log

RESULT = "result.json"
TRAIN_LOG = "train.log"  # output of all attempts
TRAINED = "trained"  # a complete training; fairseq would add an update to it
_NOTE = "run.json"
_LOG = "hydra_train.log"
_LATEST = CHECKPOINT.with_name("checkpoint_last.pt")
_SCORES = ("wer", "cer", "word_errors", "words", "character_errors", "characters", "sentences", "parameters")
_ALIGNMENT = ("frame_disagreement", "spike_disagreement", "spike_miss", "offset")


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[int | None]:
    """Yield the descriptor of a lock, or None if another process holds it.

    The system frees the lock when this process and all that inherited it have ended, even by a
    kill.
    """
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield handle.fileno()


def claim(run: Run) -> None:
    """Write down what the run is started with.

    Raises:
        UserError: the folder holds another run.
    """
    check_folder(run)
    if not _noted(run):
        _write(run, **_begun_with(run), attempts=[], done={})


def check_folder(run: Run) -> None:
    """Check that a folder does not hold another run: the two would be mixed.

    Raises:
        UserError: the run was started with another command, other data or another encoder.
    """
    if what := _foreign(run):
        raise UserError(f"{run.folder} holds a run {what}: move the folder away, or give another --out")


def state(run: Run) -> str:
    """Describe the progress of a run."""
    if what := _foreign(run):
        return f"its folder holds a run {what}"
    if is_complete(run):
        return "done"
    if is_trained(run.folder):
        return "trained, not yet decoded and compared"
    return "started" if _noted(run) else "to do"


def _foreign(run: Run) -> str | None:
    noted, wanted = _noted(run), _begun_with(run)
    if not noted:
        return "that another version started" if (run.folder / TRAIN_LOG).exists() else None
    if noted["command"] != wanted["command"]:
        return f"of another command (see {run.folder / _NOTE})"
    if noted["data_sha256"] != wanted["data_sha256"]:
        return f"of other data, one of these files has changed: {', '.join(map(str, run.data.training_files()))}"
    if noted["encoder_sha256"] != wanted["encoder_sha256"]:
        return f"from another encoder, {run.encoder} has changed"
    return None


def _begun_with(run: Run) -> dict[str, str]:
    return {
        "command": shown(run.train),
        "data_sha256": data_hash(run.data.training_files()),
        "encoder_sha256": encoder_hash(run.encoder),
    }


def data_hash(files: Iterable[Path]) -> str:
    """Hash files by name (SHA-256); a missing file counts as empty.

    Manifests are hashed without their root line.
    """
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes() if file.is_file() else b""
        digest.update(file.name.encode() + b"\0")
        digest.update(content.partition(b"\n")[2] if file.suffix == ".tsv" else content)
    return digest.hexdigest()


def encoder_hash(path: Path) -> str:
    """Hash a file, or the files of a folder by name (SHA-256); a missing file counts as empty."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        listed = "".join(f"{encoder_hash(file)} {file.name}\n" for file in files)
        return hashlib.sha256(listed.encode()).hexdigest()
    if not path.is_file():
        return hashlib.sha256().hexdigest()
    return _hash_of_version(path, path.stat().st_mtime_ns)


@functools.lru_cache  # all runs of a grid have the same encoder, perhaps of gigabytes
def _hash_of_version(file: Path, changed: int) -> str:
    return file_hash(file)


@contextmanager
def attempt(run: Run) -> Iterator[None]:
    """Record commit and time of a training; earlier attempts count if they left a checkpoint."""
    before = _attempts(run) if (run.folder / _LATEST).is_file() else []
    now = {"commit": current_commit(), "begun": time.time(), "ended": None}
    _write(run, attempts=[*before, now])
    try:
        yield
    finally:
        _write(run, attempts=[*before, {**now, "ended": time.time()}])


def _attempts(run: Run) -> list[dict[str, Any]]:
    """List the attempts so far; a killed one lasted until the last line of its log."""
    found = _noted(run)["attempts"]
    if found and found[-1]["ended"] is None:
        found[-1]["ended"] = max(found[-1]["begun"], (run.folder / TRAIN_LOG).stat().st_mtime)
    return found


def current_commit() -> str:
    """Name the checkout's commit, marked if tracked files have changed."""
    git = ("git", "-C", str(REPOSITORY))
    head = subprocess.run((*git, "rev-parse", "HEAD"), capture_output=True, text=True)
    changed = subprocess.run((*git, "diff", "--quiet", "HEAD"), capture_output=True).returncode
    return head.stdout.strip() + ("-changed" if changed else "") if head.returncode == 0 else "unknown"


def is_trained(folder: Path) -> bool:
    """Tell whether a run had all its updates; the log shows a training that outlived its job."""
    log = folder / _LOG
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return (folder / TRAINED).is_file() or any("done training in" in line for line in lines[-3:])


def is_complete(run: Run) -> bool:
    """Tell whether the result exists and every step is done."""
    return (run.folder / RESULT).is_file() and all(is_done(run, step) for step in (*run.decode, *run.align))


def is_done(run: Run, step: Step) -> bool:
    """Tell whether a step succeeded with this command on this data, and its result still exists."""
    return step.result.is_file() and _noted(run)["done"].get(step.log.stem) == _made_by(run, step)


@contextmanager
def doing(run: Run, step: Step) -> Iterator[None]:
    """Record a step as done if the block succeeds; until then it counts as not done."""
    done = {name: made_by for name, made_by in _noted(run)["done"].items() if name != step.log.stem}
    _write(run, done=done)
    yield
    _write(run, done={**done, step.log.stem: _made_by(run, step)})


def _made_by(run: Run, step: Step) -> str:
    return f"{shown(step.command)}\n{data_hash(run.data.files(step.subset))}"


def write_result(run: Run) -> None:
    """Write the line of a finished run into its folder."""
    scores, alignment = [], []
    for step in run.decode:
        summary = json.loads(step.result.read_text(encoding="utf-8"))
        scores.append({"subset": step.subset, "exit": step.exit, **{key: summary[key] for key in _SCORES}})
    for step in run.align:
        found = json.loads(step.result.read_text(encoding="utf-8"))
        metrics = {key: found[key] for key in _ALIGNMENT}
        teacher = run.needs or run.arm
        alignment.append({"exit": step.exit, "teacher": teacher, "subset": step.subset, **metrics})
    attempts, noted = _attempts(run), _noted(run)
    result = {
        "corpus": run.corpus,
        "arm": run.arm,
        "seed": run.seed,
        "commit": ", ".join(dict.fromkeys(one["commit"] for one in attempts)),
        **{key: noted[key] for key in ("command", "data_sha256", "encoder_sha256")},
        "updates": int(max(update for update, _ in read_log(run.folder / _LOG)["valid_loss"])),
        "seconds": round(sum(one["ended"] - one["begun"] for one in attempts), 3),
        "scores": scores,
        "alignment": alignment,
    }
    with replacing(run.folder / RESULT) as beside:
        beside.write_text(json.dumps(result) + "\n", encoding="utf-8")


def collect(out: Path) -> None:
    """Write all results below ``out`` into results.jsonl, one line per run.

    Jobs take turns, so the file of the last one is complete.
    """
    with locked(out / "results.lock", wait=True):
        lines = [file.read_text(encoding="utf-8") for file in sorted(out.glob(f"*/*/seed*/{RESULT}"))]
        with replacing(out / "results.jsonl") as beside:
            beside.write_text("".join(lines), encoding="utf-8")


def _noted(run: Run) -> dict[str, Any]:
    note = run.folder / _NOTE
    return json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}


def _write(run: Run, **changed: object) -> None:
    with replacing(run.folder / _NOTE) as beside:
        beside.write_text(json.dumps({**_noted(run), **changed}, indent=1) + "\n", encoding="utf-8")
