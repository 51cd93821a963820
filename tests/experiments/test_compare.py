"""The tables of compare.py, from runs made by hand."""

import json

import pytest

from experiments import compare
from fairseq_skd.errors import UserError
from tests.experiments.made_runs import GRID, judge, run


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


def test_characters_are_compared_where_a_claim_is_about_them(out, capsys):
    """A reference is ``a a a a``, 7 characters; a word that is wrong is one of them."""
    words, characters = (judge(out, "skd 2", "kd 2", rate=rate) for rate in ("wer", "cer"))
    wrong = [[1] * 8, [1] * 7 + [2]]  # of SKD's student; the other has 2 in each
    for seed, errors in zip((1, 2), wrong, strict=True):
        assert words.by_seed[seed] == pytest.approx(100 * (sum(errors) - 16) / 32)
        assert characters.by_seed[seed] == pytest.approx(100 * (sum(errors) - 16) / 56)
    grid = out / "grid.yaml"
    grid.write_text(
        grid.read_text().replace(
            "claims:\n", "claims:\n  - {claim: spelt better, rate: cer, better: skd 2, worse: kd 2}\n"
        )
    )
    compare.main([str(grid), "--runs", str(out)])
    assert "skd 2 minus kd 2, CER" in capsys.readouterr().out


def test_a_subset_that_the_grid_lacks(out):
    with pytest.raises(UserError, match="--subset dev: the grid has test"):
        compare.main([str(out / "grid.yaml"), "--runs", str(out), "--subset", "dev"])


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
    told = "train common.seed={0} checkpoint.save_dir=/{0} +criterion.teacher_path=/{0} 'optimization.lr=[{1}]'"
    for seed, rate in ((1, 1), (2, 1), (3, 2)):
        run(out, "later", seed, {2: [0] * 8}, command=told.format(seed, rate))
    compare.main([str(out / "grid.yaml"), "--runs", str(out)])
    found = capsys.readouterr().out
    assert "\n\nlater: seed 1 and seed 3 differ in optimization.lr=[1], optimization.lr=[2]\n\n" in found
    assert "seeds 1 and 2" not in found
    assert found.endswith(f"{compare.RULE}\n")


def test_tries_that_were_not_run(out):
    with pytest.raises(UserError, match="/tiny holds no tries: run run_grid.py --tries"):
        compare.main([str(out / "grid.yaml"), "--runs", str(out), "--tries"])
