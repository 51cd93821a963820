"""Simulate a full disk in this process."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def file_limit(most: int = 1000) -> Iterator[None]:
    """Limit every file of this process and its children to ``most`` bytes, shared memory included.

    It is not a fixture, because pytest may write its report to a longer file before fixtures end.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
