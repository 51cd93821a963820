"""Verdicts over runs, against Student's intervals worked by hand; files of results that cannot be compared."""

import json

import pytest

from experiments import over_runs
from experiments.claims import Claim
from experiments.repetitions import Run, judge, mean_interval, read_results
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


def pairs(worse):
    """Seed -> by how many points the student is worse than kd's; no spikes."""
    return [
        one for seed, more in worse.items() for one in (line("skd", seed, (20, 30 + more)), line("kd", seed, (0, 30)))
    ]


@pytest.fixture
def twice(tmp_path):
    """The grid run twice: seeds 1 to 3, then 1 again; the student is 1, 2, 3 and again 3 points worse than kd's."""
    first = [line("skd", seed, (20 + seed, 30 + seed), 0.1 * seed) for seed in (1, 2, 3)]
    first += [line("kd", seed, (0, 30), 0.4) for seed in (1, 2, 3)]
    first += [line("ctc", 1, (20, 0)), line("skd", 1, (99, 99), corpus="another")]
    second = [line("skd", 1, (24, 33), 0.3), line("kd", 1, (0, 30), 0.5)]
    return [write(tmp_path / "first.jsonl", first), write(tmp_path / "second.jsonl", second)]


def test_students_interval():
    """Of 1, 2, 3: standard error 1/sqrt(3), and 4.3027 of them on two degrees of freedom (a printed table's)."""
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2 and high - mean == pytest.approx(2.4841, abs=1e-4) and mean - low == pytest.approx(high - mean)
    assert mean_interval([1.0, 3.0]) is None


def test_runs_are_paired_by_file_and_seed(twice):
    """Of 1, 2, 3, 3: standard error 0.47871, 3.1824 of them; of the seeds' means 2, 2, 3: 1/3, and 4.3027."""
    found = judge(read_results(twice, "tiny"), claim(), "test")
    assert found.by_run == {Run(0, 1): 1.0, Run(0, 2): 2.0, Run(0, 3): 3.0, Run(1, 1): 3.0}
    assert found.runs == pytest.approx((2.25, 0.7265, 3.7735), abs=1e-4)
    assert found.seeds == pytest.approx((7 / 3, 0.8991, 3.7676), abs=1e-4)
    assert found.outcome == "does not hold"


def test_what_holds_and_what_does_not(twice):
    results = read_results(twice, "tiny")
    assert judge(results, claim(margin=3.8), "test").outcome == "holds"
    assert judge(results, claim(margin=3.77), "test").outcome == "undecided"  # between the two ends
    assert judge(results, claim(margin=0.8), "test").outcome == "undecided"  # likewise
    assert judge(results, claim("skd 4", "kd 2"), "test").outcome == "holds"  # -9, -8, -7, -6
    spikes = judge(results, claim(rate="spikes"), "test")
    assert list(spikes.by_run.values()) == pytest.approx([-30, -20, -10, -20])
    assert judge(results, claim(rate="cer"), "test").runs.value == 1.125
    assert judge(results, claim("skd 4", "ctc 4"), "test") == ("undecided", None, None, {Run(0, 1): 1.0})
    assert judge(results, claim("later 2"), "test") == ("not run", None, None, {})
    assert judge(results, claim(), "valid").outcome == "not run"


def test_the_same_seeds_again_are_not_as_good_as_others(tmp_path):
    """Six runs would decide it, 3.1 points [0.6, 5.6]; three seeds, each twice, do not: [-3.5, 9.7]."""
    first = write(tmp_path / "first.jsonl", pairs({1: 1, 2: 2, 3: 6}))
    again = write(tmp_path / "again.jsonl", pairs({1: 1.2, 2: 2.2, 3: 6.2}))
    others = write(tmp_path / "others.jsonl", pairs({4: 1.2, 5: 2.2, 6: 6.2}))
    found = judge(read_results([first, again], "tiny"), claim(), "test")
    assert found.runs.low > 0 > found.seeds.low and found.outcome == "undecided"
    assert judge(read_results([first, others], "tiny"), claim(), "test").outcome == "does not hold"


def test_the_tables(twice, tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text(GRID)
    over_runs.main([str(tmp_path / "grid.yaml"), *map(str, twice), "--minus", "skd"])
    table, minus, claims, rule = capsys.readouterr().out.split("\n\n")
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    assert rows[0] == ["ctc", "4", "1", "20.0", "20.0", "10.0", ""]
    assert rows[2] == ["skd", "2", "4", "32.2; 1.0", "31.0, 32.0, 33.0 / 33.0", "16.1; 0.5", "22.5; 9.6"]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in minus.splitlines()[2:]] == [
        ["ctc 4 minus skd 4", "", "-1.0"],
        ["kd 2 minus skd 2", "-2.2 [-3.8, -0.7] [-3.8, -0.9]", "-1.0, -2.0, -3.0 / -3.0"],
    ]
    outcomes = [row.split("|")[-2].strip() for row in claims.splitlines()[2:]]
    assert outcomes == ["**does not hold**", "**undecided**", "**undecided**, of 1 seed", "**not run**"]
    assert "| 2.2 [0.7, 3.8] [0.9, 3.8] | 1.0, 2.0, 3.0 / 3.0 |" in " ".join(claims.split())
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
