"""Differences between versions; test_user_dir has the tests that need a fresh process."""

import enum
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from fairseq_skd import compat

# hydra 1.3 warns about the old version_base that makes it behave like hydra 1.0
pytestmark = pytest.mark.filterwarnings(r"ignore:[\s\S]*hydra\.cc/docs")

FORCE, FORBID = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


# ---- plain configurations


class Choice(enum.Enum):
    STATIC = "static"


def test_to_container() -> None:
    cfg = OmegaConf.create({"a": "${b.c}", "b": {"c": [1, None]}})
    plain = compat.to_container(cfg)
    assert plain == {"a": [1, None], "b": {"c": [1, None]}}
    assert type(plain["b"]["c"]) is list
    assert compat.to_container(Choice.STATIC) == "static"
    for unchanged in (None, 3, "x", {"a": cfg}):
        assert compat.to_container(unchanged) is unchanged


# ---- weights-only by default


def test_weights_only_becomes_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FORCE, raising=False)
    monkeypatch.delenv(FORBID, raising=False)
    compat.prefer_weights_only()
    assert os.environ[FORCE] == "1"


@pytest.mark.parametrize("value", ["0", "1"])
def test_a_value_set_by_the_user_wins(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(FORCE, value)
    monkeypatch.delenv(FORBID, raising=False)
    compat.prefer_weights_only()
    assert os.environ[FORCE] == value


@pytest.mark.parametrize("value", ["1", "y", "YES", "true"])
def test_only_one_of_two_variables_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str) -> None:
    monkeypatch.delenv(FORCE, raising=False)
    monkeypatch.setenv(FORBID, value)
    compat.prefer_weights_only()
    assert FORCE not in os.environ
    torch.save({"a": 1}, tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True) == {"a": 1}  # torch raises if both are set


@pytest.mark.parametrize("value", ["0", "", "no"])
def test_a_false_value_does_not_count(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.delenv(FORCE, raising=False)
    monkeypatch.setenv(FORBID, value)
    compat.prefer_weights_only()
    assert os.environ[FORCE] == "1"
