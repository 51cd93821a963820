"""Verdicts over runs, against Student's intervals worked by hand; files of results that cannot be compared."""

import json

import pytest

from experiments import over_runs
from experiments.claims import Claim
from experiments.over_runs import Run, judge, mean_interval, read_results
from fairseq_skd.errors import UserError
from tests.experiments.made_runs import ARMS, GRID


def line(arm, seed, wer, spikes=None, corpus="tiny", **other):
    """A run whose exits, 4 and 2, have these WERs; spike disagreement of exit 2, from 0 to 1."""
    scores = [
        {"subset": "test", "exit": layer, "wer": value, "cer": value / 2}
        for layer, value in zip((4, 2), wer, strict=True)
    ]
    alignment = [] if spikes is None else [{"exit": 2, "subset": "test", "spike_disagreement": {"value": spikes}}]
    made = {"corpus": corpus, "arm": arm, "seed": seed, "commit": "1111111", "seconds": 1.0, "command": "train"}
    made |= {"data_sha256": "abc", "encoder_sha256": "def", "updates": 30, "scores": scores, "alignment": alignment}
    return made | other


def write(file, lines):
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return file


def claim(better="skd 2", worse="kd 2", **more):
    return Claim.read({"claim": "it is so", "better": better, "worse": worse, **more}, ARMS)


@pytest.fixture
def twice(tmp_path):
    """The grid run twice: two seeds, then one; the student is 1, 2 and 3 points worse than kd's."""
    first = [line("skd", 1, (20, 31), 0.1), line("kd", 1, (0, 30), 0.3), line("skd", 2, (22, 32), 0.2)]
    first += [line("kd", 2, (0, 30), 0.3), line("ctc", 1, (20, 0)), line("skd", 1, (99, 99), corpus="another")]
    second = [line("skd", 1, (24, 33), 0.3), line("kd", 1, (0, 30), 0.5)]
    return [write(tmp_path / "first.jsonl", first), write(tmp_path / "second.jsonl", second)]


def test_students_interval():
    """Of 1, 2, 3: standard error 1/sqrt(3), and 4.3027 of them on two degrees of freedom (a printed table's)."""
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2 and high - mean == pytest.approx(2.4841, abs=1e-4) and mean - low == pytest.approx(high - mean)
    assert mean_interval([1.0, 3.0]) is None


def test_runs_are_paired_by_file_and_seed(twice):
    found = judge(read_results(twice, "tiny"), claim(), "test")
    assert found.by_run == {Run(0, 1): 1.0, Run(0, 2): 2.0, Run(1, 1): 3.0}
    assert found.mean.value == 2 and found.outcome == "undecided"  # [-0.5, 4.5]


def test_what_holds_and_what_does_not(twice):
    results = read_results(twice, "tiny")
    assert judge(results, claim(margin=5), "test").outcome == "holds"  # the interval ends at 4.5
    assert judge(results, claim(margin=4), "test").outcome == "undecided"
    assert judge(results, claim("skd 4", "kd 2"), "test").outcome == "holds"  # -10, -8, -6
    assert judge(results, claim("kd 2", "skd 4"), "test").outcome == "does not hold"
    spikes = judge(results, claim(rate="spikes"), "test")
    assert list(spikes.by_run.values()) == pytest.approx([-20, -10, -20])
    assert judge(results, claim(rate="cer"), "test").mean.value == 1
    assert judge(results, claim("skd 4", "ctc 4"), "test") == ("undecided", None, {Run(0, 1): 0.0})
    assert judge(results, claim("later 2"), "test") == ("not run", None, {})
    assert judge(results, claim(), "valid").outcome == "not run"


