"""Compare teacher and student in each format: size, time on one and two cores, memory, errors."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, if run as a file

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from benchmarks.base_encoder import SAMPLE_RATE, Setting, build_task, count, letters, recipe
from benchmarks.gauges import MIB, now
from benchmarks.records import processor, save
from benchmarks.summaries import markdown_table, paired_ratios, spread, verdict
from benchmarks.workers import workers
from fairseq_skd.cli import quieten_libraries
from fairseq_skd.compat import to_container
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.exporting import huggingface, onnx
from fairseq_skd.recognizer import load
from fairseq_skd.scoring.transcripts import ErrorCount, count_errors

TARGETS = (  # arm, the arm that it is compared with, greatest ratio of their times on one core
    (("ONNX int8", "student"), ("torch float32", "teacher"), 0.30),
    (("ONNX int8", "student"), ("ONNX", "student"), 0.85),
)
_HELP = """\
How it is measured. Both exits of the checkpoint are exported: fairseq_skd.export's hf and onnx, and int8. One
process per format and exit transcribes the same noise; the processes take turns, so other load slows all.
Ratios are medians of the ratios of turns. All is repeated with two threads.

Memory: the highest resident size of a new process that transcribes the noise once, imports included, as a
user would run it: fairseq_skd.load, transformers' pipeline, the folder's decode.py.

WER: with --checkpoint and --data, greedy transcripts of a subset, one utterance at a time, against its .wrd
or .ltr.

Examples
times of a base-size HuBERT with random weights:
  python benchmarks/formats.py --json formats.json
word error rates of a trained checkpoint:
  python benchmarks/formats.py --checkpoint /runs/skd/checkpoint_best.pt --data /data/manifests
"""
# What a user types to transcribe one file with each kind of model: arguments model, layer, audio.
_ALONE = {
    "torch": "import sys, fairseq_skd, torch; m, l, d, a = sys.argv[1:]; "
    "fairseq_skd.load(m, exits=(int(l),), device='cpu', dtype=getattr(torch, d)).transcribe([a])",
    "transformers": "import sys, soundfile; from transformers import pipeline; "
    "pipeline('automatic-speech-recognition', sys.argv[1])(soundfile.read(sys.argv[4], dtype='float32')[0])",
}

# Runs a command and prints its peak memory. From a small process of its own, because a child begins
# with the peak of its parent.
_WATCHED = """\
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


class Arm(NamedTuple):
    """One format of one exit.

    Attributes:
        kind: ``torch``, ``transformers`` or ``onnx``.
        model: the checkpoint, or the exported folder.
        layer: layers of the exit.
        dtype: of torch.
        file: the file whose size counts.
    """

    kind: str
    model: str
    layer: int
    dtype: str
    file: str

    def size(self) -> int:
        """Return the bytes of the weights in this precision."""
        return Path(self.file).stat().st_size // (2 if self.dtype == "bfloat16" else 1)

    def opened(self) -> Callable[[str], str]:
        """Open the model; returns the function that transcribes one file."""
        if self.kind == "transformers":
            from transformers import pipeline
            from transformers.utils import logging as transformers_logging

            transformers_logging.set_verbosity_error()
            recognize: Any = pipeline("automatic-speech-recognition", self.model, device="cpu")
            return lambda path: recognize(soundfile.read(path, dtype="float32")[0])["text"]
        exits = (self.layer,) if self.kind == "torch" else None
        rec = load(self.model, exits=exits, device="cpu", dtype=getattr(torch, self.dtype))
        return lambda path: rec.transcribe([path])[0].text

    def command(self, audio: Path) -> list[str]:
        """Write the command that transcribes one file in a process of its own."""
        if self.kind == "onnx":
            return [sys.executable, f"{self.model}/decode.py", str(audio)]
        return [sys.executable, "-c", _ALONE[self.kind], self.model, str(self.layer), self.dtype, str(audio)]


class Transcribing:
    """An arm in a process of its own."""

    def __init__(self, arm: Arm, threads: int, audio: Path) -> None:
        setting_of(threads).begin()
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self.transcribe, self.audio = arm.opened(), str(audio)

    def ready(self) -> None:
        """Return when all is built."""

    def step(self) -> float:
        """Transcribe the file and return the seconds."""
        cpu = torch.device("cpu")
        started = now(cpu)
        self.transcribe(self.audio)
        return now(cpu) - started


def setting_of(threads: int, student: int = 6) -> Setting:
    """Return the setting of the base-size encoder."""
    return Setting(1, 10.0, threads, "cpu", "float32", student)


