"""Parameters and types that a mixture has in common with that of scikit-learn.

These are random starts, printing, float32, and warnings of fits that did not converge.
"""

import json
import re
import warnings

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture as Reference

from lungmix import GaussianMixture
from lungmix.errors import ModelError
from lungmix.mixture.parameters import COVARIANCE_TYPES
from lungmix.mixture.random_start import random_shares


def groups(n=600, d=2, seed=0, dtype=np.float64):
    random = np.random.default_rng(seed)
    return np.concatenate([random.normal(m, 1, (n // 3, d)) for m in (0, 6, 14)]).astype(dtype)


def quiet(mixture, *args, **options):
    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(*args, **options)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_random_start_is_the_moments_of_random_shares(covariance_type):
    x = groups()
    start = GaussianMixture(3, covariance_type, n_init=1, init_params="random", max_iter=0, random_state=4).fit(x)
    seed = np.random.RandomState(4).randint(np.iinfo(np.int32).max, size=1)[0]
    shares = random_shares(x, seed, 3)
    assert np.allclose(start.weights_, shares.mean(axis=1))
    means = shares @ x / shares.sum(axis=1)[:, None]
    assert np.allclose(start.means_, means)
    full = [np.cov(x.T, aweights=share, bias=True) + 1e-6 * np.eye(2) for share in shares]
    expected = {
        "full": full,
        "tied": np.average(full, axis=0, weights=start.weights_),
        "diag": np.diagonal(full, axis1=1, axis2=2),
        "spherical": np.diagonal(full, axis1=1, axis2=2).mean(axis=1),
    }
    assert np.allclose(start.covariances_, expected[covariance_type])


def test_random_shares_are_uniform_and_independent():
    x = np.random.default_rng(0).normal(size=(50_000, 2))
    theirs = np.random.default_rng(1).uniform(size=(3, 50_000))
    theirs /= theirs.sum(axis=0)
    for ours in (random_shares(x, 1, 3), random_shares(np.arange(50_000.0)[:, None], 2, 3)):
        assert np.allclose(ours.sum(axis=0), 1)
        for quantile in (0.01, 0.1, 0.5, 0.9, 0.99):
            assert np.allclose(np.quantile(ours, quantile, axis=1), np.quantile(theirs, quantile), atol=0.01)
        assert np.allclose(np.corrcoef(ours), np.corrcoef(theirs), atol=0.03)
        assert abs(np.corrcoef(ours[0, 1:], ours[0, :-1])[0, 1]) < 0.02
    assert not np.allclose(random_shares(x, 1, 3), random_shares(x, 2, 3))
    assert np.array_equal(random_shares(np.array([[0.0]]), 1, 3), random_shares(np.array([[-0.0]]), 1, 3))


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.booleans(), st.sampled_from(COVARIANCE_TYPES))
@settings(max_examples=20)
def test_random_start_knows_weights_and_neither_order_nor_chunks(seed, chunk, integers, covariance_type):
    random = np.random.default_rng(seed)
    x = np.round(random.normal(size=(90, 1)) * 9).astype(int) if integers else random.normal(size=(90, 2))
    copies = random.integers(0, 4, 90)
    copies[:10] = 1
    order = random.permutation(90)
    rules = {"init_params": "random", "n_init": 2, "random_state": 1, "max_iter": 3}
    once = quiet(GaussianMixture(2, covariance_type, **rules), np.repeat(x, copies, axis=0))
    for samples, weights in ((x, copies), (x[order], copies[order]), (da.from_array(x, chunks=(chunk, 1)), copies)):
        result = quiet(GaussianMixture(2, covariance_type, **rules), samples, sample_weight=weights)
        assert np.allclose(result.means_, once.means_, rtol=1e-9, atol=1e-9)
        assert np.allclose(result.covariances_, once.covariances_, rtol=1e-8, atol=1e-10)


def test_random_start_of_many_features_and_of_minibatches():
    x = np.random.default_rng(0).normal(size=(300, 80))
    assert quiet(GaussianMixture(2, "diag", init_params="random", random_state=0), x).means_.shape == (2, 80)
    fitted = quiet(GaussianMixture(3, init_params="random", random_state=0, batch_size=50, max_iter=40), groups())
    assert np.isfinite(fitted.lower_bound_)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
def test_scikit_learn_and_back_keeps_every_shared_parameter(init_params):
    theirs = Reference(
        2, init_params=init_params, n_init=3, tol=1e-4, reg_covar=1e-5, max_iter=77, random_state=5, warm_start=True,
        verbose=0, verbose_interval=7,
    ).fit(groups())  # fmt: skip
    ours = GaussianMixture.from_sklearn(theirs)
    shared = theirs.get_params()
    assert {name: value for name, value in ours.get_params().items() if name in shared} == shared
    assert ours.to_sklearn().get_params() == shared
    assert clone(ours).get_params() == ours.get_params()


def test_parameters_of_scikit_learn_are_all_ours():
    assert set(Reference().get_params()) <= set(GaussianMixture().get_params())


def printed(capsys, **options):
    quiet(GaussianMixture(3, random_state=0, tol=0, max_iter=25, **options), groups())
    return capsys.readouterr().out.splitlines()


def test_printing_follows_verbose_and_its_interval_as_in_scikit_learn(capsys):
    assert printed(capsys) == []
    for interval in (1, 5, 10):
        for verbose in (1, 2, 7, True):
            lines = printed(capsys, verbose=verbose, verbose_interval=interval, n_init=2)
            numbers = [int(number) for number in re.findall(r"  Iteration (\d+)", "\n".join(lines))]
            assert numbers == list(range(interval, 26, interval))
            assert "2 starts" in lines[0]
            assert "did not converge" in lines[-1]
            assert all(("gain" in line and "time" in line) == (verbose > 1) for line in lines[1:-1])
    assert printed(capsys, verbose=1) == printed(capsys, verbose=1, verbose_interval=10)


def test_minibatches_print_their_passes(capsys):
    lines = printed(capsys, verbose=1, verbose_interval=10, batch_size=100)
    assert [line.split()[1] for line in lines[1:-1]] == ["10", "20"]


@pytest.mark.parametrize("value", [0, -1, 2.5, None])
def test_impossible_intervals_are_rejected(value):
    with pytest.raises(ModelError, match="verbose_interval"):
        GaussianMixture(1, verbose_interval=value).fit([1.0, 2.0])


FITTED = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("how", ["memory", "chunks", "frame", "minibatches", "partial_fit", "start", "big endian"])
def test_float32_in_gives_float32_out_with_float64_sums(how, covariance_type):
    x = groups(dtype=np.float32)
    mixture = GaussianMixture(3, covariance_type, random_state=0, tol=1e-9, max_iter=40)
    samples = {
        "chunks": da.from_array(x, chunks=(100, 1)),
        "frame": dd.from_pandas(pd.DataFrame(x, columns=["a", "b"]), npartitions=2),
        "big endian": x.astype(">f4"),
    }.get(how, x)
    if how == "minibatches":
        mixture.set_params(batch_size=100)
    if how == "start":
        mixture.set_params(max_iter=0)
    wide = clone(mixture)
    if how == "partial_fit":
        for m, data in ((mixture, x), (wide, x.astype(float))):
            m.partial_fit(data[::2]).partial_fit(data[1::2])
    else:
        quiet(mixture, samples)
        quiet(wide, x.astype(float))
    for name in FITTED:
        assert getattr(mixture, name).dtype == np.float32, name
        assert getattr(wide, name).dtype == np.float64, name
        assert np.allclose(getattr(mixture, name), getattr(wide, name), rtol=2e-6, atol=1e-6), name
    for method in ("predict_proba", "score_samples"):
        answer = getattr(mixture, method)(samples)
        assert answer.dtype == np.float32
        assert np.asarray(answer).dtype == np.float32
        assert np.allclose(np.asarray(answer), getattr(wide, method)(x.astype(float)), rtol=1e-5, atol=1e-5)
        if how != "frame":
            assert getattr(mixture, method)(x.astype(float)).dtype == np.float64
            assert getattr(wide, method)(x).dtype == np.float64
    assert isinstance(mixture.lower_bound_, float)


def test_types_follow_the_samples_as_in_scikit_learn():
    for dtype in (np.float16, np.float32, np.float64, np.int16, np.uint8, bool):
        x = groups(60).astype(dtype)
        ours = quiet(GaussianMixture(1, random_state=0), x)
        theirs = Reference(1, random_state=0).fit(x)
        assert ours.means_.dtype == theirs.means_.dtype, dtype
        assert ours.predict_proba(x).dtype == theirs.predict_proba(x).dtype, dtype


def test_float32_then_float64_continues_in_float64():
    x = groups()
    mixture = GaussianMixture(3, random_state=0).partial_fit(x.astype(np.float32))
    assert mixture.means_.dtype == np.float32
    assert mixture.partial_fit(x).means_.dtype == np.float64
    assert mixture.partial_fit(x.astype(np.float32)).means_.dtype == np.float64
    warm = quiet(GaussianMixture(3, random_state=0, warm_start=True), x.astype(np.float32))
    assert quiet(warm, x).means_.dtype == np.float64


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_float32_mixture_of_correlated_features_stays_usable(covariance_type):
    random = np.random.default_rng(0)
    base = random.normal(size=(3000, 1))
    x = (base * [1e3, 2e3, 3e3] + random.normal(size=(3000, 3)) * 1e-3).astype(np.float32)
    mixture = quiet(GaussianMixture(2, covariance_type, reg_covar=0, random_state=0, max_iter=5), x)
    assert np.isfinite(mixture.score(x))
    again = GaussianMixture.from_json(mixture.to_json())
    for name in FITTED:
        assert np.array_equal(getattr(again, name), getattr(mixture, name)), name
        assert getattr(again, name).dtype == np.float32
    assert np.array_equal(again.predict_proba(x), mixture.predict_proba(x))
    assert again.to_json() == mixture.to_json()
    theirs = mixture.to_sklearn()
    assert theirs.means_.dtype == np.float32
    assert GaussianMixture.from_sklearn(theirs).covariances_.dtype == np.float32
    assert np.isfinite(quiet(mixture.set_params(warm_start=True), x).partial_fit(x[:100]).lower_bound_)


@pytest.mark.parametrize("factors", [[[1.0]], [[[1.0, 0.0], [1.0, 1.0]]], [[[1.0, 1.0], [0.0, -1.0]]]])
def test_impossible_factors_in_a_text_are_rejected(factors):
    text = json.loads(GaussianMixture(1).fit(groups(dtype=np.float32)).to_json())
    with pytest.raises(ModelError, match="precisions_cholesky"):
        GaussianMixture.from_json(json.dumps({**text, "precisions_cholesky": factors}))


def test_texts_of_float64_mixtures_are_those_of_older_versions():
    assert "dtype" not in GaussianMixture(1).fit(groups()).to_json()


@pytest.mark.parametrize("lazy", [False, True], ids=["memory", "chunks"])
@pytest.mark.parametrize("max_iter", [1, 2, 3])
def test_minibatches_that_do_not_converge_warn_with_the_remedy(max_iter, lazy):
    x = da.from_array(groups(), chunks=(90, -1)) if lazy else groups()
    mixture = GaussianMixture(3, batch_size=100, max_iter=max_iter, tol=0, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"pass.*max_iter"), dask.config.set(scheduler="synchronous"):
        mixture.fit(x)
    assert not mixture.converged_


def test_fits_that_converge_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        for options in ({}, {"batch_size": 100, "tol": 0.5}, {"batch_size": 100, "max_iter": 0}, {"max_iter": 0}):
            GaussianMixture(3, random_state=0, **options).fit(groups())
        GaussianMixture(3, random_state=0).partial_fit(groups())


CALLS = ("predict", "predict_proba", "score_samples", "score", "aic", "bic", "sample", "to_json", "to_sklearn")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("after", ["nothing", "a fit that failed", "a step that failed"])
def test_mixture_that_is_not_fitted_says_so(call, after):
    mixture = GaussianMixture(2)
    x = groups()
    if after != "nothing":
        with pytest.raises(ModelError, match="nan"):
            (mixture.fit if "fit" in after else mixture.partial_fit)(np.where(x > 14, np.nan, x))
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(mixture, call)(*([] if call in ("sample", "to_json", "to_sklearn") else [x]))
