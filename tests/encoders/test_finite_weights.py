"""Checkpoints whose weights hold NaN or Inf are refused; the message names file and tensor."""

import re

import pytest
import torch

from fairseq_skd.encoders.weight_files import check_finite
from fairseq_skd.errors import UserError
from fairseq_skd.recognizer import load
from tests.builders import write_pretrained
from tests.decoding.checkpoints import write_fine_tuned
from tests.models.models import build

LAYER = "encoder.layers.2.final_layer_norm.bias"


def damage(path, name, value):
    state = torch.load(path, weights_only=True)
    state["model"][name][4] = value
    torch.save(state, path)


@pytest.mark.faults
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_pretrained_weights(tmp_path, value):
    """Section 6: training once began, and then failed with NaN gradients."""
    path = write_pretrained(tmp_path / "w2v.pt")
    damage(path, LAYER, value)
    with pytest.raises(UserError, match=rf"^model.w2v_path={path}: {LAYER} holds NaN or Inf, the first of 1"):
        build(path)


@pytest.mark.faults
def test_fine_tuned_weights(tmp_path):
    """Section 6: decoding once gave empty texts, with exit status 0."""
    path = write_fine_tuned(tmp_path / "tuned.pt")
    damage(path, "student_heads.2.proj.bias", torch.inf)
    with pytest.raises(UserError, match=f"^checkpoint {path}: student_heads.2.proj.bias holds NaN or Inf"):
        load(path, (4,), "cpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_precision(dtype):
    """The largest numbers of a type are finite, although their sum is not."""
    largest = torch.full((7, 3), torch.finfo(dtype).max, dtype=dtype)
    weights = {
        "a": largest,
        "b": -largest,
        "counts": torch.tensor([1, 2]),
        "none": torch.empty(0),
        "one": torch.ones(()),
    }
    check_finite(weights, "x.pt")
    weights["b"][6, 2] = torch.nan
    weights["one"] = torch.tensor(-torch.inf)
    with pytest.raises(UserError, match=re.escape("x.pt: b holds NaN or Inf, the first of 2 such tensors")):
        check_finite(weights, "x.pt")
