"""Turn a corpus into a folder of manifests: check all, derive audio, write all or nothing."""

import os
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from fairseq_skd.corpora.audio import SAMPLE_RATE, resampled_length
from fairseq_skd.corpora.derived import CONVERTED, NOTES, SEGMENTS, Derived, derive, derived_name
from fairseq_skd.corpora.labels import Labels, choose_units, make_lexicon
from fairseq_skd.corpora.languages import is_code
from fairseq_skd.corpora.normalization import normalize
from fairseq_skd.corpora.records import SPLIT_NAME, Corpus, Fault, Problem, Record, report
from fairseq_skd.corpora.validation import OVERSHOOT, Utterance, feasibility_faults, label_faults, validate
from fairseq_skd.corpora.writing import by_split, speakers_known, write_labels, write_manifests
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import named
from fairseq_skd.files.staging import refuse_conflicts, staged
from fairseq_skd.files.units import NO_UNITS, Units
from fairseq_skd.files.workers import default_jobs

SKIPPED = "skipped.txt"
_OWN = (NOTES, SKIPPED)  # files that are replaced without --force


class Options(NamedTuple):
    """How to prepare a corpus; the fields are the command's options of the same names.

    Attributes:
        jobs: number of processes; None: chosen by the size of the corpus.
        resample: convert other sampling rates, and MP3, to 16 kHz FLAC files in the output folder.
        decode: decode each file completely.
        force: replace files of the output folder.
        normalize: steps of :mod:`fairseq_skd.corpora.normalization`.
        labels: the units and the lexicon.
        skip_bad: leave out rows with problems instead of refusing all.
        hold_out: fraction of the speakers to move from the training split to ``valid``.
        channel: channel to take of files with several, from 0, or
            :data:`~fairseq_skd.corpora.audio.MEAN`.
    """

    jobs: int | None = None
    resample: bool = False
    decode: bool = False
    force: bool = False
    normalize: Sequence[str] = ()
    labels: Labels = Labels()
    skip_bad: bool = False
    hold_out: float | None = None
    channel: int | str | None = None


class Prepared(NamedTuple):
    """What was written: the utterances at 16 kHz, their units, and notes for the summary."""

    utterances: list[Utterance]
    units: Units
    notes: list[str]


def prepare(corpus: Corpus, out: Path, options: Options) -> Prepared:
    """Check a corpus and write its manifests into ``out``.

    Args:
        corpus: the corpus; problems found while reading it are reported with the rest.
        out: the folder to write.
        options: see :class:`Options`.

    Raises:
        UserError: anything is wrong. The message lists the problems, and ``out`` is unchanged.
            With ``skip_bad``: a split would be left without rows.
    """
    if not corpus.root.is_dir():
        raise UserError(f"{corpus.root}: no such folder; --audio-root is the folder that the paths start from")
    base = os.path.abspath(corpus.root)
    for place in (base, os.path.abspath(out)):
        if place != place.strip() or {"\t", "\n", "\r"}.intersection(place):
            raise UserError(f"{place!r}: a manifest's first line cannot hold this folder's name; rename the folder")
    options.labels.check(options.normalize)
    labels = options.labels._replace(language=options.labels.language or _named_language(corpus))
    records, changes, unspelt = normalize(corpus.records, options.normalize, labels.language)
    held = None
    if options.hold_out is not None:
        from fairseq_skd.corpora.holdout import hold_out  # imported here: most runs do not need it

        records, held = hold_out(records, options.hold_out)
    _protect_sources(records, out)
    rows = _Rows(corpus.title, records, len(records) + len(corpus.problems), options.skip_bad)
    problems = [*corpus.problems, *unspelt]
    if unspelt:  # such a text is not checked further: its digits would be reported again
        places = {(problem.source, problem.line) for problem in unspelt}
        records = [record for record in records if (record.source, record.line) not in places]
        if {record.split for record in records} != {record.split for record in rows.records}:
            rows.check(problems, records)
    if not records:
        rows.check(problems, records)
        raise UserError(f"{corpus.title} holds no utterances; check its transcripts")
    units = _choose_units(labels, records, options.skip_bad)
    jobs = options.jobs or default_jobs(len(records))
    utterances, found = validate(
        records, base, jobs, options.resample, options.decode, units, options.channel, options.skip_bad
    )
    problems = rows.check([*problems, *found], [utterance.record for utterance in utterances])
    if found:
        utterances, units, lacking = _settled(utterances, labels, units)
        problems = rows.check([*problems, *lacking], [utterance.record for utterance in utterances])
    good = [utterance.record for utterance in utterances]
    _refuse_old_speakers(utterances, out)
    if units is NO_UNITS:
        _refuse_old_labels(utterances, out)
    changes += _clipped(utterances)
    with staged(out, options.force, free=_OWN) as stage:
        write_labels(utterances, stage, units, make_lexicon(labels, good, units))
        refuse_conflicts(stage, out, options.force, free=_OWN)  # before the audio, which takes long
        utterances, late = _derived(utterances, base, stage, out, options.jobs, units)
        if late:
            problems = rows.check([*problems, *late], [utterance.record for utterance in utterances])
            utterances, units, lacking = _settled(utterances, labels, units)
            good = [utterance.record for utterance in utterances]
            problems = rows.check([*problems, *lacking], good)
            write_labels(utterances, stage, units, make_lexicon(labels, good, units))
        target = os.path.abspath(out)
        write_manifests(utterances, [base, *(os.path.join(target, name) for name in (CONVERTED, SEGMENTS))], stage)
        if problems:
            with named(stage / SKIPPED):
                (stage / SKIPPED).write_text(rows.left_out(problems) + "\n", encoding="utf-8")
    if problems:
        changes.append(f"{rows.left_out(problems).splitlines()[-1]}; {SKIPPED} lists them")
    else:
        (out / SKIPPED).unlink(missing_ok=True)
    changes += held.notes(utterances) if held else []
    changes += _kept_as_mp3(utterances)
    return Prepared(utterances, units, [*corpus.notes, *changes, *units.notes])


