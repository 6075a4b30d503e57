"""Posteriors of a case: a lazy array that is a function of HU."""

import pickle

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lungmix
from lungmix.errors import StoreError
from lungmix.geometry import Geometry
from lungmix.kernels.labels import look_up
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.tissue import TISSUES
from oracle.posteriors import posteriors
from support.generators import chunkings
from support.labelled import add_case, unlabelled

SHAPE = (150, 12, 14)
OTHER = TissueModel((0.2, 0.3, 0.1, 0.15, 0.25), (-960, -840, -700, -400, 20), (900, 2500, 10000, 40000, 90000))
TWO = TissueModel((0.5, 0.5), (-900, 0), (2500, 40000))


def made(folder, model=OTHER):
    random = np.random.default_rng(5)
    ct = random.normal(-700, 350, SHAPE).astype(np.int16)
    ct[0, 0, :4] = [-32768, -2048, -1000, 32767]
    lung = (random.random(SHAPE) < 0.6).astype(np.uint8)
    lung[0, 0, :4] = 1
    cohort = lungmix.open_cohort(folder, "a")
    add_case(cohort, "one", ct, lung, Geometry(SHAPE[::-1], (1.0, 1.0, 1.0)), model=model)
    return cohort, ct, lung


def test_posteriors_are_those_of_the_mixture_of_the_labels_and_add_up_to_one(tmp_path):
    cohort, ct, lung = made(tmp_path / "s.zarr")
    case = cohort["one"]
    expected = posteriors(ct, OTHER) * lung[..., None]
    total = np.zeros(SHAPE)
    arrays = []
    for number, tissue in enumerate(TISSUES):
        lazy = case.posterior(tissue.key)
        assert (lazy.shape, lazy.dtype, lazy.chunks) == (SHAPE, np.float32, case.lung.chunks)
        arrays.append(lazy.compute(scheduler="threads"))
        assert arrays[-1].dtype == np.float32
        assert np.abs(arrays[-1] - expected[..., number]).max() < 1e-7
        total += arrays[-1]
    assert np.allclose(total[lung > 0], 1, rtol=0, atol=3e-7)
    assert not total[lung == 0].any()
    assert np.array_equal((np.argmax(arrays, axis=0) + 1) * lung, case.tissue.compute())


def test_graph_holds_the_table_once(tmp_path):
    cohort, *_ = made(tmp_path / "s.zarr")
    lazy = cohort["one"].posterior("ggo")
    assert lazy.numblocks[0] > 1
    sizes = [len(pickle.dumps(task)) for task in dict(lazy.__dask_graph__()).values()]
    assert [size > 200_000 for size in sizes].count(True) == 1


@settings(max_examples=15)
@given(data=st.data())
def test_posteriors_are_bit_equal_for_any_chunks(tmp_path_factory, data):
    cohort, ct, lung = made(tmp_path_factory.mktemp("s") / "s.zarr")
    case = cohort["one"]
    stored = case.posterior("consolidation").compute(scheduler="sync")
    chunks = data.draw(chunkings(SHAPE))
    table = OTHER.posterior_table()[:, 3].astype(np.float32)
    again = da.map_blocks(
        look_up,
        da.from_array(ct, chunks),
        da.from_array(lung, chunks),
        table=table,
        dtype=np.float32,
    )
    assert stored.tobytes() == again.compute(scheduler="sync").tobytes()
    assert stored.tobytes() == case.posterior("consolidation").rechunk(chunks).compute(scheduler="sync").tobytes()


@pytest.mark.parametrize(
    ("model", "keys"),
    [(PUBLISHED, "air, healthy, ggo, consolidation, other"), (TWO, "component_1, component_2")],
)
def test_unknown_tissue_is_rejected_with_the_known_ones(tmp_path, model, keys):
    cohort, *_ = made(tmp_path / "s.zarr", model)
    with pytest.raises(StoreError, match=f"no tissue 'heart': choose one of {keys}$"):
        cohort["one"].posterior("heart")
    first, second = (cohort["one"].posterior(key).compute() for key in keys.split(", ")[:2])
    assert (first != second).any()


def test_case_without_labels_has_no_posteriors(tmp_path):
    cohort, *_ = made(tmp_path / "s.zarr")
    unlabelled(cohort, "bare", "no lung")
    with pytest.raises(StoreError, match="case bare has no labels"):
        cohort["bare"].posterior("ggo")
