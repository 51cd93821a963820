"""The tables of RESULTS.md agree with the files in results/."""

import json
import re
from pathlib import Path

import pytest
from scipy import stats

from experiments import tables
from fairseq_skd.errors import UserError

RESULTS = tables.DATA


def cells(table):
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines() if row.startswith("|")]


def test_the_tables_that_are_committed():
    """Run python -m experiments.tables if this fails."""
    pages = [page.read_text(encoding="utf-8") for page in tables.DOCUMENTS]
    names = [name for page in pages for _, name, _, _ in tables._BLOCK.findall(page)]
    assert set(tables.BLOCKS) - {"readme"} <= set(names) and len(names) == len(set(names))
    tables.main(["--check"])


@pytest.mark.parametrize("name", list(tables.BLOCKS))
def test_a_table_is_narrow_and_whole(name):
    header, rule, *rows = cells(tables.BLOCKS[name]())
    assert 2 <= len(header) <= 7 and rows
    assert {len(row) for row in (rule, *rows)} == {len(header)}


def test_a_row_against_its_file():
    """The student of AN4, read without our reader; scipy's own interval."""
    lines = [line for file in ("cpu", "h100") for line in (RESULTS / "an4" / f"{file}.jsonl").read_text().splitlines()]
    runs = [run for run in map(json.loads, lines) if run["arm"] == "skd"]
    (row,) = (row for row in cells(tables.an4()) if row[0] == "**SKD, student**")
    assert row[1:3] == ["6", str(len(runs))] == ["6", "6"]
    scores = [next(s for s in run["scores"] if (s["subset"], s["exit"]) == ("test", 6)) for run in runs]
    expected = [
        [100 * score["word_errors"] / score["words"] for score in scores],
        [100 * score["character_errors"] / score["characters"] for score in scores],
        [100 * run["alignment"][0]["spike_disagreement"]["value"] for run in runs],
        [
            100 * next(one["spikes"] for one in offset["histogram"] if one["ms"] == 0) / offset["matched"]
            for offset in (run["alignment"][0]["offset"] for run in runs)
        ],
    ]
    for shown, values in zip(row[3:], expected, strict=True):
        mean = sum(values) / len(values)
        low, high = stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values))
        assert list(map(float, re.findall(r"[\d.]+", shown))) == pytest.approx([mean, low, high], abs=0.051)


def test_only_blocks_are_rewritten(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(tables.BLOCKS, "an4", lambda: "| new |\n")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results: an4 -->\n| old |\n<!-- end -->\nafter\n")
    monkeypatch.setattr(tables, "DOCUMENTS", (page,))
    with pytest.raises(UserError, match="page.md: a table differs from results/: run python -m experiments.tables"):
        tables.main(["--check"])
    assert "old" in page.read_text()
    tables.main([])
    assert page.read_text() == "before\n<!-- results: an4 -->\n| new |\n<!-- end -->\nafter\n"
    tables.main(["--check"])
    assert capsys.readouterr().out == f"{page}\n"


def test_an_unknown_block():
    with pytest.raises(UserError, match="page.md: there is no block moon; give one of readme, an4"):
        tables.rewritten("<!-- results: moon -->\n<!-- end -->\n", Path("page.md"))


def test_a_block_can_be_printed(capsys):
    tables.main(["--print", "readme"])
    assert capsys.readouterr().out == tables.readme()
