from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fairseq_skd.overrides import hydra_overrides


@pytest.mark.parametrize("path", ["/plain/path_1.pt", "/a b/c", "/it's/here", "/a,b=c", "/(x)/[y]/{z}"])
def test_paths_survive_hydras_grammar(path):
    (override,) = hydra_overrides({"task.data": Path(path)})
    (parsed,) = OverridesParser.create().parse_overrides([override])
    value = parsed.value()
    assert getattr(value, "text", value) == path


def test_settings_that_are_no_paths_stay():
    assert hydra_overrides({"model.student_layers": "[2]", "a.b": 3}) == ("model.student_layers=[2]", "a.b=3")
