"""Time fairseq_skd.manifest and fairseq's wav2vec_manifest.py, each as a whole command."""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, if run as a file

import fairseq
import numpy as np
import soundfile
from tqdm import tqdm

from benchmarks.base_encoder import count
from benchmarks.records import save
from benchmarks.summaries import markdown_table, paired_ratios, spread, verdict
from fairseq_skd.errors import UserError, run_command

REPOSITORY = Path(__file__).resolve().parents[1]
FAIRSEQ = Path(fairseq.__file__).parent / "examples" / "wav2vec" / "wav2vec_manifest.py"
TARGETS = {"large": 1 / 1.6, "small": 1.0}
RATE, SOURCES, IN_CHAPTER, CHAPTERS = 16000, 20, 25, 4
TEXT = "ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE TEN ELEVEN TWELVE THIRTEEN FOURTEEN FIFTEEN SIXTEEN SEVENTEEN"
_HELP = """\
How it is measured. Two folders in LibriSpeech's layout, a large and a small one, hold hard links to
twenty FLAC files of noise, 8 to 16 s long and as large as speech, with a transcript each. The two
commands run on them in turns, A B A B, each in a new process and into a new folder. One run of each
is not counted: it fills the page cache. All keep to the same --cores. Times are of the whole
command, with the start of Python. fairseq's command writes paths and lengths. Ours also reads the
end of each file, checks transcripts, and writes labels and dictionary. Both must list the same
files with the same lengths.

MP3 files are measured apart, with our command alone: files at 16 kHz, which are decoded once to be
checked, and files at 48 kHz, as Common Voice has them, which are also resampled and written as
FLAC.

Example:  python benchmarks/manifest.py --repetitions 3 --json manifest.json
"""


def make_corpus(root: Path, files: int, sources: list[Path]) -> None:
    """Write ``files`` hard links and transcripts to ``root/train-clean-100/SPEAKER/CHAPTER/``."""
    for first in range(0, files, IN_CHAPTER):
        speaker, chapter = 100 + first // (IN_CHAPTER * CHAPTERS), 1000 + first // IN_CHAPTER
        folder = root / "train-clean-100" / str(speaker) / str(chapter)
        folder.mkdir(parents=True)
        lines = []
        for number in range(first, min(first + IN_CHAPTER, files)):
            name = f"{speaker}-{chapter}-{number - first:04d}"
            os.link(sources[number % len(sources)], folder / f"{name}.flac")
            lines.append(f"{name} {TEXT}\n")
        (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines), encoding="utf-8")


def make_sources(folder: Path) -> list[Path]:
    """Write FLAC files of weak noise: 15 to 20 KB per second, as read speech."""
    folder.mkdir()
    draw = np.random.default_rng(1)
    paths = []
    for number in range(SOURCES):
        samples = draw.integers(8 * RATE, 16 * RATE)
        paths.append(folder / f"{number}.flac")
        soundfile.write(paths[-1], draw.normal(0, 0.01, samples), RATE, subtype="PCM_16")
    return paths


def commands(root: Path, out: Path) -> dict[str, list[str]]:
    """Return the command of each arm."""
    return {
        "fairseq": [
            sys.executable,
            str(FAIRSEQ),
            str(root),
            "--dest",
            str(out),
            "--ext",
            "flac",
            "--valid-percent",
            "0",
        ],
        "fairseq_skd": [sys.executable, "-m", "fairseq_skd.manifest", "librispeech", str(root), "--out", str(out)],
    }


def listed(out: Path) -> list[str]:
    """Return the manifest lines of a folder, in order of paths."""
    return sorted(line for path in out.glob("*.tsv") for line in path.read_text(encoding="utf-8").splitlines()[1:])


