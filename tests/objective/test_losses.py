"""Distillation terms and the whole objective, against float64 NumPy and hand-worked numbers."""

import doctest
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from fairseq_skd.objective import losses
from fairseq_skd.objective.losses import combine, frame_kl, frame_mask, guide_loss, softmax_distance
from tests.objective.references import log_softmax, random_logits


def kl_by_numpy(teacher: np.ndarray, student: np.ndarray, lengths: Sequence[int], temperature: float = 1.0) -> float:
    """Sum over real frames of KL(p_T || p_S) * temperature^2, from (T, B, V) logits in float64."""
    p, q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    frame = (np.exp(p) * (p - q)).sum(axis=-1)
    return temperature**2 * sum(float(frame[:length, b].sum()) for b, length in enumerate(lengths))


# ---- L_SKD


def test_kl_by_hand() -> None:
    # First frame: KL((1/2, 1/2) || (1/4, 3/4)) = ln(2)/2 + ln(2/3)/2. Second frame: 0.
    teacher = torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]]]).log()
    student = torch.tensor([[[0.25, 0.75]], [[0.9, 0.1]]]).log()
    expected = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    assert expected == pytest.approx(0.1438410362258904)
    assert frame_kl(teacher, student, torch.tensor([2])).item() == pytest.approx(expected, abs=1e-7)
    assert frame_kl(student, teacher, torch.tensor([2])).item() != pytest.approx(expected, abs=1e-3)


def test_kl_is_a_sum_over_frames_and_utterances() -> None:
    teacher = torch.tensor([0.5, 0.5]).log().expand(7, 3, 2)
    student = torch.tensor([0.25, 0.75]).log().expand(7, 3, 2)
    one = 0.1438410362258904
    assert frame_kl(teacher, student, torch.tensor([7, 4, 1])).item() == pytest.approx(12 * one, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_kl_equals_numpy(scale: float, temperature: float) -> None:
    lengths = [23, 9, 1]
    teacher, student = random_logits((23, 3, 11), 5, scale), random_logits((23, 3, 11), 6, scale)
    expected = kl_by_numpy(teacher.numpy(), student.numpy(), lengths, temperature)
    loss = frame_kl(teacher, student, torch.tensor(lengths), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=2e-6 * temperature**2)


def test_temperature_keeps_the_gradients_scale() -> None:
    # For small logits, KL is quadratic in the logits: 1/T^2 from the logits, T^2 as the factor.
    teacher, student = random_logits((8, 2, 5), 7, scale=1e-2), random_logits((8, 2, 5), 8, scale=1e-2)
    lengths = torch.tensor([8, 8])
    gradients = []
    for temperature in (1.0, 4.0):
        leaf = student.clone().requires_grad_()
        frame_kl(teacher, leaf, lengths, temperature).backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert gradients[1].norm().item() == pytest.approx(gradients[0].norm().item(), rel=0.02)


@pytest.mark.parametrize("padding", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_padded_frames_change_neither_kl_nor_its_gradient(padding: float, stop_gradient: bool) -> None:
    lengths = torch.tensor([5, 2])
    values = [random_logits((5, 2, 4), seed) for seed in (9, 10)]
    clean = [value.clone().requires_grad_() for value in values]
    expected = frame_kl(clean[0], clean[1], lengths, stop_gradient=stop_gradient)
    expected.backward()
    dirty = []
    for value in values:
        value[2:, 1] = padding
        dirty.append(value.requires_grad_())
    loss = frame_kl(dirty[0], dirty[1], lengths, stop_gradient=stop_gradient)
    loss.backward()
    assert torch.equal(loss, expected)
    for with_padding, without in zip(dirty, clean, strict=True):
        if with_padding.grad is None:
            assert without.grad is None
            continue
        assert without.grad is not None
        assert torch.equal(with_padding.grad, without.grad)
        assert (with_padding.grad[2:, 1] == 0).all()


def central_differences(function: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    at = at.astype(np.float64)
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_kl_gradients_equal_finite_differences_in_float64(temperature: float) -> None:
    lengths = [4, 2]
    teacher, student = (random_logits((4, 2, 3), seed).requires_grad_() for seed in (12, 13))
    frame_kl(teacher, student, torch.tensor(lengths), temperature, stop_gradient=False).backward()
    fixed_teacher, fixed_student = teacher.detach().numpy(), student.detach().numpy()
    for leaf, function in (
        (student, lambda moved: kl_by_numpy(fixed_teacher, moved, lengths, temperature)),
        (teacher, lambda moved: kl_by_numpy(moved, fixed_student, lengths, temperature)),
    ):
        assert leaf.grad is not None
        expected = central_differences(function, leaf.detach().numpy())
        np.testing.assert_allclose(leaf.grad.numpy(), expected, atol=2e-5)


def test_gradient_of_kl_is_the_difference_of_posteriors() -> None:
    teacher, student = random_logits((6, 2, 5), 14), random_logits((6, 2, 5), 15).requires_grad_()
    frame_kl(teacher, student, torch.tensor([6, 6])).backward()
    assert student.grad is not None
    expected = student.detach().softmax(-1) - teacher.softmax(-1)
    np.testing.assert_allclose(student.grad.numpy(), expected.numpy(), atol=1e-6)


def test_stop_gradient_gives_the_teacher_no_gradient() -> None:
    teacher, student = (random_logits((4, 1, 3), seed).requires_grad_() for seed in (16, 17))
    lengths = torch.tensor([4])
    frame_kl(teacher, student, lengths).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    frame_kl(teacher, student, lengths, stop_gradient=False).backward()
    assert teacher.grad is not None
    assert teacher.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kl_of_half_precision_logits_is_float32(dtype: torch.dtype) -> None:
    lengths = [200, 120]
    teacher, student = random_logits((200, 2, 32), 18, 5.0).to(dtype), random_logits((200, 2, 32), 19, 5.0).to(dtype)
    loss = frame_kl(teacher, student.requires_grad_(), torch.tensor(lengths))
    assert loss.dtype == torch.float32
    # Only the logits are rounded: half precision cannot hold the sum.
    expected = kl_by_numpy(teacher.double().numpy(), student.detach().double().numpy(), lengths)
    assert expected > 2048
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_kl_is_zero_for_equal_logits_and_else_positive() -> None:
    logits = random_logits((9, 2, 6), 20, scale=20)
    assert frame_kl(logits, logits.clone(), torch.tensor([9, 3])).item() == 0
    assert frame_kl(logits, random_logits((9, 2, 6), 21), torch.tensor([9, 3])).item() > 0


# ---- the whole objective


def test_combine_by_hand() -> None:
    teacher, students = torch.tensor(10.0), [torch.tensor(2.0), torch.tensor(4.0)]
    assert combine(teacher, students[:1], 0.25).item() == pytest.approx(0.75 * 10 + 0.25 * 2)
    assert combine(teacher, students, 0.5).item() == pytest.approx(0.5 * 10 + 0.5 * 3)
    assert combine(teacher, students, 0.0).item() == 10.0
    assert combine(teacher, students, 1.0).item() == 3.0


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_combine_without_students_is_the_teacher_loss(alpha: float) -> None:
    teacher = torch.tensor(10.0)
    assert combine(teacher, [], alpha) is teacher


# ---- terms of a separate teacher, and frame weights


def test_guide_loss_by_hand() -> None:
    guide = torch.tensor([[[0.0, 5.0, 0.0]], [[5.0, 0.0, 0.0]], [[0.0, 0.0, 5.0]], [[0.0, 9.0, 0.0]]])  # (4, 1, 3)
    posterior = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    loss = guide_loss(guide, posterior.log().unsqueeze(1), torch.tensor([3]))
    assert float(loss) == pytest.approx(-(0.5 + 0.1))  # frames: spike, blank, spike, padding


def test_softmax_distance_by_hand() -> None:
    teacher = torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]], [[1e-9, 1.0]]]).log()
    student = torch.tensor([[[0.2, 0.8]], [[0.9, 0.1]], [[1.0, 1e-9]]]).log()
    loss = softmax_distance(teacher, student, torch.tensor([2]))
    assert float(loss) == pytest.approx(0.3**2 + 0.3**2, rel=1e-5)
    warm = softmax_distance(teacher, student, torch.tensor([1]), temperature=2.0)
    root = np.sqrt([0.2, 0.8]) / np.sqrt([0.2, 0.8]).sum()
    assert float(warm) == pytest.approx(((0.5 - root) ** 2).sum(), rel=1e-5)


