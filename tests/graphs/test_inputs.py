"""Volumes that users bring in arrays of other kinds: labelled ones stay lazy, masked voxels are not taken for HU."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import lungmix
from lungmix.errors import UsageError

SHAPE = (6, 20, 20)
OPTIONS = {"opening": 0, "min_voxels": 50, "radii": (1,)}


@pytest.fixture(scope="module")
def hu():
    volume = np.full(SHAPE, 40, np.int16)
    volume[1:5, 5:15, 5:15] = -800
    return volume


def labelled(array):
    return xr.DataArray(da.from_array(array, chunks=(2, 20, 20)), dims=("z", "y", "x"))


def test_labelled_volumes_of_dask_are_never_loaded_whole(hu, monkeypatch):
    def refuse(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(xr.DataArray, "__array__", refuse)
    monkeypatch.setattr(xr.DataArray, "values", property(refuse))
    model = lungmix.load_model("published")
    mask = lungmix.lung_mask(hu, **OPTIONS)
    assert mask.sum() == 400
    tissue = lungmix.tissue_labels(hu, mask, model)
    lazy = (
        lungmix.lung_mask(labelled(hu), **OPTIONS),
        lungmix.tissue_labels(labelled(hu), labelled(mask), model),
        lungmix.median_labels(labelled(tissue)),
        lungmix.potts_labels(labelled(hu), labelled(mask), model),
    )
    expected_arrays = mask, tissue, lungmix.median_labels(tissue), lungmix.potts_labels(hu, mask, model)
    with dask.config.set(scheduler="synchronous"):
        for array, expected in zip(lazy, expected_arrays, strict=True):
            assert isinstance(array, da.Array)
            assert np.array_equal(array.compute(), expected)


def test_labelled_volumes_in_memory_are_read_as_arrays(hu):
    lung = lungmix.lung_mask(xr.DataArray(hu, dims=("z", "y", "x")), **OPTIONS)
    assert isinstance(lung, np.ndarray)
    assert np.array_equal(lung, lungmix.lung_mask(hu, **OPTIONS))


@pytest.mark.parametrize("lazy", [False, True], ids=["memory", "chunks"])
def test_masked_voxels_are_rejected(hu, lazy):
    def bring(array, hidden):
        masked = np.ma.array(array, mask=np.zeros(SHAPE, bool))
        masked[hidden] = np.ma.masked
        return da.from_array(masked, chunks=(2, 20, 20), asarray=False) if lazy else masked

    model = lungmix.load_model("published")
    mask = lungmix.lung_mask(hu, **OPTIONS)
    hidden = (2, 7, slice(5))
    with dask.config.set(scheduler="synchronous"):
        for call in (
            lambda: lungmix.lung_mask(bring(hu, hidden), **OPTIONS),
            lambda: lungmix.tissue_labels(bring(hu, hidden), mask, model),
            lambda: lungmix.tissue_labels(hu, bring(mask, hidden), model),
            lambda: lungmix.median_labels(bring(mask, hidden)),
        ):
            with pytest.raises(UsageError, match="5 masked voxels"):
                np.asarray(call())
        nothing = slice(0)
        assert np.array_equal(lungmix.lung_mask(bring(hu, nothing), **OPTIONS), mask)
        assert np.array_equal(
            lungmix.tissue_labels(bring(hu, nothing), bring(mask, nothing), model),
            lungmix.tissue_labels(hu, mask, model),
        )
