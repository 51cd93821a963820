import math

import pytest

from benchmarks.summaries import markdown_table, paired_ratios, spread, verdict


def test_spread_of_hand_worked_values():
    found = spread([4.0, 1.0, 3.0, 2.0])
    assert found == (2.5, 1.75, 3.25, 1.0, 4.0, 4)
    assert spread([7.0]) == (7.0, 7.0, 7.0, 7.0, 7.0, 1)


def test_spread_does_not_depend_on_one_outlier():
    assert spread([1.0, 1.0, 1.0, 1.0, 900.0]).median == 1.0


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_spread_of_nothing_or_no_numbers_is_refused(values):
    with pytest.raises(ValueError, match="no spread"):
        spread(values)


def test_spread_is_shown_in_a_unit():
    assert spread([1000.0, 2000.0, 3000.0]).show(1000, 1) == "2.0 [1.5, 2.5]"


def test_ratios_of_pairs_are_free_of_what_slows_both():
    busy = [1.0, 10.0, 2.0]
    assert paired_ratios([1.02 * factor for factor in busy], busy) == pytest.approx([1.02] * 3)


def test_ratios_of_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match="argument"):
        paired_ratios([1.0, 2.0], [1.0])


def test_verdict():
    assert verdict(1.05, 1.05) == "met"
    assert verdict(1.155, 1.05) == "missed by 10.0 %"


def test_table():
    table = markdown_table(["", "a"], [["row", "1"], ["x", "22.0"]])
    assert table == "|     |    a |\n|:----|-----:|\n| row |    1 |\n| x   | 22.0 |"
