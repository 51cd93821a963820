r"""Is one decoding better than another? The difference of their WERs, paired by utterance, with its bootstrap interval.

python experiments/paired.py dec/student-adults dec/student-children --minus dec/teacher-adults dec/teacher-children

Several folders are several parts of one set: their utterances are pooled.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, this folder's parent is not searched

from experiments.tables import with_bounds
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.scoring.bootstrap import Difference, Interval, paired_difference, rate_interval
from fairseq_skd.scoring.texts import read_texts, utterance_errors


def compare(first: Sequence[Path], second: Sequence[Path]) -> tuple[Interval, Interval, Difference, int]:
    """WERs of both, first minus second, and the number of utterances; rates from 0 to 1.

    Args:
        first: folders that ``fairseq_skd.infer`` decoded into.
        second: folders of the same utterances, in the same order.

    Raises:
        UserError: a folder is damaged, or they are not of the same utterances.
    """
    columns = []
    for folders in (first, second):
        columns.append(np.array([count for folder in folders for count in utterance_errors(folder)]))
    references = [
        [text for folder in folders for text in read_texts(folder / "ref.word")] for folders in (first, second)
    ]
    if references[0] != references[1]:
        names = (" ".join(map(str, folders)) for folders in (first, second))
        raise UserError("{} and {} are not of the same utterances in the same order".format(*names))
    (a, words), (b, _) = columns[0].T, columns[1].T
    return rate_interval(a, words), rate_interval(b, words), paired_difference(a, b, words), len(a)


def main(arguments: Sequence[str] | None = None) -> None:
    """Arguments in, one line a rate out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, nargs="+", help="results_path of a decoding")
    parser.add_argument("--minus", type=Path, nargs="+", required=True, help="results_path of the other")
    args = parser.parse_args(arguments)
    first, second, difference, utterances = compare(args.first, args.minus)
    print(f"{utterances} utterances, WER % [95 %]: {_percent(first)} and {_percent(second)}")
    print(
        f"difference, points: {_percent(difference.interval)}; the first is better in {difference.better:.1%} of draws"
    )


def _percent(interval: Interval) -> str:
    return with_bounds(Interval(*(100 * bound for bound in interval)))


if __name__ == "__main__":
    sys.exit(run_command("paired", main))
