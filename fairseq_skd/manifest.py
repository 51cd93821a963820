"""``python -m fairseq_skd.manifest``: turn recordings and transcripts into fairseq's manifests."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from fairseq_skd.corpora.labels import Labels
from fairseq_skd.corpora.normalization import chosen_steps
from fairseq_skd.corpora.preparation import Options, prepare, summary
from fairseq_skd.corpora.records import Corpus
from fairseq_skd.errors import UserError, run_command

PROGRAM = "python -m fairseq_skd.manifest"

DESCRIPTION = """\
Check recordings and transcripts, and write the manifests that fairseq trains on.

  table TABLE        a .tsv, .csv or .jsonl with columns path and text, optionally split and speaker
  librispeech ROOT   train-clean-100/SPEAKER/CHAPTER/*.flac and .trans.txt, ...
  tedlium ROOT       releases 2 and 3: train/stm/*.stm and train/sph/*.sph, ...
  kaldi DIR...       wav.scp and text, optionally segments and utt2spk; each DIR is a split

SOURCE --help lists the options. English transcripts must be upper-case A-Z, apostrophe and single spaces; --normalize
makes them so. --language CODE takes the letters of any other language from the training transcripts. Audio must be WAV,
FLAC, SPHERE, Ogg Opus or Ogg Vorbis, 16 kHz (or --resample), one channel.
"""

TABLE = """\
TABLE (.tsv, .csv or .jsonl; UTF-8) has the columns path and text, optionally split and speaker; others are ignored.
TSV and CSV name their columns in the first line.

    path                split   text
    audio/001.flac      train   GO ON
    audio/002.flac      test    DON'T
"""

LIBRISPEECH = """\
ROOT has a folder per split, with SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt and the chapter's FLAC files.
All splits are written under their own names; --splits chooses, renames and merges:

    --splits train=train-clean-100+train-clean-360 valid=dev-clean test-clean
"""

TEDLIUM = """\
ROOT is TEDLIUM_release2 (train, dev, test), TEDLIUM_release-3 (legacy, data) or the folder above it. Segments are cut
from the SPHERE files into audio_segments/. Splits: train, dev, test; in release 3 also data, all talks for training.

The texts are in lower case (add --normalize upper). Their marks are changed as follows, and the changes counted:
  ignore_time_segment_in_scoring   the segment is left out
  <unk>                            the segment is left out; with --unknown-words drop, only the mark
  {NOISE} <sil>                    removed
  the(2)                           the
  it 's, don 't, parents '         it's, don't, parents'; 'em and 'cause stay as they are
"""

KALDI = """\
DIR has wav.scp and text, optionally segments and utt2spk, and becomes the split of its name. Segments are cut into
audio_segments/. Commands in wav.scp (cmd |) are not executed but refused: run them once, and name the files that they
make. Uncompressed SPHERE files need no command.
"""

EPILOG = """\
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
  punctuation   apostrophes of all kinds become '; hyphens, dashes and slashes become spaces; other punctuation goes
  digits        cardinal numbers become words of the language; years, times, ordinals and decimals are refused
Unicode's form NFC is always applied, last.

If anything cannot be used, all problems are listed by file and line, and nothing is written.

exit status: 0 written; 2 refused, OUT is unchanged; 130 interrupted, OUT is unchanged.
"""


class _Parser(argparse.ArgumentParser):
    """Answer the call of earlier versions, without a source, in one sentence."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice" in message and "argument SOURCE" in message:
            message = "name the kind of source first: table TABLE, librispeech ROOT, tedlium ROOT or kaldi DIR"
        super().error(message)


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    lines = argparse.RawDescriptionHelpFormatter
    example = f"{PROGRAM} table /data/corpus/table.tsv --audio-root /data/corpus --out /data/manifests"
    made = _Parser(PROGRAM, description=DESCRIPTION, epilog=f"{EPILOG}\nexample:\n  {example}\n", formatter_class=lines)
    sources = made.add_subparsers(metavar="SOURCE", required=True)

    def source(name: str, text: str, read: Callable[[argparse.Namespace], Corpus], example: str) -> _Parser:
        epilog = f"{EPILOG}\nexample:\n  {PROGRAM} {name} {example}\n"
        command = sources.add_parser(name, description=text, epilog=epilog, formatter_class=lines)
        command.set_defaults(read=read)
        return command

    table = source("table", TABLE, _table, "/data/corpus/table.tsv --audio-root /data/corpus --out /data/manifests")
    table.add_argument("table", metavar="TABLE", type=Path, help="the table; its suffix gives its format")
    table.add_argument("--audio-root", metavar="DIR", type=Path, required=True, help="folder that paths start from")
    table.add_argument(
        "--split", metavar="NAME", help="split of all rows, if TABLE has no column split (default: train)"
    )
    libri = source("librispeech", LIBRISPEECH, _librispeech, "/data/LibriSpeech --out /data/manifests")
    libri.add_argument("root", metavar="ROOT", type=Path, help="folder of the splits")
    talks = source("tedlium", TEDLIUM, _tedlium, "/data/TEDLIUM_release2 --out /data/manifests --normalize upper")
    talks.add_argument("root", metavar="ROOT", type=Path, help="folder of the release")
    talks.add_argument(
        "--unknown-words",
        choices=("omit", "drop"),
        default="omit",
        help="omit segments with <unk>, or drop only the mark (default: omit)",
    )
    kaldi = source("kaldi", KALDI, _kaldi, "/data/kaldi/train /data/kaldi/dev --out /data/manifests")
    kaldi.add_argument("folders", metavar="DIR", type=Path, nargs="+", help="data folders")
    kaldi.add_argument(
        "--audio-root",
        metavar="DIR",
        type=Path,
        help="folder that paths in wav.scp start from (default: current folder)",
    )
    for command in (libri, talks, kaldi):
        command.add_argument(
            "--splits",
            metavar="SPLIT",
            nargs="+",
            help="splits to write, each NAME or NEW=NAME+NAME (default: all; TED-LIUM: without data)",
        )
    for command in (table, libri, talks, kaldi):
        _add_shared(command)
    return made


def _add_shared(command: argparse.ArgumentParser) -> None:
    """Add the options that all sources share."""
    command.add_argument("--out", metavar="OUT", type=Path, required=True, help="folder to write; created if missing")
    command.add_argument(
        "--normalize",
        metavar="STEPS",
        type=chosen_steps,
        default=(),
        help="changes to transcripts, e.g. upper,punctuation,digits (default: none); the summary counts them",
    )
    command.add_argument(
        "--language",
        metavar="CODE",
        default="",
        help="language of the transcripts, e.g. de, hi, pt-BR (default: the one that the source names, or en)",
    )
    command.add_argument(
        "--unit",
        choices=("ltr", "spm", "phn"),
        default="ltr",
        help="letters, word pieces, or symbols with spaces between, such as phones (default: ltr)",
    )
    command.add_argument(
        "--dict",
        dest="dictionary",
        metavar="FILE",
        type=Path,
        help="fairseq dictionary with the letters or symbols; written as it is (default: A-Z, or those of training)",
    )
    command.add_argument(
        "--vocab-size", metavar="N", type=_positive, help="number of word pieces to train, i.e. lines of dict.spm.txt"
    )
    command.add_argument(
        "--spm-model", metavar="FILE", type=Path, help="SentencePiece model to use; nothing is trained"
    )
    command.add_argument(
        "--train-split",
        metavar="NAME",
        nargs="+",
        default=(),
        help="splits for alphabet, word pieces and lexicon (default: train, or else all whose names begin with train)",
    )
    command.add_argument(
        "--lexicon",
        metavar="WORDS",
        type=Path,
        nargs="?",
        const=False,
        help="write lexicon.txt for beam search, with the words of the train transcripts or of WORDS (one per line)",
    )
    command.add_argument(
        "--resample", action="store_true", help="convert other sampling rates to 16 kHz FLAC under OUT"
    )
    command.add_argument(
        "--decode", action="store_true", help="decode all audio completely: slower, but finds damage inside"
    )
    command.add_argument(
        "--jobs", metavar="N", type=_positive, help="processes (default: chosen by the size of the corpus)"
    )
    command.add_argument("--force", action="store_true", help="replace files of OUT that have other content")


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


# Each reader is imported only when it is used, so that small corpora start fast.


def _table(given: argparse.Namespace) -> Corpus:
    from fairseq_skd.corpora.tables import read_table

    return Corpus("the table", *read_table(given.table, given.split), given.audio_root)


def _librispeech(given: argparse.Namespace) -> Corpus:
    from fairseq_skd.corpora.releases import read_librispeech

    return read_librispeech(given.root, given.splits)


def _tedlium(given: argparse.Namespace) -> Corpus:
    from fairseq_skd.corpora.releases import read_tedlium

    return read_tedlium(given.root, given.splits, given.unknown_words == "drop")


def _kaldi(given: argparse.Namespace) -> Corpus:
    from fairseq_skd.corpora.kaldi import read_kaldi

    return read_kaldi(given.folders, given.splits, given.audio_root)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"give a whole number of at least 1, not {text!r}")
    return int(text)


def main(arguments: list[str] | None = None) -> None:
    """Run the command on ``arguments`` (default: ``sys.argv``)."""
    given = parser().parse_args(arguments)
    chosen = labels(given)
    chosen.check(given.normalize)
    options = Options(given.jobs, given.resample, given.decode, given.force, given.normalize, chosen)
    try:
        prepared = prepare(read_corpus(given), given.out, options)
    except OSError as error:
        raise UserError(
            f"{error.filename or given.out}: {error.strerror or error}; {given.out} is unchanged"
        ) from error
    print(summary(prepared, given.out))


if __name__ == "__main__":
    sys.exit(run_command("fairseq_skd.manifest", main))
