"""Load KenLM's n-gram language models through flashlight-text."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from fairseq_skd.errors import UserError

INSTALL = (
    "pip install 'fairseq_skd[lm]'"
    if sys.version_info < (3, 13)
    else "it has no wheel for Python 3.13, use an environment of Python 3.10 to 3.12"
)
UNKNOWN = "<unk>"
_GZIP = b"\x1f\x8b"
_BINARY = b"mmap lm http://kheafield.com/code format version"
_ARPA = b"\\data\\"


def flashlight(module: str = "decoder") -> ModuleType:
    """Import a module of flashlight-text.

    Nothing else imports it, so training and greedy decoding work without it.

    Raises:
        UserError: flashlight-text is not installed.
    """
    try:
        return importlib.import_module(f"flashlight.lib.text.{module}")
    except ImportError as error:
        raise UserError(f"decoding with a language model needs flashlight-text: {INSTALL}") from error


def check_language_model(path: Path) -> None:
    """Check from its first bytes that a file can be a KenLM model.

    Raises:
        UserError: the file is missing, or neither ARPA (plain or gzip) nor KenLM's binary format.
    """
    if not path.is_file():
        raise UserError(f"language model {path} does not exist: check the path")
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith((_GZIP, _BINARY)) or head.lstrip().startswith(_ARPA):
        return
    raise UserError(
        f"language model {path} is neither ARPA (\\data\\ in its first line) nor KenLM's binary format: give a file in "
        f"one of them"
    )


def load_language_model(path: Path, vocabulary: Sequence[str]) -> Any:
    """Load a model for the words or units of a search.

    KenLM's scores are log10 probabilities, as in the ARPA file.

    Args:
        path: ARPA, plain or gzip, or KenLM's binary format.
        vocabulary: words or units to score, each once; their index is their label. It contains
            :data:`UNKNOWN`.

    Returns:
        flashlight-text's KenLM.

    Raises:
        UserError: flashlight-text is missing, or the file cannot be read completely.
    """
    kenlm, dictionary = flashlight("decoder.kenlm"), flashlight("dictionary").Dictionary(list(vocabulary))
    check_language_model(path)
    try:
        return kenlm.KenLM(str(path), dictionary)
    except (RuntimeError, MemoryError) as error:  # KenLM names the fault and its place in the last line
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(f"language model {path} cannot be read: {reason}") from error


def unknown_entries(model: Any, vocabulary: Sequence[str], entries: Sequence[str]) -> list[str]:
    """List the entries that a model seems not to know.

    flashlight-text's KenLM cannot be asked directly. But an entry that it does not know scores like
    :data:`UNKNOWN`. A known entry may have that score by chance.

    Args:
        model: from :func:`load_language_model`.
        vocabulary: the vocabulary with which it was loaded.
        entries: the words or units to test.
    """
    start = model.start(False)
    index = {entry: place for place, entry in enumerate(vocabulary)}
    unknown = model.score(start, index[UNKNOWN])[1]
    return [entry for entry in entries if model.score(start, index[entry])[1] == unknown]
