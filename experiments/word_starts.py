r"""Measure how far spikes are from the starts of words, on the demo corpus, at each exit.

python -m experiments.word_starts demo_out/finetune/checkpoints/checkpoint_best.pt demo_out/corpus \
    --out results/demo/word_starts.json

The truth is espeak-ng's own, in ``words.tsv`` of the corpus. A word's spike is the start that
``Recognizer.transcribe`` gives it: the first sample of the first frame of its first unit. Only test
utterances whose greedy text equals the reference count. An error is spike minus start: negative if
the spike is early. First words start at 0, where the
demo's exits spike, too, so figures without first words stand beside the figures of all words. Needs
the extra ``analysis``.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fairseq_skd import load
from fairseq_skd.cli import quieten_libraries
from fairseq_skd.errors import UserError, require, run_command
from fairseq_skd.files.disk import replacing
from fairseq_skd.recognizer import Recognizer
from fairseq_skd.scoring.bootstrap import LEVEL, RESAMPLES, quantile_interval
from fairseq_skd.transcription.words import Word

SPLIT = "test"
SHARES = {"median": 0.5, "90th_percentile": 0.9}

Starts = list[float | None]  # seconds, one per word; None: not known
Errors = npt.NDArray[np.float64]  # ms, one per word; NaN where the start is not known


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Read a table of the demo corpus.

    Raises:
        UserError: the file does not exist.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: write the corpus with python -m fairseq_skd.demo.corpus")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def read_starts(path: Path) -> dict[str, Starts]:
    """Read ``words.tsv``: path of an utterance -> starts of its words."""
    starts: dict[str, Starts] = {}
    for row in read_tsv(path):
        starts.setdefault(row["path"], []).append(float(row["start"]) if row["start"] else None)
    return starts


def errors_of(words: Sequence[Word], starts: Starts) -> Errors:
    """Compute spike minus start in ms, (words,)."""
    pairs = zip(words, starts, strict=True)
    return np.array([np.nan if start is None else 1000 * (word.start - start) for word, start in pairs])


def measure(rec: Recognizer, corpus: Path) -> dict[str, Any]:
    """Transcribe the test utterances and compare each exit's spikes with the starts.

    Raises:
        UserError: a table is missing, or no text is right.
    """
    starts = read_starts(corpus / "words.tsv")
    rows = [row for row in read_tsv(corpus / "demo.tsv") if row["split"] == SPLIT]
    known = [start is not None for row in rows for start in starts[row["path"]]]
    audio = [corpus / "audio" / row["path"] for row in rows]
    exits = []
    for layer in rec.exits:
        found = zip(rows, rec.transcribe(audio, exit_layer=layer), strict=True)
        right = [errors_of(said.words, starts[row["path"]]) for row, said in found if said.text == row["text"]]
        exits.append(_figures(layer, rec.depth, right))
    return {
        "utterances": len(rows),
        "words": len(known),
        "words_without_start": known.count(False),
        "frame_ms": 1000 * rec.frame_seconds,
        "interval": {"level": LEVEL, "resampled": "utterances", "resamples": RESAMPLES},
        "exits": exits,
    }


def _figures(layer: int, depth: int, errors: list[Errors]) -> dict[str, Any]:
    if not errors:
        raise UserError(f"exit {layer} gets no test utterance right, so nothing can be measured: train it longer")
    return {
        "exit_layer": layer,
        "layers": depth,
        "utterances": len(errors),
        "all_words": _quantiles(errors),
        "without_first_words": _quantiles([one[1:] for one in errors]),
    }


def _quantiles(errors: Sequence[Errors]) -> dict[str, Any]:
    known = [one[~np.isnan(one)] for one in errors]
    known = [one for one in known if len(one)]
    sides = {"signed_ms": known, "absolute_ms": [np.abs(one) for one in known]}
    return {
        "words": sum(map(len, known)),
        **{side: {name: _interval(values, share) for name, share in SHARES.items()} for side, values in sides.items()},
    }


def _interval(values: Sequence[Errors], share: float) -> dict[str, float]:
    found = quantile_interval(values, share)
    return {key: round(value, 1) for key, value in found._asdict().items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="fine-tuned checkpoint of the demo")
    parser.add_argument("corpus", type=Path, help="folder that python -m fairseq_skd.demo.corpus wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="JSON", help="file to write")
    args = parser.parse_args(arguments)
    require(["scipy"], "analysis", "experiments.word_starts")
    rec = load(args.checkpoint, device="cpu")
    found = {"checkpoint_sha256": rec.sha256, **measure(rec, args.corpus)}
    with replacing(args.out) as beside:
        beside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(args.out)


if __name__ == "__main__":
    quieten_libraries()
    sys.exit(run_command("word_starts", main))
