"""Reading text files of a corpus, and the speakers of a manifest, line by line."""

from collections.abc import Iterator
from pathlib import Path

from fairseq_skd.errors import UserError


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their numbers from 1, line ends left out; empty lines are passed over.

    Raises:
        UserError: if the file cannot be read, or a line is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {number} is not UTF-8; convert the file to UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if stripped := line.strip():
            yield number, stripped


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file, the last one with or without a newline.

    Raises:
        UserError: not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start + 1})") from error
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_speakers(manifest: Path) -> list[str] | None:
    """Speaker of each utterance of ``<split>.tsv``, from ``<split>.spk`` beside it; None without such a file.

    Raises:
        UserError: the file has not one speaker per utterance.
    """
    path = manifest.with_suffix(".spk")
    if not path.is_file():
        return None
    speakers, utterances = read_lines(path), len(read_lines(manifest)) - 1
    mend = "make the manifest again, or delete the file if nobody knows the speakers"
    if len(speakers) != utterances:
        raise UserError(f"{path} has {len(speakers)} lines, {manifest} lists {utterances} utterances: {mend}")
    for number, speaker in enumerate(speakers, start=1):
        if not speaker.strip():
            raise UserError(f"{path} line {number} names no speaker: {mend}")
    return speakers
