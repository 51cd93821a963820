"""Verdicts over runs, against hand-worked Student intervals; results that cannot be compared."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.compare import main
from experiments.grid import Claim, Model, read_grid
from experiments.judge import RULE, Tables, Verdict, judge, mean_interval, one_digit
from experiments.results import Repetition, read_results
from fairseq_skd.errors import UserError

GRID = """
corpus: tiny
config: hubert_mini
seeds: [1, 2]
subsets: [test]
common: {}
decode: {}
tries: {}
arms:
  ctc: {exits: [4]}
  skd: {exits: [4, 2]}
  kd: {exits: [2], needs: ctc}
  later: {exits: [2], tries: {criterion.kd_weight: [1, 3]}}
claims:
  - {claim: the student wins, better: skd 2, worse: kd 2}
  - {claim: it spikes with its teacher, rate: spikes, better: skd 2, worse: kd 2}
  - {claim: nothing is lost, better: skd 4, worse: ctc 4, margin: 30}
  - {claim: of another day, better: skd 2, worse: later 2}
"""

SCORE = {"subset": "test", "exit": 2, "wer": 30, "cer": 15, "parameters": 2}
ALIGNMENT = {"exit": 2, "subset": "test", "offset": {"within_ms": {"0": 0.9}}}


@pytest.fixture
def grid(tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    return read_grid(tmp_path / "grid.yaml")


def line(arm, seed, wer, spikes=None, corpus="tiny", **other):
    """A run with these WERs at exits 4 and 2, and this spike disagreement (0 to 1) at exit 2."""
    scores = [
        {"subset": "test", "exit": layer, "wer": value, "cer": value / 2, "parameters": layer}
        for layer, value in zip((4, 2), wer, strict=True)
    ]
    alignment = [] if spikes is None else [{**ALIGNMENT, "spike_disagreement": {"value": spikes}}]
    made = {"corpus": corpus, "arm": arm, "seed": seed, "commit": "1111111", "seconds": 1.0, "command": "train"}
    made |= {"data_sha256": "abc", "encoder_sha256": "def", "updates": 30, "scores": scores, "alignment": alignment}
    return made | other


def write(file, lines):
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return file


def claim(better="skd 2", worse="kd 2", **more):
    models = [Model(name, int(layer)) for name, layer in (one.split() for one in (better, worse))]
    return Claim("it is so", *models, **more)


def cells(table):
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]


def pairs(worse, seconds=1.0):
    """Runs in which the student is worse than kd's by so many points per seed; no spikes."""
    both = [(line("skd", seed, (20, 30 + more)), line("kd", seed, (0, 30))) for seed, more in worse.items()]
    return [one | {"seconds": seconds} for pair in both for one in pair]


@pytest.fixture
def twice(tmp_path):
    """The grid run twice, seeds 1 to 3, then 1: the student is worse by 1, 2, 3 and 3 points."""
    first = [line("skd", seed, (20 + seed, 30 + seed), 0.1 * seed) for seed in (1, 2, 3)]
    first += [line("kd", seed, (0, 30), 0.4) for seed in (1, 2, 3)]
    first += [line("ctc", 1, (20, 0)), line("skd", 1, (99, 99), corpus="another"), line("skd-0.1", 1, (99, 99))]
    second = [line("skd", 1, (24, 33), 0.3), line("kd", 1, (0, 30), 0.5)]
    return [write(tmp_path / "first.jsonl", first), write(tmp_path / "second.jsonl", second)]


def test_students_interval():
    """For 1, 2, 3: standard error 1/sqrt(3), times 4.3027 (from a table, 2 degrees of freedom)."""
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2 and high - mean == pytest.approx(2.4841, abs=1e-4) and mean - low == pytest.approx(high - mean)
    assert mean_interval([1.0, 3.0]) is None