def write_checkpoint(path: Path, student: int) -> None:
    """Save a base-size checkpoint with random weights, without the optimizer's state."""
    setting_of(1).begin()
    cfg = recipe(setting_of(1, student), (student,))
    task = build_task(cfg)
    model = task.build_model(cfg.model)
    config = {key: to_container(cfg[key]) for key in ("model", "task", "criterion")}
    state = {"args": None, "cfg": config, "model": model.state_dict(), "task_state": {"target_dictionary": letters()}}
    torch.save(state, path)


def write_noise(path: Path, seconds: float) -> None:
    """Write noise as a 16-bit WAV file."""
    noise = np.random.default_rng(1).standard_normal(int(seconds * SAMPLE_RATE))
    soundfile.write(path, 0.1 * noise, SAMPLE_RATE)


def export(checkpoint: Path, student: int | None, folder: Path) -> tuple[dict[tuple[str, str], Arm], dict[str, int]]:
    """Export both exits in each format.

    Returns:
        (format, ``teacher`` or ``student``) -> arm, and parameters by exit.
    """
    arms: dict[tuple[str, str], Arm] = {}
    parameters = {}
    trained = load(checkpoint, device="cpu").exits
    layers = {"teacher": trained[0], "student": student or trained[-1]}
    for name, layer in layers.items():
        rec = load(checkpoint, exits=(layer,), device="cpu")
        parameters[name] = rec.parameters
        folders = {kind: folder / f"{kind}-{layer}" for kind in ("hf", "onnx", "int8")}
        for place in folders.values():
            place.mkdir()
        huggingface.write(rec, folders["hf"])
        onnx.write(rec, folders["onnx"])
        onnx.write(rec, folders["int8"], int8=True)
        weights = str(folders["hf"] / "model.safetensors")
        for dtype in ("float32", "bfloat16"):
            arms[f"torch {dtype}", name] = Arm("torch", str(checkpoint), layer, dtype, weights)
        arms["transformers", name] = Arm("transformers", str(folders["hf"]), layer, "float32", weights)
        arms["ONNX", name] = Arm("onnx", str(folders["onnx"]), layer, "float32", str(folders["onnx"] / "model.onnx"))
        int8 = folders["int8"] / "model.int8.onnx"
        arms["ONNX int8", name] = Arm("onnx", str(folders["int8"]), layer, "float32", str(int8))
    return arms, parameters


def times(arms: Mapping[Any, Arm], threads: int, audio: Path, turns: int, warm_up: int) -> dict[Any, list[float]]:
    """Measure the seconds of each arm, in turns."""
    found: dict[Any, list[float]] = {key: [] for key in arms}
    arguments = {key: (arm, threads, audio) for key, arm in arms.items()}
    with workers(Transcribing, arguments) as started:
        for turn in tqdm(range(-warm_up, turns), desc=f"{threads} threads", unit="turn"):
            for key, worker in started.items():
                seconds = worker.call("step")
                if turn >= 0:
                    found[key].append(seconds)
    return found


def memory(arm: Arm, audio: Path) -> int:
    """Return the peak resident bytes of a new process that transcribes the file once.

    Raises:
        UserError: the process failed.
    """
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _WATCHED, *arm.command(audio)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise UserError(f"{' '.join(arm.command(audio))} failed: {done.stderr.strip()[-300:]}")
    return 1024 * int(done.stdout)  # Linux counts in KiB


def errors(arms: Mapping[Any, Arm], data: Path, subset: str) -> tuple[dict[Any, ErrorCount], dict[Any, list[str]]]:
    """Transcribe a subset with each arm; returns word errors and texts.

    Raises:
        UserError: manifest or references are missing, or differ in number.
    """
    try:
        root, *lines = (data / f"{subset}.tsv").read_text(encoding="utf-8").splitlines()
        paths = [os.path.join(root, line.split("\t")[0]) for line in lines]
        references = [
            line.replace(" ", "").replace("|", " ").split()
            for line in (data / f"{subset}.ltr").read_text(encoding="utf-8").splitlines()
        ]
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; give --data DIR with {subset}.tsv and .ltr") from error
    if len(paths) != len(references):
        raise UserError(f"{data}/{subset}: {len(paths)} audio files, but {len(references)} transcripts")
    texts: dict[Any, list[str]] = {}
    for key, arm in arms.items():
        transcribe = arm.opened()
        texts[key] = [transcribe(path) for path in tqdm(paths, desc=" ".join(key), unit="utterance")]
    counts = {
        key: sum(
            (count_errors(text.split(), words) for text, words in zip(found, references, strict=True)), ErrorCount(0, 0)
        )
        for key, found in texts.items()
    }
    return counts, texts