def _named_language(corpus: Corpus) -> str:
    """Return the language that a source names; English if it names none."""
    if not corpus.language or is_code(corpus.language):
        return corpus.language or "en"
    names = corpus.language.split(", ")
    several = f"several languages, {corpus.language}" if len(names) > 1 else f"the language {corpus.language!r}"
    raise UserError(f"{corpus.title} names {several}; give a code with --language, as in de, hi or pt-BR")


class _Rows(NamedTuple):
    """All rows of a corpus, to tell what its problems mean for them.

    Attributes:
        title: name of the corpus in messages.
        records: the rows that became records.
        total: number of all rows.
        skip_bad: leave out rows with problems.
    """

    title: str
    records: Sequence[Record]
    total: int
    skip_bad: bool

    def check(self, problems: Sequence[Problem], good: Sequence[Record]) -> list[Problem]:
        """Return the problems of rows that are left out; ``good`` are the other rows.

        Raises:
            UserError: there are problems, and they are not to be skipped, or no row or no row of a
                split is without.
        """
        if not problems:
            return []
        left = {record.split for record in good}
        empty = [split for split in dict.fromkeys(record.split for record in self.records) if split not in left]
        empty = [split for split in empty if SPLIT_NAME.fullmatch(split)]
        useful = good and not empty  # then --skip-bad leaves out the rest
        if useful and self.skip_bad:
            return list(problems)
        then = "nothing was written" + ("; --skip-bad leaves these rows out" if useful else "")
        why = f": every row of {', '.join(empty) or 'it'} has a problem" if self.skip_bad else ""
        raise UserError(f"{self.title} is refused{why}\n{report(problems, self.total, then=then)}")

    def left_out(self, problems: Sequence[Problem]) -> str:
        """Report the rows that are left out."""
        return report(problems, self.total, "left out", "", each_row=True)


def _choose_units(labels: Labels, records: Sequence[Record], skip_bad: bool) -> Units:
    """Choose the units; if bad rows are left out, of rows that the units can spell."""
    units = choose_units(labels, records)
    while skip_bad:
        fit = [record for record in records if not any(label_faults(record, units))]
        if len(fit) == len(records) or {record.split for record in fit} != {record.split for record in records}:
            break  # nothing is left out, or all of a split, which is refused later
        records, units = fit, choose_units(labels, fit)
    return units


def _settled(
    utterances: Sequence[Utterance], labels: Labels, units: Units
) -> tuple[list[Utterance], Units, list[Problem]]:
    """Choose the units again where rows were left out: an alphabet is of the rows that stay.

    Returns:
        the utterances that the new units can spell, the units, and the problems of the others.
    """
    kept = list(utterances)
    problems: list[Problem] = []
    while True:
        chosen = _choose_units(labels, [utterance.record for utterance in kept], skip_bad=True)
        if chosen.files() == units.files():
            return kept, units, problems
        units = chosen
        faults = [(one, list(_faults_of_text(one, units))) for one in kept]
        problems += [one.record.problem(fault) for one, several in faults for fault in several]
        kept = [one for one, several in faults if not several]
        if len(kept) == len(faults) or {one.record.split for one in kept} != {one.record.split for one, _ in faults}:
            return kept, units, problems  # a split that has lost its last row is refused


def _faults_of_text(utterance: Utterance, units: Units) -> Iterator[Fault]:
    yield from label_faults(utterance.record, units)
    yield from feasibility_faults(utterance.record.text, resampled_length(utterance.samples, utterance.rate), units)


def _protect_sources(records: Sequence[Record], out: Path) -> None:
    """Refuse to overwrite the table from which a manifest is made, even with ``force``."""
    sources = {record.source for record in records}
    splits = {record.split for record in records}
    for name in (*_OWN, *(f"{split}.tsv" for split in splits if SPLIT_NAME.fullmatch(split))):
        written = out / name
        if written.exists() and any(written.samefile(source) for source in sources):
            raise UserError(f"{written}: is the table itself and would be overwritten; choose another --out")


