"""Numerics of mixtures: exact sums, data far from 0, empty and collapsed components, constant data, errors for NaN."""

import warnings
from fractions import Fraction

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from lungmix import GaussianMixture
from lungmix.errors import ModelError
from lungmix.mixture.counts import LONGEST_TABLE, count, merge
from lungmix.mixture.em_kernels import e_step_statistics
from lungmix.mixture.parameters import COVARIANCE_TYPES, State
from lungmix.mixture.sufficient_statistics import Statistics, combine_all, expected, m_step
from oracle.mixture import exact_moments

ROUNDING = 4 * np.finfo(np.float64).eps


def error(value, exact):
    """Return the relative error of a float, given the exact value as a fraction."""
    return abs(float((Fraction(float(value)) - exact) / exact))


def test_ten_thousand_million_voxels_lose_nothing_against_rational_arithmetic():
    random = np.random.default_rng(0)
    hu = np.arange(-1000, 101)
    counts = random.integers(0, 2 * 10**7, len(hu))
    assert counts.sum() > 10**10
    total, mean, variance = exact_moments(hu.tolist(), counts.tolist())
    fitted = GaussianMixture(1, reg_covar=0).fit(hu, sample_weight=counts)
    assert error(fitted.means_[0, 0], mean) <= ROUNDING
    assert error(fitted.covariances_[0, 0, 0], variance) <= ROUNDING
    assert fitted.bic(hu, sample_weight=counts) - fitted.aic(hu, sample_weight=counts) == pytest.approx(
        2 * np.log(float(total)) - 4, rel=1e-4
    )


def test_a_hundred_thousand_chunks_lose_nothing_against_rational_arithmetic():
    random = np.random.default_rng(1)
    n = 20_000
    weights, means = random.integers(1, 10**6, n), random.integers(-(10**6), 10**6, n) / 64
    parts = [
        Statistics(float(w), np.array([m * w]), np.array([[float(w)]]), np.array([[[m]]]), np.array([[[w * 0.5]]]))
        for w, m in zip(weights, means, strict=True)
    ]
    combined = combine_all(parts)
    total, mean, variance = exact_moments(means.tolist(), weights.tolist())
    assert Fraction(combined.weight) == total
    assert error(combined.means[0, 0, 0], mean) <= ROUNDING
    assert error(combined.scatter[0, 0, 0], (variance + Fraction(1, 2)) * total) <= ROUNDING
    assert error(combined.log_likelihood[0], mean * total) <= 16 * ROUNDING


@given(st.integers(0, 2**32 - 1), st.integers(1, 4000), st.sampled_from([1.0, 1e-3, 1e7]))
@settings(max_examples=30)
def test_moments_of_any_samples_are_exact_to_rounding(seed, n, offset):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n + 1, 1)) + offset
    w = random.integers(1, 9, n + 1).astype(float)
    statistics = e_step_statistics(x, w, [State(np.ones(1), np.zeros((1, 1)), np.ones((1, 1, 1)))], "full")
    total, mean, variance = exact_moments(x[:, 0].tolist(), w.tolist())
    assert Fraction(statistics.weight) == total
    assert error(statistics.means[0, 0, 0], mean) <= 1e-13 * (1 + abs(1 / offset) * (offset < 1))
    assert error(statistics.scatter[0, 0, 0, 0], variance * total) <= 1e-12 * max(1.0, offset * 1e-3)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_data_far_from_the_origin_keep_their_covariance(covariance_type):
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(m, 1, (500, 2)) for m in (0, 9)])
    near = GaussianMixture(2, covariance_type, random_state=0).fit(x)
    far = GaussianMixture(2, covariance_type, random_state=0).fit(np.round(x, 9) + 2.0**24)
    assert np.allclose(far.covariances_, near.covariances_, rtol=1e-6)
    start = {"weights_init": [0.5, 0.5], "means_init": far.means_}
    distant = GaussianMixture(2, covariance_type, **start, precisions_init=far.precisions_ * 1e-12).fit(x)
    assert np.allclose(distant.means_.mean(), x.mean(), atol=0.2)


