"""Compare teacher and student on a whole subset, batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fairseq_skd.alignment.sides import Sides
from fairseq_skd.alignment.spikes import Agreement, Frames, Posteriors, compare
from fairseq_skd.alignment.totals import Certainty
from fairseq_skd.decoding.config import DatasetSettings
from fairseq_skd.decoding.evaluation_set import Ran, run
from fairseq_skd.errors import UserError
from fairseq_skd.files.progress import STYLE


@dataclass
class Compared:
    """Comparison of two exits on a subset.

    Attributes:
        agreements: one per utterance, in the order of the manifest.
        teacher: sums over the teacher's frames.
        student: sums over the student's frames.
        posteriors: index in the manifest -> posteriors, for the requested utterances.
    """

    agreements: list[Agreement]
    teacher: Certainty
    student: Certainty
    posteriors: dict[int, Posteriors] = field(default_factory=dict)


def compare_sides(sides: Sides, dataset: DatasetSettings, examples: Sequence[int] = ()) -> Compared:
    """Run both sides on the subset, in one pass if they are exits of one checkpoint.

    Only sums, spikes and the posteriors of ``examples`` stay in memory.

    Raises:
        UserError: a model cannot be run, see :func:`~fairseq_skd.decoding.evaluation_set.run`; or
            an example does not exist.
    """
    subset = sides.data.subset
    utterances = len(subset.names)
    for index in examples:
        if not 0 <= index < utterances:
            raise UserError(
                f"align.examples={list(examples)}: {index} is not an utterance of {subset.manifest}: give indices from "
                f"0 to {utterances - 1}"
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
    """Yield indices in the manifest, real frames, and (T, B, V) log posteriors of both sides."""
    teacher, student, subset = sides.teacher, sides.student, sides.data.subset
    batches: Iterator[tuple[Ran, Ran]]
    if teacher.recognizer is student.recognizer:
        batches = ((batch, batch) for batch in run(student.recognizer, subset, dataset))
    else:  # each reads the audio, since they may scale it differently; equal limits give equal batches
        runs = (run(side.recognizer, subset, dataset) for side in (teacher, student))
        batches = zip(*runs, strict=True)
    for one, other in batches:
        logits = (one.output.logits[teacher.layer], other.output.logits[student.layer])
        ours, theirs = (values.float().log_softmax(dim=-1) for values in logits)
        yield one.places, one.output.lengths.tolist(), ours, theirs


def batch_frames(log_posteriors: Tensor, lengths: Sequence[int]) -> list[Frames]:
    """Reduce each real frame to best symbol, its log posterior and the entropy.

    Args:
        log_posteriors: (T, B, V).
        lengths: (B,) real frames; padded frames are dropped.
    """
    height, best = log_posteriors.max(dim=-1)  # (T, B)
    entropy = torch.special.entr(log_posteriors.exp()).sum(dim=-1) / np.log(2)
    columns = [values.transpose(0, 1).cpu().numpy() for values in (best, height, entropy)]  # (B, T)
    return [Frames(*(column[i, :length] for column in columns)) for i, length in enumerate(lengths)]
