"""Labels that are resampled to another grid are those of the nearest voxels, found in exact fractions."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import SimpleITK as sitk

from lungmix.geometry import Geometry
from lungmix.kernels.nearest import GridMap
from support.generators import DIRECTIONS, ORIENTATIONS, reoriented

GRID = Geometry((9, 8, 7), (0.8, 0.7, 2.5), (-12.5, 4.0, 100.0))


def labels_of(geometry, seed=0):
    return np.random.default_rng(seed).integers(0, 4, geometry.shape).astype(np.uint8)


def resampled(geometry, other, labels, thickness=3):
    grid_map = GridMap.between(geometry, other)
    depth = geometry.shape[0]
    cuts = [(start, min(start + thickness, depth)) for start in range(0, depth, thickness)]
    volume = np.concatenate([grid_map.resample(*cut, lambda box: labels[box]) for cut in cuts])
    boxes = []

    def read(box):
        boxes.append(labels[box].size)
        return labels[box]

    # Resample in parts, each of which may read few voxels only.
    parts = np.concatenate([grid_map.resample(*cut, read, 40) for cut in cuts])
    assert np.array_equal(parts, volume)
    assert max(boxes, default=0) <= 40
    return volume


def by_itk(geometry, other, labels):
    image = other.apply_to(sitk.GetImageFromArray(labels))
    target = geometry.apply_to(sitk.Image(*geometry.size, sitk.sitkUInt8))
    return sitk.GetArrayFromImage(sitk.Resample(image, target, sitk.Transform(), sitk.sitkNearestNeighbor, 0))


def test_half_resolution_gives_each_voxel_the_nearest_one_and_the_later_one_halfway():
    other = Geometry((5, 4, 3), (1.6, 1.4, 5.0), (-12.5, 4.0, 100.0))
    labels = labels_of(other)
    expected = np.zeros(GRID.shape, np.uint8)
    for index in np.ndindex(GRID.shape):
        nearest = [floor(Fraction(i, 2) + Fraction(1, 2)) for i in index]
        if all(i < n for i, n in zip(nearest, other.shape, strict=True)):
            expected[index] = labels[tuple(nearest)]
    assert np.array_equal(resampled(GRID, other, labels), expected)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_order_of_axes_gives_the_same_voxels(orientation):
    labels = labels_of(GRID)
    reordered, other = reoriented(labels, GRID, orientation)
    assert np.array_equal(resampled(GRID, other, reordered), labels)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_oblique_grid_is_resampled_as_by_itk(direction):
    other = Geometry((11, 10, 12), (0.73, 0.81, 1.13), (-13.1, 3.3, 97.7), DIRECTIONS[direction])
    geometry = Geometry((9, 8, 7), (0.8, 0.7, 1.0), other.origin, DIRECTIONS[direction][::-1])
    labels = labels_of(other)
    for target in (GRID, geometry):
        assert np.array_equal(resampled(target, other, labels, 2), by_itk(target, other, labels))


def test_voxels_outside_the_other_grid_have_no_label():
    other = Geometry((3, 3, 2), GRID.spacing, tuple(o + 2 * s for o, s in zip(GRID.origin, GRID.spacing, strict=True)))
    expected = np.zeros(GRID.shape, np.uint8)
    expected[2:4, 2:5, 2:5] = 1
    assert np.array_equal(resampled(GRID, other, np.ones(other.shape, np.uint8)), expected)


@pytest.mark.parametrize("shift", [(50, 0, 0), (0, -50, 0), (0, 0, 500)])
def test_distant_grids_do_not_overlap(shift):
    other = Geometry(GRID.size, GRID.spacing, tuple(o + s for o, s in zip(GRID.origin, shift, strict=True)))
    assert not GridMap.between(GRID, other).overlaps
    assert GridMap.between(GRID, GRID).overlaps
    assert not resampled(GRID, other, np.ones(other.shape, np.uint8)).any()
