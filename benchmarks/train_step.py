"""Measure a training step of SKD and of plain CTC: time, peak memory, and SKD's own terms."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, if run as a file

import torch
from fairseq.trainer import Trainer
from tqdm import tqdm

from benchmarks.added_terms import time_added_terms
from benchmarks.base_encoder import DTYPES, Setting, add_setting, build_task, count, noise_batch, recipe, setting
from benchmarks.gauges import MIB, PeakMemory, now
from benchmarks.records import save
from benchmarks.summaries import markdown_table, paired_ratios, spread, verdict
from benchmarks.workers import workers
from fairseq_skd.errors import run_command

TARGET = 1.05
ARMS = ("CTC", "SKD")
_HELP = """\
How it is measured. One process per arm. CTC has model.student_layers=[], SKD has [6]. All else is the
recipe config/finetune/hubert_base_100h.yaml (masks, LayerDrop, frozen convolutions, Adam) after its
frozen phase. A step is fairseq's Trainer.train_step: forward, backward, update, log. The two
processes take turns, one step each, so other load slows both. While one works, the other sleeps.
Step n of both arms draws the same masks and drops the same layers, so step n is compared with step
n. Each repetition starts two new processes.

Time: wall clock of the steps after the warm-up, and CPU time of all threads, which other load
disturbs less. Memory: highest resident size during the steps (with warm-up) above the level before
the first one; on a GPU, highest allocated. Shown are medians [quartiles]. The ratio is the median of
the ratios of pairs.

Example:  python benchmarks/train_step.py --repetitions 5 --json train_step.json
"""


class Training:
    """One arm: a trainer and a batch."""

    def __init__(self, chosen: Setting, students: tuple[int, ...]) -> None:
        self.device = chosen.begin()
        torch.manual_seed(1)
        cfg = recipe(chosen, students)
        task = build_task(cfg)
        self.trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
        self.trainer.cuda_env = None  # with it, the trainer resets CUDA's peak after each step
        self.trainer.lr_step_begin_epoch(1)  # builds the optimizer
        self.batch = noise_batch(chosen)
        self.peak = PeakMemory(self.device)

    def ready(self) -> None:
        """Return when all is built."""

    def step(self) -> dict[str, float]:
        """Do one training step and return the seconds."""
        wall, cpu = now(self.device), time.process_time()
        self.trainer.train_step([self.batch])
        return {"wall": now(self.device) - wall, "cpu": time.process_time() - cpu}

    def memory(self) -> int:
        """Return the peak bytes above the level before the first step."""
        return self.peak.above_start()

    def terms(self) -> dict[str, list[float]]:
        """Time SKD's own terms: :func:`~benchmarks.added_terms.time_added_terms`."""
        sample, _ = self.trainer._prepare_sample(self.batch)
        return time_added_terms(self.trainer.model, self.trainer.criterion, sample, repeats=20)


def measure(chosen: Setting, repetitions: int, steps: int, warm_up: int) -> dict[str, Any]:
    """Measure both arms in turns.

    Returns:
        ``wall`` and ``cpu`` (arm -> seconds of each step), ``memory`` (arm -> bytes) and ``terms``
        (term -> seconds of each measurement).
    """
    found: dict[str, Any] = {kind: {arm: [] for arm in ARMS} for kind in ("wall", "cpu", "memory")}
    found["terms"] = {}
    arguments = {"CTC": (chosen, ()), "SKD": (chosen, (chosen.student,))}
    with tqdm(total=repetitions * (warm_up + steps) * len(ARMS), unit="step") as progress:
        for _ in range(repetitions):
            with workers(Training, arguments) as arms:
                for number in range(-warm_up, steps):
                    for name, arm in arms.items():
                        seconds = arm.call("step")
                        for kind in ("wall", "cpu") if number >= 0 else ():
                            found[kind][name].append(seconds[kind])
                        progress.update()
                for name, arm in arms.items():
                    found["memory"][name].append(arm.call("memory"))
                for term, values in arms["SKD"].call("terms").items():
                    found["terms"].setdefault(term, []).extend(values)
    return found


def report(found: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the figures for the JSON, and the two tables."""
    figures: dict[str, Any] = {}
    rows = []
    for kind, label, unit, digits in (
        ("wall", "step, s", 1, 3),
        ("cpu", "step, CPU s", 1, 3),
        ("memory", "peak memory, MiB", MIB, 0),
    ):
        arms = {arm: spread(found[kind][arm]) for arm in ARMS}
        ratio = spread(paired_ratios(found[kind]["SKD"], found[kind]["CTC"]))
        of_medians = arms["SKD"].median / arms["CTC"].median
        figures[kind] = {**{arm: arms[arm]._asdict() for arm in ARMS},
                         "ratio": ratio._asdict(), "ratio_of_medians": of_medians}  # fmt: skip
        target = "" if kind == "cpu" else f"{TARGET}: {verdict(ratio.median, TARGET)}"
        rows.append([label, *(arms[arm].show(unit, digits) for arm in ARMS), ratio.show(), target])
    table = markdown_table(["", *ARMS, "SKD / CTC", "at most"], rows)

    step = figures["wall"]["SKD"]["median"]
    rows, total = [], 0.0
    figures["terms"] = {}
    for term, values in found["terms"].items():
        seconds = spread(values)
        total += seconds.median
        figures["terms"][term] = {**seconds._asdict(), "share": seconds.median / step}
        rows.append([term, seconds.show(1e-3, 2), f"{100 * seconds.median / step:.3f}"])
    rows.append(["all of them", f"{1e3 * total:.2f}", f"{100 * total / step:.3f}"])
    return figures, table + "\n\n" + markdown_table(["SKD adds", "ms", "% of a step"], rows)


def main() -> None:
    """Measure, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=count, default=5, help="pairs of processes (%(default)s)")
    parser.add_argument("--steps", type=count, default=6, help="steps measured per process (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before these (%(default)s)")
    add_setting(parser, batch=4, seconds=6.0, dtypes=tuple(DTYPES))
    args = parser.parse_args()
    chosen = setting(args)
    found = measure(chosen, args.repetitions, args.steps, args.warm_up)
    figures, tables = report(found)
    print(f"{chosen.describe()}; {args.repetitions} x {args.steps} steps\n\n{tables}")
    save(args.json, chosen, figures, found)


if __name__ == "__main__":
    sys.exit(run_command("train_step", main))
