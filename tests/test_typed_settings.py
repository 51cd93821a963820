"""Typed settings: values keep their type, and wrong types are refused instead of converted."""

from dataclasses import dataclass

import pytest

from fairseq_skd.errors import UserError
from fairseq_skd.typed_settings import MISSING, Sections, key


@dataclass(frozen=True)
class Part:
    needed: str = key(MISSING, "a name")
    flag: bool = key(False, "yes or no")
    count: int | None = key(None, "how many", least=1)
    weight: float = key(1.0, "how much")
    kind: str = key("one", "which", among=("one", "two"))
    path: str | None = key(None, "where")
    places: list[int] | None = key(None, "which ones", least=0)
    names: str | list[str] | None = key(None, "who")


@dataclass(frozen=True)
class Whole(Sections):
    part: Part = Part()


def read(**values):
    return Whole.read({"part": {"needed": "x", **values}}).part


def test_values_keep_their_type():
    given = {"needed": "a", "flag": True, "count": 2, "weight": 0.5, "kind": "two", "path": "7", "places": [0, 3]}
    assert vars(read(**given)) == {**given, "names": None}
    assert read() == Part(needed="x")
    assert read(names="ltr").names == "ltr" and read(names=["ltr", "phn"]).names == ["ltr", "phn"]


def test_a_whole_number_can_be_a_number_or_a_text():
    found = read(weight=2, path=2019)
    assert (type(found.weight), found.weight) == (float, 2.0)
    assert found.path == "2019"


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("flag", 2, "true or false"),
        ("flag", "true", "true or false"),
        ("flag", None, "true or false"),
        ("count", "7", "a whole number or null"),
        ("count", True, "a whole number or null"),
        ("count", 7.0, "a whole number or null"),
        ("weight", "0.5", "a number"),
        ("weight", True, "a number"),
        ("path", False, "a text or null"),
        ("path", 1.5, "a text or null"),
        ("places", [True], "a list of whole numbers or null"),
        ("places", ["1"], "a list of whole numbers or null"),
        ("places", 1, "a list of whole numbers or null"),
        ("names", [1], "a text or a list of texts or null"),
        ("names", {"a": 1}, "a text or a list of texts or null"),
    ],
)
def test_nothing_is_converted(name, value, wanted):
    with pytest.raises(UserError, match=rf"^part\.{name}=.* cannot be used, it takes {wanted}$"):
        read(**{name: value})


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"part": {"needed": "x", "count": 0}}, r"part\.count=0 is out of range, it is at least 1$"),
        ({"part": {"needed": "x", "places": [3, -1]}}, r"part\.places=\[3, -1\] is out of range, it is at least 0$"),
        ({"part": {"needed": "x", "kind": "three"}}, r"part\.kind=three is unknown: choose one of one, two$"),
        ({"part": {"needed": "x", "path": MISSING}}, r"part\.path is not set \(where\): give part\.path=\.\.\.$"),
        ({}, r"part\.needed is not set \(a name\): give part\.needed=\.\.\.$"),
        ({"part": {"needed": ""}}, r"part\.needed is not set"),
        ({"part": {"need": "x"}}, r"there is no key part\.need, part has: needed, flag, count, weight, kind, path, "),
        ({"part": [1]}, r"part=\[1\] replaces a whole section with one value: set its keys, part\.<key>=\.\.\.$"),
        ({"other": {}}, r"there is no section other, the sections are: part$"),
    ],
)
def test_refused_configurations(config, sentence):
    with pytest.raises(UserError, match=f"^{sentence}"):
        Whole.read(config)


def test_help():
    lines = Whole.describe().splitlines()
    assert lines[:4] == ["  part.needed (required)", "      a name", "  part.flag (false)", "      yes or no"]
    assert "  part.count (null)" in lines
    assert Whole.free_texts() == ["part.needed", "part.path"]
