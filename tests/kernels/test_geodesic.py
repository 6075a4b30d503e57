import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lungmix.kernels.geodesic import chamfer_distance, flood, geodesic_assign, wave_numbers
from oracle.sides import ways
from support.generators import masks

small = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))
spacings = st.tuples(*[st.floats(0.5, 8.0)] * 3)


def seeds_in(room, seed):
    random = np.random.default_rng(seed)
    return (random.integers(0, 12, room.shape) % 9 * (random.random(room.shape) < 0.1)).astype(np.uint8) % 3


@given(masks(small), spacings)
def test_depth_is_the_shortest_path_out(mask, spacing):
    padded = np.pad(mask, 1)
    expected = ways(padded == 0, np.ones(padded.shape, bool), spacing)[1:-1, 1:-1, 1:-1]
    assert np.allclose(chamfer_distance(mask > 0, spacing), expected, rtol=1e-5)


@given(masks(small), spacings, st.integers(0, 2**32 - 1))
def test_labels_grow_along_the_shortest_path_inside_the_domain(mask, spacing, seed):
    room = mask > 0
    labels = seeds_in(room, seed) * mask
    start = labels.copy()
    geodesic_assign(labels, room, spacing)
    by_label = [ways(start == label, room, spacing) for label in (1, 2)]
    nearest = np.minimum(*by_label)
    assert np.array_equal(labels == 0, ~np.isfinite(nearest))
    for label, way in enumerate(by_label, start=1):
        assert np.allclose(way[labels == label], nearest[labels == label], rtol=1e-5)


@given(small, st.integers(0, 2**32 - 1))
def test_flood_gives_every_voxel_the_label_of_the_nearest(shape, seed):
    labels = seeds_in(np.ones(shape), seed)
    start = labels.copy()
    flood(labels)
    everywhere = np.ones(shape, bool)
    by_label = [ways(start == label, everywhere, (1, 1, 1), faces_only=True) for label in (1, 2)]
    nearest = np.minimum(*by_label)
    if not start.any():
        assert not labels.any()
        return
    assert labels.all()
    for label, way in enumerate(by_label, start=1):
        assert np.array_equal(way[labels == label], nearest[labels == label])


@given(masks(small), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_waves_count_steps_inside_the_domain(mask, limit, seed):
    room = mask > 0
    start = seeds_in(room, seed) > 0
    expected = ways(start, room, (1, 1, 1), faces_only=True)
    expected[~np.isfinite(expected) | (expected > limit)] = -1
    assert np.array_equal(wave_numbers(start, room, limit), expected)
