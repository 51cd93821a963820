"""The corpus and the checkpoint of the decoding tests, and checkpoints that do not match."""

import pytest
import torch

from tests.builders import letter_dictionary, write_pretrained
from tests.decoding.checkpoints import write_fine_tuned
from tests.decoding.conftest import corpus, here, hubert

__all__ = ["corpus", "here", "hubert"]


def other_dictionary(checkpoint, copy):
    state = torch.load(checkpoint, weights_only=True)
    symbols = letter_dictionary()
    symbols.symbols[-2:] = symbols.symbols[:-3:-1]
    state["task_state"] = {"target_dictionary": symbols}
    torch.save(state, copy)
    return copy


@pytest.fixture(scope="session")
def models(tmp_path_factory, hubert):
    folder = tmp_path_factory.mktemp("models")
    convolutions = {
        "fast": "[(16,10,5)] + [(16,3,2)] * 3 + [(16,2,2)] * 2",
        "kernels": "[(16,10,5)] + [(16,3,2)] * 5 + [(16,2,2)]",
    }
    made = {
        name: write_fine_tuned(folder / f"{name}.pt", conv_feature_layers=text) for name, text in convolutions.items()
    }
    made["plain"] = write_fine_tuned(folder / "plain.pt", students=())
    made["two"] = write_fine_tuned(folder / "two.pt", students=(1, 2))
    made["pretrained"] = write_pretrained(folder / "pretrained.pt")
    made["letters"] = other_dictionary(hubert, folder / "letters.pt")
    return made
