"""Prepare an example utterance for the page: audio, and waveform and spikes in pixels."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image

from fairseq_skd.alignment.figures import breadth, shown, stagger

PER_SECOND = 240  # pixels per second; a frame of 20 ms is 4.8 wide
WAVE_HEIGHT = 70
LANE_HEIGHT = 74
_BAR = 30  # pixels of a posterior of 1
_LABEL = 10  # width of a Latin symbol in pixels
_TICK = 0.15  # width of a tick's text in seconds
_STRETCHES_PER_SECOND = 120
_QUALITY = 80  # of 100: the letters of a figure stay sharp
_OTHER = {
    "same": "the {other} has it on the same frames",
    "partly": "the {other} has it on some of these frames",
    "elsewhere": "the {other} does not have it on these frames",
}


class Spike(NamedTuple):
    """A spike to draw.

    ``x``, ``left``, ``width`` and ``height`` are in pixels. Its run lasts from ``seconds`` to
    ``ends``.
    """

    symbol: str
    x: float
    left: float
    width: float
    height: float
    level: int
    seconds: float
    ends: float
    other: str
    label: str


class Lane(NamedTuple):
    """The spikes of one exit, and the text that they spell."""

    who: str
    name: str
    spikes: list[Spike]
    spelt: str


class Player(NamedTuple):
    """All that the page shows of an utterance."""

    title: str
    text: str
    seconds: float
    width: float
    audio: str
    wave: str
    ticks: list[float]
    lanes: list[Lane]
    figure: str


def make_player(folder: Path, example: dict[str, Any], frame_ms: float, names: dict[str, str]) -> Player:
    """Read an example of ``align.json``.

    Args:
        folder: the folder with ``align.json`` and the files that it names.
        example: the entry of the example.
        frame_ms: milliseconds from one frame to the next.
        names: ``teacher`` and ``student`` -> name of the exit.
    """
    content = (folder / example["audio"]).read_bytes()
    waveform, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    seconds = len(waveform) / rate
    lanes = []
    for who, other in (("teacher", "student"), ("student", "teacher")):
        spikes = _spikes(example[who], frame_ms / 1000, other)
        symbols = ["␣" if record["symbol"] == "|" else record["symbol"] for record in example[who]]
        spelt = ("" if all(len(symbol) == 1 for symbol in symbols) else " ").join(symbols)  # letters, or word pieces
        lanes.append(Lane(who, names[who], spikes, spelt))
    return Player(
        title=example["name"],
        text=example["text"],
        seconds=seconds,
        width=round(seconds * PER_SECOND, 1),
        audio=data_uri(content, "audio/flac"),
        wave=wave_path(waveform, seconds),
        ticks=[tick / 2 for tick in range(int(2 * (seconds - _TICK)) + 1)],
        lanes=lanes,
        figure=picture(folder / example["figure"]),
    )


def data_uri(content: bytes, kind: str) -> str:
    """Encode bytes as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def picture(path: Path) -> str:
    """Encode a PNG as an address in WebP, which takes a quarter of the size."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(buffer, "WEBP", quality=_QUALITY)
    return data_uri(buffer.getvalue(), "image/webp")


def wave_path(waveform: npt.NDArray[np.float32], seconds: float) -> str:
    """Draw the waveform as an SVG path through the extreme samples of short stretches."""
    stretches = np.array_split(waveform, round(seconds * _STRETCHES_PER_SECOND))
    loudest = max(float(np.abs(waveform).max(initial=0)), 1e-4)
    middle = WAVE_HEIGHT / 2
    step = seconds * PER_SECOND / len(stretches)

    def points(heights: list[float]) -> list[str]:
        return [f"{(i + 0.5) * step:.1f} {middle - height / loudest * middle:.1f}" for i, height in enumerate(heights)]

    over = points([part.max(initial=0) for part in stretches])
    under = points([part.min(initial=0) for part in stretches])
    return f"M{' L'.join(over + under[::-1])} Z"


def _spikes(records: Sequence[dict[str, Any]], frame_seconds: float, other: str) -> list[Spike]:
    """Place the spikes; symbols that would overlap get different levels."""
    spikes: list[Spike] = []
    pixels = frame_seconds * PER_SECOND
    room = _LABEL * breadth(record["symbol"] for record in records)
    levels = stagger([pixels * record["peak"] for record in records], room)
    for record, level in zip(records, levels, strict=True):
        start, end, posterior = record["start"], record["end"], record["posterior"]
        seconds = (record["peak"] + 0.5) * frame_seconds
        symbol = shown(record["symbol"])
        said = "word boundary" if symbol == "␣" else symbol
        elsewhere = _OTHER[record["other"]].format(other=other)
        spikes.append(
            Spike(
                symbol=symbol,
                x=round(seconds * PER_SECOND, 1),
                left=round(start * pixels, 1),
                width=round((end - start) * pixels, 1),
                height=round(_BAR * posterior, 1),
                level=level,
                seconds=round(start * frame_seconds, 4),
                ends=round(end * frame_seconds, 4),
                other=record["other"],
                label=f"{said} at {seconds:.2f} s, posterior {posterior:.2f}; {elsewhere}",
            )
        )
    return spikes
