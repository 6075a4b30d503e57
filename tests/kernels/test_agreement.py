"""Overlap and surface distances, computed from slabs, are those that scipy computes on whole volumes."""

from itertools import pairwise
from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix.kernels.agreement import DistanceCounts, Overlap, agreement_of
from lungmix.kernels.surfaces import nearest_squares, points_of, surface_of
from oracle.agreement import agreement, surface
from support.examples import examples
from support.generators import chunkings, masks

sizes = st.tuples(st.integers(1, 14), st.integers(1, 12), st.integers(1, 12))
spacings = st.tuples(*[st.one_of(st.floats(0.3, 8.0), st.sampled_from([0.5, 1.0, 3.0]))] * 3)


@st.composite
def pairs(draw):
    """Draw two masks of one shape, and slabs of this shape; a mask may be empty, full, or the other mask shifted."""
    mask = draw(masks(sizes)) > 0
    kind = draw(st.sampled_from(["other", "equal", "empty", "full", "shifted", "voxel"]))
    other = {
        "other": lambda: draw(masks(st.just(mask.shape))) > 0,
        "equal": mask.copy,
        "empty": lambda: np.zeros_like(mask),
        "full": lambda: np.ones_like(mask),
        "shifted": lambda: np.roll(mask, (1, 0, 2), (0, 1, 2)),
        "voxel": lambda: np.arange(mask.size).reshape(mask.shape) == draw(st.integers(0, mask.size - 1)),
    }[kind]()
    edges = np.cumsum([0, *draw(chunkings(mask.shape))[0]]).tolist()
    return (mask, other, edges) if draw(st.booleans()) else (other, mask, edges)


def read_surface(mask, start, stop):
    padded = np.pad(mask, ((1, 1), (0, 0), (0, 0)))
    return surface_of(padded[start : stop + 2])


def by_slabs(mask, reference, edges, spacing):
    """Return the measures of a mask and a reference that are read slab by slab."""
    slabs = list(pairwise(edges))
    overlap, parts = Overlap(), []
    for start, stop in slabs:
        overlap += Overlap.of(mask[start:stop], reference[start:stop])
        for volume, other in ((mask, reference), (reference, mask)):
            points = points_of(read_surface(volume, start, stop), start)
            filled = [slab for slab in slabs if read_surface(other, *slab).any()]
            squares = nearest_squares(points, spacing, filled, lambda a, b, other=other: read_surface(other, a, b))
            parts.append(DistanceCounts.of(squares))
    return agreement_of(overlap, DistanceCounts.total(parts), float(np.prod(spacing)) / 1000)


@given(pairs(), spacings)
@examples(50)
def test_measures_are_those_of_the_whole_volumes(volumes, spacing):
    mask, reference, edges = volumes
    expected = agreement(mask, reference, spacing)
    assert by_slabs(mask, reference, edges, spacing) == pytest.approx(expected, rel=1e-12, abs=1e-9, nan_ok=True)


@given(pairs(), spacings)
def test_measures_are_the_same_to_the_last_bit_for_any_slabs(volumes, spacing):
    mask, reference, edges = volumes
    at_once = by_slabs(mask, reference, [0, len(mask)], spacing)
    assert np.array_equal(
        list(by_slabs(mask, reference, edges, spacing).values()), list(at_once.values()), equal_nan=True
    )


@given(masks(sizes))
def test_surface_has_the_voxels_with_a_face_outside(mask):
    assert np.array_equal(read_surface(mask > 0, 0, len(mask)), surface(mask > 0))


def test_slabs_that_cannot_be_nearer_are_not_read():
    mask = np.zeros((40, 6, 6), bool)
    mask[20:23, 2:5, 2:5] = True
    other = np.zeros_like(mask)
    other[[2, 19, 38], 3, 3] = True
    read = []

    def reader(start, stop):
        read.append((start, stop))
        return read_surface(other, start, stop)

    slabs = [(2, 3), (19, 20), (38, 39)]
    points = points_of(read_surface(mask, 20, 23), 20)
    squares = nearest_squares(points, (1.0, 1.0, 1.0), slabs, reader)
    assert read == [(19, 20)]
    assert squares.max() == 3**2 + 1 + 1


def test_nothing_to_compare_has_no_ratio_and_no_distance():
    values = agreement_of(Overlap(), DistanceCounts(), 0.001)
    assert {key for key, value in values.items() if not isnan(value)} == {"volume_ml", "reference_ml"}


def test_empty_mask_has_no_overlap_and_no_distance():
    distances = DistanceCounts.of(np.full(6, np.inf))
    values = agreement_of(Overlap(0, 6, 0), distances, 0.001)
    assert (values["dice"], values["jaccard"], values["sensitivity"], values["surface_dice_3mm"]) == (0, 0, 0, 0)
    assert values["volume_difference_percent"] == -100
    assert all(isnan(values[key]) for key in ("precision", "asd_mm", "hd95_mm", "hd_mm"))
