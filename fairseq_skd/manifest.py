"""``python -m fairseq_skd.manifest``: from a table of recordings and transcripts to fairseq's manifests."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from fairseq_skd.corpora.preparation import Options, prepare
from fairseq_skd.corpora.summary import summary
from fairseq_skd.corpora.tables import read_table
from fairseq_skd.errors import UserError, run_command

DESCRIPTION = """\
Checks a table of recordings and transcripts and writes the manifests that fairseq trains on.

TABLE (.tsv, .csv or .jsonl; UTF-8) has the columns path and text, optionally split and speaker; others are ignored.
TSV and CSV name their columns in the first line. Text is upper-case A-Z, apostrophe and single spaces: nothing is
normalised silently. Audio is WAV, FLAC, Ogg Opus or Ogg Vorbis, 16 kHz, one channel.

    path                split   text
    audio/001.flac      train   GO ON
    audio/002.flac      test    DON'T
"""

EPILOG = """\
written into OUT, for each split:
  <split>.tsv   the audio root, then for each utterance its path and number of samples, tab between
  <split>.ltr   its letters: G O | O N |
  <split>.wrd   its words: GO ON
and dict.ltr.txt, the letter dictionary. With --resample also audio_16khz/, the converted files.

Every row that cannot be used is listed, by file and line, and then nothing is written.

example:
  python -m fairseq_skd.manifest corpus/table.tsv --audio-root corpus --out manifests/corpus

exit status: 0 written; 2 refused, OUT is as it was; 130 interrupted, likewise.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    lines = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(
        "python -m fairseq_skd.manifest", description=DESCRIPTION, epilog=EPILOG, formatter_class=lines
    )
    made.add_argument("table", metavar="TABLE", type=Path, help="the table; its suffix tells its format")
    made.add_argument("--audio-root", metavar="DIR", type=Path, required=True, help="folder that paths start from")
    made.add_argument("--out", metavar="OUT", type=Path, required=True, help="folder to write; created if missing")
    made.add_argument("--split", metavar="NAME", help="split of all rows if TABLE has no column split (default: train)")
    made.add_argument("--resample", action="store_true", help="convert other sampling rates to 16 kHz FLAC under OUT")
    made.add_argument(
        "--decode", action="store_true", help="decode all audio from end to end: slower, finds damage inside"
    )
    made.add_argument("--jobs", metavar="N", type=_positive, help="processes (default: 1, for large tables one a CPU)")
    made.add_argument("--force", action="store_true", help="replace files of OUT that have another content")
    return made


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 up is needed, not {text!r}")
    return int(text)


def main(arguments: list[str] | None = None) -> None:
    """Run the command on ``arguments`` (default: those of the process)."""
    given = parser().parse_args(arguments)
    options = Options(given.jobs, given.resample, given.decode, given.force)
    records, problems = read_table(given.table, given.split)
    try:
        utterances = prepare(records, given.audio_root, given.out, options, problems)
    except OSError as error:
        raise UserError(
            f"{error.filename or given.out}: {error.strerror or error}; {given.out} is as it was"
        ) from error
    print(summary(utterances, given.out))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt  # so that a kill, too, leaves nothing half-written


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run_command("fairseq_skd.manifest", main))
