"""From records to a folder of manifests: check all, convert what has to be converted, write all or nothing."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.audio import SAMPLE_RATE, convert
from fairseq_skd.corpora.problems import Fault, Problem, report
from fairseq_skd.corpora.staging import staged
from fairseq_skd.corpora.tables import Record
from fairseq_skd.corpora.validation import SPLIT_NAME, Utterance, feasibility_faults, validate
from fairseq_skd.corpora.workers import available_cpus, default_jobs, run_over
from fairseq_skd.corpora.writing import write_manifests
from fairseq_skd.errors import UserError

CONVERTED = "audio_16khz"


class Options(NamedTuple):
    """How a corpus is prepared; the fields are the command's options of the same names.

    ``jobs`` None chooses a number of processes; ``resample`` converts other sampling rates to FLAC files under the
    output folder; ``decode`` decodes each file completely; ``force`` replaces files of the output folder.
    """

    jobs: int | None = None
    resample: bool = False
    decode: bool = False
    force: bool = False


def prepare(
    records: Sequence[Record], root: Path, out: Path, options: Options, problems: Sequence[Problem] = ()
) -> list[Utterance]:
    """Check ``records`` and write their manifests into ``out``.

    Args:
        records: the utterances, from whatever source.
        root: the folder that their paths start from.
        out: the folder to write.
        options: see :class:`Options`.
        problems: what was found wrong while the records were read; reported with the rest.

    Returns:
        the utterances as written, at 16 kHz.

    Raises:
        UserError: if anything is wrong: its message lists every problem, and ``out`` is as it was.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; --audio-root is the folder that the table's paths start from")
    base = os.path.abspath(root)
    if base != base.strip() or {"\t", "\n", "\r"}.intersection(base):
        raise UserError(f"{base!r}: a manifest's first line cannot hold this folder's name; rename the folder")
    _spare_sources(records, out)
    jobs = options.jobs or default_jobs(len(records))
    utterances, found = validate(records, base, jobs, options.resample, options.decode)
    rows = len(records) + len(problems)
    _refuse([*problems, *found], rows)
    with staged(out, options.force) as stage:
        target = os.path.join(os.path.abspath(out), CONVERTED)
        utterances = _at_16khz(utterances, base, str(stage / CONVERTED), target, options.jobs, rows)
        write_manifests(utterances, [base, target], stage)
    return utterances


def _spare_sources(records: Sequence[Record], out: Path) -> None:
    """Refuse to write a manifest over the table that it is made from, even with ``force``."""
    sources = {Path(source).resolve() for source in {record.source for record in records}}
    for split in {record.split for record in records}:
        manifest = out / f"{split}.tsv"
        if SPLIT_NAME.fullmatch(split) and manifest.resolve() in sources:
            raise UserError(f"{manifest}: is the table itself and would be overwritten; choose another --out")


def _at_16khz(
    utterances: list[Utterance], base: str, stage: str, target: str, jobs: int | None, rows: int
) -> list[Utterance]:
    """The utterances with those of another rate converted into ``stage``, which is going to be moved to ``target``."""
    others = [utterance for utterance in utterances if utterance.rate != SAMPLE_RATE]
    if not others:
        return utterances
    names = {u.audio: os.path.relpath(u.audio, base) + ".flac" for u in others}  # a.wav and a.ogg stay two files
    pairs = [(source, os.path.join(stage, name)) for source, name in names.items()]
    jobs = jobs or min(available_cpus(), len(pairs))
    lengths = dict(zip(names, run_over(_convert, pairs, jobs, "resampling"), strict=True))
    converted: list[Utterance] = []
    problems: list[Problem] = []
    for utterance in utterances:
        length = lengths.get(utterance.audio)
        if isinstance(length, Fault):
            problems.append(utterance.record.problem(length))
        elif length is None:
            converted.append(utterance)
        else:
            problems += map(utterance.record.problem, feasibility_faults(utterance.record.text, length))
            place = os.path.join(target, names[utterance.audio])
            converted.append(Utterance(utterance.record, place, length))
    _refuse(problems, rows)
    return converted


def _convert(pair: tuple[str, str]) -> int | Fault:
    return convert(*pair)


def _refuse(problems: Sequence[Problem], rows: int) -> None:
    if problems:
        raise UserError(f"the table is refused\n{report(problems, rows)}")
