"""An example utterance to listen to: its audio, and its waveform and spikes as shapes in one coordinate system."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image

from fairseq_skd.alignment.figures import shown, stagger
from fairseq_skd.errors import UserError

PER_SECOND = 240  # pixels; a frame of 20 ms is 4.8 wide
WAVE_HEIGHT = 70
LANE_HEIGHT = 74
_BAR = 30  # pixels of a posterior of 1
_LABEL = 10  # pixels that a symbol takes
_TICK = 0.15  # seconds that the words of a tick take
_STRETCHES_PER_SECOND = 120
_QUALITY = 80  # of 100; the letters of a figure stay sharp
_OTHER = {
    "same": "{other} has it on the same frames",
    "partly": "{other} has it on some of these frames",
    "elsewhere": "{other} does not have it on these frames",
}


class Spike(NamedTuple):
    """A spike as it is drawn. ``x``, ``left``, ``width``, ``height`` in pixels, ``seconds`` where its run begins."""

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
    """The spikes of one exit, and what they spell."""

    who: str
    name: str
    spikes: list[Spike]
    spelt: str


class Player(NamedTuple):
    """What the page needs of an utterance."""

    title: str
    text: str
    seconds: float
    width: float
    audio: str
    wave: str
    ticks: list[float]
    lanes: list[Lane]
    figure: str | None


def make_player(folder: Path, example: dict[str, Any], frame_ms: float, names: dict[str, str]) -> Player:
    """Read an example of ``align.json``.

    Args:
        folder: of ``align.json``; the files that it names lie there.
        example: its entry.
        frame_ms: from one frame to the next.
        names: of the exits, by ``teacher`` and ``student``.

    Raises:
        UserError: its audio is missing, or audio or figure cannot be read.
    """
    path = _inside(folder, example["audio"])
    content = _read(path)
    try:
        waveform, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read as audio") from error
    seconds = len(waveform) / rate
    lanes = []
    for who, other in (("teacher", "student"), ("student", "teacher")):
        spikes = _spikes(example[who], frame_ms / 1000, other)
        symbols = [spike.symbol for spike in spikes]
        spelt = ("" if all(len(symbol) == 1 for symbol in symbols) else " ").join(symbols)  # letters, or word pieces
        lanes.append(Lane(who, names[who], spikes, spelt))
    figure = _inside(folder, example["figure"])
    return Player(
        title=str(example["name"]),
        text=str(example["text"]),
        seconds=seconds,
        width=max(1.0, round(seconds * PER_SECOND, 1)),
        audio=data_uri(content, "audio/flac"),
        wave=wave_path(waveform, seconds),
        ticks=[tick / 2 for tick in range(int(2 * (seconds - _TICK)) + 1)],
        lanes=lanes,
        figure=picture(figure) if figure.is_file() else None,
    )


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def picture(path: Path) -> str:
    """A PNG as an address, in WebP, which is a quarter of its size: of many runs a page would else be hundreds of MB.

    Raises:
        UserError: it is missing, or none.
    """
    content, buffer = io.BytesIO(_read(path)), io.BytesIO()
    try:
        with Image.open(content, formats=["PNG"]) as image:
            image.convert("RGB").save(buffer, "WEBP", quality=_QUALITY)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture") from error
    return data_uri(buffer.getvalue(), "image/webp")


def wave_path(waveform: npt.NDArray[np.float32], seconds: float) -> str:
    """The waveform as an SVG path: over the highest and back under the lowest sample of each stretch."""
    stretches = np.array_split(waveform, max(1, min(len(waveform), round(seconds * _STRETCHES_PER_SECOND))))
    loudest = max(float(np.abs(waveform).max(initial=0)), 1e-4)
    middle = WAVE_HEIGHT / 2
    step = seconds * PER_SECOND / len(stretches)
    over = [
        f"{(i + 0.5) * step:.1f} {middle - part.max(initial=0) / loudest * middle:.1f}"
        for i, part in enumerate(stretches)
    ]
    under = [
        f"{(i + 0.5) * step:.1f} {middle - part.min(initial=0) / loudest * middle:.1f}"
        for i, part in enumerate(stretches)
    ]
    return f"M{' L'.join(over + under[::-1])} Z"


def _spikes(records: Sequence[dict[str, Any]], frame_seconds: float, other: str) -> list[Spike]:
    """Symbols that would lie on each other are drawn on different levels."""
    spikes: list[Spike] = []
    pixels = frame_seconds * PER_SECOND
    levels = stagger([pixels * int(record["peak"]) for record in records], _LABEL)
    for record, level in zip(records, levels, strict=True):
        start, end, peak = (int(record[key]) for key in ("start", "end", "peak"))
        seconds = (peak + 0.5) * frame_seconds
        x = seconds * PER_SECOND
        kind = record["other"] if record["other"] in _OTHER else "elsewhere"
        symbol = shown(str(record["symbol"]))
        said = "word boundary" if symbol == "␣" else symbol
        posterior = float(record["posterior"])
        label = f"{said} at {seconds:.2f} s, posterior {posterior:.2f}; {_OTHER[kind].format(other=other)}"
        spikes.append(
            Spike(
                symbol=symbol,
                x=round(x, 1),
                left=round(start * pixels, 1),
                width=round((end - start) * pixels, 1),
                height=round(_BAR * min(max(posterior, 0.0), 1.0), 1),
                level=level,
                seconds=round(start * frame_seconds, 4),
                ends=round(end * frame_seconds, 4),
                other=kind,
                label=label,
            )
        )
    return spikes


def _inside(folder: Path, name: Any) -> Path:
    """A file that ``align.json`` names: a plain name, so that no other file gets onto the page."""
    text = str(name)
    if text != Path(text).name:
        raise UserError(f"{folder / 'align.json'} names {text!r}, which is not a file beside it")
    return folder / text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}, which align.json names, cannot be read") from error
