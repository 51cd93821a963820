"""Measure HuBERT's pretraining loss, with one matrix product and with fairseq's function."""

import argparse
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, if run as a file

import torch
import torch.nn.functional as F
from fairseq.models.hubert.hubert import HubertModel
from tqdm import tqdm

import fairseq_skd  # noqa: F401  (installs our compute_nce)
from benchmarks.base_encoder import count
from benchmarks.gauges import MIB, PeakMemory, now
from benchmarks.records import save
from benchmarks.summaries import markdown_table, paired_ratios, spread
from benchmarks.workers import workers
from fairseq_skd.errors import run_command

OURS, THEIRS = "one product", "fairseq"
FUNCTIONS = {THEIRS: HubertModel.compute_nce.__wrapped__, OURS: HubertModel.compute_nce}
_HELP = """\
How it is measured. One process per function. Each takes the same random frames and labels (float32). It
computes the logits as HubertModel.forward does, the cross-entropy, and the gradients of frames and
labels. The two processes take turns, so other load slows both. While one works, the other sleeps.
The first turn is not counted.

Time: wall clock, and CPU time of all threads. Memory: highest resident size above the level before
the first turn; on a GPU, highest allocated. Shown are medians [quartiles]. The ratio is the median
of the ratios of pairs. The last lines compare loss and gradients of the two functions.

Example:  python benchmarks/pretraining_loss.py --threads 1 --json pretraining_loss.json
"""


class Loss:
    """One arm: frames, labels and a function."""

    def __init__(self, args: argparse.Namespace, function: str) -> None:
        torch.set_num_threads(args.threads)
        self.function, self.device = FUNCTIONS[function], torch.device(args.device)
        generator = torch.Generator().manual_seed(1)
        frames = torch.randn(args.frames, args.width, generator=generator)
        labels = torch.rand(args.labels, args.width, generator=generator)  # as in fairseq
        self.frames, self.labels = (leaf.to(self.device).requires_grad_() for leaf in (frames, labels))
        self.chosen = torch.randint(args.labels, (args.frames,), generator=generator).to(self.device)
        self.target = torch.zeros_like(self.chosen)
        self.model = SimpleNamespace(label_embs_concat=self.labels, num_classes=[args.labels], logit_temp=0.1)
        self.peak = PeakMemory(self.device)
        self.loss = 0.0

    def ready(self) -> None:
        """Return when all is built."""

    def step(self) -> dict[str, float]:
        """Compute the loss and its gradients, and return the seconds."""
        self.frames.grad = self.labels.grad = None
        wall, cpu = now(self.device), time.process_time()
        (labels,) = self.model.label_embs_concat.split(self.model.num_classes)
        repeated = labels.unsqueeze(1).expand(-1, len(self.frames), -1)  # (V, S, C), a view
        logits = self.function(self.model, self.frames, labels.index_select(0, self.chosen), repeated)
        loss = F.cross_entropy(logits.float(), self.target, reduction="sum")
        loss.backward()
        self.loss = loss.item()
        return {"wall": now(self.device) - wall, "cpu": time.process_time() - cpu}

    def memory(self) -> int:
        """Return the peak bytes above the level before the first step."""
        return self.peak.above_start()

    def values(self) -> dict[str, Any]:
        """Return the loss and its gradients, to compare."""
        gradients = {"frames": self.frames.grad, "labels": self.labels.grad}
        return {
            "loss": self.loss,
            **{name: leaf.cpu().tolist() for name, leaf in gradients.items() if leaf is not None},
        }


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, float]]:
    """Measure both arms in turns.

    Returns:
        ``wall`` and ``cpu`` seconds and ``memory`` bytes (each: arm -> measurements), and the
        relative differences of loss and gradients.
    """
    found: dict[str, Any] = {kind: {arm: [] for arm in FUNCTIONS} for kind in ("wall", "cpu", "memory")}
    with workers(Loss, {arm: (args, arm) for arm in FUNCTIONS}) as arms:
        for number in tqdm(range(args.repetitions + 1), unit="pair"):
            for name, arm in arms.items():
                seconds = arm.call("step")
                for kind in seconds if number else ():
                    found[kind][name].append(seconds[kind])
        for name, arm in arms.items():
            found["memory"][name].append(arm.call("memory"))
        values = {name: arm.call("values") for name, arm in arms.items()}
    ours, theirs = ({key: torch.tensor(x).double() for key, x in values[arm].items()} for arm in (OURS, THEIRS))
    return found, {key: float((ours[key] - theirs[key]).norm() / theirs[key].norm()) for key in theirs}


def report(found: dict[str, Any], differences: dict[str, float]) -> tuple[dict[str, Any], str]:
    """Return the figures for the JSON, and the table."""
    figures: dict[str, Any] = {"differences": differences}
    rows = []
    for kind, label, unit, digits in (
        ("wall", "time, s", 1, 4),
        ("cpu", "CPU s", 1, 4),
        ("memory", "peak memory, MiB", MIB, 1),
    ):
        arms = {arm: spread(found[kind][arm]) for arm in FUNCTIONS}
        ratio = spread(paired_ratios(found[kind][THEIRS], found[kind][OURS]))
        figures[kind] = {**{arm: arms[arm]._asdict() for arm in arms}, "ratio": ratio._asdict()}
        rows.append([label, *(arms[arm].show(unit, digits) for arm in arms), ratio.show(digits=0)])
    table = markdown_table(["", *FUNCTIONS, f"{THEIRS} / {OURS}"], rows)
    lines = [f"{what}: relative difference {value:.1e}" for what, value in differences.items()]
    return figures, "\n".join([table, "", *lines])


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=count, default=5, help="pairs to measure (%(default)s)")
    parser.add_argument("--frames", type=count, default=2000, help="frames (%(default)s)")
    parser.add_argument("--labels", type=count, default=200, help="labels (%(default)s)")
    parser.add_argument("--width", type=count, default=256, help="width of frames and labels (%(default)s)")
    parser.add_argument("--threads", type=count, default=os.cpu_count() or 1, help="threads per process (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device (%(default)s)")
    parser.add_argument("--json", type=Path, help="also write all measurements to this file")
    args = parser.parse_args()
    found, differences = measure(args)
    figures, table = report(found, differences)
    print(f"{args.frames} frames, {args.labels} labels, width {args.width}, {args.device}, {args.threads} threads; "
          f"{args.repetitions} pairs\n\n{table}")  # fmt: skip
    path = vars(args).pop("json")
    save(path, args, figures, found)


if __name__ == "__main__":
    sys.exit(run_command("benchmarks/pretraining_loss.py", main))
