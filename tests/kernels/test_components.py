import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from generators import masks
from lungmix.kernels.components import islands_of, label_runs, merge_islands, paint, pairs_across


def merged(mask, cuts):
    slabs = [slab for slab in np.split(mask, cuts) if len(slab)]
    runs = [label_runs(slab) for slab in slabs]
    faces = [pairs_across(a.plane(a.shape[0] - 1), b.plane(0)) for a, b in zip(runs, runs[1:], strict=False)]
    numbers, islands = merge_islands([islands_of(one) for one in runs], faces)
    return runs, numbers, islands


def check_against_scipy(mask, cuts):
    expected, count = ndimage.label(mask)
    runs, numbers, islands = merged(mask, cuts)
    assert len(islands.voxels) == count
    assert np.array_equal(np.sort(islands.voxels), np.sort(np.bincount(expected.ravel(), minlength=count + 1)[1:]))
    # Painting every island with its own number gives scipy's labels up to their order.
    seen = {}
    for island in range(count if count <= 12 else 0):
        painted = np.concatenate([paint(r, n == island) for r, n in zip(runs, numbers, strict=True)])
        labels = np.unique(expected[painted > 0])
        assert len(labels) == 1
        assert (expected == labels[0]).sum() == painted.sum() == islands.voxels[island]
        ys, xs = np.nonzero(painted.any(axis=0))
        edge = ys.min() == 0 or ys.max() == mask.shape[1] - 1 or xs.min() == 0 or xs.max() == mask.shape[2] - 1
        assert islands.touches_edge[island] == edge
        seen[int(labels[0])] = island
    assert len(seen) == (count if count <= 12 else 0)


@given(masks(), st.lists(st.integers(0, 26), max_size=6).map(sorted))
@settings(max_examples=200)
def test_islands_of_slabs_merge_to_those_of_the_volume(mask, cuts):
    check_against_scipy(mask, cuts)


def test_island_that_crosses_every_slab_face_is_counted_once():
    mask = np.zeros((9, 5, 7), np.uint8)
    mask[:, 2, 3] = 1
    _, _, islands = merged(mask, list(range(1, 9)))
    assert islands.voxels.tolist() == [9]


def test_two_arms_that_meet_in_another_slab_are_one_island():
    mask = np.zeros((4, 5, 7), np.uint8)
    mask[:, 2, 1] = mask[:, 2, 5] = 1
    mask[3, 2, 1:6] = 1
    _, numbers, islands = merged(mask, [1, 2, 3])
    assert islands.voxels.tolist() == [11]
    assert numbers[0].tolist() == [0, 0]


def test_spiral_through_all_slabs_is_one_island():
    n = 31
    plane = np.zeros((n, n), np.uint8)
    y = x = 0
    dy, dx = 0, 1
    for length in (length for k in range(n - 1, 0, -2) for length in ([k, k] if k < n - 1 else [k, k, k])):
        for _ in range(length):
            plane[y, x] = 1
            y, x = y + dy, x + dx
        dy, dx = dx, -dy
    mask = np.repeat(plane[:, None, :], 3, axis=1)
    check_against_scipy(mask, list(range(1, n)))


@pytest.mark.parametrize("shape", [(8, 60, 60)])
def test_checkerboard_is_as_many_islands_as_voxels(shape):
    mask = (np.indices(shape).sum(axis=0) % 2).astype(np.uint8)
    _, _, islands = merged(mask, [3, 5])
    assert len(islands.voxels) == mask.sum()
    assert islands.voxels.max() == 1


def test_noise_at_the_percolation_threshold_agrees_with_scipy():
    mask = (np.random.default_rng(5).random((40, 60, 60)) < 0.3116).astype(np.uint8)
    check_against_scipy(mask, [7, 8, 20])


def test_empty_slabs_have_no_islands():
    _, numbers, islands = merged(np.zeros((4, 3, 3), np.uint8), [2])
    assert len(islands.voxels) == 0
    assert [len(n) for n in numbers] == [0, 0]
