"""Each check of a mixture is raised by a mixture that was made for it, and not by a mixture of the tissues."""

import numpy as np
import pytest

from lungmix.kernels.diagnosis import (
    CHECKS,
    HIGHEST_HU,
    LOWEST_HU,
    TISSUE_RANGES,
    diagnose_components,
    diagnose_fit,
    diagnose_labels,
    diagnose_order,
    diagnose_shares,
)
from lungmix.tissue import TISSUES

WEIGHTS = np.array([0.34, 0.36, 0.14, 0.055, 0.105])
MEANS = np.array([-950.0, -829.0, -652.0, -337.0, -13.0])
SDS = np.array([44.0, 58.0, 94.0, 157.0, 194.0])


def changed(values, **by_tissue):
    """Return a copy of an array with the numbers of some tissues replaced."""
    out = values.copy()
    for key, value in by_tissue.items():
        out[[tissue.key for tissue in TISSUES].index(key)] = value
    return out


def with_weight(k, weight):
    out = WEIGHTS * (1 - weight) / (1 - WEIGHTS[k])
    out[k] = weight
    return out


OVERLAPPING = np.array([0.05, 0.65, 0.14, 0.055, 0.105])
NEAR_SDS = changed(SDS, air=50, healthy=40)
"""With means of -928 and -870 HU, healthy lung is more probable than air at the mean of air."""

RAISED = {
    "range": (lambda: diagnose_components(WEIGHTS, changed(MEANS, air=-885), SDS), 0, -885),
    "wide": (lambda: diagnose_components(WEIGHTS, MEANS, changed(SDS, consolidation=475)), 3, 475),
    "narrow": (lambda: diagnose_components(WEIGHTS, MEANS, changed(SDS, ggo=3)), 2, 3),
    "rare": (lambda: diagnose_components(with_weight(4, 0.002), MEANS, SDS), 4, 0.2),
    "dominant": (lambda: diagnose_components(with_weight(1, 0.91), MEANS, SDS), 1, 91),
    "empty": (lambda: diagnose_labels(with_weight(3, 1e-4), MEANS, SDS), 3, 0),
    "order": (lambda: diagnose_order(changed(MEANS, consolidation=-600), MEANS), 3, 2),
    "unfinished": (lambda: diagnose_fit(converged=False), None, 1),
    "involvement": (lambda: diagnose_fit(involvement_shift=-6.5), None, -6.5),
    "mean": (lambda: diagnose_labels(OVERLAPPING, changed(MEANS, air=-928, healthy=-870), NEAR_SDS), 0, 1),
    "share": (lambda: diagnose_shares(np.array([0.6, 82.4, 8, 3, 6]), np.array([11, 71, 9, 3, 6])), 0, -10.4),
    "starts": (lambda: diagnose_fit(distances=[0.0, 0.02, 0.001]), None, 0.02),
    "distance": (lambda: diagnose_fit(distance=0.3), None, 0.3),
}
"""For each check by name: a mixture that raises it, and the component and the number that are then reported."""


@pytest.mark.parametrize("name", RAISED)
def test_mixture_raises_the_check_that_it_was_made_for(name):
    diagnosis, component, value = RAISED[name]
    (raised,) = diagnosis()
    assert (raised.name, raised.component) == (name, component)
    assert raised.value == pytest.approx(value)


def test_mixture_of_the_tissues_raises_no_check():
    assert diagnose_components(WEIGHTS, MEANS, SDS) == []
    assert diagnose_labels(WEIGHTS, MEANS, SDS) == []
    assert diagnose_order(MEANS, MEANS) == []
    assert diagnose_order(MEANS, MEANS, [0, 1, 2, 3, 4]) == []
    assert diagnose_fit(distances=[0.0, 0.009], distance=0.2, involvement_shift=2.9) == []
    assert diagnose_fit(involvement_shift=float("nan")) == []


def test_every_check_has_a_mixture_that_raises_it():
    assert {check.name for check in CHECKS} == {*RAISED, "torn"}
    assert [tissue.key for tissue in TISSUE_RANGES] == [tissue.key for tissue in TISSUES]


def test_background_tears_labels_and_the_torn_share_is_that_of_a_sum_over_hu():
    sds = changed(SDS, consolidation=475)
    raised = {check.component: check.value for check in diagnose_labels(WEIGHTS, MEANS, sds) if check.name == "torn"}
    # Add up the share of the voxels in the slow way, for each label and each HU.
    runs = {}
    last = None
    for hu in range(LOWEST_HU, HIGHEST_HU + 1):
        parts = WEIGHTS / (sds * np.sqrt(2 * np.pi)) * np.exp(-((hu - MEANS) ** 2) / (2 * sds**2))
        label = int(np.argmax(parts))
        if label != last:
            runs.setdefault(label, []).append([0, 0.0])
        last = label
        runs[label][-1][0] += 1
        runs[label][-1][1] += parts.sum()
    expected = {k: 100 * sum(share for _, share in sorted(runs[k])[:-1]) for k in runs if len(runs[k]) > 1}
    assert 3 in raised
    assert raised == pytest.approx({k: share for k, share in expected.items() if share >= 0.1})


def test_intervals_below_the_hu_of_ct_are_not_examined():
    # The widest component is most probable again below -1221 HU, which no voxel of a CT has.
    assert diagnose_labels(WEIGHTS, MEANS, SDS) == []
    assert np.argmax(np.log(WEIGHTS / SDS) - (-2000 - MEANS) ** 2 / (2 * SDS**2)) == 4


def test_components_that_swapped_places_with_the_prior_are_named():
    raised = diagnose_order(MEANS, MEANS, [0, 1, 2, 4, 3])
    assert [(check.name, check.component, check.value) for check in raised] == [("order", 3, 4), ("order", 4, 3)]


@pytest.mark.parametrize("k", [1, 3])
def test_ranges_of_tissues_need_five_components(k):
    assert diagnose_components(np.full(k, 1 / k), np.linspace(-600, 0, k), np.full(k, 100.0)) == []


def test_bounds_of_a_range_belong_to_it():
    for tissue, k in zip(TISSUE_RANGES, range(5), strict=True):
        for bound, outside in ((tissue.low, -1), (tissue.high, 1)):
            means = MEANS.copy()
            means[k] = bound
            assert diagnose_components(WEIGHTS, means, SDS) == []
            means[k] += outside
            assert [check.name for check in diagnose_components(WEIGHTS, means, SDS)] == ["range"]


def test_remarks_are_no_failures():
    assert [check.name for check in CHECKS if not check.fails] == ["starts", "mean", "share", "distance"]


def test_shares_are_far_from_others_if_twice_or_half_and_five_points_away():
    reference = np.array([10.0, 4.0, 60.0, 16.0, 10.0])
    for label, percent, is_far in ((0, 20.0, 0), (0, 20.1, 1), (0, 4.9, 1), (0, 5.1, 0), (1, 8.9, 0), (1, 0.0, 0),
                                   (1, 9.0, 1), (2, 31.0, 0), (2, 29.0, 1), (3, 0.0, 1)):  # fmt: skip
        percents = reference.copy()
        percents[label] = percent
        raised = diagnose_shares(percents, reference)
        assert [(check.component, check.value, check.reference) for check in raised] == [
            (label, pytest.approx(percent - reference[label]), reference[label])
        ] * is_far