def test_float32_is_summed_in_float64():
    random = np.random.default_rng(0)
    x = (random.normal(size=(20_000, 2)) * 1e-3 + 1000).astype(np.float32)
    fitted = GaussianMixture(1, reg_covar=0).fit(x)
    assert np.allclose(fitted.covariances_[0], np.cov(x.astype(float).T, bias=True), rtol=1e-6, atol=1e-13)
    assert fitted.means_.dtype == np.float32
    lazy = GaussianMixture(1, "diag", reg_covar=0).fit(da.from_array(x, chunks=(3000, 1)))
    assert np.allclose(lazy.covariances_[0], x.astype(float).var(axis=0), rtol=1e-6)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_component_that_dies_ends_where_scikit_learn_leaves_it(covariance_type):
    x = np.random.default_rng(0).normal(size=(300, 2))
    covariances = {"full": [np.eye(2)] * 2, "tied": np.eye(2), "diag": np.ones((2, 2)), "spherical": np.ones(2)}
    rules = {
        "covariance_type": covariance_type, "max_iter": 5, "tol": 0, "weights_init": [0.5, 0.5],
        "means_init": [[0.0, 0.0], [1e3, 1e3]], "precisions_init": np.asarray(covariances[covariance_type]),
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ours, theirs = GaussianMixture(2, **rules).fit(x), Reference(2, **rules).fit(x)
    assert np.allclose(ours.means_, theirs.means_, atol=1e-9)
    assert np.allclose(ours.covariances_, theirs.covariances_, rtol=1e-8, atol=1e-12)
    assert np.allclose(ours.weights_, theirs.weights_, atol=1e-15)


def test_component_that_collapses_names_the_remedy():
    x = np.array([0.0, 0.0, 0.0, 5.0, 6.0, 7.0])
    with pytest.raises(ModelError, match="reg_covar"):
        GaussianMixture(2, reg_covar=0, random_state=0).fit(x)
    assert np.all(GaussianMixture(2, reg_covar=1e-3, random_state=0).fit(x).covariances_ > 0)


def test_start_that_collapses_does_not_take_the_others_with_it():
    x = np.concatenate([np.zeros(50), np.random.default_rng(0).normal(10, 1, 500)])
    calls = []

    def centres(x, n, random_state):
        calls.append(random_state)
        return np.array([[0.0], [10.0]]) if len(calls) == 1 else np.array([[9.0], [10.5]])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = GaussianMixture(2, n_init=2, reg_covar=0, init_params=centres, max_iter=5, tol=0).fit(x)
    assert np.all(np.isfinite(fitted.means_))


@pytest.mark.parametrize("x", [np.full(40, 7), np.full((40, 3), 2.5), da.full((40, 2), 7.25, chunks=(9, 1))])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_constant_data_give_their_value_and_the_regularisation(x, covariance_type):
    with dask.config.set(scheduler="synchronous"):
        fitted = GaussianMixture(1, covariance_type).fit(x)
        assert np.allclose(fitted.means_, np.asarray(x[0]))
        assert np.allclose(np.diagonal(np.atleast_3d(fitted.precisions_), axis1=-2, axis2=-1).max(), 1e6)
        with pytest.warns(ConvergenceWarning, match="1 distinct samples"):
            several = GaussianMixture(3, covariance_type, random_state=0).fit(x)
    assert several.weights_.max() == pytest.approx(1)
    assert np.allclose(several.means_[several.weights_.argmax()], np.asarray(x[0]))


def test_fewer_samples_than_components_are_rejected():
    for x in ([1.0, 2.0], [1, 2]):
        with pytest.raises(ModelError, match="3 components"):
            GaussianMixture(3).fit(x)
    with pytest.raises(ModelError, match="no samples"):
        GaussianMixture(3).fit(np.zeros((0, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_nan_and_infinity_are_rejected_with_their_row_and_column(bad, dtype):
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(dtype)
    fitted = GaussianMixture(2, random_state=0).fit(x)
    x[123, 2] = bad
    lazy = da.from_array(x, chunks=(50, 2))
    with dask.config.set(scheduler="synchronous"):
        for samples in (x, lazy):
            for action in (
                GaussianMixture(2).fit,
                GaussianMixture(2).partial_fit,
                fitted.score,
                lambda samples: np.asarray(fitted.predict(samples)),
                lambda samples: np.asarray(fitted.score_samples(samples)),
            ):
                with pytest.raises(ModelError, match=f"{bad} at row 123, column 2"):
                    action(samples)
        with pytest.raises(ModelError, match=f"{bad} at row 23 of chunk 2, column 2"):
            GaussianMixture(2).fit(lazy[da.ones(200, chunks=50, dtype=bool)])
        with pytest.raises(ModelError, match=f"{bad} at row"):
            GaussianMixture(2, batch_size=20).fit(lazy)


def test_sums_that_overflow_are_not_taken_for_infinity_in_the_data():
    x = np.full((3, 1), 1e308)
    assert GaussianMixture(1).fit(np.full((300, 1), 1e30)).means_[0, 0] == pytest.approx(1e30)
    with pytest.raises(ModelError, match=r"finite|positive"), np.errstate(all="ignore"):
        GaussianMixture(1).fit(np.concatenate([x, -x]))


def test_far_samples_have_a_finite_likelihood():
    fitted = GaussianMixture(2, random_state=0).fit(np.random.default_rng(0).normal(size=400))
    assert np.all(np.isfinite(fitted.score_samples(np.array([1e6, -1e8]))))
    assert np.allclose(fitted.predict_proba(np.array([1e6, -1e8])).sum(axis=1), 1)


@given(st.lists(st.lists(st.integers(-50, 50), max_size=80), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_counts_merge_to_the_counts_of_all(parts, seed):
    values = np.concatenate([np.array(p, np.int64) for p in parts])
    weights = np.random.default_rng(seed).integers(0, 3, len(values))
    cuts = np.cumsum([len(p) for p in parts])[:-1]
    merged = merge([count(v, w) for v, w in zip(np.split(values, cuts), np.split(weights, cuts), strict=True)])
    expected_values = np.unique(values[weights > 0])
    assert np.array_equal(merged[0], expected_values)
    assert np.array_equal(merged[1], [weights[values == v].sum() for v in expected_values])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64, bool])
def test_integers_of_every_type_are_fitted_alike(dtype):
    x = np.random.default_rng(0).choice([0, 1], 500, p=[0.3, 0.7]).astype(dtype)
    assert GaussianMixture(1).fit(x).means_[0, 0] == pytest.approx(x.astype(float).mean(), rel=1e-14)


@pytest.mark.parametrize("lazy", [False, True])
def test_integers_too_far_apart_to_count_are_fitted_as_rows(lazy):
    random = np.random.default_rng(0)
    x = np.concatenate([random.integers(-1000, 1000, 300), random.integers(0, 1000, 300) + 4 * LONGEST_TABLE])
    samples = da.from_array(x, chunks=100) if lazy else x
    with dask.config.set(scheduler="synchronous"):
        fitted = GaussianMixture(2, random_state=0).fit(samples)
    assert np.allclose(np.sort(fitted.means_[:, 0]), [x[:300].mean(), x[300:].mean()])


@given(st.sampled_from(COVARIANCE_TYPES), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_expected_statistics_lead_back_to_their_state(covariance_type, k, d, seed):
    random = np.random.default_rng(seed)
    root = random.normal(size=(k, d, d)) + 3 * np.eye(d)
    matrices = np.einsum("kij,klj->kil", root, root)
    covariances = {
        "full": matrices, "tied": matrices[0], "diag": np.einsum("kii->ki", matrices), "spherical": matrices[:, 0, 0],
    }[covariance_type]  # fmt: skip
    state = State(random.dirichlet(np.ones(k) * 5), random.normal(size=(k, d)) * 50, covariances)
    again = m_step(expected([state], 1e-3, covariance_type), 0, 1e-3, covariance_type)
    for name in ("weights", "means", "covariances"):
        assert np.allclose(getattr(again, name), getattr(state, name), rtol=1e-9, atol=1e-9)