def terms_by_numpy(teacher: np.ndarray, student: np.ndarray, weights: np.ndarray, temperature: float) -> list[float]:
    """KL, squared distance and guide loss of (T, B, V) logits, with frame weights (T, B)."""
    p, q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    kl = temperature**2 * (np.exp(p) * (p - q)).sum(axis=-1)
    distance = ((np.exp(p) - np.exp(q)) ** 2).sum(axis=-1)
    best = teacher.argmax(axis=-1)
    guided = -np.take_along_axis(np.exp(log_softmax(student)), best[..., None], -1)[..., 0] * (best != 0)
    return [float((weights * term).sum()) for term in (kl, distance, guided)]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("weighed", [False, True])
def test_weighted_terms_equal_numpy(temperature: float, weighed: bool) -> None:
    teacher, student = random_logits((9, 3, 5), 1), random_logits((9, 3, 5), 2)
    lengths = torch.tensor([9, 4, 7])
    real = frame_mask(lengths, 9).float()
    weights = real * torch.rand(9, 3, generator=torch.Generator().manual_seed(3)).round(decimals=1)
    given = weights if weighed else None
    terms = [
        frame_kl(teacher, student, lengths, temperature, weights=given),
        softmax_distance(teacher, student, lengths, temperature, given),
        guide_loss(teacher, student, lengths, weights=given),
    ]
    used = (weights if weighed else real).double().numpy()
    expected = terms_by_numpy(teacher.double().numpy(), student.double().numpy(), used, temperature)
    assert [float(term) for term in terms] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("term", [softmax_distance, guide_loss])
def test_separate_teacher_and_padding_get_no_gradient(term: Callable[..., Tensor]) -> None:
    teacher, student = random_logits((6, 2, 4), 1).requires_grad_(), random_logits((6, 2, 4), 2).requires_grad_()
    term(teacher, student, torch.tensor([6, 3])).backward()
    assert teacher.grad is None
    assert student.grad is not None and student.grad[:3].abs().sum() > 0
    assert torch.equal(student.grad[3:, 1], torch.zeros(3, 4))


def test_examples() -> None:
    assert doctest.testmod(losses).failed == 0
