"""Severity scores by the intervals of the publication."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix.kernels.severity import interval_middles, severity_scores


def score_by_hand(involvement, detection_limit=0.0):
    """Return the score by comparisons in the words of the publication."""
    if involvement <= detection_limit:
        return 0
    if involvement < 5:
        return 1
    return 2 if involvement <= 25 else 3 if involvement <= 50 else 4 if involvement <= 75 else 5


@given(
    st.lists(st.one_of(st.sampled_from([0.0, 4.999, 5.0, 25.0, 26.0, 50.0, 51.0, 75.0, 100.0]), st.floats(0, 100))),
    st.sampled_from([0.0, 1.0, 4.9]),
)
def test_score_is_that_of_the_interval_with_the_involvement(values, limit):
    assert severity_scores(values, limit).tolist() == [score_by_hand(value, limit) for value in values]


def test_whole_percentages_have_the_scores_of_the_publication():
    intervals = {0: [0], 1: range(1, 5), 2: range(5, 26), 3: range(26, 51), 4: range(51, 76), 5: range(76, 101)}
    for score, percentages in intervals.items():
        assert set(severity_scores(list(percentages)).tolist()) == {score}


def test_missing_involvement_has_no_score():
    assert severity_scores([[np.nan, 3.0]]).tolist() == [[-1, 1]]


@pytest.mark.parametrize("limit", [-1.0, 5.0, np.nan])
def test_detection_limit_outside_the_lowest_intervals_is_rejected(limit):
    with pytest.raises(ValueError, match="detection limit"):
        severity_scores([1.0], limit)


def test_middles_are_in_the_middle_of_their_intervals():
    assert interval_middles(range(6)).tolist() == [0, 2.5, 15, 37.5, 62.5, 87.5]
    assert severity_scores(interval_middles(range(6))).tolist() == list(range(6))
