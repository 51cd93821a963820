import itertools
import warnings

import numpy as np
import pytest
from scipy.stats import bootstrap

from fairseq_skd.scoring.bootstrap import Interval, paired_difference, rate_interval

RNG = np.random.default_rng(5)
WORDS = RNG.integers(1, 12, size=80)
ERRORS = RNG.binomial(WORDS, 0.3)
OTHERS = np.clip(ERRORS + RNG.integers(-1, 3, size=80), 0, None)


def ratio(errors, totals, axis=-1):
    return errors.sum(axis=axis) / totals.sum(axis=axis)


def test_all_draws_of_two_utterances():
    """Rates 0, 1/4 and 1/2 come up with probability 1/4, 1/2 and 1/4."""
    found = rate_interval([0, 2], [4, 4], level=0.95)
    assert found == Interval(0.25, 0.0, 0.5)
    assert rate_interval([0, 2], [4, 4], level=0.4) == Interval(0.25, 0.25, 0.25)


def test_quantiles_of_all_draws_of_four():
    errors, totals = np.array([0, 1, 3, 2]), np.array([3, 1, 4, 2])
    every = [ratio(errors[list(draw)], totals[list(draw)]) for draw in itertools.product(range(4), repeat=4)]
    low, high = np.quantile(every, [0.05, 0.95])
    found = rate_interval(errors, totals, resamples=40_000, level=0.9)
    assert found.value == pytest.approx(0.6)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def test_as_scipy_has_it():
    peer = bootstrap((ERRORS, WORDS), ratio, paired=True, n_resamples=20_000, method="percentile", random_state=0)
    found = rate_interval(ERRORS, WORDS, resamples=20_000)
    assert found.value == ERRORS.sum() / WORDS.sum()
    assert found.low == pytest.approx(peer.confidence_interval.low, abs=0.004)
    assert found.high == pytest.approx(peer.confidence_interval.high, abs=0.004)


def test_a_seed_is_an_interval(monkeypatch):
    found = rate_interval(ERRORS, WORDS, seed=3)
    assert rate_interval(ERRORS, WORDS, seed=3) == found
    assert rate_interval(ERRORS, WORDS, seed=4) != found
    monkeypatch.setattr("fairseq_skd.scoring.bootstrap._DRAWN_AT_ONCE", 1000)  # in many parts
    in_parts = rate_interval(ERRORS, WORDS, seed=3)
    assert (in_parts.low, in_parts.high) == (pytest.approx(found.low, abs=1e-9), pytest.approx(found.high, abs=1e-9))


def test_paired_as_scipy_has_it():
    def difference(a, b, totals, axis=-1):
        return (a.sum(axis=axis) - b.sum(axis=axis)) / totals.sum(axis=axis)

    peer = bootstrap(
        (ERRORS, OTHERS, WORDS), difference, paired=True, n_resamples=20_000, method="percentile", random_state=0
    )
    found = paired_difference(ERRORS, OTHERS, WORDS, resamples=20_000)
    assert found.interval.value == pytest.approx((ERRORS.sum() - OTHERS.sum()) / WORDS.sum())
    assert found.interval.low == pytest.approx(peer.confidence_interval.low, abs=0.004)
    assert found.interval.high == pytest.approx(peer.confidence_interval.high, abs=0.004)
    assert found.better == pytest.approx((peer.bootstrap_distribution < 0).mean(), abs=0.01)


def test_paired_against_other_totals():
    """Two utterances have four draws: both twice, or one of each in two ways."""
    found = paired_difference([1, 3], [1, 1], [4, 4], [1, 4], level=0.4)
    assert found.interval.value == pytest.approx(4 / 8 - 2 / 5)
    # the first twice: 1/4 - 1/1; the second twice: 3/4 - 1/4; in between lies the middle half
    assert (found.interval.low, found.interval.high) == pytest.approx((0.1, 0.1))
    whole = paired_difference([1, 3], [1, 1], [4, 4], [1, 4], level=0.9)
    assert (whole.interval.low, whole.interval.high) == pytest.approx((-0.75, 0.5))


def test_pairing_is_what_makes_it_sharp():
    """One error fewer in every utterance is no accident, however much utterances differ."""
    found = paired_difference(ERRORS, ERRORS + 1, WORDS)
    assert found.better == 1
    assert found.interval.high < 0
    apart = rate_interval(ERRORS, WORDS)
    assert found.interval.high - found.interval.low < apart.high - apart.low


def test_equal_systems_are_a_tie():
    found = paired_difference(ERRORS, ERRORS, WORDS)
    assert found.interval == Interval(0, 0, 0)
    assert found.better == 0.5


def test_empty_references():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(rate_interval([0, 1], [0, 0])).all()
        half = rate_interval([1, 1], [0, 4], level=0.5)  # a quarter of the draws has no reference at all
    assert half.value == 0.5
    assert 0.25 <= half.low <= half.high <= 0.5


@pytest.mark.parametrize(("errors", "totals"), [([], []), ([1], [1, 2]), ([[1]], [[1]])])
def test_counts_that_do_not_fit(errors, totals):
    with pytest.raises(ValueError, match="counts of the same utterances"):
        rate_interval(errors, totals)
