"""Read and check the manifest, labels and audio headers of a subset before training or decoding.

fairseq reads the same files again for the batches. Mistakes on which it would assert, or which it
would not notice, become one sentence here.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import soundfile
from fairseq.data import Dictionary

from fairseq_skd.errors import UserError
from fairseq_skd.files import dictionaries
from fairseq_skd.files.disk import read_lines
from fairseq_skd.files.progress import tracked
from fairseq_skd.files.staging import refuse_incomplete
from fairseq_skd.files.units import WORD_MARK

_DAMAGED = ("not readable as audio", "not as long as the manifest lists them")


class Subset(NamedTuple):
    """One subset in manifest order.

    Attributes:
        manifest: the ``.tsv`` file; utterance i is on line i + 2.
        root: folder of the audio.
        names: audio files, relative to ``root``.
        samples: number of samples of each file, according to the manifest.
    """

    manifest: Path
    root: str
    names: list[str]
    samples: list[int]

    def path(self, index: int) -> str:
        """Return the audio file of an utterance."""
        return os.path.join(self.root, self.names[index])

    def where(self, index: int) -> str:
        """Name the manifest line and the audio file of an utterance, for messages."""
        return f"{self.manifest} line {index + 2}: {self.path(index)}"


def read_manifest(folder: Path, subset: str, given: str | None = None) -> Subset:
    """Read ``<folder>/<subset>.tsv``: the audio root, then one path and number of samples per line.

    Args:
        folder: ``task.data``.
        subset: name of the manifest.
        given: the option that named the manifest, for messages; None means ``dataset.gen_subset``.

    Raises:
        UserError: the folder or manifest is missing, the manifest is empty or has a malformed line,
            or the folder is incomplete.
    """
    manifest = folder / f"{subset}.tsv"
    if not folder.is_dir():
        raise UserError(f"task.data={folder} is not a folder: give the folder of the manifests")
    refuse_incomplete(folder)
    if not manifest.is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.tsv"))) or "no manifest"
        raise UserError(f"{given or f'dataset.gen_subset={subset}'}: {manifest} does not exist; the folder has {there}")
    root, *lines = read_lines(manifest) or [""]
    if not lines:
        raise UserError(f"{manifest} lists no utterances: write lines 'path<TAB>samples' after the audio root")
    names, samples = [], []
    for number, line in enumerate(lines, start=2):
        fields = line.strip().split("\t")
        if len(fields) != 2 or not fields[1].isdecimal():
            raise UserError(f"{manifest} line {number} is {line!r}: write 'path<TAB>samples'")
        names.append(fields[0])
        samples.append(int(fields[1]))
    return Subset(manifest, root.strip(), names, samples)


def read_matching_dictionary(path: Path, trained: Dictionary | None, size: int) -> Dictionary:
    """Read ``dict.<labels>.txt`` and check that it matches the checkpoint.

    Args:
        path: the file.
        trained: the checkpoint's dictionary; None if the checkpoint has none.
        size: number of outputs of the checkpoint's CTC head.

    Raises:
        UserError: the file cannot be read (:func:`fairseq_skd.files.dictionaries.read_dictionary`),
            has another size, or has another symbol at some index.
    """
    dictionary = dictionaries.read_dictionary(path)
    if len(dictionary) != size:
        raise UserError(
            f"dictionary {path} has {len(dictionary)} symbols, with fairseq's {dictionary.nspecial} special ones, "
            f"but the checkpoint's CTC head has {size}: use the dictionary of the training data"
        )
    expected = trained.symbols if trained is not None else dictionary.symbols
    if difference := dictionaries.first_difference(dictionary.symbols, expected):
        raise UserError(
            f"dictionary {path} line {difference.index - dictionary.nspecial + 1} has {difference.first!r} where the "
            f"checkpoint was trained with {difference.second!r}: use the dictionary of the training data"
        )
    return dictionary


def read_labels(
    path: Path, subset: Subset, indices: Sequence[int] | None = None, carriage_returns: bool = False
) -> list[str]:
    """Read the transcript of each utterance, in manifest order, as units separated by spaces.

    Args:
        path: one line per utterance of ``subset``.
        subset: the utterances.
        indices: utterances whose lines are checked for Windows line ends; None: all.
        carriage_returns: allow Windows line ends.

    Raises:
        UserError: the file is missing, does not have one line per utterance, or has Windows line
            ends.
    """
    if not path.is_file():
        raise UserError(f"label file {path} does not exist: write one line per utterance of {subset.manifest}")
    refuse_incomplete(path.parent)
    lines = read_lines(path)
    if len(lines) != len(subset.names):
        raise UserError(
            f"{path} has {len(lines)} lines, {subset.manifest} lists {len(subset.names)} utterances: write one line "
            f"per utterance"
        )
    if not carriage_returns:
        for index in range(len(lines)) if indices is None else indices:
            # fairseq's HuBERT data set would miscount bytes and mix up the labels of utterances.
            if "\r" in lines[index]:
                raise UserError(f"{path} line {index + 1} holds a carriage return: store the file with Unix line ends")
    return lines


def units_of(dictionary: Dictionary) -> set[str]:
    """Return the symbols of a dictionary without fairseq's own: ``<s>`` (the blank), ``<pad>``."""
    return {symbol for symbol, index in dictionary.indices.items() if index >= dictionary.nspecial}


