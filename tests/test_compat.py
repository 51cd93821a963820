"""The differences between builds, apart from what only a fresh process can show (test_user_dir)."""

import enum
import os
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from fairseq_skd import compat
from fairseq_skd.errors import UserError

# hydra 1.3, of the version that we ask for so that it agrees with hydra 1.0
pytestmark = pytest.mark.filterwarnings(r"ignore:[\s\S]*hydra\.cc/docs")

FORCE, FORBID = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


# ---- compose


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "run.yaml").write_text(
        "# @package _group_\n\nmodel:\n  layers: [6]\n  depth: 12\n  note: null\ntask:\n  data: ???\n"
    )
    (folder / "other.yaml").write_text("a: 1\n")
    return folder


def refusal(folder: Path, name: str, *overrides: str) -> str:
    with pytest.raises(UserError) as refused:
        compat.compose(folder, name, overrides)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", ["run", "run.yaml"])
def test_composes_a_file_with_overrides(configs: Path, name: str) -> None:
    cfg = compat.compose(configs, name, ["model.layers=[3,9]", "task.data=/a b", "+model.extra=x"])
    assert isinstance(cfg, DictConfig)
    assert OmegaConf.to_container(cfg) == {
        "model": {"layers": [3, 9], "depth": 12, "note": None, "extra": "x"},
        "task": {"data": "/a b"},
    }


def test_composes_from_a_relative_folder_and_stays_where_it_is(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(configs.parent)
    before = sorted(configs.parent.rglob("*"))
    assert compat.compose("conf", "other").a == 1
    assert compat.compose(Path("conf"), "other", ["a=2"]).a == 2
    assert Path.cwd() == configs.parent
    assert sorted(configs.parent.rglob("*")) == before


def test_a_config_that_is_not_there(configs: Path) -> None:
    assert refusal(configs, "runn") == f"--config-name runn is not in {configs} (there: other, run)"
    assert refusal(configs / "no", "run") == f"--config-name run is not in {configs / 'no'} (there: no YAML at all)"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model.layer=[6]", "there is no key model.layer, model has: "),
        ("models=3", "there is no key models, it has: "),
        ("model.layers=[6", "model.layers=[6 cannot be read: "),
        ("model.depth", "Error parsing override 'model.depth'"),
        ("~model.width", "'model.width' does not exist"),
    ],
)
def test_an_override_that_does_not_fit(configs: Path, override: str, reason: str) -> None:
    sentence = refusal(configs, "run", "task.data=x", override)
    assert sentence.startswith(f"{configs / 'run.yaml'} with task.data=x {override}: ")
    assert reason in sentence.split(": ", 1)[1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: : 2\n", "line 2: mapping values are not allowed"),
        ("a: 1\nb: 2\na: 3\n", "line 3: found duplicate key a"),
        ("a:\n\tb: 1\n", "line 2: found character '\\t' that cannot start any token"),
    ],
)
def test_a_file_that_is_not_yaml(configs: Path, text: str, reason: str) -> None:
    (configs / "bad.yaml").write_text(text)
    assert refusal(configs, "bad").startswith(f"{configs / 'bad.yaml'} with no overrides: {reason}")


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
