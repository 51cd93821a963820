"""Running the demo's steps: what is done already is skipped, the output of the rest goes to a log file each."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tqdm import tqdm

import fairseq_skd
from fairseq_skd.demo.folders import make_folder
from fairseq_skd.demo.plan import Step
from fairseq_skd.errors import UserError
from fairseq_skd.files import replacing

MARKERS = ".demo"
MOST_THREADS = 2
# What of fairseq's log stands beside the progress bar, and under which name.
_FIGURES = {"loss": "loss", "valid_loss": "valid loss", "valid_wer": "valid WER", "valid_student_wer": "student WER"}


def prepare_folder(out: Path, steps: Sequence[Step], fresh: bool) -> None:
    """Make the demo's folder; with ``fresh`` delete what the steps wrote there, and nothing else.

    Raises:
        UserError: if the folder cannot be used or holds files that are not the demo's.
    """
    markers = make_folder(out) / MARKERS
    if not markers.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out} holds files that are not the demo's: give a new folder")
    markers.mkdir(exist_ok=True)
    if fresh:
        for step in steps:
            forget(step, out)


def run_steps(steps: Sequence[Step], out: Path) -> None:
    """Run the steps that are not done, in order; after one that ran, all later ones run.

    Raises:
        UserError: naming the step that failed and its log file.
    """
    stale = False
    for number, step in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {step.title}\n{step.shown()}", flush=True)
        if not stale and is_done(step, out):
            print("done before, skipped", flush=True)
            continue
        stale = True
        forget(step, out)
        started = time.monotonic()
        run_step(step, out / "logs" / f"{step.name}.log")
        with replacing(_marker(step, out)) as beside:
            beside.write_text(step.shown() + "\n", encoding="utf-8")
        print(f"done in {time.monotonic() - started:.0f} s", flush=True)


def is_done(step: Step, out: Path) -> bool:
    """Whether this very command has ended well in ``out`` and what it wrote is still there."""
    try:
        return _marker(step, out).read_text(encoding="utf-8") == step.shown() + "\n" and step.output.exists()
    except FileNotFoundError:
        return False


def forget(step: Step, out: Path) -> None:
    """Delete the marker of a step, then what it wrote."""
    _marker(step, out).unlink(missing_ok=True)
    if step.output.is_dir():
        shutil.rmtree(step.output)
    else:
        step.output.unlink(missing_ok=True)


def run_step(step: Step, log_path: Path) -> None:
    """Run one command; what it prints goes to ``log_path`` and to the terminal, of a training run only its progress.

    Raises:
        UserError: if it does not end with status 0.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with (
        log_path.open("wb") as log,
        subprocess.Popen(step.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment()) as process,
        tqdm(total=step.updates, desc=step.name, unit="update", disable=not step.updates) as bar,
    ):
        assert process.stdout is not None
        try:
            for piece in _tee(process.stdout, log):
                if step.updates:
                    follow_training(piece, bar)
                else:
                    sys.stderr.buffer.write(piece)
                    sys.stderr.buffer.flush()
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise UserError(f"step {step.name} failed (status {process.returncode}); what it said is in {log_path}")


def _environment() -> dict[str, str]:
    """The steps' environment: they find the package where it is not installed, and use few threads."""
    search = [str(Path(fairseq_skd.__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    # On a machine of many cores a thread each makes a model this small slower; who sets the variable is obeyed.
    threads = {"OMP_NUM_THREADS": str(min(MOST_THREADS, os.cpu_count() or 1))}
    return {**threads, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))}


def _tee(stream: IO[bytes], log: IO[bytes]) -> Iterator[bytes]:
    """``stream`` as it comes, cut behind ends of lines (a bar's are carriage returns); ``log`` gets it first."""
    pending = b""
    while chunk := os.read(stream.fileno(), 65536):
        log.write(chunk)
        log.flush()
        pending += chunk
        end = max(pending.rfind(b"\n"), pending.rfind(b"\r")) + 1
        if end:
            yield pending[:end]
            pending = pending[end:]
    if pending:
        yield pending


def follow_training(piece: bytes, bar: tqdm) -> None:
    """Move ``bar`` to the last update that fairseq's JSON log lines tell of, the last figures beside it."""
    for line in piece.decode("utf-8", errors="replace").splitlines():
        brace = line.find("{")
        try:
            record = json.loads(line[brace:]) if brace >= 0 else None
        except ValueError:  # another line with a brace
            continue
        if isinstance(record, dict):
            figures = [f"{name} {record[key]}" for key, name in _FIGURES.items() if key in record]
            if figures:
                bar.set_postfix_str(", ".join(figures), refresh=False)
            bar.update(max(0, int(record.get("num_updates", bar.n)) - bar.n))


def _marker(step: Step, out: Path) -> Path:
    return out / MARKERS / step.name
