"""A grid of three arms, data for it, and the results of another."""

from pathlib import Path

import pytest

from experiments.grid_file import read_grid
from tests.experiments import made_runs
from tests.experiments.grids import GRID
from tests.experiments.made_runs import run


@pytest.fixture
def grid(tmp_path) -> dict:
    (tmp_path / "grid.yaml").write_text(GRID)
    return read_grid(tmp_path / "grid.yaml")


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.tsv").write_text("/somewhere\na.wav\t16000\n")
    (folder / "train.ltr").write_text("A |\n")
    return folder


@pytest.fixture
def out(tmp_path):
    for seed in (1, 2):
        run(tmp_path, "ctc", seed, {4: [1] * 8})
        run(tmp_path, "skd", seed, {4: [1, 1, 1, 1, 1, 1, 2, 2], 2: [1] * 7 + [seed]}, [0] * 7 + [1])
        run(tmp_path, "kd", seed, {2: [2] * 8}, [1] * 8)
    (tmp_path / "grid.yaml").write_text(made_runs.GRID)
    return tmp_path
