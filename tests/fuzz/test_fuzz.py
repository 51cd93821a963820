"""A small seeded part of ``make fuzz``."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tests.fuzz.mutations import CANARY
from tests.fuzz.run import fuzz


@pytest.mark.faults
@pytest.mark.slow
def test_a_part_of_the_fuzz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """X1, X2, X4, X11, X12: each read works or is refused, and runs and leaks nothing."""
    monkeypatch.setenv(CANARY, "")  # restored after the test
    told: list[str] = []
    reads, past, bad = fuzz(40, seed=7, folder=tmp_path, tell=told.append)
    assert bad == 0, "\n".join(told)
    assert past >= reads / 5
