"""Speech from text: espeak-ng, called in its synchronous mode through the library that ``espeakng-loader`` carries."""

import ctypes
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fairseq_skd.errors import UserError

Waveform = npt.NDArray[np.float32]

# From espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_POS_CHARACTER = 1
_CHARS_UTF8 = 1
_PARAMETER_RATE = 1
_PARAMETER_PITCH = 3
_LONGEST_DATA_PATH = 120  # espeak-ng keeps the path in a buffer of 160 characters, file names included

_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """One speaker.

    Attributes:
        name: espeak-ng's name of the voice, a language with a variant behind a plus sign (``en-us+f2``).
        pitch: 0 to 100, espeak-ng's scale (50 is the variant's own pitch).
        rate: words a minute.
    """

    name: str
    pitch: int = 50
    rate: int = 170


class Synthesiser:
    """espeak-ng, ready to speak; from :func:`open_synthesiser`. The library holds one state a process."""

    def __init__(self, library: Any, data_path: Path, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._library = library
        self._variants = data_path / "voices" / "!v"
        self._chunks: list[npt.NDArray[np.int16]] = []
        self._callback = _SynthCallback(self._receive)  # a reference must live as long as the library may call it
        library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: Voice) -> Waveform:
        """The waveform of ``text``, (samples,) at ``sample_rate``, in [-1, 1].

        Raises:
            UserError: for a voice that espeak-ng lacks.
        """
        variant = voice.name.partition("+")[2]
        # espeak-ng itself would speak with the language's own voice if the variant is missing.
        known = not variant or (self._variants / variant).is_file()
        if not known or self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise UserError(f"espeak-ng has no voice {voice.name!r}: give a language and a variant such as 'en-us+f2'")
        self._library.espeak_SetParameter(_PARAMETER_RATE, voice.rate, 0)
        self._library.espeak_SetParameter(_PARAMETER_PITCH, voice.pitch, 0)
        self._chunks.clear()
        encoded = text.encode() + b"\0"
        status = self._library.espeak_Synth(encoded, len(encoded), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
        if status != 0 or not self._chunks:
            raise UserError(f"espeak-ng could not speak {text!r} with the voice {voice.name!r} (status {status})")
        return np.concatenate(self._chunks).astype(np.float32) / 32768.0

    def _receive(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:  # the last call of an utterance brings none
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on


@contextmanager
def open_synthesiser() -> Iterator[Synthesiser]:
    """Load espeak-ng and hand it back when the block ends.

    Raises:
        UserError: if ``espeakng-loader`` is not installed or its library does not start.
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
    """``path``, or a link to it in the system's temporary folder where espeak-ng's buffer is too short for it."""
    if len(str(path)) <= _LONGEST_DATA_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="espeak") as folder:
        link = Path(folder) / path.name
        link.symlink_to(path, target_is_directory=True)
        yield link
