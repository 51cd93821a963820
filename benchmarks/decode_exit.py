"""Measure what decoding at a student's depth saves: time, multiply-adds, memory."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, if run as a file

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.base_encoder import (
    DTYPES,
    LAYERS,
    SAMPLE_RATE,
    Setting,
    add_setting,
    build_task,
    count,
    noise_batch,
    recipe,
    setting,
    shape,
)
from benchmarks.gauges import MIB, PeakMemory, now, resident, settle
from benchmarks.multiply_adds import multiply_adds
from benchmarks.records import save
from benchmarks.summaries import Spread, markdown_table, paired_ratios, spread, verdict
from benchmarks.workers import workers
from fairseq_skd.errors import run_command
from fairseq_skd.search.greedy import greedy_units

TARGET = 1.05
_HELP = """\
How it is measured. One process per depth builds the model with model.decode_layer and decodes one batch
greedily, as fairseq_skd.infer does after reading the audio. The two processes take turns, so other
load slows both. The ratio of times is the median of the ratios of turns. Each repetition starts two
new processes.

Multiply-adds are counted from the architecture, convolutions included. They are shown beside the count of
torch's FlopCounterMode over the model. Norms, activations and softmax take time but have no
multiply-adds, so the ratios of time and multiply-adds need not be equal.

Memory: resident size of the model (weights; free memory is released before), and the highest
resident size above that while decoding. On a GPU: allocated memory.

Example:  python benchmarks/decode_exit.py --repetitions 5 --json decode_exit.json
"""


class Decoding:
    """One arm: a model at one depth, and a batch."""

    def __init__(self, chosen: Setting, exit_layer: int) -> None:
        self.device, self.dtype = chosen.begin(), DTYPES[chosen.dtype]
        cfg = recipe(chosen, (chosen.student,))
        cfg.model.decode_layer = exit_layer % LAYERS
        task = build_task(cfg)
        self.batch = noise_batch(chosen)
        settle()
        before = resident() if self.device.type == "cpu" else torch.cuda.memory_allocated()
        self.model = task.build_model(cfg.model).eval().to(device=self.device, dtype=self.dtype)
        self.peak = PeakMemory(self.device)
        self.weights = self.peak.start - before

    def ready(self) -> None:
        """Return when all is built."""

    def step(self) -> dict[str, float]:
        """Decode the batch and return the seconds."""
        started, cpu = now(self.device), time.process_time()
        with torch.no_grad():
            source = self.batch["net_input"]["source"].to(self.device, self.dtype)
            net = self.model(source, self.batch["net_input"]["padding_mask"].to(self.device))
            greedy_units(net["encoder_out"], net["frame_lengths"])
        return {"wall": now(self.device) - started, "cpu": time.process_time() - cpu}

    def memory(self) -> dict[str, int]:
        """Return bytes of the model, peak bytes above it while decoding, and parameters."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return {"model": self.weights, "peak": self.peak.above_start(), "parameters": parameters}

    def counted(self) -> int:
        """Count multiply-adds with torch, without fused attention, which it does not see."""
        source = self.batch["net_input"]["source"].to(self.device, self.dtype)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self.model(source)
        return counter.get_total_flops() // 2


def measure(chosen: Setting, repetitions: int, steps: int, warm_up: int) -> dict[str, Any]:
    """Measure both depths in turns.

    Returns:
        depth -> ``wall`` and ``cpu`` seconds of each turn; ``model`` and ``peak`` bytes,
        ``parameters`` and ``counted`` multiply-adds of each process.
    """
    depths = (LAYERS, chosen.student)
    kinds = ("wall", "cpu", "model", "peak", "parameters", "counted")
    found: dict[str, Any] = {str(depth): {kind: [] for kind in kinds} for depth in depths}
    arguments = {str(depth): (chosen, depth) for depth in depths}
    with tqdm(total=repetitions * (warm_up + steps) * len(depths), unit="batch") as progress:
        for _ in range(repetitions):
            with workers(Decoding, arguments) as arms:
                for number in range(-warm_up, steps):
                    for name, arm in arms.items():
                        seconds = arm.call("step")
                        for kind in ("wall", "cpu") if number >= 0 else ():
                            found[name][kind].append(seconds[kind])
                        progress.update()
                for name, arm in arms.items():
                    for kind, value in arm.call("memory").items():
                        found[name][kind].append(value)
                    found[name]["counted"].append(arm.call("counted"))
    return found


