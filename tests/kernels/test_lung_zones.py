"""Lung zones by numpy: planes by counts, cores on the reduced copy, and their product, against the definition."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lungmix.kernels.histogram import N_HU
from lungmix.kernels.lung_zones import (
    ZonePlanes,
    code_tables,
    count_planes,
    count_planes_of_mask,
    find_cores,
    planes_of,
    planes_of_lungs,
    zone_counts,
)
from lungmix.kernels.reduction import reduction_of
from lungmix.kernels.regions import nearest_rows
from lungmix.tissue import LUNG_ZONES, PRIVATE_SCHEME, segments_of
from oracle.lung_zones import is_core_of, parts_along, zones_of
from support.examples import FACTOR

RULES = ["volume", "height"]


def zones_by_kernel(sides, spacing, by, hu=None):
    """Zones and histograms of a whole axial array."""
    slices, rows, _ = count_planes(sides)
    planes = planes_of_lungs(slices, rows, by)
    reduction = reduction_of(spacing)
    z, y, x = reduction.factors
    cores = find_cores(np.ascontiguousarray(sides[::z, ::y, ::x]), reduction.spacing(spacing))
    summands = (*code_tables(planes, *sides.shape[:2]), np.zeros((2, sides.shape[2]), np.uint8))
    sizes = zip(sides.shape, reduction.factors, cores.shape, strict=True)
    nearest = [nearest_rows(0, size, factor, n) for size, factor, n in sizes]
    hu = np.zeros(sides.shape, np.int16) if hu is None else hu
    zones, sparse = zone_counts(hu, sides, summands, cores, nearest)
    counts = np.zeros((len(LUNG_ZONES), N_HU), np.uint64)
    sparse.add_to(counts.reshape(-1))
    return zones, counts


@st.composite
def lungs(draw):
    """Draw regions with two rough lungs, holes, an airway and strewn voxels; lungs may touch each other and the border.

    The spacing is drawn too, along z, y, x.
    """
    spacing = tuple(draw(st.sampled_from([1.2, 3.0, 5.0, 8.0])) for _ in range(3))
    shape = tuple(draw(st.integers(1, 15)) for _ in range(3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sides = np.zeros(shape, np.uint8)
    at = np.indices(shape)
    for label in (1, 2, 1, 2, 3)[: draw(st.integers(0, 5))]:
        centre, radii = random.uniform(-1, np.add(shape, 1)), random.uniform(1, [n * 0.9 + 1 for n in shape])
        ellipsoid = sum(((a - c) / r) ** 2 for a, c, r in zip(at, centre, radii, strict=True))
        sides[ellipsoid < 1] = label
    strewn = random.random(shape) < draw(st.sampled_from([0, 0.002, 0.05]))
    sides[strewn] = random.integers(0, 5, np.count_nonzero(strewn))
    return sides, spacing


@pytest.mark.parametrize("by", [*RULES, "volume-common"])
@settings(max_examples=60 * FACTOR)
@given(case=lungs())
@example(case=(np.ones((3, 2, 2), np.uint8), (5.0, 5.0, 5.0)))
def test_zones_equal_their_definition(by, case):
    sides, spacing = case
    hu = np.random.default_rng(1).integers(-1000, 100, sides.shape).astype(np.int16)
    zones, counts = zones_by_kernel(sides, spacing, by, hu)
    assert np.array_equal(zones, zones_of(sides, spacing, by))
    for zone in LUNG_ZONES:
        expected = np.bincount(hu[zones == zone.label].astype(int) + 32768, minlength=65536)
        assert np.array_equal(counts[zone.label - 1], expected)


@given(case=lungs(), seed=st.integers(0, 1000))
def test_planes_of_regions_that_are_looked_up_equal_those_of_the_regions(case, seed):
    regions, _ = case
    random = np.random.default_rng(seed)
    shape = tuple(int(n) for n in random.integers(1, 40, 3))
    lung = (random.random(shape) < 0.4).astype(np.uint8) * 7
    lung[:, random.random(shape[1]) < 0.3] = 0
    nearest = [nearest_rows(0, n, 2, size) for n, size in zip(shape, regions.shape, strict=True)]
    sides = np.where(lung > 0, regions[np.ix_(*nearest)], np.uint8(0))
    expected = [np.stack([(sides == label).sum(axis=axes) for label in (1, 2)]) for axes in ((1, 2), (0, 2), (0, 1))]
    for counts in (count_planes(sides), count_planes_of_mask(lung, regions, nearest)):
        for actual, correct in zip(counts, expected, strict=True):
            assert np.array_equal(actual, correct)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.sampled_from(RULES))
def test_parts_of_planes_follow_from_exact_fractions(shares, by):
    counts = np.array(shares, np.int64)
    inside = np.arange(10)[None, None, :] < counts[:, None, None]
    planes = planes_of(counts, counts, by)
    thirds, halves = parts_along(inside, 0, 3, by), parts_along(inside, 0, 2, by)
    for i in np.flatnonzero(counts):
        assert int(i >= planes.middle) + int(i >= planes.upper) == thirds[i]
        assert int(i >= planes.dorsal) == halves[i]


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60), st.sampled_from(RULES))
def test_third_differs_from_its_share_by_half_a_slice_at_each_end(shares, by):
    counts = np.array(shares, np.int64)
    planes = planes_of(counts, counts, by)
    if by == "height":
        present = np.flatnonzero(counts)
        counts = np.array([int(len(present) > 0 and present[0] <= i <= present[-1]) for i in range(len(counts))])
    parts = np.split(counts, [planes.middle, planes.upper])
    for part in parts:
        assert abs(int(part.sum()) - counts.sum() / 3) <= counts.max(initial=0)


def test_slice_whose_middle_is_at_the_border_belongs_to_the_part_above():
    # Half of the middle slice and the slice below are exactly a half, and exactly a third of 3.
    assert planes_of(np.array([1, 1, 1]), np.array([1, 1, 1]), "volume") == ZonePlanes(1, 2, 1)
    assert planes_of(np.array([5, 2, 5]), np.array([0, 7, 0]), "volume") == ZonePlanes(1, 2, 1)
    assert planes_of(np.array([0, 5, 0, 1, 0]), np.array([4, 1]), "height") == ZonePlanes(2, 3, 1)
    assert planes_of(np.array([1, 1]), np.array([1]), "height") == ZonePlanes(1, 1, 0)


def test_height_counts_slices_between_the_first_and_the_last_one():
    counts = np.array([0, 1, 0, 0, 100, 1, 0])
    assert planes_of(counts, counts, "height") == ZonePlanes(3, 4, 3)
    assert planes_of(counts, counts, "volume") == ZonePlanes(4, 5, 4)


def test_empty_lung_has_planes_and_no_core():
    nothing = np.zeros(5, np.int64)
    for by in RULES:
        assert planes_of(nothing, nothing, by) == ZonePlanes(0, 0, 0)
    assert not find_cores(np.full((4, 4, 4), 3, np.uint8), (4.0, 4.0, 4.0)).any()


def test_core_is_20_mm_deep_in_each_direction():
    sides = np.zeros((40, 44, 48), np.uint8)
    sides[4:36, 6:38, 8:40] = 1
    for spacing, n in (((2.5, 2.5, 2.5), 8), ((2.5, 4.0, 4.0), None)):
        cores = find_cores(sides, spacing)
        extents = [np.flatnonzero(cores.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        for extent, low, step in zip(extents, (4, 6, 8), spacing, strict=True):
            first = 20 / step - 0.5 + np.prod(spacing) ** (1 / 3) / 2 / step
            assert extent[0] - low == np.ceil(first - 0.5 - 1e-9)
            if n is not None:
                assert extent[0] - low == n


def test_holes_and_borders_have_no_surface_but_the_other_lung_has():
    sides = np.ones((24, 24, 24), np.uint8)
    assert (find_cores(sides, (4.0, 4.0, 4.0)) == 1).all()
    sides[12, 12, 12] = 0
    # Nothing joins the hole to the border of the scan.
    assert (find_cores(sides, (4.0, 4.0, 4.0)) == 1).all()
    sides[:, :, 12:] = 2
    cores = find_cores(sides, (4.0, 4.0, 4.0))
    assert np.flatnonzero((cores == 1).any(axis=(0, 1))).tolist() == list(range(7))
    assert np.flatnonzero((cores == 2).any(axis=(0, 1))).tolist() == list(range(17, 24))


def test_cores_equal_those_by_all_distances():
    random = np.random.default_rng(3)
    sides = np.zeros((22, 24, 26), np.uint8)
    sides[1:21, 2:22, 1:12], sides[1:21, 2:22, 13:25] = 1, 2
    sides[random.random(sides.shape) < 0.002] = 0
    spacing = (4.0, 3.5, 5.0)
    zones, _ = zones_by_kernel(sides, spacing, "volume")
    core = is_core_of(sides, spacing)
    assert core.any()
    assert np.array_equal((zones > 0) & (zones % 2 == 1), core)


def test_segments_are_all_products_with_colours_and_codes_of_their_own():
    segments = segments_of("zone")
    assert segments == LUNG_ZONES
    assert [zone.label for zone in segments] == list(range(1, 25))
    for attribute in ("key", "name", "color", "code"):
        assert len({getattr(zone, attribute) for zone in segments}) == 24
    assert all(len(zone.code.value) <= 16 and len(zone.code.meaning) <= 64 for zone in segments)
    assert {zone.code.scheme for zone in segments} == {PRIVATE_SCHEME}
    assert (segments[0].key, segments[-1].key) == ("right_upper_ventral_core", "left_lower_dorsal_peel")
