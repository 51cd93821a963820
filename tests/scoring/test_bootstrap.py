import doctest
import itertools
import warnings

import numpy as np
import pytest
from scipy.stats import bootstrap

from fairseq_skd.scoring import bootstrap as ours
from fairseq_skd.scoring import transcripts
from fairseq_skd.scoring.bootstrap import Interval, paired_difference, quantile_interval, rate_interval, resampling

RNG = np.random.default_rng(5)
WORDS = RNG.integers(1, 12, size=80)
ERRORS = RNG.binomial(WORDS, 0.3)
OTHERS = np.clip(ERRORS + RNG.integers(-1, 3, size=80), 0, None)

# Two decodings of AN4's test set (a weak student after 1,000 updates, and one after few updates):
# word errors and words of 130 utterances, one base-36 digit each. Ten speakers say 13 each.
AN4_A, AN4_B, AN4_WORDS = (
    np.array([int(digit, 36) for digit in digits])
    for digits in (
        "756164436a46514459642474754637867458575656835434657551768651a7495"
        "3268464476463836826438855736731432a7554516547715857581196752g8595",
        "766164436a475144598534b5754647867459575956836435857751769752a85a5"
        "3269474397575867826438856626731543a9574516645716857581196872f85a5",
        "766164536d575154599525b5754737967479575956936436a57551869752a95a5"
        "327a47449a575867927438a57526741543aa574516747717957591196872ga5a5",
    )
)
AN4_SPEAKERS = np.repeat(["fcaw", "fjlp", "fvap", "marh", "mdms2", "menk", "miry", "mjgm", "mjwl", "mmxg"], 13).tolist()
MONTE_CARLO = 0.0015  # four standard deviations of the bounds over seeds, at 10,000 draws


def ratio(errors, totals, axis=-1):
    return errors.sum(axis=axis) / totals.sum(axis=axis)


def test_all_draws_of_two_utterances():
    """The rates 0, 1/4 and 1/2 have the probabilities 1/4, 1/2 and 1/4."""
    found = rate_interval([0, 2], [4, 4], level=0.95)
    assert found == Interval(0.25, 0.0, 0.5)
    assert rate_interval([0, 2], [4, 4], level=0.4) == Interval(0.25, 0.25, 0.25)


def test_medians_of_all_draws_of_two_utterances():
    """The draws are 1 3 1 3, 1 3 5 (twice) and 5 5: their medians are 2, 3 and 5."""
    assert quantile_interval([[1, 3], [5]], 0.5, level=0.95) == Interval(3, 2, 5)
    assert quantile_interval([[1, 3], [5]], 0.5, level=0.4) == Interval(3, 3, 3)
    assert quantile_interval([[1, 3]], 0.5) == Interval(2, 2, 2)


def test_a_quantile_over_all_draws_of_four():
    values = [[1.0, 8.0], [2.0], [4.0, 5.0, 6.0], [3.0]]
    every = [
        np.quantile(np.concatenate([values[i] for i in draw]), 0.9) for draw in itertools.product(range(4), repeat=4)
    ]
    found = quantile_interval(values, 0.9, resamples=4000, level=0.8)
    assert found.value == pytest.approx(6.8)  # place 0.9 * 6 = 5.4 of 1 2 3 4 5 6 8
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(every, [0.1, 0.9])), abs=0.1)


@pytest.mark.parametrize("values", [[], [[1.0], []]])
def test_a_quantile_needs_a_value_of_each_utterance(values):
    with pytest.raises(ValueError, match="at least one"):
        quantile_interval(values, 0.5)


def test_quantiles_of_all_draws_of_four():
    errors, totals = np.array([0, 1, 3, 2]), np.array([3, 1, 4, 2])
    every = [ratio(errors[list(draw)], totals[list(draw)]) for draw in itertools.product(range(4), repeat=4)]
    low, high = np.quantile(every, [0.05, 0.95])
    found = rate_interval(errors, totals, resamples=40_000, level=0.9)
    assert found.value == pytest.approx(0.6)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def test_a_rate_equals_scipy():
    peer = bootstrap((ERRORS, WORDS), ratio, paired=True, n_resamples=20_000, method="percentile", random_state=0)
    found = rate_interval(ERRORS, WORDS, resamples=20_000)
    assert found.value == ERRORS.sum() / WORDS.sum()
    assert found.low == pytest.approx(peer.confidence_interval.low, abs=0.004)
    assert found.high == pytest.approx(peer.confidence_interval.high, abs=0.004)


def test_a_seed_fixes_the_interval(monkeypatch):
    found = rate_interval(ERRORS, WORDS, seed=3)
    assert rate_interval(ERRORS, WORDS, seed=3) == found
    assert rate_interval(ERRORS, WORDS, seed=4) != found
    monkeypatch.setattr(ours, "_DRAWN_AT_ONCE", 1000)  # in many parts
    in_parts = rate_interval(ERRORS, WORDS, seed=3)
    assert (in_parts.low, in_parts.high) == (pytest.approx(found.low, abs=1e-9), pytest.approx(found.high, abs=1e-9))


