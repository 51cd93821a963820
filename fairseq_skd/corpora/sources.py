"""Declare the sources of ``python -m fairseq_skd.manifest``: help, options and reader of each.

Each reader is imported only when it is used, so that small corpora start fast.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fairseq_skd.corpora.records import Corpus
from fairseq_skd.errors import UserError

Reader = Callable[[argparse.Namespace], Corpus]


class Source(NamedTuple):
    """A source.

    Attributes:
        operand: what follows the name, e.g. ``ROOT``.
        line: description in the list of sources.
        text: description in its own help.
        example: an example, after ``python -m fairseq_skd.manifest NAME``.
        read: reader of the corpus.
        options: adds operand and options.
        transcribed: it has transcripts.
    """

    operand: str
    line: str
    text: str
    example: str
    read: Reader
    options: Callable[[argparse.ArgumentParser], None]
    transcribed: bool = True


TABLE = """\
TABLE (UTF-8) has the columns path and text, optionally split and speaker; others are ignored. Options such as
--path-column give other names. TSV and CSV name their columns in the first line; with --no-header, columns are numbers
from 1.

    path                split   text
    audio/001.flac      train   GO ON
    audio/002.flac      test    DON'T

The suffix gives the format: .tsv (tabs), .csv (commas) or .jsonl (one object per line). With --delimiter, the name may
end in anything. Between commas or semicolons, cells may be in double quotes; with other delimiters, a quote is a
character like any other.
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

COMMONVOICE = """\
ROOT is a language's folder of a release, such as cv-corpus-17.0-2024-03-15/de, or a folder above it that holds one
language. It has train.tsv, dev.tsv, test.tsv (written by default), validated.tsv, other.tsv, invalidated.tsv and
clips/. Speakers are the client_id, the language is the locale. The MP3 files have other sampling rates: add --resample.
"""

LJSPEECH = """\
ROOT has metadata.csv, without a header, and wavs/. A line is id|text or id|text|text with numbers in words; the last
text is used. All rows are the split train, which --splits renames.
"""

MLS = """\
ROOT is a language's folder, such as mls_german or mls_german_opus, which names the language, or the folder above it. It
has train, dev and test, each with transcripts.txt and audio/SPEAKER/BOOK/. limited_supervision is not read.
"""

FLEURS = """\
ROOT is a language's folder, such as de_de, which names the language, or the folder above it. It has train.tsv, dev.tsv
and test.tsv, without headers, and audio/train/, ... The fourth column is the text: lower case, without punctuation.
"""

AUDIOFOLDER = """\
ROOT is an audio folder of Hugging Face: metadata.csv or metadata.jsonl, there or up to two levels below, has the
columns file_name, relative to its own folder, and transcription, text or sentence, optionally speaker or speaker_id.
The folder train, validation, test, ... that holds the audio is its split; audio in none of them is train.
"""

NEMO = """\
MANIFEST has JSON lines with audio_filepath, relative to MANIFEST's folder or absolute, and text, optionally offset,
duration, speaker and lang. Its name is the split: train_manifest.json is train. A row whose offset and duration (in
seconds) leave out more than 0.1 s of the file is a segment, which is cut into audio_segments/.
"""

LHOTSE = """\
DIR has PREFIX_recordings_SPLIT.jsonl.gz and PREFIX_supervisions_SPLIT.jsonl.gz, or recordings.jsonl.gz and
supervisions.jsonl.gz, for the split train; .gz may be missing. Supervisions that leave out more than 0.1 s of their
recording are segments, which are cut into audio_segments/. Audio must be files: commands and URLs are refused. For
cuts, first write recordings and supervisions with 'lhotse cut decompose'.
"""

AUDIO = """\
ROOT is a folder with audio at any depth. There are no transcripts, so only OUT/<split>.tsv is written, for decoding
with python -m fairseq_skd.infer or for pretraining. Options about transcripts are refused.
"""


def _root(text: str, default: str = "all") -> Callable[[argparse.ArgumentParser], None]:
    """Add the operand ``ROOT``, and ``--splits`` with a text about its default."""

    def add(command: argparse.ArgumentParser) -> None:
        command.add_argument("root", metavar="ROOT", type=Path, help=text)
        _splits(command, default)

    return add


