"""``python -m fairseq_skd.manifest``: turn recordings and transcripts into fairseq's manifests."""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from fairseq_skd.corpora.labels import Labels
from fairseq_skd.corpora.normalization import chosen_steps
from fairseq_skd.corpora.preparation import Options, prepare, summary
from fairseq_skd.corpora.records import Corpus
from fairseq_skd.corpora.sources import SOURCES, refuse_transcript_options
from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files.units import NO_UNITS

PROGRAM = "python -m fairseq_skd.manifest"

LIST = "\n".join(f"  {name + ' ' + source.operand:<18}  {source.line}" for name, source in SOURCES.items())

DESCRIPTION = f"""\
Check recordings and transcripts, and write the manifests that fairseq trains on.

{LIST}

SOURCE --help lists the options. English transcripts must be upper-case A-Z, apostrophe and single spaces; --normalize
makes them so. --language CODE takes the letters of any other language from the training transcripts. Audio must be WAV,
FLAC, SPHERE, MP3, Ogg Opus or Ogg Vorbis, 16 kHz (or --resample), one channel (or --channel). M4A, AAC, WMA and video
are not read: convert them, ffmpeg -i FILE NEW.flac.
"""

WRITTEN = """\
written into OUT, for each split:
  <split>.tsv   the audio root, then one line per utterance: path, tab, number of samples
  <split>.ltr   letters: G O | O N |      or  <split>.spm  word pieces: ▁GO ▁O N
                                          or  <split>.phn  symbols, as they are: G OW1 AA1 N
  <split>.wrd   words: GO ON
  <split>.spk   speakers, if all are known
and the dictionary: dict.ltr.txt, dict.phn.txt, or dict.spm.txt with spm.model. If audio is cut or converted, also
audio_segments/, audio_16khz/ and derived_audio.tsv, from which a later run knows which audio it can keep.

--normalize takes, in any order:
  upper, lower  upper or lower case, by the rules of the language
  punctuation   apostrophes of all kinds become '; hyphens, dashes and slashes become spaces; other punctuation is
                removed
  digits        cardinal numbers become words of the language; years, times, ordinals and decimals are refused
Unicode's form NFC is always applied, last.
"""

WRITTEN_WITHOUT_TRANSCRIPTS = """\
written into OUT:
  <split>.tsv   the audio root, then one line per file: path, tab, number of samples
If audio is converted, also audio_16khz/ and derived_audio.tsv, from which a later run knows which audio it can keep.
"""

STATUS = """\
If anything cannot be used, the problems are listed by file and line, at most 100 of each kind, and nothing is written.
With --skip-bad these rows are left out, counted in the summary and all listed in skipped.txt.

exit status: 0 written; 2 refused, OUT is unchanged; 130 interrupted, OUT is unchanged.
"""