class Measured(NamedTuple):
    """All measurements; arms are (format, ``teacher`` or ``student``).

    Attributes:
        audio: seconds of the noise.
        sizes: bytes of each arm's file.
        peaks: peak memory of each arm in bytes.
        seconds: threads -> arm -> seconds of each turn.
        counts: word errors of each arm; empty without data.
        texts: transcripts of each arm; empty without data.
    """

    audio: float
    sizes: dict[Any, int]
    peaks: dict[Any, int]
    seconds: dict[int, dict[Any, list[float]]]
    counts: dict[Any, ErrorCount]
    texts: dict[Any, list[str]]


def report(found: Measured) -> tuple[dict[str, Any], str]:
    """Return the figures for the JSON, and the table with the verdicts below it."""
    rows, figures = [], {}
    for arm in sorted(found.sizes, key=lambda arm: arm[1], reverse=True):
        factors = {threads: spread(times[arm]).median / found.audio for threads, times in found.seconds.items()}
        ratio = spread(paired_ratios(found.seconds[1][arm], found.seconds[1]["torch float32", "teacher"]))
        figures[" ".join(arm)] = {
            "megabytes": found.sizes[arm] / 1e6,
            "real_time_factors": factors,
            "time_ratio": ratio._asdict(),
            "peak_mib": found.peaks[arm] / MIB,
        }
        row = [
            ", ".join(reversed(arm)),
            f"{found.sizes[arm] / 1e6:.1f}",
            *(f"{factor:.4f}" for factor in factors.values()),
        ]
        row += [ratio.show(digits=2), f"{found.peaks[arm] / MIB:.0f}"]
        if found.texts:
            same = sum(map(str.__eq__, found.texts[arm], found.texts["torch float32", arm[1]]))
            figures[" ".join(arm)] |= {"wer": found.counts[arm].rate, "same_text": same}
            row += [f"{found.counts[arm].rate:.1f}", f"{same} of {len(found.texts[arm])}"]
        rows.append(row)
    header = ["exit, format", "MB", "RTF, 1 thread", "2 threads", "time / torch teacher", "peak MiB"]
    lines = [markdown_table([*header, *(["WER %", "texts as torch"] if found.texts else [])], rows), ""]
    for arm, against, target in TARGETS:
        ratio = spread(paired_ratios(found.seconds[1][arm], found.seconds[1][against]))
        name = f"{' '.join(arm)} / {' '.join(against)}"
        figures[name] = ratio._asdict()
        lines.append(f"{name}: {ratio.show(digits=2)}, at most {target}: {verdict(ratio.median, target)}")
    return figures, "\n".join(lines)


def main() -> None:
    """Measure, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="with two exits (default: random, base size)")
    parser.add_argument("--student", type=int, metavar="LAYERS", help="layers of the student (default: the last exit)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="manifests, for word error rates")
    parser.add_argument("--subset", default="test", help="subset of --data (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the noise (%(default)s)")
    parser.add_argument("--turns", type=count, default=15, help="measured turns (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=2, help="turns before these (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all measurements to FILE")
    args = parser.parse_args()
    quieten_libraries()
    if args.data and not args.checkpoint:
        raise UserError("--data needs a trained model: give --checkpoint FILE")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        checkpoint = args.checkpoint
        if checkpoint is None:
            checkpoint = folder / "base.pt"
            write_checkpoint(checkpoint, args.student or 6)
        audio = folder / "noise.wav"
        write_noise(audio, args.seconds)
        arms, parameters = export(checkpoint, args.student, folder)
        sizes = {key: arm.size() for key, arm in arms.items()}
        peaks = {key: memory(arm, audio) for key, arm in tqdm(arms.items(), desc="memory", unit="process")}
        seconds = {threads: times(arms, threads, audio, args.turns, args.warm_up) for threads in (1, 2)}
        counts, texts = errors(arms, args.data, args.subset) if args.data else ({}, {})
        found = Measured(args.seconds, sizes, peaks, seconds, counts, texts)
    figures, table = report(found)
    print(f"{processor()}; {args.seconds:g} s of audio, batch 1, {args.turns} turns")
    print(", ".join(f"{name}: {number / 1e6:.1f} M parameters" for name, number in parameters.items()))
    print(f"\n{table}")
    raw = {
        str(threads): {" ".join(arm): values for arm, values in of_arms.items()} for threads, of_arms in seconds.items()
    }
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    save(args.json, argparse.Namespace(**plain), {"parameters": parameters, "formats": figures}, {"seconds": raw})


if __name__ == "__main__":
    sys.exit(run_command("formats", main))
