"""The folder that a command writes into."""

import os
from pathlib import Path

from fairseq_skd.errors import UserError


def make_folder(folder: Path) -> Path:
    """Create ``folder``, with those above it, unless it exists; returns it.

    Raises:
        UserError: if it cannot be made, is a file, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"--out {folder} is a file, it has to be a folder") from None
    except OSError as error:
        raise UserError(f"--out {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out {folder} is not writable: choose another folder")
    return folder
