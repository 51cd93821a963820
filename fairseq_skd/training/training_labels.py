"""Check that CTC can learn the transcripts of a split."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from fairseq.data import Dictionary

from fairseq_skd.encoders.convolutions import ConvLayer
from fairseq_skd.encoders.trunk import frame_lengths
from fairseq_skd.errors import UserError
from fairseq_skd.files.subset import Subset, better_post_process, read_labels, units_of
from fairseq_skd.files.units import frames_needed
from fairseq_skd.scoring.leading import CER, leading

logger = logging.getLogger(__name__)


def check_labels(
    path: Path,
    subset: Subset,
    kept: Sequence[int],
    dictionary: Dictionary,
    layers: Sequence[ConvLayer],
    post_process: str | None,
    carriage_returns: bool = False,
    metric: str = "",
) -> None:
    """Check the transcripts of a training or validation set; warn if CTC learns nothing from some.

    Args:
        path: label file, one line of space-separated units per utterance of ``subset``.
        subset: the utterances.
        kept: indices of the utterances that the task accepts.
        dictionary: the dictionary of the units.
        layers: the encoder's convolutions, which give the number of frames.
        post_process: ``criterion.post_process``; None if unknown.
        carriage_returns: whether Windows line ends are allowed.
        metric: ``checkpoint.best_checkpoint_metric`` if the set is validated.

    Raises:
        UserError: the file cannot be read, see :func:`~fairseq_skd.files.subset.read_labels`; a
            line has a symbol that is no unit; or every line is empty or has more units than frames.
    """
    lines = read_labels(path, subset, kept, carriage_returns)
    units = units_of(dictionary)
    frames = frame_lengths(torch.tensor([subset.samples[index] for index in kept]), layers).tolist()
    empty, too_long = [], []
    for index, given in zip(kept, frames, strict=True):
        symbols = lines[index].split()
        if not units.issuperset(symbols):
            raise UserError(f"{path} line {index + 1} has the symbol {_reason(symbols, units, dictionary)}")
        if not symbols:
            empty.append(index)
        elif (
            2 * len(symbols) > given and (needed := frames_needed(symbols)) > given
        ):  # the exact count is slow: only near the limit
            too_long.append((index, needed, given))
    _judge(path, subset, len(kept), empty, too_long)
    if better := better_post_process(post_process, (lines[index] for index in kept)):
        logger.warning(
            "criterion.post_process=letter makes one word of each transcript, because none of the %d in %s has a word "
            "boundary |: set criterion.post_process=%s",
            len(kept),
            path,
            better,
        )
    if "wer" in metric and leading(lines[index] for index in kept) == CER:
        logger.warning(
            "checkpoint.best_checkpoint_metric=%s counts each sentence of %s as a word or two, because its script does "
            "not separate words by spaces: set checkpoint.best_checkpoint_metric=%s",
            metric,
            path,
            "student_uer" if metric.startswith("student") else "uer",
        )


def _reason(symbols: Sequence[str], units: set[str], dictionary: Dictionary) -> str:
    symbol = next(symbol for symbol in symbols if symbol not in units)
    if symbol in dictionary.indices:
        return f"{symbol!r}, which fairseq reserves: write what was said, or remove the utterance"
    return f"{symbol!r}, which is not in the dictionary: add it there, or write the line in units of the dictionary"


def _judge(
    path: Path, subset: Subset, kept: int, empty: Sequence[int], too_long: Sequence[tuple[int, int, int]]
) -> None:
    """Refuse a split from which CTC can learn nothing; warn of single utterances.

    ``too_long`` holds per utterance its index, the frames that CTC needs, and the frames it has.
    """
    findings, among = [], f"of the {kept} transcripts in {path}"
    if empty:
        findings.append(f"{len(empty)} {among} are empty, so they teach only blanks, the first is line {empty[0] + 1}")
    if too_long:
        first, needed, given = too_long[0]
        findings.append(
            f"{len(too_long)} {among} do not fit their audio and are left out of the loss, the first is line "
            f"{first + 1}, which needs {needed} frames and has {given} ({subset.where(first)})"
        )
    if len(empty) + len(too_long) == kept:
        raise UserError(
            f"{' and '.join(findings)}; CTC can learn nothing: check that manifest and labels belong together"
        )
    for finding in findings:
        logger.warning("%s", finding)