def _refuse_old_speakers(utterances: Sequence[Utterance], out: Path) -> None:
    """Refuse to keep an earlier ``<split>.spk`` beside a manifest with unknown speakers."""
    for split, members in by_split(utterances).items():
        speakers = out / f"{split}.spk"
        if speakers.exists() and not speakers_known(members):
            raise UserError(
                f"{speakers} names the speakers of an earlier manifest, but now some utterances of {split} have "
                f"none: delete the file, or choose another --out"
            )


def _refuse_old_labels(utterances: Sequence[Utterance], out: Path) -> None:
    """Refuse to keep the transcripts of an earlier manifest beside one without transcripts."""
    for split in by_split(utterances):
        old = next(
            (path for suffix in ("wrd", "ltr", "spm", "phn") if (path := out / f"{split}.{suffix}").exists()), None
        )
        if old:
            raise UserError(
                f"{old} holds the transcripts of an earlier manifest, but {split} now has none: choose another --split "
                "or --out"
            )


def _clipped(utterances: Sequence[Utterance]) -> list[str]:
    """Make a note on the segments that ended after their recording."""
    count = sum(
        1
        for utterance in utterances
        if utterance.stretch and utterance.record.segment and utterance.record.segment.end is not None
        if round(utterance.record.segment.end * utterance.rate) > utterance.stretch[1]
    )
    return [f"{count} segments end up to {OVERSHOOT} s after their recording and were cut at its end"] if count else []


def _derived(
    utterances: Sequence[Utterance], base: str, stage: Path, out: Path, jobs: int | None, units: Units
) -> tuple[list[Utterance], list[Problem]]:
    """Make new files in ``stage`` where they are needed; return utterances and problems."""
    wanted = {derived_name(utterance, base): utterance for utterance in utterances if utterance.derived}
    if not wanted:
        return list(utterances), []
    items = [Derived(name, u.audio, *(u.stretch or (0, u.samples)), u.channel) for name, u in wanted.items()]
    lengths = derive(items, stage, out, jobs)
    made: list[Utterance] = []
    problems: list[Problem] = []
    for utterance in utterances:
        if not utterance.derived:
            made.append(utterance)
            continue
        record, name = utterance.record, derived_name(utterance, base)
        length = lengths[name]
        faults = [length] if isinstance(length, Fault) else list(feasibility_faults(record.text, length, units))
        problems += map(record.problem, faults)
        if isinstance(length, int) and not faults:
            made.append(Utterance(record, os.path.join(os.path.abspath(out), name), length))
    return made, problems


def _kept_as_mp3(utterances: Sequence[Utterance]) -> list[str]:
    """Make a note on the files that training will decode as MP3."""
    count = sum(utterance.audio.lower().endswith(".mp3") for utterance in utterances)
    if not count:
        return []
    return [f"{count} utterances stay MP3, which loads more slowly than FLAC; --resample converts them"]


def summary(prepared: Prepared, out: Path) -> str:
    """Write the table of splits, the notes, and where the manifests are."""
    splits, units = by_split(prepared.utterances), prepared.units
    header: tuple[str, ...] = ("split", "utterances", "hours", "speakers", "words", units.noun)
    rows: list[tuple[str, ...]] = []
    for split, members in splits.items():
        texts = [member.record.text for member in members]
        hours = sum(member.samples for member in members) / SAMPLE_RATE / 3600
        speakers = len({member.record.speaker for member in members} - {""}) or "-"
        words, counted = sum(len(text.split()) for text in texts), sum(map(units.count, texts))
        rows.append((split, f"{len(members)}", f"{hours:.3f}", f"{speakers}", f"{words}", f"{counted}"))
    if units is NO_UNITS:
        header, rows = header[:4], [row[:4] for row in rows]
    columns = ("left", *["right"] * (len(header) - 1))
    table = tabulate(rows, header, tablefmt="plain", disable_numparse=True, colalign=columns)
    notes = [f"note: {note}" for note in (*prepared.notes, *_without_speaker(splits), *_shared(splits))]
    return "\n".join([table, *notes, f"written to {out}"])


def _without_speaker(splits: dict[str, list[Utterance]]) -> Iterator[str]:
    """Make a note for each split without ``<split>.spk`` because some speakers are unknown."""
    for split, members in splits.items():
        lacking = sum(not member.record.speaker for member in members)
        if 0 < lacking < len(members):
            yield f"{lacking} of {len(members)} utterances of {split} have no speaker, so {split}.spk is not written"


def _shared(splits: dict[str, list[Utterance]]) -> Iterator[str]:
    """Make a note for each pair of splits that share audio files or speakers.

    Sharing is harmless for subsets of the training data, but not for test sets.
    """
    files = {split: {member.audio for member in members} for split, members in splits.items()}
    speakers = {split: {member.record.speaker for member in members} - {""} for split, members in splits.items()}
    for left, right in combinations(splits, 2):
        for kind, sets in (("audio file(s)", files), ("speaker(s)", speakers)):
            common = len(sets[left] & sets[right])
            if common:
                yield f"{left} and {right} share {common} {kind}"
