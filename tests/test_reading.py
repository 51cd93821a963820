"""docs/reading.md names existing code, and the files that a training step and a decode run."""

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fairseq_skd
from fairseq_skd.decoding import decode
from tests.goldens import cases
from tests.training.trainers import batches, build_trainer

PACKAGE = Path(fairseq_skd.__file__).parent
TEXT = (PACKAGE.parent / "docs" / "reading.md").read_text(encoding="utf-8")


def listed(begin: str, end: str) -> set[str]:
    """Read the files of the list between two texts; the first file of each line counts."""
    part = TEXT[TEXT.index(begin) : TEXT.index(end)]
    return {line.split("`")[1] for line in part.splitlines() if line.startswith("- ")}


def files_run(call: Callable[[], Any]) -> set[str]:
    """Run a function and return the files of the package whose functions it calls."""
    found = set()

    def note(frame: Any, event: str, _: Any) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(PACKAGE):
            found.add(file.relative_to(PACKAGE).as_posix())

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.slow
def test_a_training_step_runs_the_listed_files(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path)
    (sample, *_) = batches(trainer)
    model, criterion = trainer.get_model(), trainer.get_criterion()

    def step() -> None:
        _, _, logged = trainer.task.train_step(sample, model, criterion, trainer.optimizer, 3)
        trainer.task.reduce_metrics([logged], criterion)

    files = files_run(step)
    assert files == listed("A training step runs", "## Alpha")
    assert len(files) <= 8


@pytest.mark.slow
def test_a_decode_runs_the_listed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, found = decode.search_and_write, set()

    def traced(*arguments: Any) -> Any:
        summary: dict[str, Any] = {}
        found.update(files_run(lambda: summary.update(original(*arguments))))
        return summary

    monkeypatch.setattr(decode, "search_and_write", traced)
    cases.decode(cases.manifests(tmp_path / "data"), tmp_path / "out", "hubert", cases.DEPTH, "many", "viterbi")
    assert found == listed("A decode then runs", "## Who may import")
    assert len(found) <= 12


@pytest.mark.slow
def test_every_name_exists() -> None:
    """A line ``- `file`: `name` ...`` names functions, classes or methods of the file."""
    for line in TEXT.splitlines():
        if not re.match(r"- `|\d\. `", line):
            continue
        file, *names = re.findall(r"`([^`]+)`", line)
        path = PACKAGE.parent / file if file.startswith("fairseq_skd/") else PACKAGE / file
        assert path.is_file(), line
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        there = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for name in names:
            wanted = re.fullmatch(r"(?:[A-Z]\w+\.)?([a-z_]\w+|[A-Z]\w+)", name)
            if wanted and not re.search(r"criterion|w2v|tau|alpha$|max_update|alpha_sum", name):
                assert wanted[1] in there, f"{line}: no {name} there"
