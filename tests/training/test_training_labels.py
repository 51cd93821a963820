"""Transcripts that CTC cannot learn, through fairseq's own tasks."""

import logging
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from fairseq_skd.encoders.convolutions import ConvLayer
from fairseq_skd.errors import UserError
from fairseq_skd.objective.losses import feasible
from fairseq_skd.training.splits import check_before_loading
from tests.builders import write_corpus
from tests.training.tasks import LAYERS, TASKS, make_task, root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # 9, 4 and 4 frames
    return write_corpus(tmp_path / "data", {"train": [("A NO", 0.2), ("TEN", 0.1), ("IT", 0.1)], "valid": [("A", 0.2)]})


@pytest.fixture(params=TASKS)
def task(request, folder):
    task = make_task(request.param, folder)
    whole = OmegaConf.merge(root(), {"criterion": {"post_process": "letter"}})
    check_before_loading(task, LAYERS, whole)
    return task


def warnings(caplog, task, split="train"):
    """Load a split and return our warnings."""
    caplog.set_level(logging.WARNING, "fairseq_skd")
    task.load_dataset(split)
    assert len(task.dataset(split)) > 0
    return [record.getMessage() for record in caplog.records if record.name.startswith("fairseq_skd")]


def test_good_labels_give_no_warning(task, caplog):
    assert warnings(caplog, task) == warnings(caplog, task, "valid") == []


@pytest.mark.parametrize(
    ("text", "metric", "instead"),
    [
        ("你 好 |", "student_wer", "student_uer"),
        ("你 好 |", "wer_6", "uer"),
        ("你 好 |", "student_uer", None),
        ("A |", "wer", None),
    ],
)
def test_word_errors_of_a_script_without_spaces(folder, caplog, text, metric, instead):
    (folder / "valid.ltr").write_text(f"{text}\n", encoding="utf-8")
    with (folder / "dict.ltr.txt").open("a", encoding="utf-8") as dictionary:
        dictionary.write("你 1\n好 1\n")
    task = make_task("hubert_pretraining", folder)
    check_before_loading(task, LAYERS, OmegaConf.merge(root(), {"checkpoint": {"best_checkpoint_metric": metric}}))
    told = warnings(caplog, task, "valid")
    assert [line.rpartition(": ")[2] for line in told] == (
        [f"set checkpoint.best_checkpoint_metric={instead}"] if instead else []
    )


@pytest.mark.faults
@pytest.mark.parametrize("symbol", ["<s>", "<pad>", "</s>", "<unk>"])
@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.slow
def test_special_symbols_are_not_units(task, folder, split, symbol):
    (folder / f"{split}.ltr").write_text("".join(f"A {symbol} |\n" for _ in (folder / f"{split}.ltr").open()))
    sentence = rf"{split}\.ltr line 1 has the symbol '{symbol}', which fairseq reserves: write what was said"
    with pytest.raises(UserError, match=sentence):
        task.load_dataset(split)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        # X10: fairseq silently trains with a loss of 0
        (["", "", ""], r"^3 of the 3 transcripts in .*train\.ltr are empty, .* line 1; CTC can learn nothing: check"),
        (
            ["A B C D E F G H I |", "A A A |", "T E N |E"],
            r"symbol '\|E', which is not in the dictionary: add it there, or write the line in units of the dictionary",
        ),
        (
            ["A B C D E F G H I |", "A A A |", "T E N O |"],
            r"^3 of the 3 transcripts in .*train\.ltr do not fit their audio and are left out of the loss, the first "
            r"is line 1, which needs 10 frames and has 9 \(.*train\.tsv line 2: .*train0\.wav\); CTC can learn nothing",
        ),
        (
            ["", "A A A |", "T E N O |"],
            r"^1 of the 3 .* are empty, .* and 2 of the 3 .* line 2, which needs 6 frames and",
        ),
    ],
)
def test_nothing_to_learn(task, folder, lines, sentence):
    (folder / "train.ltr").write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(UserError, match=sentence):
        task.load_dataset("train")


@pytest.mark.faults
def test_nothing_to_validate_with(task, folder):
    (folder / "valid.ltr").write_text("\n")
    with pytest.raises(UserError, match=r"1 of the 1 transcripts in .*valid\.ltr are empty"):
        task.load_dataset("valid")


@pytest.mark.faults
def test_some_transcripts_that_add_nothing(task, folder, caplog):
    """'A A A |' needs one frame per unit and one between equal neighbours: 6, but it has 4."""
    (folder / "train.ltr").write_text("A | N O |\n\nA A A |\n")
    empty, infeasible = warnings(caplog, task)
    path = folder / "train.ltr"
    assert empty == f"1 of the 3 transcripts in {path} are empty, so they teach only blanks, the first is line 2"
    assert infeasible.startswith(
        f"1 of the 3 transcripts in {path} do not fit their audio and are left out of the loss, the first is line 3, "
        f"which needs 6 frames and has 4 ("
    )


@pytest.mark.faults
def test_the_frames_are_those_of_the_encoder(folder, caplog):
    """Manifests are checked for frames of 20 ms, where 0.1 s has 4 of them; at 40 ms it has 2."""
    (folder / "train.ltr").write_text("A N O |\nT E |\nI |\n")
    task = make_task("hubert_pretraining", folder)
    check_before_loading(task, LAYERS, root())
    assert warnings(caplog, task) == []
    task = make_task("hubert_pretraining", folder)
    check_before_loading(task, [*LAYERS, ConvLayer(16, 2, 2)], root())
    (infeasible,) = warnings(caplog, task)
    assert infeasible.startswith(
        f"1 of the 3 transcripts in {folder / 'train.ltr'} do not fit their audio and are left out of the loss, the "
        f"first is line 2, which needs 3 frames and has 2 ("
    )


@pytest.mark.faults
def test_the_check_agrees_with_the_criterion(tmp_path, caplog):
    """At the limit: 4 frames hold 4 units, or 3 with one repeated."""
    texts = ["ABC", "ABCD", "AAB", "AAA", "AABB", "A"]
    folder = write_corpus(tmp_path / "data", {"train": [(text, 0.1) for text in texts]})
    task = make_task("hubert_pretraining", folder)
    units = [task.target_dictionary.encode_line(line, append_eos=False) for line in (folder / "train.ltr").open()]
    left_out = [
        index
        for index, one in enumerate(units)
        if not bool(feasible(one.unsqueeze(0), torch.tensor([len(one)]), torch.tensor([4])))
    ]
    check_before_loading(task, LAYERS)
    (told,) = warnings(caplog, task)
    assert left_out == [1, 2, 3, 4]
    assert told.startswith("4 of the 6 transcripts") and "line 2, which needs 5 frames and has 4" in told


@pytest.mark.faults
def test_phones_as_one_word(task, folder, caplog):
    """F26: WER would be the share of wrong utterances."""
    (folder / "train.ltr").write_text("A N O\nT E N\nI T\n")
    (told,) = warnings(caplog, task)
    assert told == (
        f"criterion.post_process=letter makes one word of each transcript, because none of the 3 in {folder}/train.ltr "
        f"has a word boundary |: set criterion.post_process=none"
    )
