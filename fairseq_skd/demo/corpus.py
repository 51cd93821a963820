"""The demo corpus: short spoken commands by a few synthetic voices, with a table of them.

``python -m fairseq_skd.demo.corpus --out DIR`` writes ``DIR/demo.tsv`` (path, text, split, speaker)
with the audio, and ``DIR/words.tsv`` (path, word, start), which says when each word starts, in
seconds. ``manifests/demo.tsv`` is a copy of the table. The same seed gives the same table and, with
the same espeak-ng, the same audio.

espeak-ng synthesizes the speech, through the library in the package ``espeakng-loader``. The starts
are its events. It reports no ends. It speaks some pairs such as "in the" as one word; the start of
"the" is then empty. A word includes the pause or the silence of a stop before its first sound, so
an utterance's first word starts at 0.
"""

import argparse
import csv
import ctypes
import io
import random
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from fairseq_skd.errors import UserError, run_command
from fairseq_skd.files.disk import replacing
from fairseq_skd.files.progress import tracked

Waveform = npt.NDArray[np.float32]

# From espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_POS_CHARACTER = 1
_CHARS_UTF8 = 1
_PARAMETER_RATE = 1
_PARAMETER_PITCH = 3
_SEED = 1
_LONGEST_DATA_PATH = 120  # espeak-ng keeps the path in a buffer of 160 characters, file names included

_EVENT_LIST_TERMINATED = 0
_EVENT_WORD = 1


class _Event(ctypes.Structure):
    """``espeak_EVENT``: 40 bytes where pointers have 64 bits."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # in ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),  # a union of an int, a pointer and 8 characters
    )


_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Voice:
    """One speaker.

    Attributes:
        name: espeak-ng's name of the voice: language, plus sign, variant (``en-us+f2``).
        pitch: 0 to 100 on espeak-ng's scale; 50 is the normal pitch of the variant.
        rate: words per minute.
    """

    name: str
    pitch: int = 50
    rate: int = 170


class Speech(NamedTuple):
    """One spoken text.

    Attributes:
        waveform: (samples,) in [-1, 1].
        starts: per word of the text, its start in seconds; None: espeak-ng does not report it.
    """

    waveform: Waveform
    starts: list[float | None]


class WordEvent(NamedTuple):
    """A word's start as espeak-ng reports it.

    Attributes:
        position: character of the text, from 1.
        milliseconds: time in the audio.
    """

    position: int
    milliseconds: int


def word_starts(text: str, events: Sequence[WordEvent]) -> list[float | None]:
    """Find the start of each word of ``text``, split at white space, in seconds.

    Only an event at a word's first character is its start. espeak-ng sends several events for
    "21" and one for "of the"; an event inside a word starts no word, and a word without an event
    has no start.

    >>> events = [WordEvent(1, 0), WordEvent(8, 240), WordEvent(9, 650), WordEvent(11, 900)]
    >>> word_starts("of the 21 men", events)
    [0.0, None, 0.24, 0.9]
    """
    first: dict[int, int] = {}
    for event in events:
        first.setdefault(event.position, event.milliseconds)
    positions = (word.start() + 1 for word in re.finditer(r"\S+", text))
    return [first[position] / 1000 if position in first else None for position in positions]


class Synthesiser:
    """espeak-ng, ready to speak; made by :func:`open_synthesiser`, one at a time per process."""

    def __init__(self, library: Any, data_path: Path, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._library = library
        self._variants = data_path / "voices" / "!v"
        self._chunks: list[npt.NDArray[np.int16]] = []
        self._events: list[WordEvent] = []
        self._callback = _SynthCallback(self._receive)  # kept alive while the library may call it
        library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: Voice) -> Speech:
        """Speak ``text`` at ``sample_rate``.

        Raises:
            UserError: espeak-ng does not have the voice, or cannot speak the text.
        """
        variant = voice.name.partition("+")[2]
        # For an unknown variant espeak-ng silently takes the default voice of the language.
        known = not variant or (self._variants / variant).is_file()
        if not known or self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise UserError(f"espeak-ng has no voice {voice.name!r}: give a language and a variant such as 'en-us+f2'")
        self._library.espeak_SetParameter(_PARAMETER_RATE, voice.rate, 0)
        self._library.espeak_SetParameter(_PARAMETER_PITCH, voice.pitch, 0)
        self._library.espeak_ng_SetRandSeed(_SEED)  # of breath noise: each run sounds the same
        self._chunks.clear()
        self._events.clear()
        encoded = text.encode() + b"\0"
        status = self._library.espeak_Synth(encoded, len(encoded), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
        if status != 0 or not self._chunks:
            raise UserError(f"espeak-ng could not speak {text!r} with the voice {voice.name!r} (status {status})")
        waveform = np.concatenate(self._chunks).astype(np.float32) / 32768.0
        return Speech(waveform, word_starts(text, self._events))

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        for event in events:  # an array without a length: its last event says so
            if event.type == _EVENT_LIST_TERMINATED:
                break
            if event.type == _EVENT_WORD:
                self._events.append(WordEvent(event.text_position, event.audio_position))
        if samples and count > 0:  # the last call of an utterance has none
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # continue


@contextmanager
def open_synthesiser() -> Iterator[Synthesiser]:
    """Load espeak-ng, and release it when the block ends.

    Raises:
        UserError: ``espeakng-loader`` is not installed, or its library does not start.
    """
    try:
        import espeakng_loader
    except ImportError:
        raise UserError("the package espeakng-loader is not installed: pip install espeakng-loader") from None
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    with _short_path(Path(espeakng_loader.get_data_path())) as data_path:
        sample_rate = library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, str(data_path).encode(), _INITIALIZE_DONT_EXIT
        )
        if sample_rate <= 0:
            raise UserError(f"espeak-ng did not start with its data in {data_path} (status {sample_rate})")
        try:
            yield Synthesiser(library, data_path, sample_rate)
        finally:
            library.espeak_Terminate()


@contextmanager
def _short_path(path: Path) -> Iterator[Path]:
    """Yield ``path``, or a temporary link to it if it is too long for espeak-ng's buffer."""
    if len(str(path)) <= _LONGEST_DATA_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="espeak") as folder:
        link = Path(folder) / path.name
        link.symlink_to(path, target_is_directory=True)
        yield link