def test_a_paired_difference_equals_scipy():
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


def test_paired_with_different_totals():
    """Two utterances have four draws: each twice, or one of each in two orders."""
    found = paired_difference([1, 3], [1, 1], [4, 4], [1, 4], level=0.4)
    assert found.interval.value == pytest.approx(4 / 8 - 2 / 5)
    # The first twice: 1/4 - 1/1. The second twice: 3/4 - 1/4. The other draws are between.
    assert (found.interval.low, found.interval.high) == pytest.approx((0.1, 0.1))
    whole = paired_difference([1, 3], [1, 1], [4, 4], [1, 4], level=0.9)
    assert (whole.interval.low, whole.interval.high) == pytest.approx((-0.75, 0.5))


def test_pairing_narrows_the_interval():
    """One error fewer in every utterance is no accident, however much the utterances differ."""
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
        half = rate_interval([1, 1], [0, 4], level=0.5)  # a quarter of the draws has only empty references
    assert half.value == 0.5
    assert 0.25 <= half.low <= half.high <= 0.5


def test_a_rate_equals_our_former_resampler():
    """The bounds are from our former resampler, which drew utterances without scipy."""
    rate = rate_interval(AN4_A, AN4_WORDS, seed=7)
    assert rate == pytest.approx((689 / 773, 0.86572, 0.91679), abs=MONTE_CARLO)
    found = paired_difference(AN4_A, AN4_B, AN4_WORDS, seed=7)
    assert found.interval == pytest.approx((-49 / 773, -0.08640, -0.04131), abs=MONTE_CARLO)
    assert found.better == 1


def test_speakers_equal_our_former_resampler():
    """The former resampler got the sums of each speaker, which it could not compute itself."""
    rate = rate_interval(AN4_A, AN4_WORDS, AN4_SPEAKERS, seed=7)
    assert rate == pytest.approx((689 / 773, 0.86762, 0.91231), abs=MONTE_CARLO)
    found = paired_difference(AN4_A, AN4_B, AN4_WORDS, groups=AN4_SPEAKERS, seed=7)
    assert found.interval == pytest.approx((-49 / 773, -0.08831, -0.03927), abs=MONTE_CARLO)


def test_all_draws_of_two_speakers():
    """Ann makes 1 error in 8 words, Bob 4 in 8: P(1/8) = 1/4, P(5/16) = 1/2, P(1/2) = 1/4."""
    errors, totals, speakers = [1, 0, 4, 0], [4, 4, 4, 4], ["ann", "ann", "bob", "bob"]
    assert rate_interval(errors, totals, speakers) == Interval(5 / 16, 1 / 8, 1 / 2)
    assert rate_interval(errors, totals, speakers, level=0.4) == Interval(5 / 16, 5 / 16, 5 / 16)
    found = paired_difference(errors, [0, 0, 1, 1], totals, groups=speakers)
    assert found.interval == Interval(3 / 16, 1 / 8, 1 / 4)
    assert found.better == 0


def test_speakers_that_differ_make_a_wider_interval():
    """All ten utterances of a speaker are equal: ten speakers are ten observations, not 100."""
    errors, totals, speakers = np.repeat(np.arange(10), 10), np.full(100, 10), np.repeat(np.arange(10), 10).astype(str)
    alone, together = rate_interval(errors, totals), rate_interval(errors, totals, speakers.tolist())
    assert together.value == alone.value
    width = (together.high - together.low) / (alone.high - alone.low)
    assert width == pytest.approx(10**0.5, rel=0.1)


def test_with_speakers_the_order_of_utterances_does_not_matter():
    order = np.random.default_rng(2).permutation(130)
    shuffled = rate_interval(AN4_A[order], AN4_WORDS[order], [AN4_SPEAKERS[i] for i in order])
    assert shuffled == rate_interval(AN4_A, AN4_WORDS, AN4_SPEAKERS)


def test_one_speaker_counts_as_unknown():
    assert rate_interval(ERRORS, WORDS, ["ann"] * 80) == rate_interval(ERRORS, WORDS)
    assert resampling(["ann"] * 80)["resampled"] == "utterances"


def test_one_utterance_is_every_draw():
    assert rate_interval([1], [4]) == Interval(0.25, 0.25, 0.25)
    assert paired_difference([1], [2], [4]).better == 1


@pytest.mark.parametrize("module", [ours, transcripts])
def test_the_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


@pytest.mark.parametrize(("errors", "totals"), [([], []), ([1], [1, 2]), ([[1]], [[1]])])
def test_counts_that_do_not_fit(errors, totals):
    with pytest.raises(ValueError, match="give counts of the same utterances"):
        rate_interval(errors, totals)


def test_speakers_that_do_not_fit():
    with pytest.raises(ValueError, match="give counts of the same utterances"):
        rate_interval([1, 2], [4, 4], ["ann"])
