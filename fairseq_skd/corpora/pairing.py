"""Pair hypotheses with references, by name or by line, and find the speakers of the pairs."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from fairseq_skd.corpora.records import Record
from fairseq_skd.corpora.transcripts import Transcripts
from fairseq_skd.errors import UserError, shown
from fairseq_skd.files.disk import numbered_lines

UNMATCHED = ("refuse", "delete", "skip")
_FAIRSEQ = re.compile(r"None-(\d+)")  # names of fairseq's decoder: the utterance's place in the manifest


class Pairs(NamedTuple):
    """Utterances in the order of the references.

    Attributes:
        by: ``name`` or ``line``.
        names: names of the utterances, or ``line 7``.
        hypotheses: hypothesis of each reference; None: there is none, all words are deleted.
        references: the references that are scored.
        missing: number of references without hypothesis.
        surplus: number of hypotheses without reference, which are left out.
    """

    by: str
    names: list[str]
    hypotheses: list[Record | None]
    references: list[Record]
    missing: int = 0
    surplus: int = 0


def pair(hypotheses: Transcripts, references: Transcripts, by_line: bool = False, unmatched: str = "refuse") -> Pairs:
    """Pair by name if both files have names, else by line if neither has.

    The name of an audio file is its stem. Where two stems are equal, as many folders as necessary
    belong to the name.

    Args:
        hypotheses: the hypotheses.
        references: the references.
        by_line: ignore the names.
        unmatched: ``refuse`` a reference without hypothesis, ``delete`` all its words, or ``skip``
            it. A hypothesis without reference is refused, or else left out.

    Raises:
        UserError: the files cannot be paired, or a name occurs twice in a file.
    """
    found, wanted = hypotheses.records, references.records
    if by_line or not (hypotheses.named or references.named):
        if len(found) != len(wanted):
            raise UserError(
                f"{hypotheses.path} has {len(found)} utterances, {references.path} has {len(wanted)}: to be paired by "
                "line, both need the same utterances in the same order"
            )
        names = [record.path or f"line {record.line}" for record in wanted]
        return Pairs("line", names, list(found), wanted)
    if hypotheses.named != references.named:
        without, has = (references, hypotheses) if hypotheses.named else (hypotheses, references)
        raise UserError(
            f"{without.path} ({without.format}) does not name its utterances, {has.path} ({has.format}) does, as in "
            f"{shown(has.records[0].path)!r}; add --by-line if both have the same order, or correct the format"
        )
    return _by_name(hypotheses, references, unmatched)


def _by_name(hypotheses: Transcripts, references: Transcripts, unmatched: str) -> Pairs:
    depth = _depth(hypotheses, references)
    found, wanted = _named(hypotheses, depth), _named(references, depth)
    missing = [name for name in wanted if name not in found]
    surplus = [name for name in found if name not in wanted]
    if len(missing) == len(wanted):
        raise UserError(
            f"{hypotheses.path} and {references.path} share no utterance: names are as {shown(surplus[0])!r} in "
            f"the one and as {shown(missing[0])!r} in the other; add --by-line if both have the same order"
        )
    if unmatched == "refuse" and (missing or surplus):
        lacks = [
            f"{path} lacks {len(names)} of the {total} utterances of {other} ({_examples(names)})"
            for names, total, path, other in (
                (missing, len(wanted), hypotheses.path, references.path),
                (surplus, len(found), references.path, hypotheses.path),
            )
            if names
        ]
        raise UserError(
            f"{', and '.join(lacks)}; complete the files, or add --unmatched delete, which counts missing hypotheses "
            "as deleted words, or --unmatched skip"
        )
    kept = [name for name in wanted if name in found or unmatched == "delete"]
    return Pairs(
        "name", kept, [found.get(name) for name in kept], [wanted[name] for name in kept], len(missing), len(surplus)
    )


def _depth(*files: Transcripts) -> int:
    """Count the last parts of a path that tell the utterances of each file apart."""
    if not all(file.named_by_file for file in files):
        return 1
    paths = [{record.path for record in file.records} for file in files]
    longest = max(len(PurePath(path).parts) for one in paths for path in one)
    return next(
        (
            depth
            for depth in range(1, longest + 1)
            if all(len({_tail(p, depth) for p in one}) == len(one) for one in paths)
        ),
        1,
    )


def _tail(path: str, depth: int) -> str:
    parts = PurePath(path).parts[-depth:]
    return "/".join((*parts[:-1], PurePath(parts[-1]).stem)) if parts else path


def _named(file: Transcripts, depth: int) -> dict[str, Record]:
    named: dict[str, Record] = {}
    for record in file.records:
        name = _tail(record.path, depth) if file.named_by_file else record.path
        if name in named:
            raise UserError(
                f"{file.path}: line {record.line} names utterance {shown(name)!r}, as line {named[name].line} does; "
                "keep one of the two lines"
            )
        named[name] = record
    return named


def _examples(names: Sequence[str]) -> str:
    return ", ".join(shown(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def find_speakers(pairs: Pairs, file: Path | None = None, pattern: re.Pattern[str] | None = None) -> list[str] | None:
    """Find the speaker of each pair.

    Args:
        pairs: the utterances.
        file: ``utterance speaker`` lines, or with suffix ``.spk`` a speaker per line of the
            manifest that was decoded.
        pattern: what it matches at the beginning of a name is the speaker; with a group, the group.

    Returns:
        one speaker per pair; without file and pattern, the column ``speaker`` of the references;
        None: unknown.

    Raises:
        UserError: the file cannot be read, or an utterance has no speaker.
    """
    if pattern is not None:
        matches = [pattern.match(name) for name in pairs.names]
        speakers = [(found.group(min(1, pattern.groups)) or "") if found else "" for found in matches]
        if "" in speakers:
            name = shown(pairs.names[speakers.index("")])
            raise UserError(f"--speaker-pattern {pattern.pattern} finds no speaker in the name {name!r}; correct it")
        return speakers
    if file is not None:
        return _of_places(pairs, file) if file.suffix.lower() == ".spk" else _of_names(pairs, file)
    stated = [record.speaker for record in pairs.references]
    return stated if all(stated) else None


def _of_names(pairs: Pairs, file: Path) -> list[str]:
    speakers: dict[str, str] = {}
    for number, line in numbered_lines(file):
        fields = line.split()
        if len(fields) != 2:
            raise UserError(f"{file}: line {number} is {shown(line)!r}; write 'utterance speaker'")
        if speakers.setdefault(fields[0], fields[1]) != fields[1]:
            raise UserError(f"{file}: line {number} gives {shown(fields[0])} another speaker than before; keep one")
    unknown = [name for name in pairs.names if name not in speakers]
    if unknown:
        raise UserError(
            f"{file}: has no speaker for {len(unknown)} of {len(pairs.names)} utterances "
            f"({_examples(unknown)}); add them"
        )
    return [speakers[name] for name in pairs.names]


def _of_places(pairs: Pairs, file: Path) -> list[str]:
    speakers: Mapping[int, str] = dict(numbered_lines(file))
    matches = [_FAIRSEQ.fullmatch(name) for name in pairs.names]
    if all(matches):
        lines = [int(found[1]) + 1 for found in matches if found]
    elif pairs.by == "line" and len(speakers) == len(pairs.names):
        lines = list(range(1, len(pairs.names) + 1))
    else:
        raise UserError(
            f"{file}: has {len(speakers)} speakers for {len(pairs.names)} utterances, whose names are not places "
            "in a manifest, as '(None-7)' is; give lines 'utterance speaker' in a file of another suffix"
        )
    unknown = [line for line in lines if line not in speakers]
    if unknown:
        raise UserError(f"{file}: has no speaker in line {unknown[0]}; give the file of the manifest that was decoded")
    return [speakers[line] for line in lines]
