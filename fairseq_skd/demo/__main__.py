"""``python -m fairseq_skd.demo``: the whole main job on a small synthetic corpus, in minutes, on a CPU."""

import argparse
import sys
import time
from pathlib import Path

from fairseq_skd.demo.plan import Layout, demo_steps, find_configs, find_trainer
from fairseq_skd.demo.running import prepare_folder, run_steps
from fairseq_skd.demo.table import exits_table, read_summary
from fairseq_skd.errors import run_command

DESCRIPTION = """\
The whole main job on a small synthetic corpus: speak it, pretrain a tiny HuBERT on it, fine-tune that with
self-knowledge distillation, decode the test set with teacher and student, compare where they spike. Every command is
printed before it runs.
"""


def main() -> None:
    """Read the command line, run the steps, print the table."""
    parser = argparse.ArgumentParser(prog="python -m fairseq_skd.demo", description=DESCRIPTION)
    parser.add_argument("--out", type=Path, default=Path("demo_out"), metavar="DIR", help="default: demo_out")
    parser.add_argument("--fresh", action="store_true", help="do everything anew (default: go on where it ended)")
    arguments = parser.parse_args()
    at = Layout(arguments.out.absolute())
    steps = demo_steps(at, find_configs(), find_trainer())
    prepare_folder(at.out, steps, arguments.fresh)
    started = time.monotonic()
    activate = Path(sys.executable).parent / "activate"
    if activate.is_file():
        print(f"The commands below are for a shell with this environment active: . {activate}")
    run_steps(steps, at.out)
    print(f"\n{exits_table([read_summary(at.decoded(who) / 'summary.json') for who in ('teacher', 'student')])}")
    print(f"\ncurves, spikes, and utterances to listen to: {at.report}")
    print(f"all of it: {at.out} ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    sys.exit(run_command("fairseq_skd.demo", main))
