"""The differences between builds, apart from what only a fresh process can show (test_user_dir)."""

import enum
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from fairseq_skd import compat

# hydra 1.3, of the version that we ask for so that it agrees with hydra 1.0
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


def test_weights_only_is_made_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FORCE, raising=False)
    monkeypatch.delenv(FORBID, raising=False)
    compat.prefer_weights_only()
    assert os.environ[FORCE] == "1"


@pytest.mark.parametrize("value", ["0", "1"])
def test_a_choice_already_made_is_kept(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(FORCE, value)
    monkeypatch.delenv(FORBID, raising=False)
    compat.prefer_weights_only()
    assert os.environ[FORCE] == value


@pytest.mark.parametrize("value", ["1", "y", "YES", "true"])
def test_torch_is_not_given_two_orders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str) -> None:
    monkeypatch.delenv(FORCE, raising=False)
    monkeypatch.setenv(FORBID, value)
    compat.prefer_weights_only()
    assert FORCE not in os.environ
    torch.save({"a": 1}, tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True) == {"a": 1}  # with both set torch raises


@pytest.mark.parametrize("value", ["0", "", "no"])
def test_an_order_that_is_none_does_not_count(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.delenv(FORCE, raising=False)
    monkeypatch.setenv(FORBID, value)
    compat.prefer_weights_only()
    assert os.environ[FORCE] == "1"
