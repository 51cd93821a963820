"""fairseq_skd: CTC fine-tuning with scheduled frame-level self-knowledge distillation, as a fairseq user dir.

Importing it after fairseq registers what it has (:mod:`fairseq_skd.registration`). Importing it before fairseq is
quick, for commands that need neither fairseq nor torch. It registers then when fairseq is given it as its user dir, or
with ``import fairseq_skd.models``, which a script needs that does not name a user dir.
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
    """This package's ``__path__``. fairseq looks for a user dir in it when a package of that name is imported already.

    fairseq does not import such a user dir again, and nothing else of the package may have been imported.
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
    """Open a fine-tuned checkpoint for recognition: see :func:`fairseq_skd.recognizer.load`."""
    from fairseq_skd import recognizer  # here: it imports torch and fairseq

    return recognizer.load(path, exits, device, dtype)


if "fairseq" in sys.modules:
    from fairseq_skd import registration  # noqa: F401
