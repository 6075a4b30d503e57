"""MAP thresholds agree with the table of labels, for random mixtures and for one that has lost a label at its mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix.mixture import PUBLISHED, TissueModel
from support.generators import HU

OVERLAPPING = TissueModel(
    (0.15, 0.55, 0.16, 0.06, 0.08),
    (-928.0, -870.0, -690.0, -400.0, -50.0),
    (900.0, 3600.0, 12100.0, 28900.0, 28900.0),
)
"""A mixture, as of some real scans, whose component of air is less probable than healthy lung at its own mean."""


@st.composite
def models(draw):
    size = draw(st.integers(1, 5))
    numbers = {"min_size": size, "max_size": size}
    weights = np.array(draw(st.lists(st.floats(1e-6, 1.0), **numbers)))
    means = draw(st.lists(st.floats(-1100.0, 300.0), **numbers))
    sds = np.array(draw(st.lists(st.floats(1.0, 500.0), **numbers)))
    return TissueModel(tuple(weights / weights.sum()), tuple(means), tuple(sds**2))


@given(models())
def test_labels_change_at_each_threshold_and_no_change_separates_them_better(model):
    labels, thresholds, density = model.lookup_table(), model.map_thresholds(), model.density(HU)
    assert thresholds == sorted(thresholds)
    assert len(thresholds) == model.n_components - 1
    for k, threshold in enumerate(thresholds):
        is_higher = labels > k + 1
        changes = HU[:-1][~is_higher[:-1] & is_higher[1:]]
        # A threshold is moved up to the one before it if the best change is below that.
        if k == 0 or threshold > thresholds[k - 1]:
            assert np.floor(threshold) in changes if len(changes) else np.isinf(threshold)
            wrong = [density[(other < HU) != is_higher].sum() for other in (threshold, *changes)]
            assert wrong[0] <= min(wrong) + 1e-9 * density.sum()
        if (np.diff(is_higher.astype(int)) >= 0).all():
            assert (HU[is_higher] > threshold).all()
            assert (HU[~is_higher] <= threshold).all()
    limits = [-np.inf, *thresholds, np.inf]
    for k in set(range(model.n_components)) - set(labels - 1):
        assert limits[k] == limits[k + 1]


@given(models())
def test_lower_end_is_the_start_of_an_interval_of_the_first_label(model):
    labels, start = model.lookup_table(), model.lowest_label_start()
    threshold = [*model.map_thresholds(), np.inf][0]
    assert (start is None) == (1 not in labels or threshold == -np.inf)
    if start is not None:
        index = start + 32768
        assert labels[index] == 1
        assert index == 0 or labels[index - 1] > 1
        if np.isfinite(threshold):
            assert (labels[index : int(np.floor(threshold)) + 32769] == 1).all()


def test_component_that_is_not_the_label_at_its_mean_has_the_threshold_of_the_table():
    assert OVERLAPPING.predict(OVERLAPPING.means[0]) == 2
    assert OVERLAPPING.label_intervals()[:4] == [(-1302, 3), (-1142, 2), (-953, 1), (-940, 2)]
    assert OVERLAPPING.map_thresholds()[0] == pytest.approx(-940.5, abs=0.5)
    assert OVERLAPPING.lowest_label_start() == -953


def test_lowest_label_that_no_hu_has_begins_nowhere():
    model = TissueModel((1e-6, 0.5, 0.5 - 1e-6), (-900.0, -899.0, -700.0), (1e3, 1e4, 1e3))
    assert 1 not in model.lookup_table()
    assert model.lowest_label_start() is None
    assert model.map_thresholds()[0] == -np.inf


def test_published_thresholds_are_unchanged():
    assert np.round(PUBLISHED.map_thresholds(), 2).tolist() == [-893.61, -721.13, -472.45, -235.03]