def _splits(command: argparse.ArgumentParser, default: str = "all") -> None:
    command.add_argument(
        "--splits",
        metavar="SPLIT",
        nargs="+",
        help=f"splits to write, each NAME or NEW=NAME+NAME (default: {default})",
    )


def _delimiter(text: str) -> str:
    if text == "tab":
        return "\t"
    if len(text) != 1 or text in '\n\r\0"':
        raise argparse.ArgumentTypeError(f"give one character, or the word tab, not {text!r}")
    return text


def _table_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("table", metavar="TABLE", type=Path, help="the table; its suffix gives its format")
    command.add_argument("--audio-root", metavar="DIR", type=Path, required=True, help="folder that paths start from")
    command.add_argument(
        "--split", metavar="NAME", help="split of all rows, if TABLE has no column split (default: train)"
    )
    for role in ("path", "text", "split", "speaker"):
        name = f"--{role}-column"
        command.add_argument(name, metavar="NAME", help=f"column of the {role} (default: {role})")
    command.add_argument(
        "--delimiter",
        metavar="CHAR",
        type=_delimiter,
        help="character between cells, or the word tab (default: by the suffix)",
    )
    command.add_argument(
        "--no-header", action="store_true", help="the first line is an utterance; columns are numbers from 1"
    )


def _tedlium_options(command: argparse.ArgumentParser) -> None:
    _root("folder of the release", "train, dev and test")(command)
    command.add_argument(
        "--unknown-words",
        choices=("omit", "drop"),
        default="omit",
        help="omit segments with <unk>, or drop only the mark (default: omit)",
    )


def _kaldi_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("folders", metavar="DIR", type=Path, nargs="+", help="data folders")
    _audio_root(command, "wav.scp")
    _splits(command)


def _audio_root(command: argparse.ArgumentParser, file: str) -> None:
    command.add_argument(
        "--audio-root",
        metavar="DIR",
        type=Path,
        help=f"folder that paths in {file} start from (default: current folder)",
    )


def _nemo_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("manifests", metavar="MANIFEST", type=Path, nargs="+", help="manifests, one per split")
    _splits(command)


def _lhotse_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", metavar="DIR", type=Path, help="folder of recordings and supervisions")
    _audio_root(command, "the recordings")
    _splits(command)


def _audio_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("root", metavar="ROOT", type=Path, help="folder of the audio files")
    command.add_argument("--split", metavar="NAME", default="train", help="name of the split (default: train)")


def _table(given: argparse.Namespace) -> Corpus:
    from fairseq_skd.corpora.tables import Columns, read_table

    columns = Columns(given.path_column, given.text_column, given.split_column, given.speaker_column)
    records, problems = read_table(given.table, given.split, columns, given.delimiter, not given.no_header)
    return Corpus("the table", records, problems, given.audio_root)


def _librispeech(given: argparse.Namespace) -> Corpus:
    from fairseq_skd.corpora.releases import read_librispeech

    return read_librispeech(given.root, given.splits)


def _tedlium(given: argparse.Namespace) -> Corpus:
    from fairseq_skd.corpora.releases import read_tedlium

    return read_tedlium(given.root, given.splits, given.unknown_words == "drop")


def _kaldi(given: argparse.Namespace) -> Corpus:
    from fairseq_skd.corpora.kaldi import read_kaldi

    return read_kaldi(given.folders, given.splits, given.audio_root)


def _layout(name: str) -> Reader:
    def read(given: argparse.Namespace) -> Corpus:
        from fairseq_skd.corpora.layouts import LAYOUTS, read_layout

        return read_layout(LAYOUTS[name], given.root, given.splits)

    return read


def _audiofolder(given: argparse.Namespace) -> Corpus:
    from fairseq_skd.corpora.layouts import read_audiofolder

    return read_audiofolder(given.root, given.splits)


def _nemo(given: argparse.Namespace) -> Corpus:
    from fairseq_skd.corpora.toolkits import read_nemo

    return read_nemo(given.manifests, given.splits)


def _lhotse(given: argparse.Namespace) -> Corpus:
    from fairseq_skd.corpora.toolkits import read_lhotse

    return read_lhotse(given.folder, given.splits, given.audio_root)


_ABOUT_TRANSCRIPTS = (
    "normalize",
    "unit",
    "vocab_size",
    "spm_model",
    "train_split",
    "lexicon",
    "language",
    "dictionary",
)


