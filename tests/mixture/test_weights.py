"""In fits, steps, scores and starts, a weight of k has the effect of k copies, and a weight of 0 that of absence."""

import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from lungmix import GaussianMixture
from lungmix.errors import ModelError
from lungmix.mixture import initialization
from lungmix.mixture.parameters import COVARIANCE_TYPES
from lungmix.mixture.sources import Chunks, Rows


@st.composite
def weighted(draw):
    """Draw samples with whole numbers as weights, including 0, and the same samples as copies without weights."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    d, n = draw(st.integers(1, 3)), draw(st.integers(40, 300))
    x = random.choice([0.0, 10.0, 24.0], (n, 1)) + random.normal(size=(n, d))
    if draw(st.booleans()):
        x = np.round(4 * x).astype(np.int32)
    copies = random.integers(0, 4, n)
    copies[:12] = 2
    return x, copies, np.repeat(x, copies, axis=0)


def assert_same(a, b):
    assert np.allclose(a.weights_, b.weights_, rtol=1e-9, atol=1e-12)
    assert np.allclose(a.means_, b.means_, rtol=1e-9, atol=1e-9)
    assert np.allclose(a.covariances_, b.covariances_, rtol=1e-8, atol=1e-9)
    assert a.lower_bound_ == pytest.approx(b.lower_bound_, rel=1e-10, abs=1e-10)


@given(
    weighted(),
    st.sampled_from(COVARIANCE_TYPES),
    st.sampled_from(["kmeans", "k-means++", "random", "random_from_data"]),
)
@settings(max_examples=25)
def test_weights_are_copies_in_fit_from_the_start_on(case, covariance_type, init_params):
    x, copies, repeated = case
    rules = {"n_init": 2, "random_state": 0, "max_iter": 20, "init_params": init_params}
    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        once = GaussianMixture(3, covariance_type, **rules).fit(repeated)
        order = np.random.default_rng(0).permutation(len(x))
        for samples, weights in (
            (x, copies),
            (x[order], copies[order].tolist()),
            (da.from_array(x, chunks=(37, -1)), da.from_array(copies, chunks=50)),
        ):
            result = GaussianMixture(3, covariance_type, **rules).fit(samples, sample_weight=weights)
            assert_same(result, once)
    assert result.score(x, sample_weight=copies) == pytest.approx(once.score(repeated), rel=1e-10, abs=1e-10)
    assert result.bic(x, sample_weight=copies) == pytest.approx(once.bic(repeated), rel=1e-10)


@given(weighted(), st.sampled_from(COVARIANCE_TYPES))
@settings(max_examples=20)
def test_weights_are_copies_in_steps(case, covariance_type):
    x, copies, repeated = case
    a, b = (GaussianMixture(3, covariance_type, random_state=0) for _ in range(2))
    for _ in range(4):
        a.partial_fit(x, sample_weight=copies)
        b.partial_fit(repeated)
    assert_same(a, b)


@given(weighted(), st.integers(1, 60))
@settings(max_examples=6)
def test_rows_of_weight_0_are_absent_even_if_they_hold_nan(case, batch_size):
    x, copies, _ = case
    x = x.astype(float)
    present = copies > 0
    x[~present] = np.nan
    rules = {"n_init": 2, "random_state": 0, "max_iter": 3}
    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        for options in ({}, {"batch_size": 10 + batch_size}):
            lazy = da.from_array(x, chunks=(60, -1))
            sizes = tuple(int(present[i : i + 60].sum()) for i in range(0, len(x), 60))
            few = GaussianMixture(2, **rules, **options).fit(
                da.from_array(x[present], chunks=(sizes, -1)), sample_weight=copies[present]
            )
            assert_same(GaussianMixture(2, **rules, **options).fit(lazy, sample_weight=copies), few)
        step = GaussianMixture(2, random_state=0).partial_fit(x, sample_weight=copies)
        assert_same(step, GaussianMixture(2, random_state=0).partial_fit(x[present], sample_weight=copies[present]))
    assert step.score(x, sample_weight=copies) == pytest.approx(
        step.score(x[present], sample_weight=copies[present]), rel=1e-12
    )


def test_minibatch_of_weight_0_changes_nothing():
    x = np.random.default_rng(0).normal(size=(50, 2))
    fitted = GaussianMixture(2, random_state=0).partial_fit(x)
    means = fitted.means_.copy()
    with pytest.raises(ModelError, match="zero"):
        fitted.partial_fit(x, sample_weight=np.zeros(50))
    assert np.array_equal(fitted.means_, means)


def test_tiny_and_huge_weights_are_only_relative():
    x = np.random.default_rng(0).normal(size=(400, 2)) + np.repeat([[0.0], [9.0]], 200, axis=0)
    unscaled = GaussianMixture(2, random_state=0).fit(x)
    for scale in (1e-30, 1e-3, 1e12, 1e200):
        assert_same(GaussianMixture(2, random_state=0).fit(x, sample_weight=np.full(400, scale)), unscaled)


def test_k_means_start_on_weights_is_k_means_on_all_copies():
    random = np.random.default_rng(0)
    voxels = np.concatenate([random.normal(m, 2, 500).round() for m in (-40, 0, 50)])
    values, counts = np.unique(voxels, return_counts=True)
    source = Rows(values[:, None], counts)
    summary = initialization.summarize(source, source.sizes)
    (state,) = initialization.start_states(source, summary, "kmeans", 3, 1, np.random.RandomState(0), 1e-6, "full")
    theirs = KMeans(3, n_init=1, random_state=0).fit(voxels[:, None])
    assert np.allclose(np.sort(state.means[:, 0]), np.sort(theirs.cluster_centers_[:, 0]))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=8)
def test_coreset_of_weights_is_that_of_copies(seed):
    random = np.random.default_rng(seed)
    x, copies = random.normal(size=(900, 2)), random.integers(0, 4, 900)
    sizes = [300, 300, 300]
    repeated = np.repeat(x, copies, axis=0)
    ends = np.cumsum(copies)[[299, 599, 899]]
    by_weight = Chunks(da.from_array(x, chunks=(300, -1)), da.from_array(copies, chunks=300))
    by_copies = Chunks(da.from_array(repeated, chunks=(tuple(np.diff([0, *ends]).tolist()), -1)))
    few, drawn = initialization.FEW_ROWS, initialization.CORESET_ROWS
    try:
        initialization.FEW_ROWS, initialization.CORESET_ROWS = 100, 200
        with dask.config.set(scheduler="synchronous"):
            result = [
                initialization.distinct(
                    *initialization.gather(
                        source, initialization.summarize(source, sizes), np.random.RandomState(seed % 1000)
                    )
                )
                for source in (by_weight, by_copies)
            ]
    finally:
        initialization.FEW_ROWS, initialization.CORESET_ROWS = few, drawn
    # Rounding of the cumulative sums may replace a few drawn rows by their neighbours.
    same = {tuple(row) for row in result[0][0]} & {tuple(row) for row in result[1][0]}
    assert len(same) >= len(result[0][0]) - 2


def test_start_from_a_coreset_is_as_good_as_k_means_on_all_rows(monkeypatch):
    random = np.random.default_rng(1)
    x = np.concatenate([random.normal(m, 1, (n, 2)) for m, n in ((0, 30_000), (6, 9_000), (30, 300))])
    random.shuffle(x)
    on_all_rows = GaussianMixture(3, random_state=0).fit(x)
    monkeypatch.setattr(initialization, "FEW_ROWS", 1000)
    monkeypatch.setattr(initialization, "CORESET_ROWS", 2000)
    with dask.config.set(scheduler="synchronous"):
        drawn = GaussianMixture(3, random_state=0).fit(da.from_array(x, chunks=(5000, -1)))
    assert drawn.lower_bound_ == pytest.approx(on_all_rows.lower_bound_, abs=1e-3)


def test_start_of_dask_ml_is_as_good():
    random = np.random.default_rng(1)
    x = np.concatenate([random.normal(m, 1, (900, 2)) for m in (0, 7, 15)])
    with dask.config.set(scheduler="synchronous"):
        ours = GaussianMixture(3, random_state=0).fit(da.from_array(x, chunks=(500, -1)))
        theirs = GaussianMixture(3, n_init=3, random_state=0, init_params="k-means||").fit(
            da.from_array(x, chunks=(500, -1))
        )
        with pytest.raises(ModelError, match="sample_weight"):
            theirs.fit(x, sample_weight=np.ones(len(x)))
    assert theirs.lower_bound_ == pytest.approx(ours.lower_bound_, abs=1e-3)


def test_start_may_be_a_function():
    x = np.concatenate([np.random.default_rng(1).normal(m, 1, (300, 1)) for m in (0, 9)])
    fitted = GaussianMixture(2, init_params=lambda x, n, random_state: np.array([[9.0], [0.0]]), n_init=1).fit(x)
    assert fitted.means_[0, 0] > fitted.means_[1, 0]
    with pytest.raises(ModelError, match="init_params returned centres"):
        GaussianMixture(2, init_params=lambda x, n, random_state: np.zeros((3, 1)), n_init=1).fit(x)


@pytest.mark.parametrize("weights", [[1, -1, 1], [1, 1], [[1, 1, 1]], [1, np.nan, 1], [1, np.inf, 1], [0, 0, 0]])
def test_impossible_weights_are_rejected(weights):
    for x in (np.array([1, 2, 3]), np.array([1.0, 2.0, 3.0])):
        for samples in (x, da.from_array(x, chunks=2)):
            with pytest.raises(ModelError, match="weight"), dask.config.set(scheduler="synchronous"):
                GaussianMixture(1).fit(samples, sample_weight=weights)
