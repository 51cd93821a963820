"""Turn a corpus into a folder of manifests: check all, cut and convert audio, write all or nothing.

Segments, and files of another sampling rate, become new audio files, which are written once. For
each of them ``derived_audio.tsv`` notes its bytes, its first and last sample in the source, and the
source's path, bytes and time of change. The next run keeps a file if all of this still holds.
Otherwise it makes the file again, and replaces one with other content only with ``--force``.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from fairseq_skd.corpora.audio import SAMPLE_RATE, Cut, extract
from fairseq_skd.corpora.labels import Labels, choose_units, make_lexicon
from fairseq_skd.corpora.records import SPLIT_NAME, Corpus, Fault, Problem, Record, report
from fairseq_skd.corpora.validation import OVERSHOOT, Utterance, feasibility_faults, validate
from fairseq_skd.corpora.writing import by_split, speakers_known, write_labels, write_manifests
from fairseq_skd.errors import UserError
from fairseq_skd.files.disk import named
from fairseq_skd.files.staging import refuse_conflicts, staged
from fairseq_skd.files.units import NO_UNITS, Units
from fairseq_skd.files.workers import available_cpus, default_jobs, run_over

CONVERTED = "audio_16khz"
SEGMENTS = "audio_segments"
NOTES = "derived_audio.tsv"
_COLUMNS = ("file", "bytes", "samples", "source", "source_bytes", "source_changed_ns", "first", "stop")


class Derived(NamedTuple):
    """An audio file to make from samples ``first`` to ``stop`` (exclusive) of a source.

    ``name`` is relative to the output folder.
    """

    name: str
    source: str
    first: int
    stop: int


class Note(NamedTuple):
    """A row of ``derived_audio.tsv``: bytes and samples of a file, and the state of its source."""

    size: str
    samples: str
    origin: tuple[str, ...]


def derived_name(utterance: Utterance, base: str) -> str:
    """Name the file, relative to the output folder, for a segment or a file of another rate."""
    segment = utterance.record.segment
    if segment:
        return f"{SEGMENTS}/{utterance.record.split}/{segment.name}.flac"
    return f"{CONVERTED}/{os.path.relpath(utterance.audio, base)}.flac"  # appended: a.wav and a.ogg stay two files


def derive(wanted: Sequence[Derived], stage: Path, out: Path, jobs: int | None) -> dict[str, int | Fault]:
    """Make the files that ``out`` lacks, or that its notes no longer describe.

    Args:
        wanted: the files; each name occurs once.
        stage: staging folder for the new files and the new ``derived_audio.tsv``.
        out: output folder with the files and notes of earlier runs.
        jobs: number of processes; None: chosen here.

    Returns:
        for each name the number of samples at 16 kHz, or why the file could not be made.
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
        (source, [Cut(item.first, item.stop, str(stage / item.name)) for item in items])
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


def _extract(task: tuple[str, list[Cut]]) -> list[int | Fault]:
    return extract(*task)


def _state(source: str) -> tuple[str, str, str]:
    """Return path, bytes and time of change of a file."""
    status = os.stat(source)
    return source, str(status.st_size), str(status.st_mtime_ns)


def _holds(note: Note | None, origin: tuple[str, ...], file: Path) -> bool:
    """Tell whether a file still has the bytes of its note, and its source is unchanged."""
    if note is None or note.origin != origin or not note.samples.isdecimal():
        return False
    try:
        return str(os.path.getsize(file)) == note.size
    except OSError:
        return False


def _read_notes(path: Path) -> dict[str, Note]:
    """Read the notes by name. Malformed lines are skipped, so their files are made again."""
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
    """How to prepare a corpus; the fields are the command's options of the same names.

    Attributes:
        jobs: number of processes; None: chosen by the size of the corpus.
        resample: convert other sampling rates to 16 kHz FLAC files in the output folder.
        decode: decode each file completely.
        force: replace files of the output folder.
        normalize: steps of :mod:`fairseq_skd.corpora.normalization`.
        labels: the units and the lexicon.
    """

    jobs: int | None = None
    resample: bool = False
    decode: bool = False
    force: bool = False
    normalize: Sequence[str] = ()
    labels: Labels = Labels()


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
        UserError: anything is wrong. The message lists every problem, and ``out`` is unchanged.
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
        from fairseq_skd.corpora.normalization import normalize  # imported here: most runs do not need it

        records, changes = normalize(records, options.normalize)
    _protect_sources(records, out)
    options.labels.check()
    units = choose_units(options.labels, records)
    jobs = options.jobs or default_jobs(len(records))
    utterances, found = validate(records, base, jobs, options.resample, options.decode, units)
    rows = len(records) + len(corpus.problems)
    _refuse(corpus.title, [*corpus.problems, *found], rows)
    if units is None or not utterances:
        raise UserError(f"{corpus.title} holds no utterances; check its transcripts")
    _refuse_old_speakers(utterances, out)
    if units is NO_UNITS:
        _refuse_old_labels(utterances, out)
    changes += _clipped(utterances)
    with staged(out, options.force, free=[NOTES]) as stage:
        write_labels(utterances, stage, units, make_lexicon(options.labels, records, units))
        refuse_conflicts(stage, out, options.force, free=[NOTES])  # before the audio, which takes long
        utterances, problems = _derived(utterances, base, stage, out, options.jobs, units)
        _refuse(corpus.title, problems, rows)
        target = os.path.abspath(out)
        write_manifests(utterances, [base, *(os.path.join(target, name) for name in (CONVERTED, SEGMENTS))], stage)
    return Prepared(utterances, units, [*corpus.notes, *changes])


def _protect_sources(records: Sequence[Record], out: Path) -> None:
    """Refuse to overwrite the table from which a manifest is made, even with ``force``."""
    for split in {record.split for record in records}:
        manifest = out / f"{split}.tsv"
        if not SPLIT_NAME.fullmatch(split) or not manifest.exists():
            continue
        if any(manifest.samefile(source) for source in {record.source for record in records}):
            raise UserError(f"{manifest}: is the table itself and would be overwritten; choose another --out")


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
    """Make files in ``stage`` for segments and other rates; return utterances and problems."""
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
