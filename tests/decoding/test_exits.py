from typing import Any

import pytest

from fairseq_skd.decoding.exits import choose_exit, read_overrides
from fairseq_skd.errors import UserError


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("{}", None),
        ("", None),
        ("{'decode_layer': 6}", 6),
        ('{"decode_layer": 0}', 0),
        ({"decode_layer": 6}, 6),
    ],
)
def test_overrides(text: Any, layer: int | None) -> None:
    assert read_overrides(text) == layer


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{'decode_layer': 6", "is not a dict in Python's notation"),
        ("6", "is not a dict in Python's notation"),
        ("__import__('os').system('true')", "is not a dict in Python's notation"),
        ("{'w2v_path': '/a.pt'}", "sets w2v_path, only decode_layer can be overridden"),
        ("{'decode_layer': '6'}", "sets decode_layer to '6', it takes a layer count"),
        ("{'decode_layer': True}", "sets decode_layer to True, it takes a layer count"),
        ("{'decode_layer': None}", "sets decode_layer to None, it takes a layer count"),
        ({"decode_layer": -1}, "sets decode_layer to -1, it takes a layer count"),
    ],
)
def test_refused_overrides(text: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_overrides(text)


@pytest.mark.parametrize(
    ("layer", "override", "chosen"),
    [
        (None, None, 12),
        (0, None, 12),
        (12, None, 12),
        (6, None, 6),
        (None, 6, 6),
        (None, 0, 12),
        (6, 6, 6),
        (0, 12, 12),
        (12, 0, 12),
    ],
)
def test_choice(layer: int | None, override: int | None, chosen: int) -> None:
    assert choose_exit(layer, override, depth=12, students=[3, 6]) == chosen


@pytest.mark.parametrize(("layer", "override"), [(6, 3), (0, 6), (6, 0), (12, 6)])
def test_disagreement(layer: int, override: int) -> None:
    with pytest.raises(UserError, match=rf"decoding\.layer={layer} disagrees .* decode_layer is {override}: drop one"):
        choose_exit(layer, override, depth=12, students=[3, 6])


@pytest.mark.parametrize(
    ("layer", "override", "key"),
    [
        (5, None, "decoding.layer=5"),
        (None, 5, "common_eval.model_overrides: decode_layer=5"),
        (13, None, "decoding.layer=13"),
    ],
)
def test_an_exit_that_was_not_trained(layer: int | None, override: int | None, key: str) -> None:
    sentence = rf"^{key}: the checkpoint has no exit there; take 0 for the full model of 12 layers, or .* \(3 or 6\)"
    with pytest.raises(UserError, match=sentence):
        choose_exit(layer, override, depth=12, students=[6, 3])
    with pytest.raises(UserError, match=r"it was trained without a student"):
        choose_exit(6, None, depth=12, students=[])
