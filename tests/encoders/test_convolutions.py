"""``conv_feature_layers`` is never executed, and frame counts equal real convolutions."""

import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from fairseq_skd.encoders.convolutions import ConvLayer, parse_conv_layers
from fairseq_skd.encoders.trunk import frame_lengths
from fairseq_skd.errors import UserError

BASE = [(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2", BASE),  # wav2vec 2.0 and HuBERT, fairseq's default
        ("[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]", BASE),  # as in the published recipes
        ("[(512,10,5)]+[(512,3,2)]*4+[(512,2,2)]*2", BASE),
        ("  [(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2\n", BASE),
        (
            "[(512, 10, 5), (512, 3, 2), (512, 3, 2), (512, 3, 2), (512, 3, 2), (512, 2, 2), (512, 2, 2)]",
            BASE,
        ),
        (
            "[(512, 10, 5), (512, 8, 4), (512, 4, 2), (512, 4, 2), (512, 4, 2), (512, 1, 1), (512, 1, 1)]",
            [(512, 10, 5), (512, 8, 4)] + [(512, 4, 2)] * 3 + [(512, 1, 1)] * 2,
        ),
        ("([(64, 10, 5)] + [(64, 3, 2)]) * 2", [(64, 10, 5), (64, 3, 2)] * 2),
        ("[(16, 10, 5),]", [(16, 10, 5)]),
    ],
)
def test_reads_texts_of_real_checkpoints(text: str, layers: list[tuple[int, int, int]]) -> None:
    parsed = parse_conv_layers(text)
    assert parsed == layers
    assert all(isinstance(layer, ConvLayer) for layer in parsed)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch {target}')",
        "[(512,10,5)] + [__import__('subprocess').run(['touch', '{target}'])]",
        "[(512,10,__import__('os').system('touch {target}'))]",
        "(lambda: open('{target}', 'w'))()",
        "[open('{target}', 'w') for _ in [1]]",
        "[(512,10,5)] if open('{target}', 'w') else []",
        "[(512,10,5)][open('{target}', 'w')]",
        "f\"{open('{target}', 'w')}\"",
        "(x := open('{target}', 'w'))",
    ],
)
def test_runs_nothing(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spawned(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", spawned)
    target = tmp_path / "touched"
    with pytest.raises(UserError, match="is not a sum of lists of"):
        parse_conv_layers(text.replace("{target}", str(target)))
    assert not target.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "[]",
        "()",
        "512",
        "(512, 10, 5)",
        "[(512, 10)]",
        "[(512, 10, 5, 1)]",
        "[[512, 10, 5]]",
        "[(512, 10, 5)",
        "[(512, 10, 5)] + (512, 3, 2)",
        "[(512, 10, 5)] + [(512, 3, 2)] * [2]",
        "[(512, 10, 5)] * 0",
        "[(512, 10, 5)] * -1",
        "[(512, 10, 5)] - [(512, 10, 5)]",
        "[(512, 10, 5)] ** 2",
        "[(512, 10, -5)]",
        "[(512, 10, 0)]",
        "[(512, 10, 5.0)]",
        "[(512, 1e1, 5)]",
        "[(512, 10, True)]",
        "[(512, '10', 5)]",
        "[(512, 10, None)]",
        "[(512, 10, 2 + 3)]",
        "[(512, 10, stride)]",
        "[*[(512, 10, 5)]]",
        "[(512, 10, 5)]; [(512, 10, 5)]",
        "import os",
        "[(512, 10, 5)]\x00",
        "\ud800",
        # Small texts with huge results
        "[(512, 10, 5)] * 1000000000000",
        "[(1, 1, 1)] * 100 * 100 * 100 * 100 * 100 * 100",
        "[[[[[(1, 1, 1)] * 99] * 99] * 99] * 99] * 99",
        "[(1, 1, 9**9**9)]",
        "[(1, 1, " + "9" * 5000 + ")]",
        "(" * 500 + "1" + ")" * 500,
        "[" * 150 + "]" * 150,
        "[(1, 1, 1)]" + " + [(1, 1, 1)]" * 100_000,
        "-" * 100_000 + "1",
    ],
)
def test_refuses_anything_else(text: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_conv_layers(text)
    sentence = str(refused.value)
    assert sentence.startswith("conv_feature_layers=")
    assert sentence.endswith("is not a sum of lists of (channels, kernel, stride) triples")
    assert len(sentence) < 1500


@pytest.mark.parametrize("value", [None, 5, [(512, 10, 5)], b"[(512,10,5)]"])
def test_refuses_other_types_than_text(value: object) -> None:
    with pytest.raises(UserError, match="is not a sum of lists of"):
        parse_conv_layers(value)  # type: ignore[arg-type]


def test_the_number_of_layers_is_limited() -> None:
    assert len(parse_conv_layers("[(8, 3, 1)] * 100")) == 100
    with pytest.raises(UserError, match="is not a sum of lists of"):
        parse_conv_layers("[(8, 3, 1)] * 101")


@pytest.mark.parametrize(
    ("samples", "frames"), [(400, 1), (719, 1), (720, 2), (16000, 49), (160000, 499), (15680 + 400, 50)]
)
def test_frames_of_the_base_extractor(samples: int, frames: int) -> None:
    # Each frame covers 400 samples, and frames are 320 samples apart.
    layers = parse_conv_layers("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2")
    assert frame_lengths(torch.tensor([samples]), layers).tolist() == [frames]


@pytest.mark.parametrize(
    "text",
    [
        "[(1,10,5)] + [(1,3,2)] * 4 + [(1,2,2)] * 2",
        "[(1, 10, 5), (1, 8, 4), (1, 4, 2), (1, 4, 2), (1, 4, 2), (1, 1, 1), (1, 1, 1)]",
        "[(1, 7, 3), (1, 1, 4), (1, 5, 1)]",
    ],
)
def test_frames_equal_a_real_stack(text: str) -> None:
    layers = parse_conv_layers(text)
    stack = nn.Sequential(*[nn.Conv1d(1, 1, kernel, stride) for _, kernel, stride in layers])
    samples = torch.tensor([*range(640, 1400, 31), 4000, 16000, 16001])
    with torch.no_grad():
        expected = [stack(torch.zeros(1, 1, int(count))).size(-1) for count in samples]
    counted = frame_lengths(samples, layers)
    assert counted.tolist() == expected
    assert counted.dtype == torch.int64


def test_audio_too_short_for_a_frame_counts_as_one() -> None:
    layers = parse_conv_layers("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2")
    assert frame_lengths(torch.tensor([0, 1, 9, 10, 399]), layers).tolist() == [1, 1, 1, 1, 1]