def test_the_tables(twice, tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text(GRID)
    over_runs.main([str(tmp_path / "grid.yaml"), *map(str, twice), "--minus", "skd"])
    table, minus, claims, rule = capsys.readouterr().out.split("\n\n")
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    assert rows[0] == ["ctc", "4", "1", "20.0", "20.0", "10.0", ""]
    assert rows[2] == ["skd", "2", "3", "32.0; 1.0", "31.0, 32.0 / 33.0", "16.0; 0.5", "20.0; 10.0"]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in minus.splitlines()[2:]] == [
        ["ctc 4 minus skd 4", "", "0.0"],
        ["kd 2 minus skd 2", "-2.0 [-4.5, 0.5]", "-1.0, -2.0 / -3.0"],
    ]
    outcomes = [row.split("|")[-2].strip() for row in claims.splitlines()[2:]]
    assert outcomes == ["**undecided**", "**holds**", "**undecided**, of 1 run", "**not run**"]
    assert "| -16.7 [-31.0, -2.3] | -20.0, -10.0 / -20.0 |" in " ".join(claims.split())
    assert rule == f"{over_runs.RULE}\n"


def test_an_exit_that_the_other_arm_lacks_is_compared_with_its_lowest(twice):
    grid = {"arms": {"skd": {"exits": [4, 2]}, "kd": {"exits": [2]}, "deep": {"exits": [3]}}}
    deep = line("deep", 1, (0, 0)) | {"scores": [{"subset": "test", "exit": 3, "wer": 30, "cer": 15}]}
    write(twice[0], [line("skd", 1, (20, 31)), deep])
    (row,) = over_runs.differences(read_results(twice[:1], "tiny"), grid, "skd", "test").splitlines()[2:]
    assert row.split() == ["|", "deep", "3", "minus", "skd", "2", "|", "|", "-1.0", "|"]


def test_other_settings_are_told(twice, tmp_path, capsys):
    write(twice[1], [line("skd", 1, (24, 33), command="train criterion.kd_weight=3")])
    (tmp_path / "grid.yaml").write_text(GRID)
    over_runs.main([str(tmp_path / "grid.yaml"), *map(str, twice)])
    assert "skd: seeds 1 and 1 differ in criterion.kd_weight=3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (line("kd", 1, (0, 30), data_sha256="xyz"), "second.jsonl, line 1: data_sha256 is not that of the first run"),
        (line("kd", 1, (0, 30), encoder_sha256="x"), "second.jsonl, line 1: encoder_sha256 is not that of the first"),
        ({"arm": "kd"}, "second.jsonl, line 1 is damaged: it is no result of run_grid.py"),
    ],
)
def test_what_cannot_be_compared(twice, changed, complaint):
    write(twice[1], [changed])
    with pytest.raises(UserError, match=complaint):
        read_results(twice, "tiny")


def test_a_run_that_stands_there_twice(twice):
    write(twice[1], [line("kd", 1, (0, 30))] * 2)
    with pytest.raises(UserError, match="second.jsonl has kd of seed 1 twice: take one line away"):
        read_results(twice, "tiny")


def test_other_numbers_of_updates(twice):
    write(twice[1], [line("skd", 1, (24, 33)), line("kd", 1, (0, 30), updates=60)])
    with pytest.raises(UserError, match=r"updates of seed 1 differ \(30 and 60\), so the claim it is so cannot be"):
        judge(read_results(twice, "tiny"), claim(), "test")


def test_no_results(twice, tmp_path):
    with pytest.raises(UserError, match="first.jsonl, .*second.jsonl: no result of other in it"):
        read_results(twice, "other")
    with pytest.raises(UserError, match="absent.jsonl does not exist: give results.jsonl of run_grid.py"):
        read_results([tmp_path / "absent.jsonl"], "tiny")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--subset", "dev"], "--subset dev: the grid has test"),
        (["--minus", "x"], "--minus x: the grid has ctc, skd, kd"),
    ],
)
def test_names_that_the_grid_lacks(twice, tmp_path, arguments, complaint):
    (tmp_path / "grid.yaml").write_text(GRID)
    with pytest.raises(UserError, match=complaint):
        over_runs.main([str(tmp_path / "grid.yaml"), *map(str, twice), *arguments])
