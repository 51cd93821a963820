"""CTC fine-tuning with scheduled frame-level self-knowledge distillation: a fairseq user dir.

If fairseq is already imported, importing this package registers its model and criteria
(:mod:`fairseq_skd.registration`). If not, importing it is quick, because some commands need neither
fairseq nor torch. Then fairseq registers it as its user dir. A script without a user dir registers
it with ``import fairseq_skd.models``.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import torch

    from fairseq_skd.recognizer import Recognizer

if __name__ != "fairseq_skd":
    raise ImportError(f"the user dir {Path(__file__).parent} must keep its name, fairseq_skd: rename the folder back")

__version__ = "0.2.0"


class _UserDir(list[str]):
    """This package's ``__path__``; it registers the package when fairseq looks for a user dir.

    fairseq looks there if a package with the user dir's name is already imported. It does not
    import the user dir again, so this may be the only chance to register.
    """

    def __contains__(self, folder: object) -> bool:
        from fairseq_skd.registration import is_this_package

        return is_this_package(str(folder))


__path__ = _UserDir(__path__)


def load(
    path: "str | os.PathLike[str]",
    exits: "Sequence[int] | None" = None,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | None" = None,
) -> "Recognizer":
    """Open a fine-tuned checkpoint for recognition.

    >>> rec = load("tests/goldens/hubert.pt", device="cpu")
    >>> rec.transcribe(["tests/goldens/corpus/test1.flac"], exit_layer=4)[0].text
    'IT IS'

    Arguments, result and errors: see :func:`fairseq_skd.recognizer.load`.
    """
    from fairseq_skd import recognizer  # here: it imports torch and fairseq

    return recognizer.load(path, exits, device, dtype)


if "fairseq" in sys.modules:
    from fairseq_skd import registration  # noqa: F401
