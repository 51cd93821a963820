"""``python -m fairseq_skd.transcribe``: transcribe audio files, or align them with known texts."""

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_skd.cli import quieten_libraries
from fairseq_skd.errors import PartialResult, UserError, run_command, shown
from fairseq_skd.files.disk import numbered_lines, replacing
from fairseq_skd.files.progress import PATIENCE, progress
from fairseq_skd.search.phrases import check_scale

if TYPE_CHECKING:
    from fairseq_skd.recognizer import Recognizer
    from fairseq_skd.transcription.formats import Named
    from fairseq_skd.transcription.sources import Source
    from fairseq_skd.transcription.words import Transcript

TOGETHER = ("txt", "jsonl", "ctm")  # one file for all audio
APART = ("srt", "vtt", "TextGrid")  # one file per audio file
_MARKS = ("<pad>", "<unk>")  # fairseq's own symbols, which no label may hold
_SHOWN = 20  # most audio files that a message lists
_DESCRIPTION = """\
Transcribe audio with a fine-tuned checkpoint, or an exported folder. AUDIO is a file of any format that libsndfile
reads, of any sampling rate, number of channels and length; a folder, which is searched; a .tsv manifest; or - for an
audio file on standard input.
"""
_EPILOG = """\
output
  txt        path, tab, text: one line per audio file
  jsonl      one JSON object per audio file: path, text, confidence, seconds, words with times, nbest
  ctm        one line per word: file 1 start duration word confidence
  srt, vtt   subtitles; one file per audio file
  TextGrid   for Praat, one tier of words; one file per audio file

The text is the one of fairseq_skd.infer. Audio that cannot be read is listed at the end.

examples
  python -m fairseq_skd.transcribe /runs/skd/checkpoint_best.pt /data/corpus --layer 6 --output jsonl
the recordings with a confidence of at least 0.9, as a table for fairseq_skd.manifest:
  python -m fairseq_skd.transcribe /runs/skd/checkpoint_best.pt /data/corpus --out transcripts.txt \\
      --min-confidence 0.9 --table pseudo.tsv
with names that must be heard right, one per line:
  python -m fairseq_skd.transcribe /runs/skd/checkpoint_best.pt /data/corpus --phrases /data/names.txt
words of a known text in time:
  python -m fairseq_skd.transcribe /runs/skd/checkpoint_best.pt /data/corpus/a.wav --text "GO ON" --output ctm

exit status: 0 all written; 2 refused; 3 written without some audio files; 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Transcribe and write."""
    given = _parser().parse_args(arguments)
    _check(given)
    from fairseq_skd.transcription.sources import find_audio

    with tempfile.TemporaryDirectory() as scratch:
        sources = find_audio(given.audio, Path(scratch))
        _check_outputs(given, sources)
        texts = _texts(given, sources)
        import fairseq_skd

        rec = fairseq_skd.load(given.model, exits=(given.layer or 0,), device=given.device)
        failed = _run(given, rec, sources, texts)
    if failed:
        raise PartialResult(_listed(failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.transcribe",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="checkpoint, or folder of fairseq_skd.export")
    add("audio", metavar="AUDIO", nargs="+", help="files, folders, a .tsv manifest, or -")
    add("--layer", type=int, metavar="L", help="exit: the student of L layers (default: the full model)")
    add("--output", choices=TOGETHER + APART, default="txt", help="format (default: txt)")
    add(
        "--out",
        type=Path,
        metavar="PATH",
        help="txt, jsonl, ctm: the file to write; srt, vtt, TextGrid: a folder, or for one audio file also a name that "
        "ends in the format (default: standard output)",
    )
    add("--nbest", type=int, default=1, metavar="N", help="with jsonl: list N transcripts (default: 1)")
    add(
        "--lm", type=Path, metavar="FILE", help="language model of words or units: ARPA (plain or gzip) or KenLM binary"
    )
    add("--lexicon", type=Path, metavar="FILE", help="for --lm: lines WORD<TAB>unit unit ... (default: words of --lm)")
    add("--lm-weight", type=float, default=2.0, metavar="X", help="weight of --lm (default: 2)")
    add("--word-score", type=float, default=-1.0, metavar="X", help="with --lm: added per word (default: -1)")
    add("--phrases", type=Path, metavar="FILE", help="words and phrases to prefer: lines PHRASE or PHRASE<TAB>WEIGHT")
    add("--phrase-weight", type=float, default=1.0, metavar="X", help="factor of the weights of --phrases (default: 1)")
    add("--text", metavar="WORDS", help="align this known text with the one audio file instead of transcribing")
    add("--text-file", type=Path, metavar="FILE", help="align known texts: lines 'NAME WORDS' for audio NAME.*")
    add("--table", type=Path, metavar="TSV", help="write path, text and split of the confident transcripts")
    add("--min-confidence", type=float, metavar="X", help="with --table: least confidence, from 0 to 1")
    add("--device", help="such as cpu or cuda (default: CUDA if there is a GPU)")
    add("--batch-size", type=int, default=8, metavar="N", help="files or windows per batch at most (default: 8)")
    return parser


def _check(given: argparse.Namespace) -> None:
    """Check the options before time is spent."""
    for name in ("nbest", "batch_size"):
        if getattr(given, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(given, name)} is out of range: give at least 1")
    if given.nbest > 1 and given.output != "jsonl":
        raise UserError(f"--nbest {given.nbest} cannot be written as {given.output}: give --output jsonl")
    for name in ("lm_weight", "word_score"):
        if not math.isfinite(getattr(given, name)):
            raise UserError(f"--{name.replace('_', '-')} {getattr(given, name)} is not finite: give a number")
    check_scale("--phrase-weight ", given.phrase_weight)
    if given.lexicon and not given.lm:
        raise UserError(f"--lexicon {given.lexicon} is used with a language model only: give --lm FILE")
    if (given.table is None) != (given.min_confidence is None):
        raise UserError("--table and --min-confidence belong together: give both or none")
    if given.table is not None and given.table.suffix != ".tsv":
        raise UserError(f"--table {given.table} is written as TSV: give a name that ends in .tsv")
    if given.min_confidence is not None and not 0 <= given.min_confidence <= 1:
        raise UserError(f"--min-confidence {given.min_confidence} is out of range: give a number from 0 to 1")
    if given.text is not None and given.text_file is not None:
        raise UserError("--text and --text-file exclude each other: give one of them")
    if (given.text is not None or given.text_file is not None) and (given.lm or given.phrases or given.nbest > 1):
        raise UserError("known texts are not searched for: leave out --lm, --phrases and --nbest")
    if given.out is not None and given.out.is_dir() and given.output in TOGETHER:
        raise UserError(f"--out {given.out} is a folder, and {given.output} is one file: give a file name")
    if given.out is not None and given.out.exists() and not given.out.is_dir() and not _one_file(given):
        raise UserError(f"--out {given.out} is a file, and {given.output} goes to a folder: give another name")


def _one_file(given: argparse.Namespace) -> bool:
    """Whether all transcripts go into one file or to standard output."""
    return given.out is None or given.output in TOGETHER or given.out.suffix == f".{given.output}"


def _check_outputs(given: argparse.Namespace, sources: Sequence["Source"]) -> None:
    """Check that all transcripts can be written, and that no file that is read is lost.

    Raises:
        UserError: a transcript cannot be written, or an input would be replaced.
    """
    read = [
        given.model,
        given.text_file,
        given.lm,
        given.lexicon,
        given.phrases,
        *given.audio,
        *(source.path for source in sources),
    ]
    taken = {os.path.realpath(path): "is read" for path in read if path is not None}
    for option, path in (("--out", given.out), ("--table", given.table)):
        if path is not None:
            where = os.path.realpath(path)
            if where in taken and not os.path.isdir(where):
                raise UserError(f"{option} {path} would replace a file that {taken[where]}: give another name")
            taken[where] = "--out writes"
    if _one_file(given) and given.output in APART and len(sources) > 1:
        raise UserError(
            f"--output {given.output} has one file per audio file, and there are {len(sources)}: give --out DIR"
        )
    if given.table is not None or given.output == "txt":
        where, fix = ("a table", "") if given.table is not None else ("txt", ", or --output jsonl")
        for source in sources:
            if any(sign in source.shown for sign in "\t\n\r") or (source.shown == "-" and given.table is not None):
                raise UserError(
                    f"AUDIO {shown(source.shown)} cannot be named in {where}: give a file with a plain name{fix}"
                )
    if given.output == "ctm":
        _check_ctm(sources)


def _check_ctm(sources: Sequence["Source"]) -> None:
    from fairseq_skd.transcription.formats import ctm_name

    owners: dict[str, str] = {}
    for source in sources:
        other = owners.setdefault(ctm_name(source.name), source.shown)
        if other != source.shown:
            raise UserError(f"AUDIO {other} and {source.shown} have the same name in ctm: rename one")


def _texts(given: argparse.Namespace, sources: Sequence["Source"]) -> list[str] | None:
    """Return the known text of each audio file; None: transcribe.

    Raises:
        UserError: there are several files for one text, or a file has no text.
    """
    if given.text is not None:
        if len(sources) > 1:
            raise UserError(
                f"--text is the text of one audio file, and there are {len(sources)}: give --text-file FILE"
            )
        return [given.text]
    if given.text_file is None:
        return None
    known: dict[str, str] = {}
    for number, line in numbered_lines(given.text_file):
        name, _, text = line.partition("\t") if "\t" in line else line.partition(" ")
        if name in known:
            raise UserError(
                f"--text-file {given.text_file} line {number}: {shown(name)} has a text already: delete one"
            )
        known[name] = text.strip()
    found = []
    owners: dict[str, str] = {}  # audio file of each name
    for source in sources:
        names = (source.shown, source.name, os.path.basename(source.shown), os.path.basename(source.name))
        fitting = next((name for name in names if known.get(name)), None)
        if fitting is None:
            raise UserError(
                f"--text-file {given.text_file} has no text for {source.shown}: add a line '{source.name} WORDS', or "
                f"leave out the audio file"
            )
        if (other := owners.setdefault(fitting, source.shown)) != source.shown:
            raise UserError(
                f"--text-file {given.text_file}: {shown(fitting)} names {other} and {source.shown}: write their paths"
            )
        found.append(known[fitting])
    return found


def _run(
    given: argparse.Namespace, rec: "Recognizer", sources: Sequence["Source"], texts: Sequence[str] | None
) -> list[tuple[str, str]]:
    """Transcribe or align all files and write; returns the files that failed, with reasons."""
    from fairseq_skd.transcription.formats import Named
    from fairseq_skd.transcription.language import beam_search

    search = None
    if given.lm is not None or given.phrases is not None:
        search = beam_search(
            rec.dictionary,
            rec.post_process,
            given.lm,
            given.lexicon,
            given.lm_weight,
            given.word_score,
            given.phrases,
            given.phrase_weight,
        )
    transcriber = rec.transcriber(nbest=given.nbest, search=search)
    failed: list[tuple[str, str]] = []

    def unreadable(index: int, error: UserError) -> None:
        failed.append((sources[index].shown, getattr(error, "reason", str(error))))

    paths = [source.path for source in sources]
    if texts is None:
        found = transcriber.transcribe(paths, given.batch_size, unreadable)
    else:
        found = transcriber.align(paths, texts, given.batch_size, unreadable)
    begun, seconds, done = time.perf_counter(), 0.0, 0
    with ExitStack() as stack:
        write = stack.enter_context(_writer(given))
        keep = stack.enter_context(_table(given))
        step = stack.enter_context(progress("transcribing", " s of audio", _seconds_of(paths)))
        for index, transcript in found:
            write(Named(sources[index].shown, sources[index].name, transcript))
            keep(sources[index], transcript)
            step(round(seconds + transcript.seconds) - round(seconds))
            seconds, done = seconds + transcript.seconds, done + 1
    took = time.perf_counter() - begun
    if took >= PATIENCE:
        print(
            f"{done} files, {seconds:.0f} s of audio in {took:.0f} s: {seconds / took:.1f} x real time", file=sys.stderr
        )
    return failed


def _seconds_of(paths: Sequence[str]) -> int | None:
    """Add up the durations in the headers; None if one is unknown, as of a broken file."""
    from fairseq_skd.files.waveforms import open_audio

    seconds = 0.0
    for path in paths:
        try:
            with open_audio(path) as file:
                seconds += file.frames / file.samplerate
        except UserError:
            return None
    return round(seconds)


@contextmanager
def _writer(given: argparse.Namespace) -> Iterator[Callable[["Named"], None]]:
    """Yield a function that writes one transcript; a file appears when it is complete."""
    from fairseq_skd.transcription.formats import FORMATS

    text_of = FORMATS[given.output]

    def write_apart(item: "Named") -> None:
        with replacing(given.out / f"{item.name}.{given.output}") as beside:
            beside.write_text(text_of(item), encoding="utf-8")

    if given.out is None:

        def write(item: "Named") -> None:
            sys.stdout.write(text_of(item))
            sys.stdout.flush()

        yield write
    elif _one_file(given):
        with replacing(given.out) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
            yield lambda item: print(text_of(item), end="", file=file)
    else:
        yield write_apart


@contextmanager
def _table(given: argparse.Namespace) -> Iterator[Callable[["Source", "Transcript"], None]]:
    """Yield a function that keeps a confident transcript in the table, if one is wanted."""
    if given.table is None:
        yield lambda source, transcript: None
        return
    kept = count = 0
    with replacing(given.table) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        print("path\ttext\tsplit", file=file)

        def keep(source: "Source", transcript: "Transcript") -> None:
            nonlocal kept, count
            count += 1
            usable = transcript.words and not any(mark in transcript.text for mark in _MARKS)
            if usable and transcript.confidence >= given.min_confidence:
                kept += 1
                text = " ".join(transcript.text.split())  # two | in a row are two spaces, which no label may have
                print(f"{os.path.abspath(source.path)}\t{text}\ttrain", file=file)

        yield keep
    print(
        f"{given.table}: {kept} of {count} transcripts have a confidence of at least {given.min_confidence}",
        file=sys.stderr,
    )


def _listed(failed: Sequence[tuple[str, str]]) -> str:
    lines = "".join(f"\n  {path}: {reason}" for path, reason in failed[:_SHOWN])
    more = f"\n  and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
    many = "1 audio file has" if len(failed) == 1 else f"{len(failed)} audio files have"
    return f"{many} no transcript, the others are written:{lines}{more}"


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("fairseq_skd.transcribe", main))
