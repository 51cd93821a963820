from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fairseq_skd.overrides import explain, hydra_overrides


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
