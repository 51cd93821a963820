"""Decode audio greedily with the model of this folder: ``python decode.py a.flac b.wav``.

It prints one line ``name<TAB>text`` per file, and needs numpy, onnxruntime and soundfile only.
If the folder holds both ``model.int8.onnx`` and ``model.onnx``, the first is used.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soundfile

FOLDER = Path(__file__).resolve().parent
# What separates words, by the name of the training's post_process. Other units are words.
MARKS = {"letter": "|", "sentencepiece": "\u2581", "wordpiece": "_", "_EOW": "_EOW"}


def read_tokens(path: Path) -> list[str]:
    """Read the symbols of the outputs; each line is ``symbol id``, in the order of the ids."""
    return [line.rpartition(" ")[0] for line in path.read_text(encoding="utf-8").split("\n") if line]


def read_audio(path: str, sample_rate: int, shortest: int) -> Any:
    """Read a file as (samples,) float32 in [-1, 1]; channels are mixed down."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != sample_rate or len(audio) < shortest:
        raise SystemExit(
            f"{path} has {len(audio)} samples at {rate} Hz: the model needs {shortest} or more, at {sample_rate} Hz"
        )
    return audio.mean(axis=1)


def text_of(log_probs: Any, tokens: list[str], post_process: str) -> str:
    """Turn the log posteriors of one utterance, (T, V), into text: the best path of CTC."""
    best = log_probs.argmax(axis=1)
    spikes = best[np.flatnonzero(np.diff(best, prepend=-1) != 0)]  # repeats merged
    units = [tokens[index] for index in spikes if tokens[index] not in ("<s>", "</s>")]  # <s> is the blank
    if post_process not in MARKS:
        return " ".join(units)
    return "".join(units).replace(MARKS[post_process], " ").strip()


def main() -> None:
    """Decode the files of the command line."""
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    tokens = read_tokens(FOLDER / "tokens.txt")
    model = next(file for name in ("model.int8.onnx", "model.onnx") if (file := FOLDER / name).exists())
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for path in sys.argv[1:]:
        audio = read_audio(path, config["sample_rate"], config["shortest"])
        inputs = {"x": audio[None], "lengths": np.array([len(audio)])}  # a batch of one
        log_probs, frames = session.run(["log_probs", "frame_lengths"], inputs)
        print(path, text_of(log_probs[0, : frames[0]], tokens, config["post_process"]), sep="\t", flush=True)


if __name__ == "__main__":
    main()
