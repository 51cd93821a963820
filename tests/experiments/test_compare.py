"""Tables and verdicts from runs made by hand, whose counts are known."""

import json
import shutil

import pytest

from experiments import compare
from experiments.claims import Claim, Model
from experiments.outcomes import Outcomes
from fairseq_skd.errors import UserError

ARMS = {"ctc": {"exits": [4]}, "skd": {"exits": [4, 2]}, "kd": {"exits": [2]}, "later": {"exits": [2]}}
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
  later: {exits: [2]}
claims:
  - {claim: the student wins, better: skd 2, worse: kd 2}
  - {claim: it spikes with its teacher, rate: spikes, better: skd 2, worse: kd 2}
  - {claim: nothing is lost, better: skd 4, worse: ctc 4, margin: 30}
  - {claim: of another day, better: skd 2, worse: later 2}
"""


def decoded(folder, wrong):
    """Eight utterances of four words; ``wrong`` tells how many words of each are not as they should be."""
    folder.mkdir(parents=True)
    lines = [["x"] * errors + ["a"] * (4 - errors) for errors in wrong]
    (folder / "hypo.word").write_text("".join(f"{' '.join(line)} (None-{i})\n" for i, line in enumerate(lines)))
    (folder / "ref.word").write_text("".join(f"a a a a (None-{i})\n" for i in range(len(wrong))))


def run(out, arm, seed, wrong, lost=None, data="abc", updates=30, command="train", encoder="def"):
    """``wrong``: exit -> errors of each utterance; ``lost``: of 2 spikes of the teacher in each."""
    folder = out / "tiny" / arm / f"seed{seed}"
    scores = []
    for layer, errors in wrong.items():
        decoded(folder / "decode" / f"test-layer{layer}", errors)
        score = {"subset": "test", "exit": layer, "wer": 100 * sum(errors) / 32, "parameters": 1000 * layer}
        scores.append({**score, "character_errors": sum(errors), "characters": 56})
    result = {"corpus": "tiny", "arm": arm, "seed": seed, "commit": "1111111", "seconds": 1.0, "command": command}
    result |= {"scores": scores, "alignment": [], "data_sha256": data, "encoder_sha256": encoder, "updates": updates}
    if lost is not None:
        (folder / "align" / "layer2").mkdir(parents=True)
        columns = {"lost_spikes": lost, "teacher_spikes": [2] * 8}
        (folder / "align" / "layer2" / "align.json").write_text(json.dumps({"by_utterance": columns}))
        rate = {"value": sum(lost) / 16}
        result["alignment"] = [
            {
                "exit": 2,
                "subset": "test",
                "spike_disagreement": rate,
                "spike_miss": rate,
                "offset": {"mean_ms": 10.0 * seed},
            }
        ]
    (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture
def out(tmp_path):
    for seed in (1, 2):
        run(tmp_path, "ctc", seed, {4: [1] * 8})
        run(tmp_path, "skd", seed, {4: [1, 1, 1, 1, 1, 1, 2, 2], 2: [1] * 7 + [seed]}, [0] * 7 + [1])
        run(tmp_path, "kd", seed, {2: [2] * 8}, [1] * 8)
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def judge(out, better, worse, **more):
    entry = {"claim": "it is so", "better": better, "worse": worse, **more}
    return Outcomes.read(out / "tiny", "test").judge(Claim.read(entry, ARMS))


def test_the_tables(out, capsys):
    compare.main([str(out / "grid.yaml"), "--runs", str(out)])
    table, claims, rule = capsys.readouterr().out.split("\n\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [row[:4] for row in cells] == [
        ["ctc", "4", "4,000", "2"],
        ["skd", "4", "4,000", "2"],
        ["skd", "2", "2,000", "2"],
        ["kd", "2", "2,000", "2"],
    ]
    assert cells[0][4:] == ["25.0 [25.0, 25.0]", "25.0, 25.0; sd 0.0", "14.3", "", "", ""]
    # 8 + 9 errors in 2 x 32 words; the spikes of 1 in 16, in both seeds
    assert cells[2][4].startswith("26.6 [25.0, ") and cells[2][5] == "25.0, 28.1; sd 2.2"
    assert cells[2][7:] == ["6.2", "6.2", "15.0"]
    assert "spike disagreement %  " in table.replace("|", " ")  # of the subset that the words are of, so not named
    assert rule == f"{compare.RULE}\n"
    outcomes = [line.split("|")[-2].strip() for line in claims.splitlines()[2:]]
    assert outcomes == ["**holds**", "**holds**", "**holds**", "**not run**"]
    # a draw holds the last utterance 0 to 3 times, but for 1.1 % of the draws
    assert "| -23.4 [-25.0, -20.3] | -25.0, -21.9 |" in " ".join(claims.split())


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


def test_one_seed_is_called_one(out, capsys):
    run(out, "later", 1, {2: [2] * 8})
    compare.main([str(out / "grid.yaml"), "--runs", str(out)])
    last = capsys.readouterr().out.split("\n\n")[1].splitlines()[-1]
    assert last.split("|")[-2].strip() == "**holds**, one seed"


def test_the_tries(out, capsys):
    text = GRID.replace("later: {exits: [2]}", "later: {exits: [2], tries: {criterion.kd_weight: [1, 3]}}")
    (out / "grid.yaml").write_text(text)
    run(out, "later-3", 1, {2: [1] * 8})
    compare.main([str(out / "grid.yaml"), "--runs", str(out), "--tries"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["later-3"]


def test_tries_leave_the_table_of_the_arms_alone(out, capsys):
    """Theirs are spikes on another subset."""
    run(out, "later-3", 1, {2: [1] * 8}, [1] * 8)
    file = out / "tiny" / "later-3" / "seed1" / "result.json"
    file.write_text(file.read_text().replace('"exit": 2, "subset": "test"', '"exit": 2, "subset": "valid"'))
    compare.main([str(out / "grid.yaml"), "--runs", str(out)])
    table = capsys.readouterr().out
    assert "later-3" not in table and "spike disagreement %  " in table.replace("|", " ")


def test_spikes_of_another_subset_are_named(out, capsys):
    (out / "grid.yaml").write_text(GRID.replace("subsets: [test]", "subsets: [adults, test]"))
    for file in out.rglob("result.json"):
        file.write_text(file.read_text().replace('"subset": "test", "exit"', '"subset": "adults", "exit"'))
        for folder in (file.parent / "decode").iterdir():
            folder.rename(folder.with_name(folder.name.replace("test", "adults")))
    compare.main([str(out / "grid.yaml"), "--runs", str(out), "--subset", "adults"])
    assert "spike disagreement % (test)" in capsys.readouterr().out


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


def test_a_subset_that_the_grid_lacks(out):
    with pytest.raises(UserError, match="--subset dev: the grid has test"):
        compare.main([str(out / "grid.yaml"), "--runs", str(out), "--subset", "dev"])


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


def test_a_teacher_without_spikes(out, capsys):
    """Nothing to disagree with: no rate, and no offset."""
    for file in (out / "tiny" / "kd").glob("*/result.json"):
        result = json.loads(file.read_text())
        (found,) = result["alignment"]
        found.update(spike_disagreement={"value": None}, spike_miss={"value": None}, offset={"mean_ms": None})
        file.write_text(json.dumps(result))
    compare.main([str(out / "grid.yaml"), "--runs", str(out)])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| kd "))
    assert [cell.strip() for cell in row.split("|")[-4:-1]] == ["-", "-", "-"]


def test_seeds_of_different_settings_are_named(out, capsys):
    told = "train common.seed={0} checkpoint.save_dir=/{0} 'optimization.lr=[{1}]'"
    for seed, rate in ((1, 1), (2, 1), (3, 2)):
        run(out, "later", seed, {2: [0] * 8}, command=told.format(seed, rate))
    compare.main([str(out / "grid.yaml"), "--runs", str(out)])
    found = capsys.readouterr().out
    assert "\n\nlater: seeds 1 and 3 differ in optimization.lr=[1], optimization.lr=[2]\n\n" in found
    assert "seeds 1 and 2" not in found
    assert found.endswith(f"{compare.RULE}\n")


def test_tries_that_were_not_run(out):
    with pytest.raises(UserError, match="/tiny holds no tries: run run_grid.py --tries"):
        compare.main([str(out / "grid.yaml"), "--runs", str(out), "--tries"])
