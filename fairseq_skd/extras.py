"""Optional dependencies: what is missing is told before any time is spent."""

import importlib.util
from collections.abc import Iterable

from fairseq_skd.errors import UserError


def require(modules: Iterable[str], extra: str, purpose: str) -> None:
    """Make sure that modules can be imported.

    Args:
        modules: top-level names.
        extra: of ``setup.cfg`` that installs them.
        purpose: what needs them, for the message.

    Raises:
        UserError: one is not installed.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{purpose} needs {' and '.join(missing)}: pip install 'fairseq_skd[{extra}]'")
