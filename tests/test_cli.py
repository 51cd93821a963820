"""What the commands share: composing a YAML, and overrides in Hydra's grammar."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from fairseq_skd import cli
from fairseq_skd.cli import explain, hydra_overrides
from fairseq_skd.errors import UserError


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
        cli.compose(folder, name, overrides)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", ["run", "run.yaml"])
def test_composes_a_file_with_overrides(configs: Path, name: str) -> None:
    cfg = cli.compose(configs, name, ["model.layers=[3,9]", "task.data=/a b", "+model.extra=x"])
    assert isinstance(cfg, DictConfig)
    assert OmegaConf.to_container(cfg) == {
        "model": {"layers": [3, 9], "depth": 12, "note": None, "extra": "x"},
        "task": {"data": "/a b"},
    }


def test_composes_from_a_relative_folder_and_stays_where_it_is(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(configs.parent)
    before = sorted(configs.parent.rglob("*"))
    assert cli.compose("conf", "other").a == 1
    assert cli.compose(Path("conf"), "other", ["a=2"]).a == 2
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
@pytest.mark.slow
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
@pytest.mark.slow
def test_a_file_that_is_not_yaml(configs: Path, text: str, reason: str) -> None:
    (configs / "bad.yaml").write_text(text)
    assert refusal(configs, "bad").startswith(f"{configs / 'bad.yaml'} with no overrides: {reason}")


@pytest.mark.parametrize("path", ["/plain/path_1.pt", "/a b/c", "/it's/here", "/a,b=c", "/(x)/[y]/{z}"])
def test_paths_survive_hydras_grammar(path):
    (override,) = hydra_overrides({"task.data": Path(path)})
    (parsed,) = OverridesParser.create().parse_overrides([override])
    value = parsed.value()
    assert getattr(value, "text", value) == path


def test_settings_that_are_no_paths_stay():
    assert hydra_overrides({"model.student_layers": "[2]", "a.b": 3}) == ("model.student_layers=[2]", "a.b=3")


def test_a_key_that_is_taken_out_has_no_value():
    assert hydra_overrides({"~a.b": None, "+a.c": 3}) == ("~a.b", "+a.c=3")


def test_which_override_hydra_refused_and_what_there_is_instead():
    config = OmegaConf.create({"task": {"data": "x"}, "model": {"layers": [6], "head": {"bias": True, "norm": False}}})
    reason = "Could not override '{}'. No match in config."
    for key, told in (
        ("model.head.bais", "model.head has: bias, norm"),
        ("model.lr", "model has: layers, head"),
        ("model.layers.first", "model has: layers, head"),
        ("lr", "it has: task, model"),
    ):
        sentence = explain(reason.format(key), ["task.data=y", f"{key}=1"], lambda: config)
        assert sentence == f"there is no key {key}, {told}"
    said = "no viable alternative at input '{x}'"
    assert explain(said, ["a=1", "b={x}"], dict) == f"b={{x}} cannot be read: {said}"
    assert explain("something else", ["a=1"], dict) == "something else"
    assert explain("Could not override 'a'", [], dict) == "Could not override 'a'"  # in the file's own defaults
