"""Filling of polygons gives what a test of each point gives, and polygons that cross themselves are detected."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix.kernels import contours as kernel
from lungmix.kernels.contours import crosses_itself, fill_contours

# Coordinates are multiples of one half, so that many pixel centres lie exactly on edges and corners.
CONTOUR = st.lists(st.tuples(*[st.integers(-4, 20).map(lambda value: value / 2)] * 2), min_size=3, max_size=8)


def is_inside(row, column, contours):
    """Return True if an odd number of edges lies to the left of a point, in exact fractions."""
    inside = False
    for points in contours:
        for (r0, c0), (r1, c1) in zip(points, [*points[1:], points[0]], strict=True):
            r0, c0, r1, c1 = map(Fraction, (r0, c0, r1, c1))
            if (r0 <= row) != (r1 <= row) and c0 + (row - r0) * (c1 - c0) / (r1 - r0) <= column:
                inside = not inside
    return inside


def slow_fill(contours, rows, columns):
    return np.array([[is_inside(row, column, contours) for column in range(*columns)] for row in range(*rows)])


@given(st.lists(CONTOUR, min_size=1, max_size=3), st.integers(0, 5), st.integers(0, 5))
def test_fill_is_that_of_each_point(contours, top, left):
    rows, columns = (top, top + 6), (left, left + 5)
    arrays = [np.array(points, float) for points in contours]
    assert np.array_equal(fill_contours(arrays, rows, columns), slow_fill(contours, rows, columns))


@given(CONTOUR)
def test_sense_and_first_point_do_not_matter(points):
    array = np.array(points, float)
    window = (0, 12), (0, 12)
    expected = fill_contours([array], *window)
    assert np.array_equal(fill_contours([array[::-1]], *window), expected)
    assert np.array_equal(fill_contours([np.roll(array, 1, axis=0)], *window), expected)


def test_edges_in_small_groups_are_filled_alike(monkeypatch):
    angles = np.linspace(0, 2 * np.pi, 300)[:-1]
    circle = 50 + np.column_stack([np.sin(angles), np.cos(angles)]) * 40
    expected = fill_contours([circle], (0, 100), (0, 100))
    monkeypatch.setattr(kernel, "_MAX_CROSSINGS", 7)
    assert np.array_equal(fill_contours([circle], (0, 100), (0, 100)), expected)


def test_contours_with_a_common_edge_share_no_pixel():
    left = np.array([(0, 0), (0, 4), (8, 6), (8, 0)], float)
    right = np.array([(0, 4), (0, 9), (8, 9), (8, 6)], float)
    parts = [fill_contours([points], (0, 9), (0, 10)) for points in (left, right)]
    whole_outline = fill_contours([np.array([(0, 0), (0, 9), (8, 9), (8, 0)], float)], (0, 9), (0, 10))
    assert not (parts[0] & parts[1]).any()
    assert np.array_equal(parts[0] | parts[1], whole_outline)
    assert whole_outline.sum() == 8 * 9


@pytest.mark.parametrize("scale", [1, 10, 200])
def test_polygons_that_cross_themselves_are_detected(scale):
    bow = np.array([(0, 0), (9, 9), (9, 0), (0, 9)], float) * scale
    turns = np.radians([0, 144, 288, 72, 216])
    star = np.column_stack([np.sin(turns), np.cos(turns)]) * 20 * scale
    square = np.array([(0, 0), (0, 9), (9, 9), (9, 0)], float) * scale
    assert crosses_itself(bow)
    assert crosses_itself(bow[:, ::-1])
    assert crosses_itself(star)
    assert not crosses_itself(square)
    assert not crosses_itself(square[::-1])


def test_long_polygons_are_followed_by_fewer_lines(monkeypatch):
    zigzag = np.column_stack([np.tile([0.0, 900.0], 500), np.arange(1000) / 2])
    zigzag = np.vstack([zigzag, [(-10, 510), (-10, -10)]])
    counts, follow = [], kernel.crossings
    monkeypatch.setattr(kernel, "_MAX_CROSSINGS", 10_000)

    def recorded(*arguments):
        for part in follow(*arguments):
            counts.append(len(part[0]))
            yield part

    monkeypatch.setattr(kernel, "crossings", recorded)
    assert not crosses_itself(zigzag)
    assert sum(counts) < 20_000


def test_holes_cut_by_a_channel_and_rounded_corners_do_not_cross():
    keyhole = np.array(
        [(0, 0), (0, 30), (30, 30), (30, 0), (0, 0), (10, 10), (20, 10), (20, 20), (10, 20), (10, 10)], float
    )
    assert not crosses_itself(keyhole)
    assert fill_contours([keyhole], (0, 31), (0, 31)).sum() == 30 * 30 - 10 * 10
    loop = np.array([(0, 0), (0, 30), (30, 30), (30, 0.1), (29.9, -0.1), (29.9, 0.1), (30, 0)], float)
    assert not crosses_itself(loop)
    assert not crosses_itself(np.array([(5, 5), (5, 9), (5, 5)], float))
