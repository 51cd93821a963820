"""A grid of three arms, with data."""

from pathlib import Path

import pytest

from experiments.grid import Grid, read_grid
from tests.experiments.grids import GRID


@pytest.fixture
def grid(tmp_path) -> Grid:
    (tmp_path / "grid.yaml").write_text(GRID)
    return read_grid(tmp_path / "grid.yaml")


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.tsv").write_text("/somewhere\na.wav\t16000\n")
    (folder / "train.ltr").write_text("A |\n")
    return folder
