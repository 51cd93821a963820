"""Spoken sentences of experiments/languages.py: a table as users have them, and its audio.

The table has columns of Common Voice and one more, ``split``. Sentences have capitals and
punctuation, and every second one is in NFD.
"""

import csv
import io
import random
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import soundfile
import soxr
import yaml

from experiments.grid import REPOSITORY
from fairseq_skd.demo.corpus import SAMPLE_RATE, Synthesiser, Voice
from fairseq_skd.files.disk import replacing

TABLE = "validated.tsv"
COLUMNS = ("client_id", "path", "sentence", "up_votes", "down_votes", "locale", "split")
SIZES = {"train": 240, "valid": 30, "test": 40}
VARIANTS = ("m3", "f2", "m7", "f4")
TEST_VARIANT = "f5"  # only in the test split, beside the others


@dataclass(frozen=True)
class Language:
    """Sentences of one language.

    Attributes:
        code: code for ``--language``.
        name: English name.
        voice: language of espeak-ng.
        slots: name of a slot -> its words.
        templates: sentences with ``{slot}``.
        blank_weight: ``model.blank_weight`` of its training.
    """

    code: str
    name: str
    voice: str
    slots: Mapping[str, Sequence[str]]
    templates: Sequence[str]
    blank_weight: float = 0.0


class Line(NamedTuple):
    """One line of a table; ``sentence`` is in NFC."""

    path: str
    sentence: str
    split: str
    variant: str


def read_languages() -> dict[str, Language]:
    """Read ``sentences.yaml``: code -> language."""
    text = (REPOSITORY / "results" / "languages" / "sentences.yaml").read_text(encoding="utf-8")
    return {code: Language(code, **values) for code, values in yaml.safe_load(text).items()}


def draw(language: Language) -> list[Line]:
    """Draw the lines of a table: every sentence once, the voices in turn."""
    sentences = _sentences(language, random.Random(1))
    lines = []
    for split, size in SIZES.items():
        variants = VARIANTS + ((TEST_VARIANT,) if split == "test" else ())
        for index in range(size):
            variant = variants[index % len(variants)]
            lines.append(Line(f"{split}-{index:03d}-{variant}.flac", next(sentences), split, variant))
    return lines


def _sentences(language: Language, generator: random.Random) -> Iterator[str]:
    seen = set()
    while True:
        template = generator.choice(language.templates)
        sentence = re.sub(r"\{(\w+)\}", lambda slot: generator.choice(language.slots[slot[1]]), template)
        if sentence not in seen:
            seen.add(sentence)
            yield _capital(sentence[0], language.code) + sentence[1:]


def _capital(letter: str, code: str) -> str:
    return "İ" if (code, letter) == ("tr", "i") else letter.upper()


def table_text(language: Language, lines: Sequence[Line]) -> str:
    """Format the table; every second sentence is in NFD, as some keyboards write."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerow(COLUMNS)
    for number, line in enumerate(lines):
        sentence = unicodedata.normalize("NFD" if number % 2 else "NFC", line.sentence)
        writer.writerow((line.variant, line.path, sentence, 2, 0, language.code, line.split))
    return buffer.getvalue()


def write_corpus(language: Language, folder: Path, synthesiser: Synthesiser) -> None:
    """Write ``folder/audio/``, 16 kHz FLAC, and then ``folder/validated.tsv``."""
    lines = draw(language)
    for line in lines:
        generator = random.Random(line.path)
        voice = Voice(f"{language.voice}+{line.variant}", generator.randint(40, 60), generator.randint(150, 180))
        spoken = synthesiser.speak(line.sentence, voice).waveform
        waveform = soxr.resample(spoken, synthesiser.sample_rate, SAMPLE_RATE).clip(-1.0, 1.0)
        encoded = io.BytesIO()
        soundfile.write(encoded, waveform, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        with replacing(folder / "audio" / line.path) as beside:
            beside.write_bytes(encoded.getbuffer())
    with replacing(folder / TABLE) as beside:
        beside.write_text(table_text(language, lines), encoding="utf-8")
