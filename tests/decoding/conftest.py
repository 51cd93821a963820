"""A corpus of five short utterances, and one checkpoint per kind of encoder."""

from pathlib import Path

import pytest
import torch

from tests.builders import write_corpus
from tests.decoding.checkpoints import TEXTS, write_fine_tuned


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder and hide CUDA."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"test": TEXTS})


@pytest.fixture(scope="session")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fine_tuned(tmp_path_factory.mktemp("hubert") / "checkpoint_best.pt")


@pytest.fixture(scope="session")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fine_tuned(tmp_path_factory.mktemp("wav2vec2") / "checkpoint_best.pt", "wav2vec2")
