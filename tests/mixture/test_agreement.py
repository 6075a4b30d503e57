"""From the same start, a fit gives the parameters of scikit-learn, for arrays, counts and dask chunks of any size."""

import warnings

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from lungmix import GaussianMixture
from lungmix.mixture import em_kernels
from lungmix.mixture.parameters import COVARIANCE_TYPES, State
from oracle import mixture as oracle


@st.composite
def problems(draw, d=None, integer=None):
    """Draw samples in groups, the number of copies of each sample, and a start that does not fit the groups."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    d = draw(st.integers(1, 4)) if d is None else d
    k, n = draw(st.integers(1, 5)), draw(st.integers(30, 400))
    scale = draw(st.sampled_from([0.01, 1.0, 40.0]))
    centres = random.normal(size=(k, d)) * 4
    x = (centres[random.integers(k, size=n)] + random.normal(size=(n, d))) * scale
    if draw(st.booleans()) if integer is None else integer:
        x = np.round(x * 10 / scale).astype(np.int64)
        scale = 10.0
    copies = random.integers(0, 4, n)
    copies[: 2 * k + 2] = 1
    weights = random.dirichlet(np.full(k, 8.0))
    means = x[random.choice(2 * k + 2, k, replace=False)] + random.normal(size=(k, d)) * scale
    root = random.normal(size=(k, d, d)) * 0.3 + 2 * np.eye(d)
    matrices = np.einsum("kij,klj->kil", root, root) * scale**2
    covariances = {
        "full": matrices,
        "tied": matrices[0],
        "diag": np.einsum("kii->ki", matrices).copy(),
        "spherical": matrices[:, 0, 0].copy(),
    }
    return x, copies, State(weights, means, matrices), covariances


def precisions_of(covariances, covariance_type):
    return np.linalg.inv(covariances) if covariance_type in ("full", "tied") else 1 / covariances


def theirs_and_ours(problem, covariance_type, iterations, **options):
    _, _, start, covariances = problem
    given_start = {
        "weights_init": start.weights,
        "means_init": start.means,
        "precisions_init": precisions_of(covariances[covariance_type], covariance_type),
    }
    rules = {"covariance_type": covariance_type, "tol": 0, "max_iter": iterations, **given_start, **options}
    k = len(start.weights)
    return Reference(k, **rules), GaussianMixture(k, **rules)


def assert_equal_parameters(ours, theirs, scale):
    for name, unit in (("weights_", 1.0), ("means_", scale), ("covariances_", scale**2)):
        expected = getattr(theirs, name)
        assert np.allclose(getattr(ours, name), expected, rtol=1e-8, atol=1e-10 * unit), name
    assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, rel=1e-8, abs=1e-8)


@given(problems(), st.sampled_from(COVARIANCE_TYPES), st.integers(1, 15), st.data())
@settings(max_examples=80)
def test_same_start_gives_the_parameters_of_scikit_learn(problem, covariance_type, iterations, data):
    x, copies, _, _ = problem
    theirs, ours = theirs_and_ours(problem, covariance_type, iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        repeated = np.repeat(x, copies, axis=0).astype(float)
        theirs.fit(repeated)
        # If a component has collapsed on one sample, the densities that scikit-learn computes lose digits.
        assume(np.max(theirs.precisions_cholesky_) * np.abs(x).max() < 1e4)
        ours.fit(x, sample_weight=copies)
        assert_equal_parameters(ours, theirs, x.std())
        assert np.allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=1e-8, atol=1e-8)
        cuts = sorted(data.draw(st.sets(st.integers(1, len(x) - 1), max_size=6)))
        sizes = tuple(np.diff([0, *cuts, len(x)]).tolist())
        lazy = da.from_array(x, chunks=(sizes, 1))
        with dask.config.set(scheduler="synchronous"):
            assert_equal_parameters(ours.fit(lazy, sample_weight=copies), theirs, x.std())
            once = da.from_array(repeated, chunks=(max(1, len(repeated) // 3), -1))
            assert_equal_parameters(ours.fit(once), theirs, x.std())
    assert ours.score(x, sample_weight=copies) == pytest.approx(theirs.score(repeated), rel=1e-8, abs=1e-8)
    assert ours.bic(x, sample_weight=copies) == pytest.approx(theirs.bic(repeated), rel=1e-8, abs=1e-6)
    assert ours.aic(x, sample_weight=copies) == pytest.approx(theirs.aic(repeated), rel=1e-8, abs=1e-6)
    assert np.allclose(ours.predict_proba(x), theirs.predict_proba(x.astype(float)), atol=1e-7)
    assert np.allclose(ours.score_samples(x), theirs.score_samples(x.astype(float)), rtol=1e-7, atol=1e-6)


@given(problems(1, True), st.sampled_from(COVARIANCE_TYPES), st.integers(1, 60))
@settings(max_examples=40)
def test_counts_give_the_parameters_of_scikit_learn_on_all_copies(problem, covariance_type, iterations):
    x, copies, _, _ = problem
    theirs, ours = theirs_and_ours(problem, covariance_type, iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(np.repeat(x, copies, axis=0).astype(float))
        for samples in (x, x[:, 0], x.astype(np.int16), x.astype(float)):
            assert_equal_parameters(ours.fit(samples, sample_weight=copies), theirs, x.std())


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_hundreds_of_iterations_still_agree(covariance_type):
    random = np.random.default_rng(3)
    x = np.concatenate([random.normal(m, s, (1200, 2)) for m, s in ((0, 1), (2, 1.5), (5, 1))])
    start = State(np.full(3, 1 / 3), x[[0, 1, 2]], np.stack([np.eye(2)] * 3))
    covariances = {"full": start.covariances, "tied": np.eye(2), "diag": np.ones((3, 2)), "spherical": np.ones(3)}
    theirs, ours = theirs_and_ours((x, None, start, covariances), covariance_type, 200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert_equal_parameters(ours.fit(x), theirs.fit(x), x.std())


@pytest.mark.parametrize("d", [30, 70])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_many_features_agree_too(covariance_type, d):
    random = np.random.default_rng(d)
    x = np.concatenate([random.normal(m, 1, (700, d)) for m in (0, 2)])
    start = State(np.array([0.4, 0.6]), x[[0, -1]], np.stack([np.eye(d)] * 2))
    covariances = {"full": start.covariances, "tied": np.eye(d), "diag": np.ones((2, d)), "spherical": np.ones(2)}
    theirs, ours = theirs_and_ours((x, None, start, covariances), covariance_type, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert_equal_parameters(ours.fit(x), theirs.fit(x), x.std())


@given(problems(), st.sampled_from(COVARIANCE_TYPES), st.booleans(), st.integers(1, 3))
@settings(max_examples=40)
def test_kernels_agree_with_all_responsibilities_at_once(problem, covariance_type, wide, tiles):
    x, copies, start, covariances = problem
    x, w = np.tile(x, (tiles, 1)).astype(float), np.tile(copies, tiles).astype(float)
    state = State(start.weights, start.means, covariances[covariance_type])
    other = State(start.weights[::-1].copy(), start.means[::-1].copy(), covariances[covariance_type])
    largest = em_kernels._MAX_FEATURES
    try:
        em_kernels._MAX_FEATURES = 0 if wide else largest
        statistics = em_kernels.e_step_statistics(x, w, [other, state], covariance_type)
    finally:
        em_kernels._MAX_FEATURES = largest
    likelihood, counts, means, scatter = oracle.statistics(
        x, w, state.weights, state.means, state.covariances, covariance_type
    )
    unit = x.std()
    assert statistics.weight == w.sum()
    assert statistics.log_likelihood[1] == pytest.approx(likelihood, rel=1e-10, abs=1e-8)
    assert np.allclose(statistics.counts[1], counts, rtol=1e-10)
    assert np.allclose(statistics.means[1], means, rtol=1e-9, atol=1e-9 * unit)
    if statistics.scatter.ndim == 3:
        scatter = np.einsum("kii->ki", scatter)
    assert np.allclose(statistics.scatter[1], scatter, rtol=1e-8, atol=1e-8 * unit**2)


def test_fit_of_dask_chunks_equals_the_fit_of_numpy_from_k_means_on():
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(m, 1, (700, 3)) for m in (0, 5, 9)])
    eager = GaussianMixture(3, random_state=0, tol=1e-8, max_iter=500).fit(x)
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler):
            lazy = GaussianMixture(3, random_state=0, tol=1e-8, max_iter=500).fit(da.from_array(x, chunks=(333, 2)))
        assert np.allclose(lazy.means_, eager.means_, rtol=1e-10)
        assert np.allclose(lazy.covariances_, eager.covariances_, rtol=1e-10)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30)
def test_counts_of_any_chunks_give_the_fit_of_numpy_bit_for_bit(chunks, seed, weighted):
    random = np.random.default_rng(seed)
    hu = random.choice([-900, -890, -500, -100, 0, 10, 40], sum(chunks)).astype(np.int16)
    hu[: min(7, len(hu))] = [-900, -890, -500, -100, 0, 10, 40][: len(hu)]
    if len(np.unique(hu)) < 2:
        return
    weights = random.integers(1, 5, len(hu)) if weighted else None
    chunked = da.from_array(hu, chunks=(tuple(chunks),))
    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        lazy = GaussianMixture(2, random_state=0).fit(chunked, sample_weight=weights)
        eager = GaussianMixture(2, random_state=0).fit(hu, sample_weight=weights)
        assert np.array_equal(lazy.means_, eager.means_)
        assert np.array_equal(lazy.covariances_, eager.covariances_)
        labels, proba, scores = lazy.predict(chunked), lazy.predict_proba(chunked), lazy.score_samples(chunked)
        assert all(isinstance(answer, da.Array) for answer in (labels, proba, scores))
        assert (proba.shape, labels.dtype, scores.dtype) == ((len(hu), 2), np.int64, np.float64)
        assert np.array_equal(labels.compute(), eager.predict(hu))
        assert np.array_equal(proba.compute(), eager.predict_proba(hu))
        assert np.array_equal(scores.compute(), eager.score_samples(hu))
        assert lazy.score(chunked) == pytest.approx(eager.score(hu), rel=1e-13)


def test_chunks_of_unknown_size_are_fitted():
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(m, 1, (500, 2)) for m in (0, 8)])
    lazy = da.from_array(x, chunks=(250, 2))
    some = lazy[lazy[:, 0] > -1]
    weights = da.ones(1000, chunks=250)[lazy[:, 0] > -1]
    frame = dd.from_dask_array(lazy, columns=["a", "b"])
    eager = GaussianMixture(2, random_state=0).fit(x[x[:, 0] > -1])
    with dask.config.set(scheduler="synchronous"):
        for fitted in (
            GaussianMixture(2, random_state=0).fit(some),
            GaussianMixture(2, random_state=0).fit(some, sample_weight=weights),
            GaussianMixture(2, random_state=0).fit(frame[frame.a > -1]),
        ):
            assert np.allclose(fitted.means_, eager.means_)
        assert len(fitted.predict(some).compute()) == (x[:, 0] > -1).sum()
