"""Reading TED-LIUM, releases 2 and 3: STM files beside the talks as SPHERE files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fairseq_skd.corpora.problems import Problem
from fairseq_skd.corpora.records import Corpus, Record, Segment
from fairseq_skd.corpora.splits import choose
from fairseq_skd.corpora.stm import IGNORED, UNKNOWN, Mark, plain_words, read_stm
from fairseq_skd.errors import UserError

SPLITS = ("train", "dev", "test")
_ALL = "data"  # of release 3: every talk for training, also those that its legacy splits hold


def read_tedlium(root: Path, splits: Sequence[str] | None = None, drop_unknown: bool = False) -> Corpus:
    """Read the segments of a release.

    Args:
        root: ``TEDLIUM_release2`` (train, dev, test), ``TEDLIUM_release-3`` (legacy with these three, and data), or the
            folder above it; in each split's folder there are ``stm`` and ``sph``.
        splits: see :func:`fairseq_skd.corpora.splits.choose`; None takes train, dev and test.
        drop_unknown: leave ``<unk>`` out of the text instead of leaving the segment out.

    Raises:
        UserError: if there is no split, or none of that name.
    """
    root, folders = _find(root)
    default = [split for split in SPLITS if split in folders] or list(folders)
    records: list[Record] = []
    problems: list[Problem] = []
    changes: Counter[str] = Counter()
    for split, sources in choose(folders, splits, default).items():
        for folder in sources:
            for stm in sorted((root / folder / "stm").glob("*.stm")):
                marks, faults = read_stm(stm)
                problems += faults
                for mark in marks:
                    record = _record(mark, split, root, folder, stm, drop_unknown, changes)
                    records += [record] if record else []
    notes = [f"{count} {change}" for change, count in sorted(changes.items()) if count]
    return Corpus("TED-LIUM", records, problems, root, notes)


def _find(root: Path) -> tuple[Path, dict[str, str]]:
    """The release's folder and its splits' folders under it."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of the release")
    for place in (root, root / "TEDLIUM_release2", root / "TEDLIUM_release-3"):
        candidates = {
            split: next((name for name in (split, f"legacy/{split}") if (place / name / "stm").is_dir()), "")
            for split in (*SPLITS, _ALL)
        }
        found = {split: folder for split, folder in candidates.items() if folder}
        if found:
            return place, found
    raise UserError(
        f"{root}: holds no split of TED-LIUM, train/stm or legacy/train/stm; give the folder of the release"
    )


def _record(
    mark: Mark, split: str, root: Path, folder: str, stm: Path, drop_unknown: bool, changes: Counter[str]
) -> Record | None:
    """The utterance of a segment, or None if its text is not known."""
    if mark.text.strip().lower() == IGNORED:
        changes[f"segments marked {IGNORED} left out"] += 1
        return None
    text = plain_words(mark.text, changes)
    if UNKNOWN in text.split():
        if not drop_unknown:
            changes[f"segments left out for {UNKNOWN}, a word that nobody wrote down"] += 1
            return None
        changes[f"texts of which {UNKNOWN} was left out"] += 1
        text = " ".join(word for word in text.split() if word != UNKNOWN)
    if not text:
        changes["segments without a word left out"] += 1
        return None
    audio = f"{folder}/sph/{mark.recording}.sph"
    if not (root / audio).is_file() and (root / _ALL / "sph").is_dir():
        audio = f"{_ALL}/sph/{mark.recording}.sph"
    name = f"{mark.recording}-{round(100 * mark.start):07d}-{round(100 * mark.end):07d}"
    return Record(audio, text, split, mark.speaker, str(stm), mark.line, Segment(name, mark.start, mark.end))
