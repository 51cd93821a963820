"""The demo corpus: short spoken commands by a few synthetic voices, with a table of who says what in which split.

``python -m fairseq_skd.demo.corpus --out DIR`` writes ``DIR/demo.tsv`` (path, text, split, speaker) and the audio.
``manifests/demo.tsv`` is a copy of the table; the same seed always draws the same one.
"""

import argparse
import csv
import io
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile
import soxr
from tqdm import tqdm

from fairseq_skd.demo.synthesis import Voice, open_synthesiser
from fairseq_skd.errors import run_command
from fairseq_skd.files.disk import replacing

SAMPLE_RATE = 16_000
TABLE_COLUMNS = ("path", "text", "split", "speaker")

# Sentences a split. The three sets share no sentence.
SPLIT_SIZES = {"train": 900, "valid": 60, "test": 120}
TRAINING_VOICES = ("en-us+m3", "en-us+f2", "en-us+Annie", "en-us+m7", "en-us+f4", "en-us+Andy")
# Speaks in the test split and nowhere else, beside the voices above.
TEST_VOICE = "en-us+f5"

_SLOTS = {
    "colour": ("RED", "GREEN", "BLUE", "YELLOW", "WHITE", "BLACK"),
    "number": ("ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE", "TEN"),
    "day": ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"),
    "room": ("KITCHEN", "GARDEN", "OFFICE", "BEDROOM"),
    "thing": ("LAMP", "DOOR", "BOX", "WINDOW", "CHAIR"),
    "verb": ("OPEN", "CLOSE", "FIND", "MOVE", "PAINT"),
    "switch": ("ON", "OFF"),
}
_TEMPLATES = (
    "{verb} THE {colour} {thing} IN THE {room}",
    "TURN {switch} THE {colour} LAMP IN THE {room}",
    "{verb} THE {colour} {thing} ON {day}",
    "WAKE ME AT {number} O'CLOCK ON {day}",
    "TURN THE {room} LAMP {switch} AT {number} O'CLOCK",
    "CALL {number} {number} {number} {number}",
    "WHAT IS {number} TIMES {number} PLUS {number}",
    "DON'T {verb} THE {colour} {thing} ON {day}",
)


@dataclass(frozen=True)
class Utterance:
    """One line of the table. ``path`` is relative to the audio folder, ``speaker`` is the name of the voice."""

    path: str
    text: str
    split: str
    speaker: str


def draw_utterances(seed: int = 1) -> list[Utterance]:
    """The lines of the table, split by split: every sentence once, the voices in turn."""
    generator = random.Random(seed)
    sentences = _distinct_sentences(generator)
    utterances = []
    for split, size in SPLIT_SIZES.items():
        voices = TRAINING_VOICES + ((TEST_VOICE,) if split == "test" else ())
        for index in range(size):
            voice = voices[index % len(voices)]
            path = f"{split}/{split}-{index:04d}-{voice.replace('+', '-')}.flac"
            utterances.append(Utterance(path, next(sentences), split, voice))
    return utterances


def voice_of(utterance: Utterance) -> Voice:
    """The voice that speaks ``utterance``; pitch and rate vary from utterance to utterance, as a person's do."""
    generator = random.Random(utterance.path)
    return Voice(utterance.speaker, pitch=generator.randint(40, 60), rate=generator.randint(160, 190))


def table_text(utterances: list[Utterance]) -> str:
    """The table as it stands in the file: tab-separated, with a header line."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerow(TABLE_COLUMNS)
    writer.writerows((u.path, u.text, u.split, u.speaker) for u in utterances)
    return buffer.getvalue()


def write_audio(utterances: list[Utterance], audio_root: Path) -> None:
    """Speak every utterance into a FLAC file under ``audio_root``: 16 kHz, mono, 16 bit."""
    with open_synthesiser() as synthesiser:
        for utterance in tqdm(utterances, desc="speaking", unit="utt"):
            waveform = synthesiser.speak(utterance.text.lower(), voice_of(utterance))
            # Resampling overshoots a little; clipping beats wrapping round.
            resampled = soxr.resample(waveform, synthesiser.sample_rate, SAMPLE_RATE).clip(-1.0, 1.0)
            encoded = io.BytesIO()  # by way of memory: libsndfile does not tell why it cannot write to a disk
            soundfile.write(encoded, resampled, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
            with replacing(audio_root / utterance.path) as beside:
                beside.write_bytes(encoded.getbuffer())


def write_corpus(folder: Path, seed: int = 1) -> None:
    """Write ``folder/audio/`` and then ``folder/demo.tsv``."""
    utterances = draw_utterances(seed)
    write_audio(utterances, folder / "audio")
    with replacing(folder / "demo.tsv") as beside:
        beside.write_text(table_text(utterances), encoding="utf-8")


def _distinct_sentences(generator: random.Random) -> Iterator[str]:
    """Sentences of the grammar, the templates equally often, none twice."""
    seen = set()
    while True:
        template = generator.choice(_TEMPLATES)
        # A slot that stands twice in a template is drawn twice.
        words = [generator.choice(_SLOTS[word[1:-1]]) if word[0] == "{" else word for word in template.split()]
        sentence = " ".join(words)
        if sentence not in seen:
            seen.add(sentence)
            yield sentence


def main() -> None:
    """Read the command line and write the corpus."""
    parser = argparse.ArgumentParser(prog="python -m fairseq_skd.demo.corpus", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for demo.tsv and audio/")
    parser.add_argument("--seed", type=int, default=1, help="draws the sentences (default: 1)")
    arguments = parser.parse_args()
    write_corpus(arguments.out, arguments.seed)


if __name__ == "__main__":
    sys.exit(run_command("fairseq_skd.demo.corpus", main))
