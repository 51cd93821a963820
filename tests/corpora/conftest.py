"""A small synthetic corpus: tones as audio files, and tables that name them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

MakeTone = Callable[..., Path]
WriteTable = Callable[..., Path]


@pytest.fixture
def tone(tmp_path: Path) -> MakeTone:
    """``tone(name, samples=16000, rate=16000, channels=1, **options)`` writes ``corpus/name``."""

    def make(name: str, samples: int = 16000, rate: int = 16000, channels: int = 1, **options: str) -> Path:
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(samples) / rate)
        soundfile.write(path, wave if channels == 1 else np.stack([wave] * channels, axis=1), rate, **options)
        return path

    return make


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """``table(*lines, name="table.tsv")`` writes the lines."""

    def make(*lines: str, name: str = "table.tsv") -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
        return path

    return make


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Write noise in each format under ``corpus/``, at 16 kHz except eight.wav (8 kHz)."""
    root = tmp_path / "corpus"
    (root / "deep").mkdir(parents=True)
    noise = np.random.default_rng(1).normal(0, 0.1, 20000)
    soundfile.write(root / "a.wav", noise[:16000], 16000)
    soundfile.write(root / "deep" / "b.flac", noise[:17520], 16000)
    soundfile.write(root / "c:1.ogg", noise[:12345], 16000, subtype="OPUS")
    soundfile.write(root / "eight.wav", noise[:8000], 8000)
    return root


@pytest.fixture
def write_table(corpus: Path) -> WriteTable:
    """``write_table(*rows, header=...)`` writes a TSV table beside the corpus."""

    def write(*rows: tuple[str, ...], header: tuple[str, ...] = ("path", "text", "split")) -> Path:
        path = corpus.parent / "table.tsv"
        path.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def three(write_table: WriteTable) -> Path:
    """Write a table of the three 16 kHz files."""
    rows = [("a.wav", "GO ON", "train"), ("deep/b.flac", "DON'T SEE", "test"), ("c:1.ogg", "YES", "train")]
    return write_table(*rows)
