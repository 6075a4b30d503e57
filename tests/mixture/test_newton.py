"""The converged fit, compared with the true mixture, with scipy and with scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.mixture import GaussianMixture as Reference

from lungmix.errors import ModelError
from lungmix.mixture import PUBLISHED, TissueModel, fit_converged, fit_paper
from lungmix.mixture.binned_likelihood import (
    Gaussians,
    bins_of,
    interval_probabilities,
    log_likelihood,
    value_gradient_hessian,
)
from lungmix.mixture.fits import bic, clipped, interval_log_likelihood, to_gaussians
from lungmix.mixture.newton import first_best, maximize_from, maximize_likelihood, quantile_start
from support.generators import HU, expected_counts

WEIGHTS = np.array(PUBLISHED.weights) / sum(PUBLISHED.weights)
MEANS, SDS = np.array(PUBLISHED.means), np.sqrt(PUBLISHED.variances)
EXACT = expected_counts(WEIGHTS, MEANS, SDS, 390e6)
SAMPLED = 390e6 * np.exp(PUBLISHED.log_densities(HU)).sum(axis=1) / sum(PUBLISHED.weights)
CLIPS = st.sampled_from([None, -1000, -900])


def converged(hu, counts, clip, k):
    """Return the converged fit that begins at the fit of the paper."""
    return fit_converged(hu, counts, [fit_paper(hu, counts, clip=clip, n_components=k)], clip=clip)


@st.composite
def mixtures(draw):
    k = draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = random.dirichlet(np.ones(k)) * 0.98 + 0.02 / k
    return Gaussians(np.log(weights), random.uniform(-1000, 100, k), np.log(random.uniform(2, 250, k)))


@pytest.mark.parametrize("clip", [None, -1000])
@pytest.mark.parametrize("counts", [EXACT, SAMPLED, np.rint(EXACT)], ids=["intervals", "densities", "whole voxels"])
def test_expected_counts_give_back_the_truth_where_the_paper_stops_short(counts, clip):
    paper, model = fit_paper(HU, counts, clip=clip), converged(HU, counts, clip, 5)
    assert np.abs(np.array(model.means) - MEANS).max() < 1
    assert np.abs(np.array(model.weights) - WEIGHTS).max() < 1e-3
    assert np.allclose(np.sqrt(model.variances), SDS, rtol=1e-3)
    assert np.allclose(model.map_thresholds(), PUBLISHED.map_thresholds(), atol=0.5)
    assert model.fit_info["converged"]
    assert paper.means[3] - MEANS[3] > 50


def test_pile_has_the_share_that_the_model_gives_it():
    model = converged(HU, EXACT, -1000, 5)
    expected = float(WEIGHTS @ norm.cdf((-999.5 - MEANS) / SDS))
    assert model.fit_info["pile"] == pytest.approx(expected, rel=1e-9)
    z = (-999.5 - np.array(model.means)) / np.sqrt(model.variances)
    assert float(np.dot(model.weights, norm.cdf(z))) == pytest.approx(expected, rel=1e-6)


def test_pile_taken_for_a_value_of_its_own_leads_away_from_the_truth():
    hu, counts = clipped(HU, EXACT, -1000)
    paper = fit_paper(HU, EXACT, clip=-1000)
    wrong = fit_converged(hu, counts, [paper], clip=None)
    assert np.abs(np.array(wrong.means) - MEANS).max() > 50


@given(mixtures(), CLIPS)
@settings(max_examples=40)
def test_likelihood_is_that_of_the_normal_distribution_function(mixture, clip):
    counts = np.random.default_rng(0).integers(0, 50, 1200)
    hu = np.arange(-1050, 150)
    bins = bins_of(hu, counts, clip)
    sds, weights = np.exp(mixture.log_sds), np.exp(mixture.log_weights)
    low, high = ((edge[:, None] - mixture.means) / sds for edge in (bins.lower, bins.upper))
    mass = np.where(low > 0, norm.sf(low) - norm.sf(high), norm.cdf(high) - norm.cdf(low)) @ weights
    seen = mass > 1e-280
    ours = logsumexp(mixture.log_weights[:, None] + interval_probabilities(bins, mixture).log, axis=0)
    assert np.allclose(ours[seen], np.log(mass[seen]), rtol=1e-9, atol=1e-9)
    assert np.isfinite(log_likelihood(bins, mixture))


@given(mixtures(), CLIPS)
@settings(max_examples=40)
def test_derivatives_are_those_of_differences(mixture, clip):
    k = len(mixture.means)
    scale = np.concatenate([np.ones(k), np.exp(mixture.log_sds), np.ones(k)])
    bins = bins_of(HU, expected_counts(WEIGHTS, MEANS, SDS, 1e6), clip)

    def at(step):
        return mixture.moved((step * scale).reshape(3, k))

    value, gradient, hessian = value_gradient_hessian(bins, mixture)
    assert value == pytest.approx(log_likelihood(bins, mixture), rel=1e-12)
    h = 1e-5
    for i, unit in enumerate(np.eye(3 * k)):
        up, down = at(h * unit), at(-h * unit)
        slope = (log_likelihood(bins, up) - log_likelihood(bins, down)) / (2 * h)
        size = np.abs(gradient * scale).max() + 1
        assert abs(slope - gradient[i] * scale[i]) < 1e-6 * size
        # The gradient with respect to log weights is that before they are normalised; a common shift has no effect.
        change = (
            value_gradient_hessian(bins, up)[1] * _scale(up) - value_gradient_hessian(bins, down)[1] * _scale(down)
        ) / (2 * h)
        bend = hessian * np.outer(scale, scale)
        # The scale of a mean changes with the log standard deviation of its component.
        correction = np.zeros(3 * k)
        if i >= 2 * k:
            correction[i - k] = gradient[i - k] * scale[i - k]
        assert np.abs(change - bend[i] - correction).max() < 1e-5 * (np.abs(bend).max() + 1)


def _scale(mixture):
    k = len(mixture.means)
    return np.concatenate([np.ones(k), np.exp(mixture.log_sds), np.ones(k)])


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), CLIPS)
@settings(max_examples=30)
def test_likelihood_never_falls_and_ends_where_it_has_no_slope(seed, k, clip):
    random = np.random.default_rng(seed)
    voxels = np.concatenate([random.normal(m, s, 4000) for m, s in ((-950, 45), (-820, 60), (-400, 150), (20, 90))])
    hu, counts = np.unique(np.rint(voxels).astype(int), return_counts=True)
    bins = bins_of(hu, counts, clip)
    result = maximize_likelihood(bins, quantile_start(bins, k))
    assert np.diff(result.log_likelihoods).min(initial=0) > -1e-12
    assert result.converged
    assert np.abs(value_gradient_hessian(bins, result.mixture)[1][: 2 * k]).max() < 1e-4


def test_long_em_of_scikit_learn_comes_to_the_same_maximum():
    random = np.random.default_rng(3)
    voxels = np.rint(np.concatenate([random.normal(-900, 40, 3000), random.normal(-500, 90, 2000)]))
    expected = Reference(2, tol=1e-12, max_iter=5000, random_state=0).fit(voxels[:, None])
    hu, counts = np.unique(voxels.astype(int), return_counts=True)
    ours = converged(hu, counts, None, 2)
    order = np.argsort(expected.means_[:, 0])
    assert np.allclose(ours.means, expected.means_[order, 0], atol=0.02)
    assert np.allclose(ours.weights, expected.weights_[order], atol=1e-4)
    # The densities of scikit-learn count the rounding of HU as spread, 1/12 HU² by Sheppard's correction.
    assert np.allclose(np.array(ours.variances) + 1 / 12, expected.covariances_[order, 0, 0], rtol=2e-3)


@pytest.mark.parametrize(
    ("hu", "counts", "clip", "k"),
    [
        ([5], [7], None, 1),
        ([-1000], [7], -1000, 1),
        ([5, 6, 7], [7, 7, 7], None, 3),
        ([5, 6, 7], [7, 7, 7], 6, 2),
        ([-900, 3000], [10**9, 1], None, 1),
        ([-900, 3000], [10**9, 1], None, 2),
        ([-32768, 0, 32767], [1, 10**6, 1], None, 2),
        (range(-1024, -990), [10**8] + 33 * [1], -1000, 4),
        (range(-1024, 0), [10**8] + 1023 * [2], None, 5),
    ],
)
def test_degenerate_counts_are_fitted_without_warnings_or_collapse(hu, counts, clip, k):
    paper = fit_paper(np.array(hu), np.array(counts), clip=clip, n_components=k)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit_converged(np.array(hu), np.array(counts), [paper], clip=clip)
    assert min(model.variances) >= 1 / 12 - 1e-9
    assert np.isfinite([model.weights, model.means, model.variances]).all()
    assert model.n_components == k


def test_least_variance_is_obeyed():
    paper = fit_paper(np.array([5, 6]), np.array([10, 1]), clip=None, n_components=1)
    model = fit_converged(np.array([5, 6]), np.array([10, 1]), [paper], clip=None, reg_covar=4.0)
    assert model.variances[0] == pytest.approx(4.0)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_order_zeros_and_units_of_counts_change_nothing(seed):
    random = np.random.default_rng(seed)
    hu = np.arange(-1020, -500)
    counts = random.poisson(200 * np.exp(-(((hu + 850) / 90.0) ** 2))) + random.integers(0, 3, len(hu))
    start = [TissueModel((0.5, 0.5), (-900.0, -700.0), (1e4, 1e4))]
    first = fit_converged(hu, counts, start, clip=-1000)
    shuffled = random.permutation(len(hu))
    second = fit_converged(hu[shuffled], 1000 * counts[shuffled], start, clip=-1000)
    assert np.allclose(first.means, second.means, atol=1e-4)
    assert fit_converged(hu, counts, start, clip=-1000) == first


def test_best_start_wins():
    bins = bins_of(HU, EXACT, -1000)
    poor = quantile_start(bins, 5)
    good = to_gaussians(PUBLISHED)
    results = maximize_from(bins, [poor, good])
    assert results[first_best(results)].log_likelihoods[-1] == pytest.approx(
        maximize_likelihood(bins, good).log_likelihoods[-1]
    )
    assert results[0].log_likelihoods[0] == pytest.approx(log_likelihood(bins, poor))


def test_fewer_values_than_components_are_rejected():
    start = [TissueModel((0.5, 0.5), (-900.0, -700.0), (1e4, 1e4))]
    with pytest.raises(ModelError, match="2 components"):
        fit_converged(np.array([5]), np.array([3]), start, clip=None)


@pytest.mark.parametrize(("counts", "match"), [([0, 0], "no voxels"), ([1, -1], "negative"), ([1, np.nan], "NaN")])
def test_counts_that_are_none_are_rejected(counts, match):
    with pytest.raises(ModelError, match=match):
        bins_of(np.array([1, 2]), np.array(counts))


def test_bic_counts_parameters_and_voxels():
    model = TissueModel((1.0,), (-800.0,), (1e4,))
    bins = bins_of(HU, EXACT, -1000)
    assert bic(model, bins) == pytest.approx(
        -2 * bins.total * interval_log_likelihood(model, bins) + 2 * np.log(bins.total)
    )


def test_boundaries_are_the_thresholds_of_labels_above_the_lowest_mean():
    starts = [hu for hu, label in PUBLISHED.label_intervals() if hu > PUBLISHED.means[0] and label > 1]
    assert [int(np.ceil(value)) for value in PUBLISHED.map_thresholds()] == starts


def test_lower_end_is_where_a_wider_component_wins_again():
    assert PUBLISHED.lowest_label_start() == -1221
    assert TissueModel((0.5, 0.5), (-900.0, -800.0), (1e3, 1e3)).lowest_label_start() == -32768
    # A wide component of little weight is most probable far below and far above the narrow one.
    wide = TissueModel((1e-6, 1 - 1e-6), (-900.0, -899.0), (1e4, 1e3))
    assert wide.lowest_label_start() == -32768
    assert np.ceil(wide.map_thresholds()) == [-1081] == [hu for hu, label in wide.label_intervals() if label == 2]
    assert TissueModel((1e-12, 1 - 1e-12), (-900.0, -899.0), (1e3, 1e3)).lowest_label_start() == -32768
    assert TissueModel((1e-6, 1 - 1e-6), (-900.0, -899.0), (1e3, 1e4)).lowest_label_start() is None


def test_component_that_wins_nowhere_shares_the_boundary_of_the_next():
    model = TissueModel((0.49999, 0.00002, 0.49999), (-900.0, -800.0, -700.0), (1e3, 1e3, 1e3))
    low, high = model.map_thresholds()
    assert low == high == pytest.approx(-800, abs=0.5)


def test_boundary_that_no_label_crosses_is_infinite():
    model = TissueModel((1 - 1e-12, 1e-12), (0.0, 1e-3), (1.0, 1.0))
    assert model.map_thresholds()[0] > 1000
