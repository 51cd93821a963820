"""A disk that is full, as far as this process can tell."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def file_limit(most: int = 1000) -> Iterator[None]:
    """No file of this process and its children may grow beyond ``most`` bytes, shared memory included.

    A context and no fixture: pytest reports a test before it ends the fixtures, maybe into a longer file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