def run(command: list[str]) -> dict[str, float]:
    """Run a command and return its ``wall`` and ``cpu`` seconds.

    Raises:
        UserError: the command failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed with status {done.returncode}: {done.stderr[-1000:]}")
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def measure(folder: Path, sizes: dict[str, int], repetitions: dict[str, int]) -> dict[str, Any]:
    """Time both commands on each folder.

    Returns:
        size -> arm -> ``wall`` and ``cpu`` seconds of each run.

    Raises:
        UserError: a command failed, or the two manifests differ.
    """
    sources = make_sources(folder / "sources")
    found: dict[str, Any] = {}
    for size, files in sizes.items():
        root = folder / size
        make_corpus(root, files, sources)
        found[size] = {arm: {"wall": [], "cpu": []} for arm in commands(root, folder)}
        for repetition in tqdm(range(repetitions[size] + 1), desc=f"{files} files", unit="pair"):
            lists = []
            for arm in found[size]:
                with tempfile.TemporaryDirectory(dir=folder) as out:
                    seconds = run(commands(root, Path(out))[arm])
                    lists.append(listed(Path(out)))
                for kind in seconds if repetition else ():
                    found[size][arm][kind].append(seconds[kind])
            if lists[0] != lists[1] or len(lists[0]) != files:
                raise UserError(f"the two manifests of {root} differ: {len(lists[0])} and {len(lists[1])} files")
    return found


def measure_mp3(folder: Path, files: int, repetitions: int) -> dict[str, Any]:
    """Time our command on MP3 files.

    Returns:
        kind -> ``files``, ``audio`` in seconds, and ``wall`` and ``cpu`` seconds of each run.

    Raises:
        UserError: a command failed.
    """
    draw = np.random.default_rng(2)
    found: dict[str, Any] = {}
    for kind, rate, options in (("checked", RATE, []), ("converted", 3 * RATE, ["--resample"])):
        root = folder / f"mp3-{kind}"
        root.mkdir()
        lengths = draw.integers(8 * rate, 16 * rate, SOURCES)
        for number, samples in enumerate(lengths):
            soundfile.write(root / f"{number}.mp3", draw.normal(0, 0.01, samples), rate, format="MP3")
        for number in range(SOURCES, files):
            os.link(root / f"{number % SOURCES}.mp3", root / f"{number}.mp3")
        table = folder / f"mp3-{kind}.tsv"
        rows = [f"{number}.mp3\t{TEXT}\n" for number in range(files)]
        table.write_text("path\ttext\n" + "".join(rows), encoding="utf-8")
        runs = []
        for _ in range(repetitions + 1):
            with tempfile.TemporaryDirectory(dir=folder) as out:
                command = [sys.executable, "-m", "fairseq_skd.manifest", "table", str(table), "--audio-root", str(root)]
                runs.append(run([*command, "--out", str(Path(out) / "out"), *options]))
        audio = sum(int(lengths[number % SOURCES]) for number in range(files)) / rate
        times = {unit: [one[unit] for one in runs[1:]] for unit in ("wall", "cpu")}
        found[kind] = {"files": files, "audio": audio, **times}
    return found


def report_mp3(found: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the figures for the JSON, and the table."""
    figures: dict[str, Any] = {}
    rows = []
    for kind, one in found.items():
        speeds = {
            "files_per_second": spread([one["files"] / seconds for seconds in one["wall"]]),
            "times_real_time": spread([one["audio"] / seconds for seconds in one["wall"]]),
        }
        figures[f"mp3_{kind}"] = {name: speed._asdict() for name, speed in speeds.items()}
        shown = [speed.show(digits=0) for speed in speeds.values()]
        rows.append([f"{one['files']} MP3 files, {kind}", *shown])
    return figures, markdown_table(["", "files per second", "times real time"], rows)


def report(sizes: dict[str, int], found: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the figures for the JSON, and the table."""
    figures: dict[str, Any] = {}
    rows = []
    for size, files in sizes.items():
        for kind, unit in (("wall", "s"), ("cpu", "CPU s")):
            stock, ours = found[size]["fairseq"][kind], found[size]["fairseq_skd"][kind]
            ratio = spread(paired_ratios(ours, stock))
            arms = {"fairseq": spread(stock), "fairseq_skd": spread(ours)}
            figures[f"{size}_{kind}"] = {**{arm: arms[arm]._asdict() for arm in arms}, "ratio": ratio._asdict()}
            target = TARGETS[size]
            limit = f"{target:.3f}: {verdict(ratio.median, target)}" if kind == "wall" else ""
            shown = [arms[arm].show(digits=2) for arm in arms]
            rows.append([f"{files} files, {unit}", *shown, ratio.show(), f"{1 / ratio.median:.2f}", limit])
    header = ["", "wav2vec_manifest.py", "fairseq_skd.manifest", "ours / fairseq's", "times as fast", "at most"]
    return figures, markdown_table(header, rows)


@contextmanager
def cores(number: int) -> Iterator[None]:
    """Keep this process and its children to ``number`` processors.

    Raises:
        UserError: the system is not Linux, or has fewer processors.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("--cores needs Linux: use another machine")
    allowed = os.sched_getaffinity(0)
    if number > len(allowed):
        raise UserError(f"--cores {number}: this machine has {len(allowed)}, give at most that")
    os.sched_setaffinity(0, sorted(allowed)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=count, default=100000, help="files in the large folder (%(default)s)")
    parser.add_argument("--few", type=count, default=100, help="files in the small folder (%(default)s)")
    parser.add_argument("--repetitions", type=count, default=5, help="pairs of runs on the large folder (%(default)s)")
    parser.add_argument("--small-repetitions", type=count, default=20, help="pairs on the small one (%(default)s)")
    parser.add_argument("--mp3-files", type=count, default=2000, help="MP3 files, at least 20 (%(default)s)")
    parser.add_argument("--cores", type=count, default=2, help="processors to use (%(default)s)")
    parser.add_argument("--folder", type=Path, help="folder for temporary files (default: the system's)")
    parser.add_argument("--json", type=Path, help="also write all measurements to this file")
    args = parser.parse_args()
    sizes = {"large": args.files, "small": args.few}
    load = os.getloadavg()[0]
    with cores(args.cores), tempfile.TemporaryDirectory(dir=args.folder) as folder:
        found = measure(Path(folder), sizes, {"large": args.repetitions, "small": args.small_repetitions})
        mp3 = measure_mp3(Path(folder), args.mp3_files, args.repetitions)
    figures, table = report(sizes, found)
    mp3_figures, mp3_table = report_mp3(mp3)
    print(f"{args.cores} cores, load average before the runs {load:.2f}\n\n{table}\n\n{mp3_table}")
    chosen = argparse.Namespace(cores=args.cores, load_before=load, **sizes)
    save(args.json, chosen, {**figures, **mp3_figures}, {**found, "mp3": mp3})


if __name__ == "__main__":
    sys.exit(run_command("benchmarks/manifest.py", main))
