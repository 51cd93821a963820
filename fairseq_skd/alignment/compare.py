"""A whole subset, teacher against student: batches in, agreements and sums out; and which checkpoints a history has."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fairseq_skd.alignment.sides import Sides
from fairseq_skd.alignment.spikes import Agreement, Frames, Posteriors, compare
from fairseq_skd.alignment.totals import Certainty
from fairseq_skd.decoding.config import DatasetSettings
from fairseq_skd.decoding.evaluation_set import Ran, run
from fairseq_skd.encoders.checkpoint import load_checkpoint
from fairseq_skd.errors import UserError
from fairseq_skd.files.progress import STYLE, tracked

_BY_UPDATE = re.compile(r"checkpoint_\d+_(\d+)\.pt")
_BY_EPOCH = re.compile(r"checkpoint\d+\.pt")


def kept_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Find ``checkpoint_<epoch>_<update>.pt`` and ``checkpoint<epoch>.pt``.

    Returns:
        (updates done, file), by updates; of two files of the same update one.

    Raises:
        UserError: no folder, no such file in it, or one that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"align.history={folder} is not a folder")
    found: dict[int, Path] = {}
    kept = []
    for path in sorted(folder.iterdir()):
        if _BY_UPDATE.fullmatch(path.name) or _BY_EPOCH.fullmatch(path.name):
            kept.append(path)
    # All of them now: a damaged one would otherwise be met when the ones before it were run, and lose what they gave.
    for path in tracked(kept, "reading checkpoints", "checkpoint"):
        state = load_checkpoint(path)
        match = _BY_UPDATE.fullmatch(path.name)
        updates = int(match[1]) if match else _updates(path, state)
        if match or updates not in found:
            found[updates] = path
    if not found:
        raise UserError(
            f"align.history={folder} keeps no checkpoint of an update or epoch: train with "
            f"checkpoint.save_interval_updates=N or checkpoint.no_epoch_checkpoints=false"
        )
    return sorted(found.items())


def _updates(path: Path, state: dict[str, Any]) -> int:
    """An epoch's file does not say its update in its name."""
    history = state.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else None
    updates = last.get("num_updates") if isinstance(last, dict) else None
    if type(updates) is not int:
        raise UserError(f"{path} does not say after how many updates it was saved")
    return updates


@dataclass
class Compared:
    """Comparison of two exits over a subset.

    Attributes:
        agreements: by place in the manifest.
        teacher: sums over the teacher's frames.
        student: and over the student's.
        posteriors: of the utterances that were asked for, by place in the manifest.
    """

    agreements: list[Agreement]
    teacher: Certainty
    student: Certainty
    posteriors: dict[int, Posteriors] = field(default_factory=dict)


def compare_sides(sides: Sides, dataset: DatasetSettings, examples: Sequence[int] = ()) -> Compared:
    """Run both sides over the subset; one pass where one checkpoint is both.

    Only sums, spikes and the posteriors of ``examples`` are kept, so memory does not grow with the posteriors.

    Raises:
        UserError: see :func:`~fairseq_skd.decoding.evaluation_set.run`; or an example that does not exist.
    """
    subset = sides.data.subset
    utterances = len(subset.names)
    for index in examples:
        if not 0 <= index < utterances:
            raise UserError(
                f"align.examples={list(examples)}: {subset.manifest} has utterances 0 to {utterances - 1} only"
            )
    agreements: dict[int, Agreement] = {}
    certainties: tuple[list[Certainty], list[Certainty]] = ([], [])
    posteriors: dict[int, Posteriors] = {}
    with tqdm(total=utterances, desc="comparing", unit="utterance", **STYLE) as progress:
        for places, lengths, ours, theirs in _log_posteriors(sides, dataset):
            pairs = zip(batch_frames(ours, lengths), batch_frames(theirs, lengths), strict=True)
            for index, pair in zip(places, pairs, strict=True):
                agreements[index] = compare(*pair)
                for kept, frames in zip(certainties, pair, strict=True):
                    kept.append(Certainty.of(frames))
            for row, (index, length) in enumerate(zip(places, lengths, strict=True)):
                if index in examples:
                    both = (side[:length, row].exp().cpu().numpy().astype(np.float32) for side in (ours, theirs))
                    posteriors[index] = Posteriors(*both)
            progress.update(len(places))
    teacher_total, student_total = (Certainty.total(parts) for parts in certainties)
    return Compared([agreements[i] for i in range(utterances)], teacher_total, student_total, posteriors)


def _log_posteriors(sides: Sides, dataset: DatasetSettings) -> Iterator[tuple[list[int], list[int], Tensor, Tensor]]:
    """Places in the manifest, real frames, and the log posteriors of teacher and student, (T, B, V)."""
    teacher, student, subset = sides.teacher, sides.student, sides.data.subset
    batches: Iterator[tuple[Ran, Ran]]
    if teacher.recognizer is student.recognizer:
        batches = ((batch, batch) for batch in run(student.recognizer, subset, dataset))
    else:  # the two may scale the audio differently, so each reads it; the same limits make the same batches
        runs = (run(side.recognizer, subset, dataset) for side in (teacher, student))
        batches = zip(*runs, strict=True)
    for one, other in batches:
        logits = (one.output.logits[teacher.layer], other.output.logits[student.layer])
        ours, theirs = (values.float().log_softmax(dim=-1) for values in logits)
        yield one.places, one.output.lengths.tolist(), ours, theirs


def batch_frames(log_posteriors: Tensor, lengths: Sequence[int]) -> list[Frames]:
    """Best symbol, its log posterior and the entropy of every real frame.

    Args:
        log_posteriors: (T, B, V).
        lengths: (B,) real frames; those beyond are dropped.
    """
    height, best = log_posteriors.max(dim=-1)  # (T, B)
    entropy = torch.special.entr(log_posteriors.exp()).sum(dim=-1) / np.log(2)
    columns = [values.transpose(0, 1).cpu().numpy() for values in (best, height, entropy)]  # (B, T)
    return [Frames(*(column[i, :length] for column in columns)) for i, length in enumerate(lengths)]