def test_runs_are_paired_by_file_and_seed(grid, twice):
    """For 1, 2, 3, 3: error 0.47871, times 3.1824. For the means of seeds 2, 2, 3: 1/3, 4.3027."""
    found = judge(read_results(twice, grid), claim(), "test")
    assert found.by_run == {Repetition(0, 1): 1.0, Repetition(0, 2): 2.0, Repetition(0, 3): 3.0, Repetition(1, 1): 3.0}
    assert found.runs == pytest.approx((2.25, 0.7265, 3.7735), abs=1e-4)
    assert found.seeds == pytest.approx((7 / 3, 0.8991, 3.7676), abs=1e-4)
    assert found.outcome == "does not hold"


def test_what_holds_and_what_does_not(grid, twice):
    results = read_results(twice, grid)
    assert judge(results, claim(margin=3.8), "test").outcome == "holds"
    assert judge(results, claim(margin=3.77), "test").outcome == "undecided"  # between the two ends
    assert judge(results, claim(margin=0.8), "test").outcome == "undecided"  # likewise
    assert judge(results, claim("skd 4", "kd 2"), "test").outcome == "holds"  # -9, -8, -7, -6
    spikes = judge(results, claim(rate="spikes"), "test")
    assert list(spikes.by_run.values()) == pytest.approx([-30, -20, -10, -20])
    assert judge(results, claim(rate="cer"), "test").runs.value == 1.125
    assert judge(results, claim("skd 4", "ctc 4"), "test") == Verdict("undecided", None, None, {Repetition(0, 1): 1.0})
    assert judge(results, claim("later 2"), "test") == Verdict("not run", None, None, {})
    assert judge(results, claim(), "valid").outcome == "not run"


def test_the_same_seeds_again_are_not_as_good_as_others(grid, tmp_path):
    """Six runs would decide (3.1 [0.6, 5.6]); three seeds, each twice, do not ([-3.5, 9.7])."""
    first = write(tmp_path / "first.jsonl", pairs({1: 1, 2: 2, 3: 6}))
    again = write(tmp_path / "again.jsonl", pairs({1: 1.2, 2: 2.2, 3: 6.2}, 2.0))
    others = write(tmp_path / "others.jsonl", pairs({4: 1.2, 5: 2.2, 6: 6.2}))
    found = judge(read_results([first, again], grid), claim(), "test")
    assert found.runs.low > 0 > found.seeds.low and found.outcome == "undecided"
    assert judge(read_results([first, others], grid), claim(), "test").outcome == "does not hold"


def test_the_tables(grid, twice, tmp_path, capsys):
    main([str(tmp_path / "grid.yaml"), *map(str, twice), "--over=runs", "--minus", "skd"])
    table, minus, claims, rule = capsys.readouterr().out.split("\n\n")
    rows = cells(table)
    assert rows[0] == ["ctc", "4", "1", "20.0", "20.0", "10.0", ""]
    assert rows[2] == ["skd", "2", "4", "32.2; 1.0", "31.0, 32.0, 33.0 / 33.0", "16.1; 0.5", "22.5; 9.6"]
    assert cells(minus) == [
        ["ctc 4 minus skd 4", "", "-1.0"],
        ["kd 2 minus skd 2", "-2.2 [-3.8, -0.7] [-3.8, -0.9]", "-1.0, -2.0, -3.0 / -3.0"],
    ]
    outcomes = [row.split("|")[-2].strip() for row in claims.splitlines()[2:]]
    assert outcomes == ["**does not hold**", "**undecided**", "**undecided**, of 1 seed", "**not run**"]
    assert "| 2.2 [0.7, 3.8] [0.9, 3.8] | 1.0, 2.0, 3.0 / 3.0 |" in " ".join(claims.split())
    assert rule == f"{RULE}\n"


def test_an_exit_that_the_other_arm_lacks_is_compared_with_its_lowest(grid, twice):
    arms = {name: grid.arms[name] for name in ("skd", "kd")}
    grid = replace(grid, arms={**arms, "deep": replace(grid.arms["kd"], exits=(3,))})
    deep = line("deep", 1, (0, 0)) | {"scores": [{**SCORE, "exit": 3}]}
    write(twice[0], [line("skd", 1, (20, 31)), deep])
    table = Tables(read_results(twice[:1], grid), grid, "test").differences("skd", "wer")
    assert cells(table) == [["deep 3 minus skd 2", "", "-1.0"]]


