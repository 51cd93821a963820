"""Two trained checkpoints give the texts and numbers of ``expected.json`` after any change."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.goldens import cases

EXPECTED = json.loads((cases.HERE / "expected.json").read_text())
TOLERANCE = 1e-5  # the order of sums depends on machine and torch version
ROUNDED = 2e-3  # fairseq logs losses with three decimals


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cases.manifests(tmp_path_factory.mktemp("goldens"))


def assert_same(found: Any, expected: Any, where: str, rounded: float = 0.0) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}: {key}", rounded)
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{where}: {place}", rounded)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=TOLERANCE, abs=max(TOLERANCE, rounded)), where
    else:
        assert found == expected and type(found) is type(expected), where


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: "-".join(map(str, case)))
@pytest.mark.slow
def test_decode(case: tuple[str, int, str, str], data: Path, tmp_path: Path) -> None:
    if case[-1] == "kenlm":
        pytest.importorskip("flashlight.lib.text")
    name = cases.case_name(*case)
    assert_same(cases.decode(data, tmp_path / "out", *case), EXPECTED[name], name)


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.slow
def test_align(kind: str, data: Path, tmp_path: Path) -> None:
    assert_same(cases.align(data, tmp_path / "out", kind), EXPECTED[f"{kind}, align"], kind)


@pytest.mark.parametrize("criterion", ["skd_ctc", "kd_ctc"])
@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.slow
def test_losses(kind: str, criterion: str, tmp_path: Path) -> None:
    name = f"{kind}, {criterion}, losses"
    assert_same(cases.losses(tmp_path, kind, criterion), EXPECTED[name], name, ROUNDED)


def test_the_checkpoints_are_trained_and_not_perfect() -> None:
    """Texts that are all correct or all wrong would not show a change."""
    for kind in cases.KINDS:
        for layer in (cases.DEPTH, cases.STUDENT):
            summary = EXPECTED[cases.case_name(kind, layer, "many", "viterbi")]["summary.json"]
            assert 0 < summary["cer"] < 60, (kind, layer)
