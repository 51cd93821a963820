"""``python -m fairseq_skd.ngram``: estimate a language model for ``decoding.lmpath``."""

import argparse
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files.progress import tracked
from fairseq_skd.search.kneser_ney import BEGIN, END, UNKNOWN, estimate, write_arpa

_DESCRIPTION = """\
Estimate an n-gram language model with interpolated modified Kneser-Ney smoothing and write it as ARPA.

TEXT holds one sentence per line, with spaces between words or units: <split>.wrd for a model of words
(decoding.type=kenlm), <split>.ltr or <split>.spm for a model of units (decoding.type=lexfree). All counts are held in
memory. For a corpus of books use KenLM's lmplz, which estimates the same model.
"""
_EXAMPLE = """example:
  python -m fairseq_skd.ngram /data/manifests/train.wrd --order 3 --out /data/manifests/3gram.arpa
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Estimate a model, write it, and print one line."""
    args = _parser().parse_args(arguments)
    if args.order < 2:
        raise UserError(f"--order {args.order} is out of range, it is at least 2: KenLM reads no model of single words")
    sentences = list(_sentences(args.text))
    if not any(sentences):
        raise UserError(f"{', '.join(map(str, args.text))}: no word in it, give transcripts")
    model = estimate(tracked(sentences, "counting", "sentence"), args.order)
    for n in model.fallbacks:
        print(f"too few {n}-grams to estimate discounts: using 0.5, 1 and 1.5", file=sys.stderr)
    write_arpa(model, args.out)
    sizes = ", ".join(f"{len(grams)} {n}-grams" for n, grams in enumerate(model.probabilities, start=1))
    print(f"{len(sentences)} sentences, {sum(map(len, sentences))} words, {sizes}: {args.out}")


def _sentences(paths: Sequence[Path]) -> Iterator[list[str]]:
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} does not exist")
        with path.open(encoding="utf-8") as file:
            try:
                for number, line in enumerate(file, start=1):
                    words = unicodedata.normalize("NFC", line).split()  # as the transcripts of training
                    for special in (BEGIN, END, UNKNOWN):
                        if special in words:
                            raise UserError(f"{path} line {number} holds {special}, which the model adds: remove it")
                    yield words
            except UnicodeDecodeError as error:
                raise UserError(f"{path} is not UTF-8 text") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairseq_skd.ngram",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("text", nargs="+", type=Path, metavar="TEXT", help="transcripts")
    parser.add_argument("--order", type=int, default=3, help="n of the n-grams (default: 3)")
    parser.add_argument("--out", type=Path, required=True, help="ARPA file to write")
    return parser


if __name__ == "__main__":
    sys.exit(run_command("fairseq_skd.ngram", main))
