r"""Measure how far spikes are from the starts of words, on the demo corpus, at each exit.

python -m experiments.word_starts demo_out/finetune/checkpoints/checkpoint_best.pt demo_out/corpus \
    --out results/demo/word_starts.json

The truth is espeak-ng's own, in ``words.tsv`` of the corpus. A word's spike is at the start of the
first frame of its first letter. Only test utterances whose greedy text equals the reference count.
An error is spike minus start: negative if the spike is early. First words start at 0, where the
demo's exits spike, too, so figures without first words stand beside the figures of all words. Needs
the extra ``analysis``.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fairseq_skd import load
from fairseq_skd.alignment.compare import batch_frames
from fairseq_skd.alignment.spikes import Spikes, find_spikes
from fairseq_skd.cli import quieten_libraries
from fairseq_skd.errors import UserError, require, run_command
from fairseq_skd.files.disk import replacing
from fairseq_skd.files.progress import tracked
from fairseq_skd.recognizer import Recognizer
from fairseq_skd.scoring.bootstrap import LEVEL, RESAMPLES, quantile_interval

SPLIT = "test"
BATCH = 8
SHARES = {"median": 0.5, "90th_percentile": 0.9}
WORD_END = "|"

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


def spiked_words(spikes: Spikes, symbols: Sequence[str]) -> list[tuple[str, int]]:
    """List the words that spikes of letters write, each with the first frame of its first spike."""
    words: list[tuple[str, int]] = []
    inside = False
    for symbol, start in zip(spikes.symbols.tolist(), spikes.starts.tolist(), strict=True):
        letter = symbols[symbol]
        if letter == WORD_END:
            inside = False
        elif inside:
            text, frame = words[-1]
            words[-1] = (text + letter, frame)
        else:
            words.append((letter, start))
            inside = True
    return words


def errors_of(frames: Sequence[int], starts: Starts, frame_seconds: float) -> Errors:
    """Compute spike minus start in ms, (words,)."""
    pairs = zip(frames, starts, strict=True)
    return np.array([np.nan if start is None else 1000 * (frame * frame_seconds - start) for frame, start in pairs])


def run_exits(rec: Recognizer, audio: Sequence[Path]) -> Iterator[dict[int, list[tuple[str, int]]]]:
    """Yield each utterance's words at each exit, in order."""
    batches = [audio[first : first + BATCH] for first in range(0, len(audio), BATCH)]
    for batch in tracked(batches, "finding spikes", "batch"):
        out = rec(*rec.batch(batch))
        out.check_finite()
        found = {
            layer: batch_frames(logits.float().log_softmax(dim=-1), out.lengths.tolist())
            for layer, logits in out.logits.items()
        }
        for row in range(len(batch)):
            yield {layer: spiked_words(find_spikes(frames[row]), rec.symbols) for layer, frames in found.items()}


def measure(rec: Recognizer, corpus: Path) -> dict[str, Any]:
    """Run the test utterances and compare each exit's spikes with the starts.

    Raises:
        UserError: the model's units are not letters, a table is missing, or no text is right.
    """
    if rec.post_process != "letter":
        raise UserError(f"checkpoint {rec.path} has units of {rec.post_process!r}: give a model of letters")
    starts = read_starts(corpus / "words.tsv")
    rows = [row for row in read_tsv(corpus / "demo.tsv") if row["split"] == SPLIT]
    known = [start is not None for row in rows for start in starts[row["path"]]]
    errors: dict[int, list[Errors]] = {layer: [] for layer in rec.exits}
    ran = run_exits(rec, [corpus / "audio" / row["path"] for row in rows])
    for row, by_exit in zip(rows, ran, strict=True):
        for layer, words in by_exit.items():
            if [word for word, _ in words] == row["text"].split():
                frames = [frame for _, frame in words]
                errors[layer].append(errors_of(frames, starts[row["path"]], rec.frame_seconds))
    return {
        "utterances": len(rows),
        "words": len(known),
        "words_without_start": known.count(False),
        "frame_ms": 1000 * rec.frame_seconds,
        "interval": {"level": LEVEL, "resampled": "utterances", "resamples": RESAMPLES},
        "exits": [_figures(layer, rec.depth, found) for layer, found in errors.items()],
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
