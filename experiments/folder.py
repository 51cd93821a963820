"""The folder of a run: its lock, what the run was begun with, how far it is, its result.

``run.json`` is written by the job that holds the lock: command and hashes of data and encoder, one entry per attempt at
the training, and which steps are done, with the command and the data that made them.
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
TRAIN_LOG = "train.log"  # what all attempts printed
TRAINED = "trained"  # marks a training that had all its updates: fairseq would add one to it
_NOTE = "run.json"
_LOG = "hydra_train.log"
_LATEST = CHECKPOINT.with_name("checkpoint_last.pt")
_SCORES = ("wer", "cer", "word_errors", "words", "character_errors", "characters", "sentences", "parameters")
_ALIGNMENT = ("frame_disagreement", "spike_disagreement", "spike_miss", "offset")


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[int | None]:
    """Yield the descriptor of a lock that this process holds, or None if another one does.

    The system frees it when this process and those that it was passed on to have ended, however they end.
    """
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield handle.fileno()


def claim(run: Run) -> None:
    """Note what the run is begun with.

    Raises:
        UserError: the folder holds another run.
    """
    check_folder(run)
    if not _noted(run):
        _write(run, **_begun_with(run), attempts=[], done={})


def check_folder(run: Run) -> None:
    """Check that a folder was not begun with another command, other data or another encoder: the two would be mixed.

    Raises:
        UserError: it was.
    """
    if what := _foreign(run):
        raise UserError(f"{run.folder} holds a run {what}: move it away, or give another --out")


def state(run: Run) -> str:
    """How far a run is, for people."""
    if what := _foreign(run):
        return f"its folder holds a run {what}"
    if is_complete(run):
        return "done"
    if is_trained(run.folder):
        return "trained, to be decoded or compared"
    return "begun" if _noted(run) else "to do"


def _foreign(run: Run) -> str | None:
    noted, wanted = _noted(run), _begun_with(run)
    if not noted:
        return "that another version began" if (run.folder / TRAIN_LOG).exists() else None
    if noted["command"] != wanted["command"]:
        return f"of another command (see {run.folder / _NOTE})"
    if noted["data_sha256"] != wanted["data_sha256"]:
        return f"of other data, one of these was changed since: {', '.join(map(str, run.data.training_files()))}"
    if noted["encoder_sha256"] != wanted["encoder_sha256"]:
        return f"from another encoder, {run.encoder} was changed since"
    return None


def _begun_with(run: Run) -> dict[str, str]:
    return {
        "command": shown(run.train),
        "data_sha256": data_hash(run.data.training_files()),
        "encoder_sha256": encoder_hash(run.encoder),
    }


def data_hash(files: Iterable[Path]) -> str:
    """SHA-256 over files by name, manifests without their root line; a file that is not there counts as empty."""
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes() if file.is_file() else b""
        digest.update(file.name.encode() + b"\0")
        digest.update(content.partition(b"\n")[2] if file.suffix == ".tsv" else content)
    return digest.hexdigest()


def encoder_hash(path: Path) -> str:
    """SHA-256 of a file; of a folder over its files by name; of nothing if there is none."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        listed = "".join(f"{encoder_hash(file)} {file.name}\n" for file in files)
        return hashlib.sha256(listed.encode()).hexdigest()
    if not path.is_file():
        return hashlib.sha256().hexdigest()
    return _hash_of_version(path, path.stat().st_mtime_ns)


@functools.lru_cache  # all runs of a grid have the same encoder, which may be of gigabytes
def _hash_of_version(file: Path, changed: int) -> str:
    return file_hash(file)


@contextmanager
def attempt(run: Run) -> Iterator[None]:
    """Note commit and time of the training inside; earlier attempts count if they left a checkpoint to go on from."""
    before = _attempts(run) if (run.folder / _LATEST).is_file() else []
    now = {"commit": _commit(), "begun": time.time(), "ended": None}
    _write(run, attempts=[*before, now])
    try:
        yield
    finally:
        _write(run, attempts=[*before, {**now, "ended": time.time()}])


def _attempts(run: Run) -> list[dict[str, Any]]:
    """Attempts so far; one that was killed lasted until the last line of its log."""
    found = _noted(run)["attempts"]
    if found and found[-1]["ended"] is None:
        found[-1]["ended"] = max(found[-1]["begun"], (run.folder / TRAIN_LOG).stat().st_mtime)
    return found


def _commit() -> str:
    """The checkout's commit, with a mark if files that git knows were changed."""
    git = ("git", "-C", str(REPOSITORY))
    head = subprocess.run((*git, "rev-parse", "HEAD"), capture_output=True, text=True)
    changed = subprocess.run((*git, "diff", "--quiet", "HEAD"), capture_output=True).returncode
    return head.stdout.strip() + ("-changed" if changed else "") if head.returncode == 0 else "unknown"


def is_trained(folder: Path) -> bool:
    """Whether the run in a folder had all its updates; the log tells of a training that outlived its job."""
    log = folder / _LOG
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return (folder / TRAINED).is_file() or any("done training in" in line for line in lines[-3:])


def is_complete(run: Run) -> bool:
    """Whether the result is there, and is that of every step."""
    return (run.folder / RESULT).is_file() and all(is_done(run, step) for step in (*run.decode, *run.align))


def is_done(run: Run, step: Step) -> bool:
    """Whether a step ended well, with this command and on this data, and its result is still there."""
    return step.result.is_file() and _noted(run)["done"].get(step.log.stem) == _made_by(run, step)


@contextmanager
def doing(run: Run, step: Step) -> Iterator[None]:
    """Note that a step is done if the block ends well; until then it is not, whatever was there."""
    done = {name: made_by for name, made_by in _noted(run)["done"].items() if name != step.log.stem}
    _write(run, done=done)
    yield
    _write(run, done={**done, step.log.stem: _made_by(run, step)})


def _made_by(run: Run, step: Step) -> str:
    return f"{shown(step.command)}\n{data_hash(run.data.files(step.subset))}"


def write_result(run: Run) -> None:
    """Write the line of a run that is done into its folder."""
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
    """Write all results below ``out`` into one file, one line each; one job at a time: the last one has them all."""
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