class _Parser(argparse.ArgumentParser):
    """Answer the call of earlier versions, without a source, in one sentence."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice" in message and "argument SOURCE" in message:
            message = f"name the kind of source first: {', '.join(SOURCES)}"
        super().error(message)


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    example = "table /data/corpus/table.tsv --audio-root /data/corpus --out /data/manifests"
    lines = argparse.RawDescriptionHelpFormatter
    made = _Parser(PROGRAM, description=DESCRIPTION, epilog=_epilog(example), formatter_class=lines)
    sources = made.add_subparsers(metavar="SOURCE", required=True)
    for name, source in SOURCES.items():
        epilog = _epilog(f"{name} {source.example}", source.transcribed)
        command = sources.add_parser(name, description=source.text, epilog=epilog, formatter_class=lines)
        command.set_defaults(read=source.read, transcribed=source.transcribed)
        source.options(command)
        _add_shared(command, source.transcribed)
        if not source.transcribed:
            command.set_defaults(unit=NO_UNITS.name)
    return made


def _epilog(example: str, transcribed: bool = True) -> str:
    written = WRITTEN if transcribed else WRITTEN_WITHOUT_TRANSCRIPTS
    return f"{written}\n{STATUS}\nexample:\n  {PROGRAM} {example}\n"


def _add_shared(command: argparse.ArgumentParser, transcribed: bool) -> None:
    """Add the options that all sources share; those about transcripts are hidden without any."""
    command.add_argument("--out", metavar="OUT", type=Path, required=True, help="folder to write; created if missing")
    _add_about_transcripts(command, transcribed)
    command.add_argument(
        "--resample", action="store_true", help="convert other sampling rates, and MP3, to 16 kHz FLAC under OUT"
    )
    command.add_argument(
        "--channel",
        metavar="mean|0|1",
        type=_channel,
        help="of files with several channels, write the mean or one channel, from 0, to FLAC under OUT",
    )
    command.add_argument(
        "--hold-out",
        metavar="FRACTION",
        type=_fraction,
        help="make a split valid of this fraction of the training speakers, e.g. 0.05; they stay when data grow",
    )
    command.add_argument(
        "--skip-bad", action="store_true", help="leave out rows that cannot be used, and list them in OUT/skipped.txt"
    )
    command.add_argument(
        "--decode", action="store_true", help="decode all audio completely: slower, but finds damage inside"
    )
    command.add_argument(
        "--jobs", metavar="N", type=_positive, help="processes (default: chosen by the size of the corpus)"
    )
    command.add_argument("--force", action="store_true", help="replace files of OUT that have other content")


def _add_about_transcripts(command: argparse.ArgumentParser, shown: bool) -> None:
    def add(name: str, help: str, **more: Any) -> None:
        command.add_argument(name, help=help if shown else argparse.SUPPRESS, **more)

    add(
        "--normalize",
        metavar="STEPS",
        type=chosen_steps,
        default=(),
        help="changes to transcripts, e.g. upper,punctuation,digits (default: none); the summary counts them",
    )
    add(
        "--language",
        metavar="CODE",
        default="",
        help="language of the transcripts, e.g. de, hi, pt-BR (default: the one that the source names, or en)",
    )
    add(
        "--unit",
        choices=("ltr", "spm", "phn"),
        default="ltr",
        help="letters, word pieces, or symbols with spaces between, such as phones (default: ltr)",
    )
    add(
        "--dict",
        dest="dictionary",
        metavar="FILE",
        type=Path,
        help="fairseq dictionary with the letters or symbols; written as it is (default: A-Z, or from training)",
    )
    add("--vocab-size", metavar="N", type=_positive, help="number of word pieces to train, i.e. lines of dict.spm.txt")
    add("--spm-model", metavar="FILE", type=Path, help="SentencePiece model to use; nothing is trained")
    add(
        "--train-split",
        metavar="NAME",
        nargs="+",
        default=(),
        help="splits for alphabet, word pieces and lexicon (default: train, or else all whose names begin with train)",
    )
    add(
        "--lexicon",
        metavar="WORDS",
        type=Path,
        nargs="?",
        const=False,
        help="write lexicon.txt for beam search, with the words of the train transcripts or of WORDS (one per line)",
    )


def labels(given: argparse.Namespace) -> Labels:
    """Collect the options about labels."""
    return Labels(
        given.unit,
        given.vocab_size,
        given.spm_model,
        given.train_split,
        lexicon=given.lexicon is not None,
        words=given.lexicon or None,
        language=given.language,
        dictionary=given.dictionary,
    )


def read_corpus(given: argparse.Namespace) -> Corpus:
    """Read the source that the command line names.

    Raises:
        UserError: the source cannot be read.
    """
    corpus: Corpus = given.read(given)
    return corpus


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"give a whole number of at least 1, not {text!r}")
    return int(text)


def _channel(text: str) -> int | str:
    if text != "mean" and not (text.isdecimal() and text.isascii() and len(text) < 4):
        raise argparse.ArgumentTypeError(f"give mean, or a channel's number from 0, not {text!r}")
    return text if text == "mean" else int(text)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"give a fraction above 0 and below 1, such as 0.05, not {text!r}")
    return value


def main(arguments: list[str] | None = None) -> None:
    """Run the command on ``arguments`` (default: ``sys.argv``)."""
    given = parser().parse_args(arguments)
    if not given.transcribed:
        refuse_transcript_options(given)
    chosen = labels(given)
    chosen.check(given.normalize)
    options = Options(
        given.jobs,
        given.resample,
        given.decode,
        given.force,
        given.normalize,
        chosen,
        skip_bad=given.skip_bad,
        hold_out=given.hold_out,
        channel=given.channel,
    )
    try:
        prepared = prepare(read_corpus(given), given.out, options)
    except OSError as error:
        raise UserError(
            f"{error.filename or given.out}: {error.strerror or error}; {given.out} is unchanged"
        ) from error
    print(summary(prepared, given.out))


if __name__ == "__main__":
    sys.exit(run_command("fairseq_skd.manifest", main))