def refuse_transcript_options(given: argparse.Namespace) -> None:
    """Check that a source without transcripts is given no option about them.

    Raises:
        UserError: an option about transcripts is given.
    """
    for name in _ABOUT_TRANSCRIPTS:
        if getattr(given, name, None) not in (None, (), ""):
            option = "dict" if name == "dictionary" else name.replace("_", "-")
            raise UserError(f"--{option} is about transcripts, but audio has none; drop it")


def _audio(given: argparse.Namespace) -> Corpus:
    from fairseq_skd.corpora.derived import CONVERTED, SEGMENTS
    from fairseq_skd.corpora.layouts import read_audio

    return read_audio(given.root, given.split, [given.out / CONVERTED, given.out / SEGMENTS])


SOURCES = {
    "table": Source(
        "TABLE",
        "a .tsv, .csv or .jsonl with columns path and text, optionally split and speaker",
        TABLE,
        "/data/corpus/table.tsv --audio-root /data/corpus --out /data/manifests",
        _table,
        _table_options,
    ),
    "librispeech": Source(
        "ROOT",
        "train-clean-100/SPEAKER/CHAPTER/*.flac and .trans.txt, ...",
        LIBRISPEECH,
        "/data/LibriSpeech --out /data/manifests",
        _librispeech,
        _root("folder of the splits"),
    ),
    "tedlium": Source(
        "ROOT",
        "releases 2 and 3: train/stm/*.stm and train/sph/*.sph, ...",
        TEDLIUM,
        "/data/TEDLIUM_release2 --out /data/manifests --normalize upper",
        _tedlium,
        _tedlium_options,
    ),
    "kaldi": Source(
        "DIR...",
        "wav.scp and text, optionally segments and utt2spk; each DIR is a split",
        KALDI,
        "/data/kaldi/train /data/kaldi/dev --out /data/manifests",
        _kaldi,
        _kaldi_options,
    ),
    "commonvoice": Source(
        "ROOT",
        "train.tsv, dev.tsv, test.tsv, ... and clips/*.mp3 of a language",
        COMMONVOICE,
        "/data/cv/en --out /data/manifests --resample --normalize upper,punctuation",
        _layout("commonvoice"),
        _root("folder of the language", "train, dev and test"),
    ),
    "ljspeech": Source(
        "ROOT",
        "metadata.csv (id|text) and wavs/ID.wav",
        LJSPEECH,
        "/data/ljspeech --out /data/manifests --resample --normalize upper,punctuation",
        _layout("ljspeech"),
        _root("folder of the corpus"),
    ),
    "mls": Source(
        "ROOT",
        "train/transcripts.txt and train/audio/SPEAKER/BOOK/*.flac, ... of a language",
        MLS,
        "/data/mls_english --out /data/manifests --normalize upper",
        _layout("mls"),
        _root("folder of the language"),
    ),
    "fleurs": Source(
        "ROOT",
        "train.tsv, dev.tsv, test.tsv and audio/train/*.wav, ... of a language",
        FLEURS,
        "/data/fleurs/en_us --out /data/manifests --normalize upper",
        _layout("fleurs"),
        _root("folder of the language"),
    ),
    "audiofolder": Source(
        "ROOT",
        "Hugging Face: metadata.csv or .jsonl with file_name and transcription",
        AUDIOFOLDER,
        "/data/audiofolder --out /data/manifests --splits train valid=validation",
        _audiofolder,
        _root("folder of the data set"),
    ),
    "nemo": Source(
        "MANIFEST...",
        "JSON lines with audio_filepath and text; each MANIFEST is a split",
        NEMO,
        "/data/nemo/train_manifest.json --out /data/manifests --normalize upper",
        _nemo,
        _nemo_options,
    ),
    "lhotse": Source(
        "DIR",
        "PREFIX_recordings_SPLIT.jsonl.gz and PREFIX_supervisions_SPLIT.jsonl.gz",
        LHOTSE,
        "/data/lhotse --out /data/manifests --splits train-clean-5 valid=dev-clean-2",
        _lhotse,
        _lhotse_options,
    ),
    "audio": Source(
        "ROOT",
        "a folder of audio without transcripts: writes <split>.tsv alone",
        AUDIO,
        "/data/corpus --out /data/manifests --split test",
        _audio,
        _audio_options,
        transcribed=False,
    ),
}
