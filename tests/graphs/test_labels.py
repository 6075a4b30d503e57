import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import lungmix
from lungmix.errors import UsageError
from lungmix.geometry import Geometry
from lungmix.kernels import potts
from support.examples import examples
from support.generators import ORIENTATIONS, as_axial, chunkings, reoriented

volumes = st.tuples(st.integers(1, 20), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
published = lungmix.load_model("published")


@given(st.data(), volumes, st.integers(1, 6))
@examples(50)
def test_median_equals_scipy_whatever_the_chunks(data, volume, size):
    *shape, seed = volume
    labels = np.random.default_rng(seed).integers(0, 6, shape).astype(np.uint8)
    expected = ndimage.median_filter(labels, size=size)
    assert np.array_equal(lungmix.median_labels(labels, size=size), expected)
    with dask.config.set(scheduler="synchronous"):
        lazy = lungmix.median_labels(da.from_array(labels, chunks=data.draw(chunkings(shape))), size=size)
        assert np.array_equal(lazy.compute(), expected)


@given(st.data(), volumes, st.integers(1, 6), st.sampled_from(ORIENTATIONS))
@settings(max_examples=60)
def test_median_of_another_storage_order_is_that_of_the_axial_array(data, volume, size, orientation):
    *shape, seed = volume
    labels = np.random.default_rng(seed).integers(0, 6, shape).astype(np.uint8)
    expected = ndimage.median_filter(labels, size=size)
    stored, geometry = reoriented(labels, Geometry(tuple(shape[::-1])), orientation)
    filtered = lungmix.median_labels(stored, size, direction=geometry.direction)
    assert np.array_equal(as_axial(filtered, geometry), expected)
    with dask.config.set(scheduler="synchronous"):
        chunked = da.from_array(stored, chunks=data.draw(chunkings(stored.shape)))
        assert np.array_equal(lungmix.median_labels(chunked, size, direction=geometry.direction).compute(), filtered)


@pytest.mark.parametrize("direction", [(1, 0, 0), (1, 0, 0, 0, float("nan"), 0, 0, 0, 1)])
def test_direction_that_is_no_nine_cosines_is_rejected(direction):
    with pytest.raises(UsageError, match="9 finite cosines"):
        lungmix.median_labels(np.zeros((2, 2, 2), np.uint8), direction=direction)


@given(st.data(), volumes)
@examples(50)
def test_labels_equal_the_highest_posterior_whatever_the_chunks(data, volume):
    *shape, seed = volume
    random = np.random.default_rng(seed)
    hu = random.integers(-3024, 2000, shape).astype(np.int16)
    mask = random.integers(0, 2, shape).astype(np.uint8)
    x = hu[..., None].astype(float)
    weights, means, variances = (np.array(v) for v in (published.weights, published.means, published.variances))
    posterior = weights / np.sqrt(variances) * np.exp(-((x - means) ** 2) / (2 * variances))
    expected = np.where(mask > 0, posterior.argmax(-1) + 1, 0)
    sure = posterior.max(-1) > 1e-300  # where densities do not underflow
    labels = lungmix.tissue_labels(hu, mask, published)
    assert np.array_equal(labels[sure], expected[sure])
    with dask.config.set(scheduler="synchronous"):
        lazy = lungmix.tissue_labels(
            da.from_array(hu, chunks=data.draw(chunkings(shape))), da.from_array(mask), published
        )
        assert np.array_equal(lazy.compute(), labels)


def beta_of(hu, mask, weights):
    counts = potts.count_neighbours(lungmix.tissue_labels(hu, mask, published))
    codes = np.flatnonzero(counts)
    return potts.estimate_beta(codes, counts[codes], weights, published.n_components)


@given(
    st.data(),
    volumes,
    st.sampled_from([None, 0.0, 0.5, 1.5]),
    st.tuples(*[st.sampled_from([0.7, 1.0, 5.0])] * 3),
    st.booleans(),
)
@examples(60)
def test_potts_labels_equal_those_of_the_whole_volume(data, volume, beta, spacing, is_wide):
    *shape, seed = volume
    random = np.random.default_rng(seed)
    hu = np.clip(random.choice(published.means, shape) + random.normal(0, 120, shape), -1024, 3071).astype(np.int16)
    mask = (random.random(shape) < 0.9).astype(np.uint8)
    weights = potts.axis_weights(spacing[::-1])
    tables = potts.tables_of(published.weights, published.means, published.variances)
    strength = beta_of(hu, mask, weights) if beta is None else beta
    expected = potts.potts_labels(hu, mask, tables, weights, strength)
    given_hu, given_mask = (hu.astype(np.float64), mask.astype(bool)) if is_wide else (hu, mask)
    actual = lungmix.potts_labels(given_hu, given_mask, published, spacing, beta)
    assert isinstance(actual, np.ndarray)
    assert np.array_equal(actual, expected)
    chunks = data.draw(chunkings(shape))
    # Blocks of few slices for the estimate of beta too.
    with dask.config.set({"array.chunk-size": "400B"}):
        lazy = lungmix.potts_labels(
            da.from_array(given_hu, chunks=chunks), da.from_array(given_mask, chunks=-1), published, spacing, beta
        )
    assert isinstance(lazy, da.Array)
    assert (lazy.dtype, lazy.chunks) == (np.uint8, da.from_array(hu, chunks=chunks).chunks)
    with dask.config.set(scheduler="synchronous"):
        assert np.array_equal(lazy.compute(), expected)


@pytest.mark.parametrize("options", [{"spacing": (1, 1)}, {"spacing": (1, 1, 0)}, {"beta": 11}, {"beta": -1}])
def test_potts_prior_out_of_range_is_rejected(options):
    volume = np.zeros((2, 2, 2), np.int16)
    with pytest.raises(UsageError, match=r"spacing needs 3 positive|number from 0 to 10"):
        lungmix.potts_labels(volume, volume, published, **options)


def test_mask_of_another_shape_is_rejected():
    with pytest.raises(UsageError, match="shapes"):
        lungmix.tissue_labels(np.zeros((2, 2, 2), np.int16), np.zeros((2, 2, 3), np.uint8), published)
