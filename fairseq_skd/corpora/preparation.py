"""From a corpus to a folder of manifests: check all, cut and convert what has to be, write all or nothing."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.audio import SAMPLE_RATE
from fairseq_skd.corpora.derivation import CONVERTED, NOTES, SEGMENTS, Derived, derive, derived_name
from fairseq_skd.corpora.labels import Labels, choose_units, make_lexicon
from fairseq_skd.corpora.records import SPLIT_NAME, Corpus, Fault, Problem, Record, report
from fairseq_skd.corpora.validation import OVERSHOOT, Utterance, feasibility_faults, validate
from fairseq_skd.corpora.writing import by_split, speakers_known, write_labels, write_manifests
from fairseq_skd.errors import UserError
from fairseq_skd.files.staging import refuse_conflicts, staged
from fairseq_skd.files.units import Units
from fairseq_skd.files.workers import default_jobs


class Options(NamedTuple):
    """How a corpus is prepared; the fields are the command's options of the same names.

    ``jobs`` None chooses a number of processes; ``resample`` converts other sampling rates to FLAC files under the
    output folder; ``decode`` decodes each file completely; ``force`` replaces files of the output folder; ``normalize``
    names steps of :mod:`fairseq_skd.corpora.normalization`; ``labels`` are the units and the lexicon.
    """

    jobs: int | None = None
    resample: bool = False
    decode: bool = False
    force: bool = False
    normalize: Sequence[str] = ()
    labels: Labels = Labels()


class Prepared(NamedTuple):
    """What was written: the utterances at 16 kHz, their units, and what was done on the way."""

    utterances: list[Utterance]
    units: Units
    notes: list[str]


def prepare(corpus: Corpus, out: Path, options: Options) -> Prepared:
    """Check a corpus and write its manifests into ``out``.

    Args:
        corpus: from whatever source; problems found while it was read are reported with the rest.
        out: the folder to write.
        options: see :class:`Options`.

    Raises:
        UserError: if anything is wrong: its message lists every problem, and ``out`` is as it was.
    """
    if not corpus.root.is_dir():
        raise UserError(f"{corpus.root}: no such folder; --audio-root is the folder that the paths start from")
    base = os.path.abspath(corpus.root)
    for place in (base, os.path.abspath(out)):
        if place != place.strip() or {"\t", "\n", "\r"}.intersection(place):
            raise UserError(f"{place!r}: a manifest's first line cannot hold this folder's name; rename the folder")
    records = corpus.records
    changes: list[str] = []
    if options.normalize:
        from fairseq_skd.corpora.normalization import normalize  # not before: small folders need not wait for it

        records, changes = normalize(records, options.normalize)
    _spare_sources(records, out)
    options.labels.check()
    units = choose_units(options.labels, records)
    jobs = options.jobs or default_jobs(len(records))
    utterances, found = validate(records, base, jobs, options.resample, options.decode, units)
    rows = len(records) + len(corpus.problems)
    _refuse(corpus.title, [*corpus.problems, *found], rows)
    if units is None or not utterances:
        raise UserError(f"{corpus.title} holds no utterance")
    _refuse_old_speakers(utterances, out)
    changes += _clipped(utterances)
    with staged(out, options.force, free=[NOTES]) as stage:
        write_labels(utterances, stage, units, make_lexicon(options.labels, records, units))
        refuse_conflicts(stage, out, options.force, free=[NOTES])  # before the long part
        utterances, problems = _derived(utterances, base, stage, out, options.jobs, units)
        _refuse(corpus.title, problems, rows)
        target = os.path.abspath(out)
        write_manifests(utterances, [base, *(os.path.join(target, name) for name in (CONVERTED, SEGMENTS))], stage)
    return Prepared(utterances, units, [*corpus.notes, *changes])


def _spare_sources(records: Sequence[Record], out: Path) -> None:
    """Refuse to write a manifest over the table that it is made from, even with ``force``."""
    for split in {record.split for record in records}:
        manifest = out / f"{split}.tsv"
        if not SPLIT_NAME.fullmatch(split) or not manifest.exists():
            continue
        if any(manifest.samefile(source) for source in {record.source for record in records}):
            raise UserError(f"{manifest}: is the table itself and would be overwritten; choose another --out")


def _refuse_old_speakers(utterances: Sequence[Utterance], out: Path) -> None:
    """Refuse to leave an earlier run's speakers beside a manifest whose own speakers are not known."""
    for split, members in by_split(utterances).items():
        speakers = out / f"{split}.spk"
        if speakers.exists() and not speakers_known(members):
            raise UserError(
                f"{speakers} names the speakers of an earlier manifest, and now not every utterance of {split} has "
                f"one: delete the file, or choose another --out"
            )


def _clipped(utterances: Sequence[Utterance]) -> list[str]:
    """A note on the segments whose end was beyond their recording's."""
    count = sum(
        1
        for utterance in utterances
        if utterance.stretch and utterance.record.segment and utterance.record.segment.end is not None
        if round(utterance.record.segment.end * utterance.rate) > utterance.stretch[1]
    )
    return [f"{count} segments end up to {OVERSHOOT} s behind their recording and were ended with it"] if count else []


def _derived(
    utterances: Sequence[Utterance], base: str, stage: Path, out: Path, jobs: int | None, units: Units
) -> tuple[list[Utterance], list[Problem]]:
    """The utterances with those that are segments, or of another rate, made into files of ``stage``."""
    if not any(utterance.stretch or utterance.rate != SAMPLE_RATE for utterance in utterances):
        return list(utterances), []
    wanted = {
        derived_name(utterance, base): utterance
        for utterance in utterances
        if utterance.stretch or utterance.rate != SAMPLE_RATE
    }
    items = [Derived(name, u.audio, *(u.stretch or (0, u.samples))) for name, u in wanted.items()]
    lengths = derive(items, stage, out, jobs)
    made: list[Utterance] = []
    problems: list[Problem] = []
    for utterance in utterances:
        if not utterance.stretch and utterance.rate == SAMPLE_RATE:
            made.append(utterance)
            continue
        name = derived_name(utterance, base)
        length = lengths[name]
        if isinstance(length, Fault):
            problems.append(utterance.record.problem(length))
            continue
        problems += map(utterance.record.problem, feasibility_faults(utterance.record.text, length, units))
        made.append(Utterance(utterance.record, os.path.join(os.path.abspath(out), name), length))
    return made, problems


def _refuse(title: str, problems: Sequence[Problem], rows: int) -> None:
    if problems:
        raise UserError(f"{title} is refused\n{report(problems, rows)}")
