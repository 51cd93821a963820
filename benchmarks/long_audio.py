"""Measure peak memory and speed of recognizing long audio with a base-size encoder."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, if run as a file

import numpy as np
import soundfile
import torch

from benchmarks.base_encoder import Setting, add_setting, build_task, encoder, recipe, setting
from benchmarks.gauges import status
from benchmarks.records import save
from benchmarks.summaries import markdown_table
from fairseq_skd.compat import to_container
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files.stream import read_blocks
from fairseq_skd.recognizer import Recognizer, load
from fairseq_skd.search.greedy import greedy_units
from fairseq_skd.transcription.windows import Floats, stretches

LIMIT, SPREAD = 1500, 50  # MB: the target, and how far two lengths may be apart
_HELP = """\
How it is measured. A checkpoint with random weights and the optimiser state of a training is written to
a temporary folder, 1.1 GB. The audio is bursts of noise at 44,100 Hz without a pause. A new process per
length loads the checkpoint, reads the audio in blocks, runs windows of 30 s one by one and decodes them
greedily. Peak memory is the highest resident size of that process (VmHWM), imports included.

Example:  python benchmarks/long_audio.py --minutes 3 9 --json long_audio.json
"""


def write_checkpoint(path: Path, kind: str, chosen: Setting) -> None:
    """Save a checkpoint as a training does, with two moments per parameter."""
    cfg = recipe(chosen, (chosen.student,))
    cfg.model.w2v_args = encoder(kind).to_w2v_args()
    task = build_task(cfg)
    model = task.build_model(cfg.model)
    moments = {
        number: {"step": 1, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        for number, parameter in enumerate(model.parameters())
    }
    state = {
        "args": None,
        "cfg": {key: to_container(cfg[key]) for key in ("model", "task", "criterion")},
        "model": model.state_dict(),
        "criterion": None,
        "optimizer_history": [],
        "task_state": {"target_dictionary": task.target_dictionary},
        "extra_state": {},
        "last_optimizer_state": {"state": moments, "param_groups": []},
    }
    torch.save(state, path)


def write_audio(path: Path, minutes: float, rate: int = 44100) -> None:
    """Write bursts of noise, two per second, without a pause: all windows but one take 30 s."""
    draw, height = np.random.default_rng(1), 0.1 * np.sin(2 * np.pi * np.arange(rate) / rate) ** 2
    with soundfile.SoundFile(path, "w", rate, 2, "PCM_16", format="FLAC") as file:
        for _ in range(round(minutes * 60)):
            file.write(draw.standard_normal((rate, 2)) * height[:, None])


def recognize(rec: Recognizer, audio: str | Path) -> dict[str, int]:
    """Decode audio greedily at the first exit, and count its frames, stretches and units."""

    def run(windows: Sequence[Floats]) -> list[Floats]:
        out = rec(*rec.batch(windows))
        logits = out.logits[rec.exits[0]].transpose(0, 1).log_softmax(dim=-1)  # (T, B, V) -> (B, T, V)
        return [one[:length].numpy() for one, length in zip(logits, out.lengths, strict=True)]

    counts = {"frames": 0, "stretches": 0, "units": 0}
    for _, part in stretches([read_blocks(audio, rec.sample_rate)], run, rec.frame_grid, rec.sample_rate):
        if isinstance(part, UserError):
            raise part
        log_probs, length = torch.from_numpy(part.log_probs).unsqueeze(1), len(part.log_probs)
        counts["frames"] += length
        counts["stretches"] += 1
        counts["units"] += len(greedy_units(log_probs, torch.tensor([length]))[0])
    return counts


def measure_here(checkpoint: Path, audio: Path, threads: int) -> dict[str, float]:
    """Load, recognize, and return seconds, megabytes and counts of this process."""
    torch.set_num_threads(threads)
    imported = status("VmHWM")
    rec = load(checkpoint, exits=(0,), device="cpu")
    loaded, begun = status("VmHWM"), time.perf_counter()
    counts = recognize(rec, audio)
    seconds = time.perf_counter() - begun
    megabytes = {"imported": imported / 1e6, "loaded": loaded / 1e6, "peak": status("VmHWM") / 1e6}
    return {**megabytes, "seconds": seconds, "speed": counts["frames"] * rec.frame_seconds / seconds, **counts}


def measure(chosen: Setting, kinds: Sequence[str], minutes: Sequence[float]) -> dict[str, Any]:
    """Measure each encoder at each length: kind -> minutes -> figures of its process."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            checkpoint = Path(folder) / f"{kind}.pt"
            write_checkpoint(checkpoint, kind, chosen)
            for length in minutes:
                audio = Path(folder) / "audio.flac"
                write_audio(audio, length)
                command = [sys.executable, __file__, "--here", str(checkpoint), str(audio)]
                command += ["--threads", str(chosen.threads)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise UserError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
                found.setdefault(kind, {})[str(length)] = json.loads(done.stdout)
            checkpoint.unlink()
    return found


def report(found: dict[str, Any]) -> str:
    """Write the table, with a verdict per encoder."""
    rows: list[list[str]] = []
    for kind, lengths in found.items():
        peaks = [figures["peak"] for figures in lengths.values()]
        met = max(peaks) <= LIMIT and max(peaks) - min(peaks) <= SPREAD
        for length, figures in lengths.items():
            values = [f"{figures[key]:.0f}" for key in ("imported", "loaded", "peak")]
            rows.append([kind, length, *values, f"{figures['speed']:.1f}", "met" if met else "missed"])
    header = ["encoder", "minutes", "imports, MB", "loading, MB", "peak, MB", "x real time", "target"]
    return markdown_table(header, rows)


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", choices=("hubert", "wavlm"), default=["hubert", "wavlm"])
    parser.add_argument("--minutes", nargs="+", type=float, default=[3, 9], help="lengths of audio (%(default)s)")
    parser.add_argument("--here", nargs=2, type=Path, help=argparse.SUPPRESS)
    add_setting(parser, batch=1, seconds=30.0, dtypes=("float32",))
    args = parser.parse_args()
    if args.here:
        checkpoint, audio = args.here
        print(json.dumps(measure_here(checkpoint, audio, args.threads)))
        return
    chosen = setting(args)
    found = measure(chosen, args.encoders, args.minutes)
    print(f"{chosen.describe()}; at most {LIMIT} MB, and {SPREAD} MB between two lengths\n\n{report(found)}")
    save(args.json, chosen, found, {})


if __name__ == "__main__":
    sys.exit(run_command("long_audio", main))
