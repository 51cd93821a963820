"""Folders that Hugging Face transformers saved."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.encoders.peers import write_folder  # here: without transformers, the importing test skips

    folder = tmp_path_factory.mktemp("wav2vec2")
    write_folder(folder, "wav2vec2")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the folder, which a test may change."""
    return shutil.copytree(saved, tmp_path / "model")
