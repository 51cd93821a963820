"""Frame selections against hand-made posteriors and a frame-by-frame reference."""

import numpy as np
import pytest
import torch

from fairseq_skd.errors import UserError
from fairseq_skd.objective.losses import FrameSelection

# Best symbols of two utterances with 9 and 6 real frames. The rest is padding and must not matter.
FIRST = [0, 0, 3, 3, 0, 0, 2, 0, 0]
SECOND = [1, 0, 0, 0, 2, 0, 5, 5, 5]
LENGTHS = torch.tensor([9, 6])


def logits_of(*paths: list[int], peak: float = 4.0) -> torch.Tensor:
    """(T, B, V) logits whose argmax are the given paths."""
    best = torch.tensor(paths).transpose(0, 1)  # (B, T) -> (T, B)
    return peak * torch.nn.functional.one_hot(best, 6).float()


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("nonblank", [0, 0, 1, 1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0]),
        ("symmetric:0", [0, 0, 1, 1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0]),
        ("symmetric:1", [0, 1, 1, 1, 1, 1, 1, 1, 0], [1, 1, 0, 1, 1, 1]),
        ("symmetric:40", [1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]),
        ("symmetric:1000000", [1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]),
        ("trim", [0, 0, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]),
        ("threshold:0.5", [0, 0, 1, 1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0]),
        ("threshold:1.0", [1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]),
    ],
)
def test_selections_by_hand(text, first, second):
    logits = logits_of(FIRST, SECOND)
    plain = FrameSelection.parse(text, plain_sum=True).weights(logits, LENGTHS)
    assert plain[:, 0].tolist() == first
    assert plain[:, 1].tolist() == [*second, 0, 0, 0]
    weighed = FrameSelection.parse(text).weights(logits, LENGTHS)
    assert weighed[:, 0].tolist() == pytest.approx([keep * 9 / sum(first) for keep in first])
    assert weighed[:6, 1].tolist() == pytest.approx([keep * 6 / sum(second) for keep in second])


def test_selected_frames_weigh_as_much_as_all_frames():
    logits = torch.randn(30, 5, 6, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([30, 21, 8, 2, 1])
    for text in ("nonblank", "symmetric:2", "trim", "threshold:0.3"):
        weights = FrameSelection.parse(text).weights(logits, lengths)
        total = weights.sum(dim=0)
        kept = (weights > 0).any(dim=0)
        assert kept[:3].all(), "the test needs utterances with selected frames"
        torch.testing.assert_close(total[kept], lengths[kept].float())


def test_all_needs_no_weights():
    assert FrameSelection.parse("all").weights(logits_of(FIRST), torch.tensor([9])) is None


@pytest.mark.parametrize("text", ["nonblank", "symmetric:3", "trim", "threshold:0.1"])
def test_an_utterance_of_blanks_weighs_nothing(text):
    weights = FrameSelection.parse(text).weights(logits_of([0] * 5, [0, 2, 0, 0, 0]), torch.tensor([5, 4]))
    assert weights[:, 0].tolist() == [0.0] * 5
    assert weights[:, 1].sum() == pytest.approx(4)


def test_threshold_compares_the_blank_posterior():
    blank = torch.tensor([0.2, 0.5, 0.75, 0.9])
    posteriors = torch.stack([blank, 1 - blank], dim=1).unsqueeze(1)  # (T, 1, 2)
    kept = FrameSelection.parse("threshold:0.7", plain_sum=True).weights(posteriors.log(), torch.tensor([4]))
    assert kept[:, 0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("reach", [0, 1, 3])
def test_symmetric_and_trim_against_a_loop(reach):
    logits = torch.randn(40, 6, 3, generator=torch.Generator().manual_seed(2))
    logits[..., 0] += 2.5
    lengths = torch.tensor([40, 33, 20, 11, 5, 1])
    best = logits.argmax(-1).numpy()
    symmetric = FrameSelection.parse(f"symmetric:{reach}", True).weights(logits, lengths).numpy()
    trim = FrameSelection.parse("trim", True).weights(logits, lengths).numpy()
    for b, length in enumerate(lengths.tolist()):
        spoken = np.flatnonzero(best[:length, b])
        for t in range(40):
            near = any(abs(t - s) <= reach for s in spoken)
            assert symmetric[t, b] == (t < length and near)
            assert trim[t, b] == (t < length and len(spoken) > 0 and spoken[0] <= t <= spoken[-1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "blank",
        "nonblank:1",
        "symmetric",
        "symmetric:",
        "symmetric:-1",
        "symmetric:1.5",
        "symmetric:1000001",
        "symmetric:99999999999999999999",
        "threshold:0",
        "threshold:x",
    ],
)
def test_refuses_any_other_selection(text):
    with pytest.raises(UserError, match=r"criterion.frames=.* is not known: choose one of all, nonblank, symmetric:N"):
        FrameSelection.parse(text)