def report(chosen: Setting, found: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the figures for the JSON, and the tables."""
    full, student = str(LAYERS), str(chosen.student)
    samples = int(chosen.seconds * SAMPLE_RATE)
    parts = {
        full: multiply_adds(shape(), samples, LAYERS, heads=2),  # the full model also runs its student's head
        student: multiply_adds(shape(), samples, chosen.student),
    }
    madds = {depth: chosen.batch * sum(counts.values()) for depth, counts in parts.items()}
    audio = chosen.batch * chosen.seconds  # with padding, which is computed too
    allowed = TARGET * madds[student] / madds[full]
    figures: dict[str, Any] = {
        "multiply_adds": madds,
        "parts": parts,
        "multiply_add_ratio": madds[student] / madds[full],
        "counted_by_torch": {depth: found[depth]["counted"][0] for depth in madds},
    }
    rows = []

    def row(label: str, kind: str, unit: float, digits: int, limit: str = "") -> None:
        arms = {depth: spread(found[depth][kind]) for depth in (full, student)}
        ratio = spread(paired_ratios(found[student][kind], found[full][kind]))
        figures[kind] = {**{depth: arms[depth]._asdict() for depth in arms}, "ratio": ratio._asdict()}
        shown = f"{ratio.median:.3f}" if ratio.least == ratio.most else ratio.show()
        if kind == "wall":
            limit = f"{allowed:.3f}: {verdict(ratio.median, allowed)}"
        rows.append([label, *(_show(arms[depth], unit, digits) for depth in (full, student)), shown, limit])

    row("batch, s", "wall", 1, 3)
    row("batch, CPU s", "cpu", 1, 3)
    per_second = [f"{madds[depth] / audio / 1e9:.3f}" for depth in (full, student)]
    rows.append(["10^9 multiply-adds per second of audio", *per_second, f"{madds[student] / madds[full]:.3f}", ""])
    row("the same, counted by torch", "counted", 1e9 * audio, 3)
    row("parameters, millions", "parameters", 1e6, 2)
    row("model in memory, MiB", "model", MIB, 0)
    row("peak above it while decoding, MiB", "peak", MIB, 0)
    header = ["", f"{full} layers", f"{student} layers", f"{student} / {full}", "at most"]
    shares = [
        [part, *(f"{100 * chosen.batch * parts[depth][part] / madds[depth]:.1f}" for depth in (full, student))]
        for part in parts[full]
    ]
    tables = [
        markdown_table(header, rows),
        markdown_table(["multiply-adds, %", f"{full} layers", f"{student} layers"], shares),
    ]
    return figures, "\n\n".join(tables)


def _show(values: Spread, unit: float, digits: int) -> str:
    return f"{values.median / unit:.{digits}f}" if values.least == values.most else values.show(unit, digits)


def main() -> None:
    """Measure, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=count, default=5, help="pairs of processes (%(default)s)")
    parser.add_argument("--steps", type=count, default=10, help="batches measured per process (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=2, help="batches before these (%(default)s)")
    add_setting(parser, batch=1, seconds=10.0, dtypes=tuple(DTYPES))
    args = parser.parse_args()
    chosen = setting(args)
    found = measure(chosen, args.repetitions, args.steps, args.warm_up)
    figures, tables = report(chosen, found)
    print(f"{chosen.describe()}; {args.repetitions} x {args.steps} batches\n\n{tables}")
    save(args.json, chosen, figures, found)


if __name__ == "__main__":
    sys.exit(run_command("decode_exit", main))
