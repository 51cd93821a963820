"""A whole subset, teacher against student: batches in, agreements and sums out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fairseq_skd.alignment.agreement import Agreement, compare
from fairseq_skd.alignment.posteriors import Batch, batch_frames, exit_posteriors
from fairseq_skd.alignment.sides import Side, Sides
from fairseq_skd.alignment.spikes import Floats, Frames
from fairseq_skd.alignment.totals import Certainty
from fairseq_skd.errors import UserError


class Posteriors(NamedTuple):
    """(T, V) posteriors of one utterance."""

    teacher: Floats
    student: Floats


@dataclass
class Compared:
    """What is known of a subset.

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


def compare_sides(sides: Sides, examples: Sequence[int] = ()) -> Compared:
    """Run both sides over the subset; one pass where one checkpoint is both.

    Only sums, spikes and the posteriors of ``examples`` are kept, so memory does not grow with the posteriors.

    Raises:
        UserError: see :func:`~fairseq_skd.alignment.posteriors.exit_posteriors`; or an example that does not exist.
    """
    subset = sides.student.plan.subset
    utterances = len(subset.names)
    for index in examples:
        if not 0 <= index < utterances:
            raise UserError(
                f"align.examples={list(examples)}: {subset.manifest} has utterances 0 to {utterances - 1} only"
            )
    agreements: dict[int, Agreement] = {}
    certainties: tuple[list[Certainty], list[Certainty]] = ([], [])
    posteriors: dict[int, Posteriors] = {}
    with tqdm(total=utterances, desc="comparing", unit="utterance") as progress:
        for teacher, student in _paired_batches(sides):
            for index, ours, theirs in _paired_frames(teacher, student, sides):
                agreements[index] = compare(ours, theirs)
                for kept, frames in zip(certainties, (ours, theirs), strict=True):
                    kept.append(Certainty.of(frames))
            for index in set(examples) & set(student.ids):
                posteriors[index] = Posteriors(
                    _utterance(teacher, sides.teacher, index), _utterance(student, sides.student, index)
                )
            progress.update(len(student.ids))
    if len(agreements) != utterances:
        raise UserError(f"only {len(agreements)} of {utterances} utterances were read, no metric is given for a part")
    teacher_total, student_total = (Certainty.total(parts) for parts in certainties)
    return Compared([agreements[i] for i in range(utterances)], teacher_total, student_total, posteriors)


def _paired_batches(sides: Sides) -> Iterator[tuple[Batch, Batch]]:
    teacher, student = sides
    if teacher.plan is student.plan:
        for batch in exit_posteriors(student.plan, [teacher.layer, student.layer]):
            yield batch, batch
    else:  # the two may normalise the audio differently, so each reads it
        yield from zip(
            exit_posteriors(teacher.plan, [teacher.layer]), exit_posteriors(student.plan, [student.layer]), strict=True
        )


def _paired_frames(teacher: Batch, student: Batch, sides: Sides) -> Iterator[tuple[int, Frames, Frames]]:
    assert teacher.ids == student.ids, "the same manifest and limits make the same batches"
    ours = batch_frames(teacher.log_posteriors[sides.teacher.layer], teacher.lengths)
    theirs = batch_frames(student.log_posteriors[sides.student.layer], student.lengths)
    yield from zip(student.ids, ours, theirs, strict=True)


def _utterance(batch: Batch, side: Side, index: int) -> Floats:
    place = batch.ids.index(index)
    log_posteriors = batch.log_posteriors[side.layer][: batch.lengths[place], place]
    return np.asarray(log_posteriors.exp().cpu().numpy(), np.float32)
