"""Frames, series, labelled and masked arrays give the same names, numbers and errors in memory and as dask arrays."""

import re
import warnings

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from lungmix import GaussianMixture
from lungmix.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def table(n=400, seed=0):
    random = np.random.default_rng(seed)
    group = random.integers(2, size=n)
    return pd.DataFrame({"hu": random.normal(group * 900.0 - 900, 30), "sd": random.normal(300 - group * 290.0, 9)})


KINDS = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "dask": lambda frame: dd.from_pandas(frame, npartitions=3),
    "dask of one partition": lambda frame: dd.from_pandas(frame, npartitions=1),
}
METHODS = ("predict", "predict_proba", "score_samples", "score", "aic", "bic", "partial_fit")


@pytest.fixture(scope="module")
def fitted():
    return GaussianMixture(2, random_state=0).fit(table())


def copy_of(mixture):
    return GaussianMixture.from_json(mixture.to_json())


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_columns_are_recorded_from_every_frame(kind, fitted):
    for mixture in (
        GaussianMixture(2, random_state=0).fit(KINDS[kind](table())),
        GaussianMixture(2, random_state=0, batch_size=100).fit(KINDS[kind](table())),
        GaussianMixture(2, random_state=0).partial_fit(KINDS[kind](table())),
    ):
        assert mixture.feature_names_in_.tolist() == ["hu", "sd"]
        assert mixture.feature_names_in_.dtype == object
    same = GaussianMixture(2, random_state=0).fit(KINDS[kind](table()))
    assert np.allclose(same.means_, fitted.means_, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_columns_in_another_order_or_of_other_names_are_rejected(kind, method, fitted):
    frame = table()
    for wrong in (frame[["sd", "hu"]], frame.rename(columns={"hu": "x"}), frame.assign(more=1.0), frame[["hu"]]):
        with pytest.raises(ModelError, match=r"feature names should match|features"):
            getattr(copy_of(fitted), method)(KINDS[kind](wrong))


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_features_in_either_the_fit_or_the_samples_alone_give_a_warning(kind, fitted):
    values = table().to_numpy()
    for nameless in (values, da.from_array(values, chunks=(100, 1)), xr.DataArray(values, dims=("n", "feature"))):
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            fitted.predict(nameless)
    unnamed = GaussianMixture(2, random_state=0).fit(values)
    with pytest.warns(UserWarning, match="was fitted without feature names"):
        unnamed.predict(KINDS[kind](table()))


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_frame_are_those_of_its_values(kind, fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = fitted.predict(KINDS[kind](table()))
        shares = fitted.predict_proba(KINDS[kind](table()))
    assert isinstance(labels, da.Array) == kind.startswith("dask")
    assert np.array_equal(np.asarray(labels), fitted.predict(table()))
    assert np.array_equal(np.asarray(shares), fitted.predict_proba(table()))


def test_frames_with_names_that_are_no_strings_have_none_as_in_scikit_learn():
    frame = table().set_axis([0, 1], axis=1)
    for samples in (frame, dd.from_pandas(frame, npartitions=2)):
        assert not hasattr(GaussianMixture(2, random_state=0).fit(samples), "feature_names_in_")
    mixed = table().set_axis([0, "sd"], axis=1)
    for samples in (mixed, dd.from_pandas(mixed, npartitions=2)):
        with pytest.raises(TypeError, match="string names"):
            GaussianMixture(2, random_state=0).fit(samples)


def test_nullable_and_mixed_columns_are_read_as_numbers():
    frame = table()
    strange = frame.assign(
        hu=frame["hu"].round().astype("Int64"), flag=np.arange(len(frame)) % 3 == 0, small=np.float32(1.5)
    )
    plain = strange.astype("float64").to_numpy()
    expected = GaussianMixture(2, random_state=0).fit(plain)
    for samples in (strange, dd.from_pandas(strange, npartitions=3)):
        result = GaussianMixture(2, random_state=0).fit(samples)
        assert np.allclose(result.means_, expected.means_, rtol=1e-12)
    strange.loc[7, "hu"] = pd.NA
    for samples in (strange, dd.from_pandas(strange, npartitions=3)):
        with pytest.raises(ModelError, match=r"row 7.*column 0"):
            GaussianMixture(2, random_state=0).fit(samples)
    strange["text"] = "x"
    with pytest.raises(ModelError, match="type"):
        GaussianMixture(2).fit(dd.from_pandas(strange, npartitions=3))


def test_lazy_frame_of_polars_is_rejected_with_the_remedy():
    with pytest.raises(ModelError, match=re.escape("collect()")):
        GaussianMixture(2).fit(pl.from_pandas(table()).lazy())


def test_series_are_one_feature():
    values = table()["hu"]
    expected = GaussianMixture(2, random_state=0).fit(values.to_numpy()).means_
    for samples in (values, pl.from_pandas(values), dd.from_pandas(values, npartitions=3), values.astype("Float64")):
        assert np.allclose(GaussianMixture(2, random_state=0).fit(samples).means_, expected, rtol=1e-12)


SAMPLES = {
    "array": lambda frame: frame.to_numpy(),
    "chunks": lambda frame: da.from_array(frame.to_numpy(), chunks=(90, -1)),
    "chunks of unknown length": lambda frame: dd.from_pandas(frame, npartitions=3).to_dask_array(),
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "dask": lambda frame: dd.from_pandas(frame, npartitions=3),
    "xarray": lambda frame: xr.DataArray(da.from_array(frame.to_numpy(), chunks=(130, -1)), dims=("n", "feature")),
}
WEIGHTS = {
    "list": lambda series: series.tolist(),
    "array": lambda series: series.to_numpy(),
    "column": lambda series: series.to_numpy()[:, None],
    "chunks": lambda series: da.from_array(series.to_numpy(), chunks=70),
    "chunks of unknown length": lambda series: dd.from_pandas(series, npartitions=5).to_dask_array(),
    "pandas series": lambda series: series.astype("Int64"),
    "pandas frame": lambda series: series.to_frame("w"),
    "pandas series in another order": lambda series: series.set_axis(range(len(series))[::-1]),
    "polars": pl.from_pandas,
    "dask series": lambda series: dd.from_pandas(series, npartitions=3),
    "dask series in other partitions": lambda series: dd.from_pandas(series, npartitions=4).astype("Int64"),
    "dask frame": lambda series: dd.from_pandas(series.to_frame("w"), npartitions=3),
    "xarray": lambda series: xr.DataArray(da.from_array(series.to_numpy(), chunks=200), dims="n"),
}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("samples", SAMPLES)
def test_weights_of_any_kind_go_with_samples_of_any_kind(samples, weights):
    frame = table(300)
    w = pd.Series(np.random.default_rng(1).integers(0, 4, len(frame)), name="w")
    expected = GaussianMixture(2, n_init=1, random_state=0, max_iter=4).fit(frame, sample_weight=w)
    x, given_weights = SAMPLES[samples](frame), WEIGHTS[weights](w)
    result = GaussianMixture(2, n_init=1, random_state=0, max_iter=4).fit(x, sample_weight=given_weights)
    assert np.allclose(result.means_, expected.means_, rtol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert expected.score(x, sample_weight=given_weights) == pytest.approx(expected.score(frame, sample_weight=w))


def test_column_of_a_dask_frame_gives_weights_without_a_further_pass():
    frame = table().assign(w=np.arange(400) % 3)
    lazy = dd.from_pandas(frame, npartitions=4)
    seen = []

    def watched(part):
        seen.append(len(part))
        return part

    x = lazy[["hu", "sd"]].map_partitions(watched, meta=lazy._meta[["hu", "sd"]])
    GaussianMixture(2, random_state=0, n_init=1).partial_fit(x[["hu", "sd"]], sample_weight=lazy["w"])
    passes = len(seen)
    seen.clear()
    GaussianMixture(2, random_state=0, n_init=1).partial_fit(x[["hu", "sd"]])
    assert passes == len(seen)


@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("wrong", [299, 301])
def test_weights_of_another_number_are_rejected(samples, wrong):
    w = pd.Series(np.ones(wrong))
    for weights in (w, w.to_numpy(), dd.from_pandas(w, npartitions=3), dd.from_pandas(w, npartitions=2)):
        with pytest.raises(ModelError, match="one weight per sample"):
            GaussianMixture(2, random_state=0).fit(SAMPLES[samples](table(300)), sample_weight=weights)


@pytest.mark.parametrize("method", ["fit", "partial_fit", "predict", "predict_proba", "score_samples", "score", "bic"])
def test_labelled_array_of_dask_is_never_loaded_whole(method, monkeypatch, fitted):
    def refuse(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(xr.DataArray, "__array__", refuse)
    monkeypatch.setattr(xr.DataArray, "values", property(refuse))
    values = table().to_numpy()
    labelled = xr.DataArray(da.from_array(values, chunks=(100, 1)), dims=("n", "feature"))
    mixture = GaussianMixture(2, random_state=0).fit(values)
    expected = getattr(copy_of(mixture), method)(da.from_array(values, chunks=(100, 1)))
    result = getattr(copy_of(mixture), method)(labelled)
    if method in ("fit", "partial_fit"):
        assert np.array_equal(result.means_, expected.means_)
    else:
        assert np.array_equal(result, expected)
    weights = xr.DataArray(da.ones(400, chunks=150), dims="n")
    assert np.isfinite(mixture.score(labelled, sample_weight=weights))


def test_labels_of_more_than_any_memory_are_lazy(fitted):
    mixture = GaussianMixture(1).fit([1.0, 2.0, 3.0])
    endless = xr.DataArray(da.zeros(10**13, chunks=10**10), dims="n")
    assert mixture.predict(endless)[:3].chunks == ((3,),)


def masked(values, hidden, fill=1e6):
    mask = np.zeros(values.shape, bool)
    mask[hidden] = True
    return np.ma.array(np.where(mask, fill, values).astype(values.dtype), mask=mask)


CALLS = {
    "fit": lambda mixture, x, **kw: mixture.fit(x, **kw),
    "fit in minibatches": lambda mixture, x, **kw: mixture.set_params(batch_size=50).fit(x, **kw),
    "partial_fit": lambda mixture, x, **kw: mixture.partial_fit(x, **kw),
    "score": lambda mixture, x, **kw: mixture.score(x, **kw),
    "bic": lambda mixture, x, **kw: mixture.bic(x, **kw),
}
ANSWERS = {
    "predict": lambda mixture, x: np.asarray(mixture.predict(x)),
    "predict_proba": lambda mixture, x: np.asarray(mixture.predict_proba(x)),
    "score_samples": lambda mixture, x: np.asarray(mixture.score_samples(x)),
}


@pytest.mark.parametrize("integers", [False, True], ids=["floats", "integers"])
@pytest.mark.parametrize("lazy", [False, True], ids=["memory", "chunks"])
@pytest.mark.parametrize("call", [*CALLS, *ANSWERS])
def test_masked_values_are_rejected_where_they_count(call, lazy, integers):
    values = table(200).to_numpy()[:, :1]
    values = np.round(values).astype(np.int16) if integers else values
    hidden = masked(values, [17], fill=30000)
    x = da.from_array(hidden, chunks=(60, 1), asarray=False) if lazy else hidden
    mixture = GaussianMixture(2, random_state=0).fit(values)
    with pytest.raises(ModelError, match="samples are masked at row 17"):
        {**CALLS, **ANSWERS}[call](mixture, x)
    nothing = np.ma.array(values, mask=False)
    x = da.from_array(nothing, chunks=(60, 1), asarray=False) if lazy else nothing
    {**CALLS, **ANSWERS}[call](mixture, x)


@pytest.mark.parametrize("lazy", [False, True], ids=["memory", "chunks"])
@pytest.mark.parametrize("call", CALLS)
def test_masked_values_of_weight_0_are_absent(call, lazy):
    values, weights = table(200).to_numpy(), np.ones(200)
    weights[[17, 130]] = 0
    hidden = masked(values, [17, 130])
    present = weights > 0
    x = da.from_array(hidden, chunks=(60, 1), asarray=False) if lazy else hidden
    mixture = GaussianMixture(2, random_state=0, warm_start=True).fit(values)
    result = CALLS[call](copy_of(mixture), x, sample_weight=weights)
    expected = CALLS[call](copy_of(mixture), values[present])
    if call in ("score", "bic"):
        assert result == pytest.approx(expected, rel=1e-12)
    else:
        assert np.allclose(result.means_, expected.means_, rtol=0.05, atol=5)
        assert np.abs(result.means_).max() < 1000


@pytest.mark.parametrize("call", CALLS)
def test_masked_weights_are_rejected(call):
    values = table(200).to_numpy()
    weights = masked(np.ones(200), [17])
    mixture = GaussianMixture(2, random_state=0).fit(values)
    lazy = da.from_array(values, chunks=(60, -1))
    for x, w in (
        (values, weights),
        (lazy, weights),
        (lazy, da.from_array(weights, chunks=60, asarray=False)),
        (values, da.from_array(weights, chunks=60, asarray=False)),
    ):
        with pytest.raises(ModelError, match="sample_weight is masked at row 17"):
            CALLS[call](copy_of(mixture), x, sample_weight=w)


@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.sampled_from([np.float64, np.float32, np.int16]))
@settings(max_examples=15)
def test_any_mask_in_any_chunks_is_rejected_or_without_effect(seed, chunk, dtype):
    random = np.random.default_rng(seed)
    values = random.normal(size=(80, 2)).astype(dtype) if dtype != np.int16 else random.integers(-9, 9, (80, 1))
    mask = random.random(values.shape) < 0.02
    weights = np.where(random.random(80) < 0.5, ~mask.any(axis=1), 1.0)
    counts = bool((mask.any(axis=1) & (weights > 0)).any())
    hidden = np.ma.array(np.where(mask, 99, values).astype(values.dtype), mask=mask)
    clean = GaussianMixture(1).fit(values[weights > 0])
    for x in (hidden, da.from_array(hidden, chunks=(chunk, 1), asarray=False)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            if counts:
                with pytest.raises(ModelError, match="masked"):
                    GaussianMixture(1).fit(x, sample_weight=weights)
            else:
                result = GaussianMixture(1).fit(x, sample_weight=weights)
                assert np.allclose(result.means_, clean.means_, rtol=1e-6, atol=1e-6)
