"""Verdicts from runs made by hand, whose counts are known; what cannot be compared."""

import shutil

import pytest

from experiments.claims import Claim, Model
from experiments.outcomes import Outcomes
from fairseq_skd.errors import UserError
from tests.experiments.made_runs import judge, run


def test_what_holds_and_what_does_not(out):
    assert judge(out, "kd 2", "skd 2").outcome == "does not hold"
    assert judge(out, "ctc 4", "skd 4").outcome == "undecided"  # draws without the last two utterances are a tie
    assert judge(out, "skd 4", "ctc 4").outcome == "undecided"
    assert judge(out, "skd 4", "ctc 4", margin=30).outcome == "holds"
    found = judge(out, "skd 2", "kd 2", rate="spikes")
    assert found.difference.value == pytest.approx(100 * (1 / 16 - 8 / 16))


def test_a_margin_cuts_both_ways(out):
    """A difference of 6.2 points [0, 15.6] is inside 30, across 10, and above none."""
    run(out, "later", 1, {2: [2] * 8})
    assert judge(out, "skd 4", "ctc 4", margin=10).outcome == "undecided"
    worse = judge(out, "later 2", "skd 2", margin=10)  # 25 points, every draw
    assert worse.difference.low > 10 and worse.outcome == "does not hold"


def test_a_seed_that_says_otherwise_leaves_it_open(out):
    """The interval alone would let one seed decide."""
    run(out, "later", 1, {2: [0] * 8})
    run(out, "later", 2, {2: [1] * 7 + [3]})
    found = judge(out, "later 2", "skd 2")
    assert found.difference.high < 0 < found.by_seed[2]
    assert found.outcome == "undecided"
    assert judge(out, "skd 2", "later 2").outcome == "undecided"


def test_other_data_are_not_compared(out):
    run(out, "later", 1, {2: [0] * 8}, data="def")
    with pytest.raises(UserError, match="later/seed1/result.json and .* are of different data"):
        judge(out, "later 2", "skd 2")


def test_runs_from_other_encoders_are_not_compared(out):
    run(out, "later", 1, {2: [0] * 8}, encoder="abc")
    with pytest.raises(UserError, match="later/seed1/result.json and .* are from different encoders: they cannot be"):
        judge(out, "later 2", "skd 2")


def test_other_utterances_are_not_compared(out):
    run(out, "later", 1, {2: [0] * 7})
    with pytest.raises(UserError, match="later 2 and skd 2 were decoded on different utterances"):
        judge(out, "later 2", "skd 2")


def test_a_damaged_result_is_named(out):
    (out / "tiny" / "kd" / "seed1" / "result.json").write_text('{"arm": "kd"')
    with pytest.raises(UserError, match="kd/seed1/result.json is missing or damaged: delete it, and run "):
        Outcomes.read(out / "tiny", "test")


def test_a_damaged_analysis_is_named(out):
    file = out / "tiny" / "skd" / "seed1" / "align" / "layer2" / "align.json"
    file.write_text('{"by_utterance": {}}')
    with pytest.raises(UserError, match="skd/seed1/align/layer2/align.json is damaged: delete it, and run run_grid.py"):
        judge(out, "skd 2", "kd 2", rate="spikes")


def test_only_seeds_of_both_are_compared(out):
    run(out, "later", 2, {2: [0] * 8})
    assert list(judge(out, "later 2", "skd 2").by_seed) == [2]


def test_a_folder_without_results(tmp_path):
    with pytest.raises(UserError, match="holds no result.json: give --runs the --out of run_grid.py"):
        Outcomes.read(tmp_path, "test")


def test_models():
    assert str(Model("skd", 6)) == "skd 6"


def test_other_numbers_of_updates_are_not_compared(out):
    run(out, "later", 1, {2: [0] * 8}, updates=60)
    claim = Claim("it is better", Model("skd", 2), Model("later", 2))
    with pytest.raises(
        UserError, match=r"updates differ, so the claim it is better cannot be judged: .*\[30\] and .*\[60\]"
    ):
        Outcomes.read(out / "tiny", "test").judge(claim)


@pytest.mark.parametrize("copy", ["skd/seed1.old", "skd_old/seed1"])
def test_a_run_that_was_set_aside_does_not_pass_for_the_real_one(out, copy):
    shutil.copytree(out / "tiny" / "skd" / "seed1", out / "tiny" / copy)
    with pytest.raises(UserError, match=rf"{copy}/result.json is the result of skd/seed1: move it out of .*/tiny$"):
        Outcomes.read(out / "tiny", "test")