def test_tries(twice, tmp_path, capsys):
    """Tries are arms of their own, on the first subset, without claims."""
    (tmp_path / "grid.yaml").write_text(GRID.replace("[test]", "[valid, test]"))
    tried = line("later-3", 1, (0, 30)) | {"scores": [{**SCORE, "subset": "valid"}]}
    write(twice[0], [line("skd", 1, (20, 31)), tried])
    main([str(tmp_path / "grid.yaml"), str(twice[0]), "--over=runs", "--tries"])
    (row,) = cells(capsys.readouterr().out)
    assert row[:4] == ["later-3", "2", "1", "30.0"]
    write(twice[0], [line("skd", 1, (20, 31))])
    with pytest.raises(UserError, match="no result on tiny of the arms later-1, later-3$"):
        main([str(tmp_path / "grid.yaml"), str(twice[0]), "--over=runs", "--tries"])


def test_other_settings_are_told(grid, twice, tmp_path, capsys):
    """Other folders with the same data are not named: the hashes are equal."""
    write(
        twice[1],
        [
            line(
                "skd",
                1,
                (24, 33),
                command="train criterion.kd_weight=3 task.data=/elsewhere +criterion.teacher_path=/t 'open",
            )
        ],
    )
    main([str(tmp_path / "grid.yaml"), *map(str, twice), "--over=runs"])
    told = f"\n\nskd: seed 1 of {twice[0]} and seed 1 of {twice[1]} differ in 'open, criterion.kd_weight=3\n\n"
    assert told in capsys.readouterr().out


