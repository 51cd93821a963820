"""From a corpus to a folder of manifests: check all, cut and convert what has to be, write all or nothing, sum up.

Audio files that are made from others, segments and files of another rate, are written once. Beside them
``derived_audio.tsv`` notes from which samples of which state of the source (path, bytes, time of change) a file was
made, and how many bytes it has. In the next run a file of which all that still holds is left alone; the others are made
anew, and replace one with another content only with ``--force``.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from fairseq_skd.corpora.audio import SAMPLE_RATE, Piece, extract
from fairseq_skd.corpora.labels import Labels, choose_units, make_lexicon
from fairseq_skd.corpora.records import SPLIT_NAME, Corpus, Fault, Problem, Record, report
from fairseq_skd.corpora.validation import OVERSHOOT, Utterance, feasibility_faults, validate
from fairseq_skd.corpora.writing import by_split, speakers_known, write_labels, write_manifests
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import named
from fairseq_skd.files.staging import refuse_conflicts, staged
from fairseq_skd.files.units import Units
from fairseq_skd.files.workers import available_cpus, default_jobs, run_over

CONVERTED = "audio_16khz"
SEGMENTS = "audio_segments"
NOTES = "derived_audio.tsv"
_COLUMNS = ("file", "bytes", "samples", "source", "source_bytes", "source_changed_ns", "first", "stop")


class Derived(NamedTuple):
    """A file to be made, its name relative to the output folder, and what it is made from."""

    name: str
    source: str
    first: int
    stop: int


class Note(NamedTuple):
    """What is known of a file that was made: its bytes and samples, and the state of its source."""

    size: str
    samples: str
    origin: tuple[str, ...]


def derived_name(utterance: Utterance, base: str) -> str:
    """The name, relative to the output folder, of the file that a segment or a file of another rate becomes."""
    segment = utterance.record.segment
    if segment:
        return f"{SEGMENTS}/{utterance.record.split}/{segment.name}.flac"
    return f"{CONVERTED}/{os.path.relpath(utterance.audio, base)}.flac"  # a.wav and a.ogg stay two files


def derive(wanted: Sequence[Derived], stage: Path, out: Path, jobs: int | None) -> dict[str, int | Fault]:
    """Make the files that are not in ``out`` yet, or no longer as they should be, in ``stage``.

    Args:
        wanted: no name twice.
        stage: whose files are going to be moved to ``out``; a new ``derived_audio.tsv`` is among them.
        out: with the files and the notes of earlier runs.
        jobs: processes; None chooses.

    Returns:
        for each name the samples at 16 kHz, or why it could not be made.
    """
    notes = _read_notes(out / NOTES)
    states = {source: _state(source) for source in {item.source for item in wanted}}
    origins = {item.name: (*states[item.source], str(item.first), str(item.stop)) for item in wanted}
    kept = {name for name, origin in origins.items() if _holds(notes.get(name), origin, out / name)}
    found: dict[str, int | Fault] = {name: int(notes[name].samples) for name in kept}
    by_source: dict[str, list[Derived]] = {}
    for item in wanted:
        if item.name not in kept:
            by_source.setdefault(item.source, []).append(item)
    tasks = [
        (source, [Piece(item.first, item.stop, str(stage / item.name)) for item in items])
        for source, items in by_source.items()
    ]
    jobs = jobs or min(available_cpus(), len(tasks))
    for items, lengths in zip(by_source.values(), run_over(_extract, tasks, jobs, "writing audio"), strict=True):
        found.update(zip((item.name for item in items), lengths, strict=True))
    for name, samples in found.items():
        if name not in kept and isinstance(samples, int):
            notes[name] = Note(str(os.path.getsize(stage / name)), str(samples), origins[name])
    _write_notes(stage / NOTES, notes)
    return found


def _extract(task: tuple[str, list[Piece]]) -> list[int | Fault]:
    return extract(*task)


def _state(source: str) -> tuple[str, str, str]:
    """Path, bytes and time of change of a file."""
    status = os.stat(source)
    return source, str(status.st_size), str(status.st_mtime_ns)


def _holds(note: Note | None, origin: tuple[str, ...], file: Path) -> bool:
    """Whether a file is there as its note says, made from what it would be made from now."""
    if note is None or note.origin != origin or not note.samples.isdecimal():
        return False
    try:
        return str(os.path.getsize(file)) == note.size
    except OSError:
        return False


def _read_notes(path: Path) -> dict[str, Note]:
    """The notes by name; lines of another form, as of another version, count as absent: their files are made anew."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    rows = [line.split("\t") for line in lines[1:]]
    return {row[0]: Note(row[1], row[2], tuple(row[3:])) for row in rows if len(row) == len(_COLUMNS)}


def _write_notes(path: Path, notes: dict[str, Note]) -> None:
    rows = [_COLUMNS, *((name, note.size, note.samples, *note.origin) for name, note in sorted(notes.items()))]
    with named(path):
        path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8", newline="\n")


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


def summary(prepared: Prepared, out: Path) -> str:
    """A row for each split, a note for each thing done on the way or shared by two splits, and ``out``."""
    splits, units = by_split(prepared.utterances), prepared.units
    header = ("split", "utterances", "hours", "speakers", "words", units.noun)
    rows = []
    for split, members in splits.items():
        texts = [member.record.text for member in members]
        hours = sum(member.samples for member in members) / SAMPLE_RATE / 3600
        speakers = len({member.record.speaker for member in members} - {""}) or "-"
        words, counted = sum(len(text.split()) for text in texts), sum(map(units.count, texts))
        rows.append((split, f"{len(members)}", f"{hours:.3f}", f"{speakers}", f"{words}", f"{counted}"))
    columns = ("left", *["right"] * (len(header) - 1))
    table = tabulate(rows, header, tablefmt="plain", disable_numparse=True, colalign=columns)
    notes = [f"note: {note}" for note in (*prepared.notes, *_without_speaker(splits), *_shared(splits))]
    return "\n".join([table, *notes, f"written to {out}"])


def _without_speaker(splits: dict[str, list[Utterance]]) -> Iterator[str]:
    """A note for each split of which some speakers are known, which is too few for ``<split>.spk``."""
    for split, members in splits.items():
        lacking = sum(not member.record.speaker for member in members)
        if 0 < lacking < len(members):
            yield f"{lacking} of {len(members)} utterances of {split} have no speaker, so {split}.spk is not written"


def _shared(splits: dict[str, list[Utterance]]) -> Iterator[str]:
    """A note for each pair of splits that share audio files or speakers: harmless for subsets, not for test sets."""
    files = {split: {member.audio for member in members} for split, members in splits.items()}
    speakers = {split: {member.record.speaker for member in members} - {""} for split, members in splits.items()}
    for left, right in combinations(splits, 2):
        for kind, sets in (("audio file(s)", files), ("speaker(s)", speakers)):
            common = len(sets[left] & sets[right])
            if common:
                yield f"{left} and {right} share {common} {kind}"
