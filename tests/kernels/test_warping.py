"""Label maps in the space of the first scan: equal to those by SimpleITK for the whole volume, in any parts."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from lungmix.geometry import Geometry
from lungmix.kernels.warping import CHANGE_CODES, Warp, pair_counts
from lungmix.tissue import CHANGES

CODE = {change.key: change.label for change in CHANGES}


def rotation(angles):
    z, y, x = (
        np.roll(np.roll([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]], axis, 0), axis, 1)
        for axis, a in enumerate(angles)
    )
    return tuple((z @ y @ x).ravel())


def random_warp(seed):
    """Return a warp between grids of random sizes and directions, and the labels of the later scan."""
    random = np.random.default_rng(seed)
    first = Geometry(
        random.integers(6, 30, 3), random.uniform(0.7, 3, 3), random.uniform(-30, 30, 3),
        rotation(random.uniform(-0.4, 0.4, 3)),
    )  # fmt: skip
    later = Geometry(
        random.integers(6, 30, 3), random.uniform(0.7, 3, 3), np.array(first.origin) + random.uniform(-8, 8, 3),
        rotation(random.uniform(-3, 3, 3)),
    )  # fmt: skip
    # The field covers a part of the first scan, and its border lies inside the scan.
    size, shift = random.integers(2, 12, 3), np.reshape(first.direction, (3, 3)) @ random.uniform(-2, 9, 3)
    field = Geometry(size, (2.5, 2.5, 2.5), np.array(first.origin) + shift, first.direction)
    displacement = random.uniform(-9, 9, (*field.shape, 3)).astype(np.float32)
    labels = random.integers(1, 6, later.shape).astype(np.uint8)
    return Warp(first, later, field, displacement), labels


def by_simpleitk(warp, labels):
    """Return the labels at all voxels of the first scan; the field is continued by one voxel at its borders."""
    field = np.pad(warp.displacement.astype(np.float64), ((1, 1), (1, 1), (1, 1), (0, 0)), mode="edge")
    corner = np.array(warp.field.origin) - np.reshape(warp.field.direction, (3, 3)) @ np.array(warp.field.spacing)
    wide = Geometry(np.array(warp.field.size) + 2, warp.field.spacing, corner, warp.field.direction)
    transform = sitk.DisplacementFieldTransform(wide.apply_to(sitk.GetImageFromArray(field, isVector=True)))
    grid = warp.first.apply_to(sitk.Image(warp.first.size, sitk.sitkUInt8))
    image = warp.later.apply_to(sitk.GetImageFromArray(labels))
    return sitk.GetArrayFromImage(sitk.Resample(image, grid, transform, sitk.sitkNearestNeighbor, 0))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_parts_equal_the_whole_volume_by_simpleitk(seed, thick):
    warp, labels = random_warp(seed)
    (z0, z1), *others = warp.covered()
    expected = by_simpleitk(warp, labels)[z0:z1, *(slice(*span) for span in others)]
    got = np.zeros_like(expected)
    for start in range(z0, z1, thick):
        spans = [(start, min(start + thick, z1)), *others]
        box = warp.source_box(spans)
        if box is not None:
            # The second map shows that maps do not mix.
            parts = warp.warp([labels[box], labels[box] + 10], box, spans)
            got[start - z0 : start - z0 + thick] = parts[0]
            assert np.array_equal(np.where(parts[0] > 0, parts[0] + 10, 0), parts[1])
    assert np.array_equal(got, expected)


def test_no_part_of_the_later_scan_is_read_for_points_outside_it():
    warp, _ = random_warp(1)
    away = Geometry(warp.later.size, warp.later.spacing, (900, 0, 0), warp.later.direction)
    assert Warp(warp.first, away, warp.field, warp.displacement).source_box(warp.covered()) is None
    assert warp.source_box([(3, 3), (0, 4), (0, 4)]) is None


@pytest.mark.parametrize(
    ("first", "later", "change"),
    [
        (1, 2, "normal"), (2, 2, "normal"), (3, 1, "gone"), (5, 2, "gone"), (2, 3, "new"), (1, 5, "new"),
        (4, 4, "persistent"), (3, 4, "denser"), (5, 3, "less_dense"),
    ],
)  # fmt: skip
def test_change_of_a_voxel(first, later, change):
    assert CHANGE_CODES[first, later] == CODE[change]


def test_voxels_without_lung_in_one_scan_have_no_change():
    assert not CHANGE_CODES[0].any()
    assert not CHANGE_CODES[:, 0].any()
    assert (CHANGE_CODES[1:, 1:] > 0).all()


def test_pairs_of_labels_are_counted():
    first, later = np.array([[0, 3, 3], [5, 2, 3]], np.uint8), np.array([[1, 4, 4], [5, 2, 0]], np.uint8)
    counts = pair_counts(first, later)
    assert counts.sum() == 6
    assert {(i, j): counts[i, j] for i, j in np.argwhere(counts)} == {
        (0, 1): 1,
        (3, 4): 2,
        (5, 5): 1,
        (2, 2): 1,
        (3, 0): 1,
    }