def test_spikes_of_another_subset_are_named(grid, twice, tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text(GRID.replace("[test]", "[valid, test]"))
    main([str(tmp_path / "grid.yaml"), *map(str, twice), "--over=runs", "--subset", "valid"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "spike disagreement % (test), mean; sd" in shown
    assert "| skd 2 minus kd 2, spike disagreement (test) | -20.0 [-33.0, -7.0] [-37.3, 0.6] |" in shown


@pytest.mark.parametrize(
    ("rate", "row"),
    [
        ("cer", ["kd 2 minus skd 2, CER", "-1.1 [-1.9, -0.4] [-1.9, -0.4]", "-0.5, -1.0, -1.5 / -1.5"]),
        (
            "spikes",
            ["kd 2 minus skd 2, spike disagreement", "20.0 [7.0, 33.0] [-0.6, 37.3]", "30.0, 20.0, 10.0 / 20.0"],
        ),
    ],
)
def test_the_third_table_of_another_rate(grid, twice, tmp_path, capsys, rate, row):
    main([str(tmp_path / "grid.yaml"), *map(str, twice), "--over=runs", "--minus", "skd", "--rate", rate])
    last = capsys.readouterr().out.split("\n\n")[1].splitlines()[-1]
    assert [cell.strip() for cell in last.strip("|").split("|")] == row


def test_nothing_has_no_sign():
    assert [one_digit(value) for value in (-0.04, 0.04, -0.06, 12.25)] == ["0.0", "0.0", "-0.1", "12.2"]


DAMAGED = "second.jsonl, line 1 is damaged: it is not a result of run_grid"


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (line("kd", 1, (0, 30), data_sha256="xyz"), "second.jsonl, line 1: data_sha256 differs from skd of seed 1"),
        (line("kd", 1, (0, 30), encoder_sha256="x"), "second.jsonl, line 1: encoder_sha256 differs from skd of seed"),
        (line("kd", 1, (0, 30), updates=60), "second.jsonl, line 1: updates differs from kd of seed 1"),
        ({"arm": "kd"}, DAMAGED),
        *[
            (line("kd", 1, (0, 30)) | {key: value}, DAMAGED)
            for key, value in (
                *[("seed", value) for value in (None, [1], "1", 1.5, True)],
                *[("arm", ["kd"]), ("command", 3), ("updates", None), ("corpus", 3)],
                *[("scores", value) for value in (None, {}, ["x"], [{**SCORE, "exit": "2"}], [{**SCORE, "subset": 1}])],
                *[("scores", [{**SCORE, "wer": value}]) for value in (None, "30", float("nan"), True)],
                *[("alignment", value) for value in (None, ["x"], [{}], [{"exit": 2, "subset": "test"}])],
                ("alignment", [{**ALIGNMENT, "spike_disagreement": 0.5}]),
                ("alignment", [{**ALIGNMENT, "spike_disagreement": {"value": "0.5"}}]),
                ("alignment", [{**ALIGNMENT, "spike_disagreement": {}}]),
            )
        ],
    ],
)
def test_what_cannot_be_compared(grid, twice, changed, complaint):
    write(twice[1], [changed])
    with pytest.raises(UserError, match=complaint):
        read_results(twice, grid)


def test_a_teacher_without_spikes_is_no_damage(grid, twice):
    silent = line("skd", 1, (24, 33)) | {
        "alignment": [
            {**ALIGNMENT, "spike_disagreement": {"value": None}, "offset": {"within_ms": {"0": None}}},
        ]
    }
    write(twice[1], [silent])
    results = read_results(twice, grid)
    assert Repetition(1, 1) not in judge(results, claim(rate="spikes"), "test").by_run and Repetition(1, 1) in results


def test_a_run_that_would_count_twice(grid, twice):
    with pytest.raises(UserError, match="first.jsonl, line 1 repeats .*first.jsonl, line 1: give each run once"):
        read_results([twice[0], twice[0].parent / "." / "first.jsonl"], grid)


def test_a_run_that_stands_there_twice(grid, twice):
    write(twice[1], [line("kd", 1, (0, 30)), line("kd", 1, (0, 31))])
    with pytest.raises(UserError, match="second.jsonl has kd of seed 1 twice: remove one line"):
        read_results(twice, grid)


def test_other_numbers_of_updates_in_a_pair(grid, tmp_path):
    file = write(tmp_path / "results.jsonl", [line("skd", 1, (24, 33)), line("kd", 1, (0, 30), updates=60)])
    with pytest.raises(UserError, match=r"the claim it is so: updates of seed 1 differ \(30 and 60\), train both"):
        judge(read_results([file], grid), claim(), "test")


def test_no_results(grid, twice, tmp_path):
    with pytest.raises(UserError, match="first.jsonl, .*second.jsonl: no result on other of the arms ctc, skd, kd"):
        read_results(twice, replace(grid, corpus="other"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("absent", "binary", ""):
        with pytest.raises(UserError, match=f"{name} cannot be read: give a results.jsonl of run_grid"):
            read_results([tmp_path / name], grid)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--subset", "dev"], "--subset dev: the grid has no such subset, give one of test"),
        (["--minus", "x"], "--minus x: give one arm of the grid: ctc, skd, kd"),
    ],
)
def test_names_that_the_grid_lacks(grid, twice, tmp_path, arguments, complaint):
    (tmp_path / "grid.yaml").write_text(GRID)
    with pytest.raises(UserError, match=complaint):
        main([str(tmp_path / "grid.yaml"), *map(str, twice), "--over=runs", *arguments])


@pytest.mark.parametrize("over", ["runs", "utterances", "speakers"])
def test_what_is_not_installed_is_told(monkeypatch, over):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"experiments.compare needs scipy: pip install 'fairseq_skd\[analysis\]'"):
        main(["grid.yaml", "results.jsonl", f"--over={over}"])


def test_what_the_committed_results_say(capsys):
    """Verdicts in RESULTS.md."""
    results = Path(__file__).resolve().parents[2] / "results"
    grid = results.parent / "experiments" / "an4.yaml"
    main([str(grid), str(results / "an4" / "cpu.jsonl"), str(results / "an4" / "h100.jsonl"), "--over=runs"])
    claims = capsys.readouterr().out.split("\n\n")[-2]
    rows = {row[0]: row[2:] for row in cells(claims)}
    shown = ["4.0 [2.2, 5.7] [3.2, 4.8]", "6.2, 5.6, 3.2 / 2.5, 2.1, 4.3", "**does not hold**"]
    assert rows["the student beats Guide-CTC"] == shown
    assert [row[-1] for row in rows.values()].count("**holds**") == 3 and len(rows) == 15