SAMPLE_RATE = 16_000
TABLE_COLUMNS = ("path", "text", "split", "speaker")
WORD_COLUMNS = ("path", "word", "start")

# Sentences per split. No sentence is in two splits.
SPLIT_SIZES = {"train": 900, "valid": 60, "test": 120}
TRAINING_VOICES = ("en-us+m3", "en-us+f2", "en-us+Annie", "en-us+m7", "en-us+f4", "en-us+Andy")
# A voice that is only in the test split, beside the voices above.
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
    """One line of the table; ``path`` is relative to the audio folder, ``speaker`` is a voice."""

    path: str
    text: str
    split: str
    speaker: str


def draw_utterances(seed: int = 1) -> list[Utterance]:
    """Draw the lines of the table, split by split: every sentence once, the voices in turn."""
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
    """Return the voice of ``utterance``; its pitch and rate vary with the utterance."""
    generator = random.Random(utterance.path)
    return Voice(utterance.speaker, pitch=generator.randint(40, 60), rate=generator.randint(160, 190))


def table_text(utterances: list[Utterance]) -> str:
    """Format the table as tab-separated text with a header line."""
    return _tsv(TABLE_COLUMNS, ((u.path, u.text, u.split, u.speaker) for u in utterances))


def words_text(utterances: list[Utterance], starts: Mapping[str, list[float | None]]) -> str:
    """Format ``words.tsv``: one line per word, its start in seconds, empty if it is unknown.

    Args:
        utterances: lines of the table.
        starts: path of an utterance -> start of each word, from :func:`write_audio`.
    """
    lines = (
        (u.path, word, "" if start is None else f"{start:.3f}")
        for u in utterances
        for word, start in zip(u.text.split(), starts[u.path], strict=True)
    )
    return _tsv(WORD_COLUMNS, lines)


def _tsv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def write_audio(utterances: list[Utterance], audio_root: Path) -> dict[str, list[float | None]]:
    """Speak every utterance into a FLAC file under ``audio_root``: 16 kHz, mono, 16 bit.

    Returns:
        path of each utterance -> start of each of its words, see :class:`Speech`.
    """
    starts = {}
    with open_synthesiser() as synthesiser:
        for utterance in tracked(utterances, "speaking", "utterance"):
            waveform, starts[utterance.path] = synthesiser.speak(utterance.text.lower(), voice_of(utterance))
            # Resampling keeps the starts. It overshoots: clip, or 16-bit samples would wrap around.
            resampled = soxr.resample(waveform, synthesiser.sample_rate, SAMPLE_RATE).clip(-1.0, 1.0)
            encoded = io.BytesIO()  # in memory: libsndfile does not say why a disk fails
            soundfile.write(encoded, resampled, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
            with replacing(audio_root / utterance.path) as beside:
                beside.write_bytes(encoded.getbuffer())
    return starts


def write_corpus(folder: Path, seed: int = 1) -> None:
    """Write ``folder/audio/``, ``folder/words.tsv`` and then ``folder/demo.tsv``."""
    utterances = draw_utterances(seed)
    starts = write_audio(utterances, folder / "audio")
    for name, text in (("words.tsv", words_text(utterances, starts)), ("demo.tsv", table_text(utterances))):
        with replacing(folder / name) as beside:
            beside.write_text(text, encoding="utf-8")
    known = [start is not None for path in starts for start in starts[path]]
    print(f"{folder / 'words.tsv'}: {len(known)} words, {known.count(False)} of them without a start")


def _distinct_sentences(generator: random.Random) -> Iterator[str]:
    """Yield random sentences, templates equally often, no sentence twice."""
    seen = set()
    while True:
        template = generator.choice(_TEMPLATES)
        # A slot that is twice in a template is drawn twice.
        words = [generator.choice(_SLOTS[word[1:-1]]) if word[0] == "{" else word for word in template.split()]
        sentence = " ".join(words)
        if sentence not in seen:
            seen.add(sentence)
            yield sentence


def main() -> None:
    """Read the command line and write the corpus."""
    parser = argparse.ArgumentParser(prog="python -m fairseq_skd.demo.corpus", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for demo.tsv, words.tsv and audio/")
    parser.add_argument("--seed", type=int, default=1, help="seed for drawing the sentences (default: 1)")
    arguments = parser.parse_args()
    write_corpus(arguments.out, arguments.seed)


if __name__ == "__main__":
    sys.exit(run_command("fairseq_skd.demo.corpus", main))
