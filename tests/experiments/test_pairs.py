"""Paired differences of folders, against hand counts."""

import json

import pytest

from experiments.compare import main
from experiments.pairs import Side, compare_folders
from fairseq_skd.errors import UserError


@pytest.fixture
def decoded(tmp_path):
    (tmp_path / "test.tsv").write_text("/somewhere\n" + "a.wav\t16000\n" * 3)

    def write(name, texts, references, subset="test"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for file, lines in (("hypo.word", texts), ("ref.word", references)):
            (folder / file).write_text("".join(f"{line} (None-{i})\n" for i, line in enumerate(lines)))
        pairs = [(text.split(), words.split()) for text, words in zip(texts, references, strict=True)]
        errors = sum(said != wanted for pair in pairs for said, wanted in zip(*pair, strict=True))
        summary = {"word_errors": errors, "words": sum(len(words) for _, words in pairs)}
        (folder / "summary.json").write_text(json.dumps({**summary, "manifest": str(tmp_path / f"{subset}.tsv")}))
        return folder

    return write


@pytest.fixture
def aligned(tmp_path):
    def write(name, lost):
        (tmp_path / name).mkdir()
        columns = {"name": ["a", "b", "c"], "lost_spikes": lost, "teacher_spikes": [2, 2, 4]}
        found = {"manifest": str(tmp_path / "test.tsv"), "by_utterance": columns}
        (tmp_path / name / "align.json").write_text(json.dumps(found))
        return tmp_path / name

    return write


REFERENCES = ["A B", "C D E", "F"]


def test_each_utterance_is_paired(decoded, capsys):
    first = decoded("first", ["A B", "C D X", "F"], REFERENCES)  # 1 of 6 words wrong
    second = decoded("second", ["A X", "C X X", "F"], REFERENCES)  # 3 of 6, nowhere fewer
    main([str(first), "--minus", str(second), "--over=utterances"])
    out = capsys.readouterr().out
    assert out.startswith("3 utterances, 3 utterances drawn, wer % [95 %]: 16.7 [")
    # A draw of only the last utterance is a tie. Others have one more error, in 2 or 3 words.
    assert "difference, points: -33.3 [-50.0, 0.0]; the first is better in 98." in out


def test_characters(decoded):
    """A space between two words counts as one character."""
    first, second = (decoded(name, [text, *REFERENCES[1:]], REFERENCES) for name, text in (("a", "A B"), ("b", "A X")))
    assert ", cer % [95 %]: 0.0 [0.0, 0.0] and 11.1 [0.0, " in compare_folders([first], [second], "utterances", "cer")


def test_parts_of_a_set_are_pooled(decoded):
    whole = [decoded("whole", ["A B", "C D X", "X"], REFERENCES)]
    parts = [decoded("one", ["A B"], REFERENCES[:1], "part"), decoded("two", ["C X X", "F"], REFERENCES[1:])]
    shown = compare_folders(whole, parts, "utterances", "wer")
    assert shown.startswith("3 utterances, 3 utterances drawn, wer % [95 %]: 33.3 [")
    low, high = map(float, shown.rpartition("points: 0.0 [")[2].partition("]")[0].split(", "))
    assert low < 0 < high


def test_utterances_of_several_runs_are_drawn_together(decoded):
    """Errors are summed over runs: another run of the same utterances adds nothing to draw from."""
    sides = []
    for side, texts in (("a", ["A B", "C D X", "F"]), ("b", ["A X", "C X X", "F"])):
        sides.append([decoded(f"{side}{seed}", texts, REFERENCES) for seed in (1, 2)])
    twice = compare_folders(*sides, "utterances", "wer")
    assert twice.startswith("6 utterances, 3 utterances drawn")
    once = compare_folders(*(side[:1] for side in sides), "utterances", "wer")
    assert twice.partition(" drawn")[2] == once.partition(" drawn")[2]


def test_speakers_are_drawn(decoded, tmp_path):
    first = decoded("first", ["A B", "C D X", "F"], REFERENCES)
    second = decoded("second", ["A X", "C X X", "F"], REFERENCES)
    (tmp_path / "test.spk").write_text("ann\nbob\nann\n")
    # ann: 0 and 1 errors in 3 words; bob: 1 and 2 in 3. So every draw differs by one third.
    shown = compare_folders([first], [second], "speakers", "wer")
    assert shown.startswith("3 utterances, 2 speakers drawn, wer % [95 %]: 16.7 [0.0, 33.3] and 50.0 [33.3, 66.7]\n")
    assert "points: -33.3 [-33.3, -33.3]; the first is better in 100.0% of draws" in shown


@pytest.mark.parametrize("names", [None, "ann\nann\nann\n"])
def test_speakers_that_are_not_known(decoded, tmp_path, names):
    folder = decoded("first", ["A B", "C D X", "F"], REFERENCES)
    if names is not None:
        (tmp_path / "test.spk").write_text(names)
    told = r"/first: .*/test\.spk does not name two or more speakers, give --over utterances$"
    with pytest.raises(UserError, match=told):
        Side().add(folder, "speakers", "wer")


def test_spikes(aligned, tmp_path):
    """In folders of align: 1 and 4 of 8 spikes are lost."""
    shown = compare_folders([aligned("a", [0, 0, 1])], [aligned("b", [1, 1, 2])], "utterances", "spikes")
    assert (
        ", spikes % [95 %]: 12.5 [0.0, 25.0] and 50.0 [50.0, 50.0]\ndifference, points: -37.5 [-50.0, -25.0]" in shown
    )
    (tmp_path / "test.tsv").write_text("/somewhere\n" + "a.wav\t16000\n" * 3)
    (tmp_path / "test.spk").write_text("ann\nbob\nann\n")
    shown = compare_folders([tmp_path / "a"], [tmp_path / "b"], "speakers", "spikes")
    assert "3 utterances, 2 speakers drawn, spikes % [95 %]: 12.5 [0.0, 16.7] and 50.0 [50.0, 50.0]" in shown


def test_other_utterances(decoded):
    first, second = decoded("a", ["A B"], ["A B"]), decoded("b", ["A B"], ["A C"])
    with pytest.raises(UserError, match=r"/a and .*/b do not have the same utterances in the same order"):
        compare_folders([first], [second], "utterances", "wer")
    with pytest.raises(UserError, match=r"hypo.word: No such file"):
        compare_folders([first], [second / "gone"], "utterances", "wer")
    with pytest.raises(
        UserError, match=r"/a/align.json: No such file or directory; give folders written by infer or align"
    ):
        compare_folders([first], [second], "utterances", "spikes")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--over=utterances"], "--over utterances compares folders: give the other folders with --minus"),
        (["--over=runs"], "a is given without results: add the results.jsonl of run_grid"),
    ],
)
def test_folders_without_others(arguments, sentence):
    with pytest.raises(UserError, match=f"^{sentence}$"):
        main(["a", *arguments])


@pytest.mark.faults
@pytest.mark.parametrize("left", [None, '{"word_errors": 3, "words": 6}', '{"word_err'])
def test_a_folder_is_complete_with_its_summary(decoded, left):
    """X9: infer was killed between two files, and a mix of old and new ones was compared."""
    folder = decoded("cut", ["A B", "C D X", "F"], REFERENCES)
    (folder / "summary.json").unlink()
    if left is not None:
        (folder / "summary.json").write_text(left)
    with pytest.raises(UserError, match=r"/cut is incomplete: its hypo\.word and ref\.word have no summary\.json, or "):
        compare_folders([folder], [folder], "utterances", "wer")
