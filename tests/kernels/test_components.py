import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from lungmix.kernels.components import label_runs, merge_tables, render_components, table_of
from lungmix.kernels.packed_masks import pack, unpack
from support.examples import examples
from support.generators import masks


def merge_slabs(mask, cuts, min_voxels=1):
    slabs = [slab for slab in np.split(mask, cuts) if len(slab)]
    runs = [label_runs(pack(slab), mask.shape[2]) for slab in slabs]
    tables = [table_of(slab, min_voxels) for slab in runs]
    return runs, tables, merge_tables(tables)


def render(runs, tables, merged, components):
    """Return the mask of some components of the volume."""
    slabs = []
    for slab, table, number in zip(runs, tables, merged.number, strict=True):
        keep = np.zeros(slab.components, bool)
        keep[table.number[np.isin(number, components)]] = True
        slabs.append(unpack(render_components(slab, keep), slab.shape[2]))
    return np.concatenate(slabs)


def check_against_scipy(mask, cuts):
    expected, count = ndimage.label(mask)
    sizes = np.bincount(expected.ravel(), minlength=count + 1)[1:]
    runs, tables, merged = merge_slabs(mask, cuts)
    assert merged.unlisted == 0
    assert np.array_equal(np.sort(merged.components.voxels), np.sort(sizes))
    # If the components are rendered one by one, they are the components that scipy finds, in any order.
    seen = {}
    for component in range(count if count <= 12 else 0):
        rendered = render(runs, tables, merged, [component])
        labels = np.unique(expected[rendered > 0])
        assert len(labels) == 1
        assert (expected == labels[0]).sum() == rendered.sum() == merged.components.voxels[component]
        ys, xs = np.nonzero(rendered.any(axis=0))
        edge = ys.min() == 0 or ys.max() == mask.shape[1] - 1 or xs.min() == 0 or xs.max() == mask.shape[2] - 1
        assert merged.components.touches_edge[component] == edge
        seen[int(labels[0])] = component
    assert len(seen) == (count if count <= 12 else 0)


@given(masks(), st.lists(st.integers(0, 26), max_size=6).map(sorted))
@examples(50)
def test_components_of_slabs_merge_to_those_of_the_volume(mask, cuts):
    check_against_scipy(mask, cuts)


@given(masks(), st.lists(st.integers(0, 26), max_size=6).map(sorted), st.integers(1, 40))
@examples(50)
def test_components_that_slabs_do_not_list_are_small_and_counted(mask, cuts, min_voxels):
    expected, count = ndimage.label(mask)
    runs, tables, merged = merge_slabs(mask, cuts, min_voxels)
    assert len(merged.components.voxels) + merged.unlisted == count
    large = np.bincount(expected.ravel(), minlength=count + 1) >= min_voxels
    large[0] = False
    kept = render(runs, tables, merged, np.flatnonzero(merged.components.voxels >= min_voxels))
    assert np.array_equal(kept > 0, large[expected])


def test_component_that_crosses_every_slab_face_is_counted_once():
    mask = np.zeros((9, 5, 7), np.uint8)
    mask[:, 2, 3] = 1
    _, _, merged = merge_slabs(mask, list(range(1, 9)))
    assert merged.components.voxels.tolist() == [9]


def test_two_arms_that_meet_in_another_slab_are_one_component():
    mask = np.zeros((4, 5, 7), np.uint8)
    mask[:, 2, 1] = mask[:, 2, 5] = 1
    mask[3, 2, 1:6] = 1
    _, _, merged = merge_slabs(mask, [1, 2, 3])
    assert merged.components.voxels.tolist() == [11]
    assert merged.number[0].tolist() == [0, 0]


def test_spiral_through_all_slabs_is_one_component():
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
def test_checkerboard_has_as_many_components_as_voxels(shape):
    mask = (np.indices(shape).sum(axis=0) % 2).astype(np.uint8)
    _, _, merged = merge_slabs(mask, [3, 5])
    assert len(merged.components.voxels) == mask.sum()
    assert merged.components.voxels.max() == 1


def test_noise_at_the_percolation_threshold_agrees_with_scipy():
    mask = (np.random.default_rng(5).random((40, 60, 60)) < 0.3116).astype(np.uint8)
    check_against_scipy(mask, [7, 8, 20])


def test_empty_slabs_have_no_components():
    _, _, merged = merge_slabs(np.zeros((4, 3, 3), np.uint8), [2])
    assert len(merged.components.voxels) == 0
    assert [len(number) for number in merged.number] == [0, 0]
