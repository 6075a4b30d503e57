"""Lungs that the preset ``anatomical`` finds if the border of the image cuts the chest."""

import numpy as np
import pytest

import lungmix
from lungmix.kernels.rejected_components import is_enclosed
from support.patients import AERATED, Consolidation, Patient, scan

SPACING = (5.0, 4.0, 4.0)
MARGIN_MM = 20


@pytest.fixture(scope="module")
def chest():
    return scan(Patient(spacing=SPACING, diseases=(Consolidation(-1, 40.0),)))


@pytest.fixture(scope="module")
def lung(chest):
    return lungs_of(chest.hu)


def lungs_of(hu):
    return np.asarray(lungmix.lung_mask(np.ascontiguousarray(hu), "anatomical", spacing=SPACING[::-1])) > 0


def box_of(mask, axis):
    indices = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    return int(indices[0]), int(indices[-1]) + 1


@pytest.mark.parametrize(
    ("axis", "first_mm", "last_mm"),
    [(2, 30, 0), (2, 0, 30), (2, 25, 25), (1, 25, 0), (0, 60, 0), (0, 0, 40)],
)
def test_a_cut_through_the_lungs_changes_no_voxel_away_from_it(chest, lung, axis, first_mm, last_mm):
    low, high = box_of(lung, axis)
    cut, margin = slice(None), slice(None)
    if first_mm:
        start = low + round(first_mm / SPACING[axis])
        cut, margin = slice(start, cut.stop), slice(round(MARGIN_MM / SPACING[axis]), None)
    if last_mm:
        stop = high - round(last_mm / SPACING[axis])
        cut, margin = slice(cut.start, stop), slice(margin.start, -round(MARGIN_MM / SPACING[axis]))
    crop, inner = ([slice(None)] * 3 for _ in range(2))
    crop[axis], inner[axis] = cut, margin
    expected = lung[tuple(crop)][tuple(inner)]
    np.testing.assert_array_equal(lungs_of(chest.hu[tuple(crop)])[tuple(inner)], expected)


@pytest.mark.parametrize("mm", [15, 30])
def test_lungs_that_the_image_cuts_on_all_four_sides_are_kept(chest, lung, mm):
    rows, columns = (
        slice(box_of(lung, axis)[0] + round(mm / SPACING[axis]), box_of(lung, axis)[1] - round(mm / SPACING[axis]))
        for axis in (1, 2)
    )
    mask = lungs_of(chest.hu[:, rows, columns])
    aerated = np.isin(chest.part, AERATED)[:, rows, columns]
    assert (mask & aerated).sum() > 0.98 * aerated.sum()


def test_air_outside_whose_hu_are_shifted_to_those_of_lung_is_not_enclosed():
    """All rays out of this air meet the body or leave the image, but it holds the corners of the slices."""
    body = np.zeros((4, 30, 40), bool)
    body[:, 4:26, 1:39] = True
    for piece in (~body, ~body & (np.arange(30) < 15)[:, None], ~body & (np.arange(30) >= 15)[:, None]):
        assert not is_enclosed(piece, body, np.where(body, 40, -930).astype(np.int16), [1, 2])


def test_a_mattress_under_the_body_is_not_enclosed():
    body, mattress = np.zeros((4, 40, 40), bool), np.zeros((4, 40, 40), bool)
    body[:, 5:25, 5:35], mattress[:, 25:38, 3:37] = True, True
    hu = np.where(body, 40, np.where(mattress, -900, -1000)).astype(np.int16)
    assert not is_enclosed(mattress, body, hu, [1, 2])
    hu[hu == -1000] = -3024
    assert not is_enclosed(mattress, body, hu, [1, 2])
