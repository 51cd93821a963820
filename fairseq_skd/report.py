"""``python -m fairseq_skd.report``: write a page about a folder of runs, with audio."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fairseq_skd.cli import quieten_libraries
from fairseq_skd.errors import UserError, require, run_command
from fairseq_skd.files.disk import replacing

DESCRIPTION = """\
Write one HTML page about a folder of runs. The command searches RUNS and all folders below it for

    hydra_train.log   of fairseq-hydra-train with common.log_format=json: learning curves
    summary.json      of fairseq_skd.infer: error rates; their intervals come from hypo.word and ref.word beside it
    align.json        of fairseq_skd.align: disagreement, offsets, and utterances to listen to

The page needs no network and no other file.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.report",
        description=DESCRIPTION,
        epilog="example:\n  python -m fairseq_skd.report /runs --out /runs/report.html",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of runs")
    parser.add_argument("--out", type=Path, metavar="HTML", help="default: RUNS/report.html")
    parser.add_argument("--title", help="default: the folder's name")
    given = parser.parse_args(arguments)
    out = (given.out or given.runs / "report.html").absolute()
    if out.is_dir():
        raise UserError(f"--out {given.out or out} is a folder: give the name of the page, such as report.html")
    require(["jinja2", "matplotlib", "scipy"], "analysis", "the report")
    from fairseq_skd.reporting.folders import read_runs
    from fairseq_skd.reporting.page import render

    page = render(read_runs(given.runs), given.title or given.runs.resolve().name)
    with replacing(out) as beside:
        beside.write_text(page, encoding="utf-8")
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("fairseq_skd.report", main))
