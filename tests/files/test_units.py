"""Letters, dictionary and frames that CTC needs, against fairseq's dictionary and torch's loss."""

from pathlib import Path

import pytest
import torch
from fairseq.data import Dictionary

from fairseq_skd.files.units import LETTERS, frames_needed, letter_dictionary, letters

SHIPPED = Path(__file__).parents[2] / "manifests" / "dict.ltr.txt"


def test_shipped_dictionary_is_the_built_in_one():
    assert SHIPPED.read_bytes() == letter_dictionary().encode()


def test_order_of_symbols():
    symbols = [line.split(" ")[0] for line in letter_dictionary().splitlines()]
    assert " ".join(symbols) == "| E T A O N I H S R D L U M W C F G Y P B V K ' X J Q Z"


def test_fairseq_loads_the_dictionary():
    dictionary = Dictionary.load(str(SHIPPED))
    assert len(dictionary) == 4 + 28
    assert dictionary.index("|") == 4 and dictionary.index("Z") == 31
    encoded = dictionary.encode_line(" ".join(letters("DON'T")), append_eos=False, add_if_not_exist=False)
    assert dictionary.unk() not in encoded.tolist()


@pytest.mark.parametrize(
    ("text", "line"), [("GO ON", "G O | O N |"), ("A", "A |"), ("DON'T", "D O N ' T |"), ("A B C", "A | B | C |")]
)
def test_letters_as_in_ltr_files(text: str, line: str):
    assert " ".join(letters(text)) == line


def test_characters_outside_in_order():
    assert LETTERS.outside("GO ON, 2 x 2,") == [",", "2", "x", "2", ","]
    assert LETTERS.outside("IT'S FINE") == []


@pytest.mark.parametrize(("text", "needed"), [("A", 2), ("SEE", 5), ("AAA", 6), ("GO ON", 6)])
def test_frames_needed_is_where_ctc_becomes_finite(text: str, needed: int):
    units = letters(text)
    assert frames_needed(units) == needed
    ids = {unit: index for index, unit in enumerate(dict.fromkeys(units), start=1)}
    target = torch.tensor([[ids[unit] for unit in units]])
    for frames, finite in ((needed, True), (needed - 1, False)):
        log_probs = torch.zeros(frames, 1, len(ids) + 1).log_softmax(-1)  # (T, B, V)
        loss = torch.nn.functional.ctc_loss(log_probs, target, torch.tensor([frames]), torch.tensor([target.shape[1]]))
        assert bool(loss.isfinite()) is finite
