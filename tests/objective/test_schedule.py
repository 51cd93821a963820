"""alpha(u) against a float64 NumPy reference and hand-worked numbers."""

import doctest
import math

import numpy as np
import pytest

from fairseq_skd.errors import UserError
from fairseq_skd.objective import schedule as schedules
from fairseq_skd.objective.schedule import SCHEDULES, AlphaSchedule, DistillationWeight


def reference(name: str, max_update: int, tau: float, alpha: float) -> np.ndarray:
    """alpha(0), ..., alpha(U + 2) by the formulas of docs/method.md, section 1."""
    u = np.arange(max_update + 3, dtype=np.float64)
    r = np.clip(u / (max_update - 1), 0.0, 1.0) if max_update > 1 else np.ones_like(u)
    return {
        "clamped_linear": np.minimum(np.maximum(r, tau), 1.0 - tau),
        "linear": r,
        "cosine": tau + (1.0 - 2.0 * tau) * (1.0 - np.cos(np.pi * r)) / 2.0,
        "constant": np.full_like(u, alpha),
    }[name]


@pytest.mark.parametrize("max_update", [1, 2, 3, 20, 997])
@pytest.mark.parametrize("tau", [0.0, 0.1, 0.3, 0.499])
@pytest.mark.parametrize("name", SCHEDULES)
def test_equals_the_numpy_reference(name: str, tau: float, max_update: int) -> None:
    schedule = AlphaSchedule(name, max_update, tau, alpha=0.25)
    expected = reference(name, max_update, tau, alpha=0.25)
    np.testing.assert_allclose([schedule(u) for u in range(len(expected))], expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "max_update", "updates", "expected"),
    [
        # In a run of one update, r = 1.
        ("clamped_linear", 1, 0, 0.7),
        ("linear", 1, 0, 1.0),
        ("cosine", 1, 0, 0.7),
        # A run of two updates: r = 0, then r = 1.
        ("clamped_linear", 2, 0, 0.3),
        ("clamped_linear", 2, 1, 0.7),
        ("linear", 2, 0, 0.0),
        ("linear", 2, 1, 1.0),
        ("cosine", 2, 0, 0.3),
        ("cosine", 2, 1, 0.7),
        # Eleven updates: r = u / 10, clamped to [tau, 1 - tau].
        ("clamped_linear", 11, 0, 0.3),
        ("clamped_linear", 11, 2, 0.3),
        ("clamped_linear", 11, 3, 0.3),
        ("clamped_linear", 11, 4, 0.4),
        ("clamped_linear", 11, 5, 0.5),
        ("clamped_linear", 11, 7, 0.7),
        ("clamped_linear", 11, 8, 0.7),
        ("clamped_linear", 11, 10, 0.7),
        ("linear", 11, 3, 0.3),
        ("cosine", 11, 5, 0.5),
        # At r = 1/4 the cosine is 1/sqrt(2), at r = 1/3 it is 1/2.
        ("cosine", 13, 3, 0.3 + 0.4 * (1 - math.sqrt(0.5)) / 2),
        ("cosine", 13, 4, 0.4),
        ("cosine", 13, 8, 0.6),
        # After the last update (in the final validation) alpha stays.
        ("clamped_linear", 11, 11, 0.7),
        ("linear", 11, 400, 1.0),
        ("cosine", 11, 400, 0.7),
    ],
)
def test_hand_worked(name: str, max_update: int, updates: int, expected: float) -> None:
    assert AlphaSchedule(name, max_update, tau=0.3)(updates) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("name", ["clamped_linear", "linear", "cosine"])
def test_alpha_grows_and_is_symmetric(name: str) -> None:
    schedule = AlphaSchedule(name, 101, tau=0.2)
    values = np.array([schedule(u) for u in range(101)])
    assert (np.diff(values) >= 0).all()
    np.testing.assert_allclose(values + values[::-1], 1.0, atol=1e-12)


def test_tau_zero_is_linear() -> None:
    clamped, linear = AlphaSchedule("clamped_linear", 50, tau=0.0), AlphaSchedule("linear", 50)
    assert [clamped(u) for u in range(60)] == [linear(u) for u in range(60)]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_constant_needs_no_max_update(alpha: float) -> None:
    schedule = AlphaSchedule("constant", 0, alpha=alpha)
    assert {schedule(u) for u in (0, 1, 10**6)} == {alpha}


def test_defaults_are_the_papers() -> None:
    schedule = AlphaSchedule(max_update=100)
    assert (schedule.name, schedule.tau) == ("clamped_linear", 0.3)


@pytest.mark.parametrize("name", ["clamped_linear", "linear", "cosine"])
@pytest.mark.parametrize("max_update", [0, -5])
def test_refuses_a_missing_max_update(name: str, max_update: int) -> None:
    with pytest.raises(UserError) as refused:
        AlphaSchedule(name, max_update)
    assert str(refused.value) == (
        f"criterion.schedule={name} needs the length of the run: set optimization.max_update "
        f"(it is {max_update}), or use criterion.schedule=constant"
    )


@pytest.mark.parametrize("tau", [-0.01, 0.5, 0.7, float("nan")])
def test_refuses_tau_out_of_range(tau: float) -> None:
    with pytest.raises(UserError, match=r"^criterion\.tau=\S+ must be at least 0 and below 0\.5$"):
        AlphaSchedule(max_update=10, tau=tau)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_refuses_alpha_out_of_range(alpha: float) -> None:
    with pytest.raises(UserError, match=r"^criterion\.alpha=\S+ must lie between 0 and 1$"):
        AlphaSchedule("constant", alpha=alpha)


@pytest.mark.parametrize("name", ["exponential", "", "Linear"])
def test_refuses_an_unknown_name(name: str) -> None:
    with pytest.raises(UserError) as refused:
        AlphaSchedule(name, 10)
    assert str(refused.value) == (
        f"criterion.schedule={name} is unknown: choose one of clamped_linear, linear, cosine, constant"
    )


def test_distillation_weight_grows_then_stays() -> None:
    weight = DistillationWeight(2.0, warmup=0.5, max_update=8)
    assert [weight(u) for u in range(8)] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]
    assert DistillationWeight(2.0, warmup=1.0, max_update=1)(0) == 0.0
    assert [DistillationWeight(0.3)(u) for u in (0, 1000)] == [0.3, 0.3]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kd_weight": -1.0}, r"criterion\.kd_weight=-1\.0 must be finite and at least 0"),
        ({"kd_weight": float("nan")}, r"criterion\.kd_weight=nan must be finite and at least 0"),
        ({"warmup": 1.5}, r"criterion\.kd_warmup=1\.5 must lie between 0 and 1: it is a share of the updates"),
        ({"warmup": float("nan")}, r"criterion\.kd_warmup=nan must lie between 0 and 1"),
        ({"warmup": 0.5}, r"criterion\.kd_warmup=0\.5 needs the length of the run: set optimization\.max_update"),
    ],
)
def test_refuses_a_distillation_weight_out_of_range(changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        DistillationWeight(**{"max_update": 0, **changes})


def test_examples() -> None:
    assert doctest.testmod(schedules).failed == 0
