import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.multiply_adds import Shape, multiply_adds
from fairseq_skd.encoders.convolutions import ConvLayer

SMALL = Shape(
    [ConvLayer(4, 10, 5), ConvLayer(6, 3, 2)],
    layers=3,
    width=8,
    inner=16,
    position_kernel=4,
    position_groups=2,
    symbols=5,
)


def test_hand_worked():
    # 50 samples -> (50 - 10) / 5 + 1 = 9 -> (9 - 3) / 2 + 1 = 4 frames
    parts = multiply_adds(SMALL, 50, exit_layer=2)
    assert parts == {
        "convolutions": 9 * 4 * 1 * 10 + 4 * 6 * 4 * 3,
        "projection": 4 * 6 * 8,
        "position": 5 * 8 * 4 * 4,
        "linear": 2 * 4 * (4 * 64 + 2 * 8 * 16),
        "attention": 2 * 2 * 4 * 4 * 8,
        "heads": 4 * 8 * 5,
    }


def test_an_odd_number_of_frames_is_padded_for_the_layers_alone():
    odd = multiply_adds(SMALL, 40, exit_layer=1)  # 7 -> 3 frames, 4 in the layers
    even = multiply_adds(SMALL, 50, exit_layer=1)
    assert (odd["linear"], odd["attention"]) == (even["linear"], even["attention"])
    assert odd["heads"] == 3 * 8 * 5


def test_only_layers_and_heads_depend_on_the_exit():
    one, three = multiply_adds(SMALL, 90, 1), multiply_adds(SMALL, 90, 3, heads=2)
    assert {part: three[part] / one[part] for part in one} == {
        "convolutions": 1, "projection": 1, "position": 1, "linear": 3, "attention": 3, "heads": 2,
    }  # fmt: skip


def test_no_projection_between_equal_widths():
    assert multiply_adds(Shape([ConvLayer(8, 10, 5)], width=8), 50, 1)["projection"] == 0


@pytest.mark.parametrize("samples", [50, 63])
@pytest.mark.slow
def test_torch_counts_the_convolutions_alike(samples):
    layers = [nn.Conv1d(1, 4, 10, 5), nn.Conv1d(4, 6, 3, 2)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        nn.Sequential(*layers)(torch.zeros(1, 1, samples))
    assert counter.get_total_flops() == 2 * multiply_adds(SMALL, samples, 1)["convolutions"]