def better_post_process(process: str | None, lines: Iterable[str]) -> str | None:
    """Find the ``post_process`` for transcripts that ``letter`` would make one word each.

    Args:
        process: how units become words, one of fairseq's ``post_process`` names.
        lines: transcripts, as units separated by spaces.

    Returns:
        the name to use instead of ``process``; None if ``process`` fits.
    """
    if process != "letter":
        return None
    several = pieces = False
    for line in lines:
        if "|" in line:
            return None
        several = several or len(line.split()) > 1
        pieces = pieces or WORD_MARK in line
    return ("sentencepiece" if pieces else "none") if several else None


def check_audio(
    subset: Subset,
    sample_rate: int,
    shortest: int = 1,
    indices: Sequence[int] | None = None,
    leave_out: bool = False,
) -> None:
    """Check the headers of audio files.

    Args:
        subset: the files.
        sample_rate: sampling rate of the training data, in Hz.
        shortest: samples that the feature extractor needs for one frame.
        indices: utterances to check; None: all.
        leave_out: warn about damaged files on stderr instead of raising, unless all files are
            damaged. The caller leaves them out when it reads them.

    Raises:
        UserError: some files are missing, unreadable, too short, have another sampling rate, or
            are not as long as the manifest says. The message counts them and names the first.
    """
    found: dict[str, list[tuple[int, str]]] = {}  # kind of fault -> (index, detail) of each utterance
    chosen = range(len(subset.names)) if indices is None else indices
    for index in tracked(chosen, "checking audio", "file"):
        path = subset.path(index)
        if ".zip:" in path:  # fairseq's <zip>:<offset>:<length>; the audio inside is checked when it is read
            path = path[: path.index(".zip:") + len(".zip")]
        if not os.path.isfile(path):
            found.setdefault("missing", []).append((index, ": correct the path, or the audio root in line 1"))
        elif not path.endswith(".zip") and (fault := _header_fault(path, sample_rate, shortest, subset.samples[index])):
            found.setdefault(fault[0], []).append((index, fault[1]))
    for kind, places in found.items():
        warned = leave_out and kind in _DAMAGED and len(places) < len(chosen)
        looked_at = "" if len(chosen) == len(subset.names) else f" looked at (of {len(subset.names)})"
        share = f"{len(places)} of {len(chosen)} audio files{looked_at} are {kind}"
        first, detail = places[0]
        if not warned:
            raise UserError(f"{share}, the first is {subset.where(first)}{detail}")
        print(f"{share} and will be left out, the first is {subset.where(first)}{detail}", file=sys.stderr)


def _header_fault(path: str, sample_rate: int, shortest: int, listed: int) -> tuple[str, str] | None:
    """Return the kind of fault and its details; None if the header is valid."""
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError):
        return _DAMAGED[0], ": replace it"
    if info.samplerate != sample_rate:
        kind = f"sampled at {info.samplerate} Hz instead of the {sample_rate} Hz of the model's training"
        return kind, ": resample it"
    if info.frames < shortest:
        return f"shorter than {shortest} samples, one frame of the model", ": leave the utterance out"
    if info.frames != listed and info.format != "MP3":  # an MP3 header may hold an estimate
        detail = f", which has {info.frames} samples, not {listed}: replace it, or make the manifest again"
        return _DAMAGED[1], detail
    return None
