"""Descending aorta of a scan without contrast agent, found on the reduced copy of the scan.

In each axial slice below the carina, every circle of 8 to 20 mm radius near the spine gets a score. The score is the
share of the outline of the circle at which HU change: blood is inside, and lung, fat or bone is outside. The
descending aorta is the chain of circles in consecutive slices with the largest sum of scores above a threshold. From a
slice to the next, centre and radius of the circles change little.

A wrong tube is worse than none, so a chain is rejected for any of the reasons in `NoBlood`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.airway import Mask

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

RADII_MM = (8.0, 9.5, 11.0, 12.5, 14.0, 15.5, 17.0, 18.5, 20.0)
"""Radii of the circles, mm. The descending aorta of an adult is 24 to 25 mm wide, with a standard deviation of 4 mm
(Hager et al. 2002, doi 10.1067/mtc.2002.122310)."""

BLOOD_HU = (20.0, 75.0)
"""Smallest and largest median HU of blood without contrast agent. In the descending aorta of 325 patients, half of the
values were from 29 to 45 HU, and below 20 HU the anaemia was severe (doi 10.1038/s41598-022-24265-8). Blood above 75 HU
holds contrast agent."""

TISSUE_HU = -10.0
"""Smallest mean HU inside a circle."""

SEARCH_HU = (-1000, 150)
"""Range to which HU are clipped for the search. With contrast agent, wide voxels at the border of the aorta mix blood
with lung; the upper limit makes most of them as bright as the blood."""

LUNG_HU = -300.0
"""Upper limit of the HU of lung outside a circle; reduced voxels at the border mix lung and vessel."""

EDGE_HU = (30.0, 90.0)
"""Differences of a point outside the circle to the mean HU inside it that count as no edge, and as a full edge. Fat
differs from blood by 130 HU and muscle by 10 HU; noise of the mean of a few slices is below 30 HU."""

BONE_SHARE = 0.15
"""Largest share of the outline at which edges to brighter voxels, such as bone, count. The aorta touches the spine with
a small part of its outline; a circle in soft tissue between spine and lung touches it with 40 %."""

EVEN_HU = 60.0
"""Difference to the mean HU inside the circle that points inside its outline must not reach."""

INSIDE_MM, OUTSIDE_MM = 2.5, 3.0
"""Distance from the outline, mm, of the points inside and outside it whose HU are compared."""

LUNG_MM = 8.0
"""Distance from the outline, mm, at which lung must lie to the left; nearer points can be fat around the aorta."""

N_DIRECTIONS = 24
"""Number of points at the outline of a circle."""

LEFT_LUNG, RIGHT_LUNG = 0.6, 0.5
"""Smallest share of lung to the left of a circle, and largest share to its right, where the spine is."""

UNEVEN_OUTLINE = 0.2
"""Largest share of points inside the outline that differ from the mean of the circle."""

ABOVE_MM, BELOW_MM = 15.0, 200.0
"""Extent of the search above and below the lowest slice of the trachea, mm."""

WINDOW_MM = ((-20.0, 90.0), (-15.0, 75.0))
"""Extent of the search from the carina to the back and to the left, mm."""

SMOOTHING_MM = 12.0
"""Largest thickness, mm, of the odd number of slices whose mean is searched."""

THRESHOLD = 0.45
"""Score that a circle must exceed to extend a chain."""

LARGEST_SLOPE = 0.7
"""Largest sideways shift of the centre per distance of slices."""

SHIFT_COST = 0.02
"""Loss of score for each 3 mm that the centre moves, and for each change of the radius, between slices."""

SHORTEST_MM = 60.0
"""Smallest length of the chain, mm."""

LEAST_SCORE = 0.65
"""Smallest mean score of the chain."""

RADIUS_STEPS = 1
"""Largest difference of a radius to the median radius of the chain, in steps of `RADII_MM`. The longest part of the
chain without a larger difference is used."""

BONE_HU = 150.0
"""Lower limit of the HU of bone."""

BONE_MM = 40.0
"""Largest distance of bone from the centre of a circle, mm, that counts as bone of the spine."""

SPINE_MM = 4.0
"""Smallest distance, mm, between the outline of the circle and the centre of the bone around it. The centre of the bone
around a vertebral body, which can have the HU of blood in osteoporosis, is inside the body."""

BESIDE_SPINE = 0.7
"""Smallest share of circles with this distance to the bone behind them."""

RIM_MM = 5.0
"""Width, mm, of the rim of the circle that is not measured: wall, calcified plaque and partial volume."""

SMALLEST_CORE_MM = 4.0
"""Smallest radius, mm, of the measured part of a circle."""

LARGEST_SPREAD_HU = 15.0
"""Largest robust standard deviation of the median HU of slices, without the part that is due to noise. In one patient,
medians vary by about 10 HU from slice to slice, because of motion and beam hardening."""

FEWEST_VOXELS = 50
"""Smallest number of reduced voxels of blood."""


class NoBlood(StrEnum):
    """Reason why a scan has no value of blood in the descending aorta."""

    NO_TRACHEA = "no trachea"
    NO_TUBE = "no tube like a descending aorta"
    SHORT = "tube shorter than 60 mm"
    UNCLEAR = "unclear outline"
    NOT_BESIDE_SPINE = "tube not beside the spine"
    ABOVE = "HU above those of blood without contrast agent"
    BELOW = "HU below those of blood"
    UNEVEN = "HU differ between slices"


@dataclass(frozen=True, eq=False)
class Aorta:
    """Descending aorta, or the reason why there is none that can be measured.

    Attributes
    ----------
    centres : ndarray of intp, shape (n, 3)
        Index along z, y, x of the centre of each circle, from the feet to the head.
    radii_mm : ndarray of float32, shape (n,)
        Radius of each circle.
    hu : float
        Median HU of the voxels of blood; NaN if no tube was found.
    voxels : int
        Number of reduced voxels of blood.
    score : float
        Mean score of the circles, from 0 to 1; NaN if no tube was found.
    problem : NoBlood or None
        Reason why `hu` is no reference for blood; None if it is one.
    """

    centres: Indices
    radii_mm: Floats
    hu: float
    voxels: int
    score: float
    problem: NoBlood | None


def find_aorta(hu: npt.NDArray[np.int16], tube: Mask, spacing: Sequence[float]) -> Aorta:
    """Find the descending aorta below the trachea, and measure its blood.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of the reduced voxels of an axial array: z runs to the head, y to the back, x to the left.
    tube : ndarray of bool, same shape
        Trachea, as in `lungmix.kernels.airway.Airway.tube`.
    spacing : sequence of float
        Voxel spacing along z, y, x, mm.

    Returns
    -------
    Aorta
        The longest clear tube; `problem` says why it is not used.
    """
    slices = np.flatnonzero(tube.any(axis=(1, 2)))
    if not slices.size:
        return _none(NoBlood.NO_TRACHEA)
    # Points at the outline, and bone of the spine, can lie outside the searched box.
    margin = math.ceil(max(RADII_MM[-1] + LUNG_MM, BONE_MM) / min(spacing[1:])) + 2
    start, window = _window(hu, tube, spacing, margin)
    scores = _scores(_smoothed(np.clip(window, *SEARCH_HU), spacing[0]), spacing, margin)
    chain = _uniform_part(_best_chain(scores, spacing))
    if not len(chain):
        return _none(NoBlood.NO_TUBE)
    z, y, x, r = chain.T
    radii = np.asarray(RADII_MM, np.float32)[r]
    blood = [
        _core(window[k], (j + margin, i + margin), float(radius), spacing)
        for k, j, i, radius in zip(z, y, x, radii, strict=True)
    ]
    values = np.concatenate(blood)
    median, score = float(np.median(values)), float(scores[r, z, y, x].mean())
    spine = np.array([_spine_mm(window[k], (j + margin, i + margin), spacing) for k, j, i in zip(z, y, x, strict=True)])
    beside_spine = np.count_nonzero(spine - radii >= SPINE_MM)
    tests = (
        (NoBlood.ABOVE, median > BLOOD_HU[1]),
        (NoBlood.NOT_BESIDE_SPINE, beside_spine < BESIDE_SPINE * len(chain)),
        (NoBlood.SHORT, len(chain) * spacing[0] < SHORTEST_MM or values.size < FEWEST_VOXELS),
        (NoBlood.UNCLEAR, score < LEAST_SCORE),
        (NoBlood.BELOW, median < BLOOD_HU[0]),
        (NoBlood.UNEVEN, _spread_of_slices(blood) > LARGEST_SPREAD_HU),
    )
    problem = next((reason for reason, fails in tests if fails), None)
    return Aorta(chain[:, :3] + start, radii, median, int(values.size), score, problem)


def _none(problem: NoBlood) -> Aorta:
    return Aorta(np.empty((0, 3), np.intp), np.empty(0, np.float32), math.nan, 0, math.nan, problem)


def _window(
    hu: npt.NDArray[np.int16], tube: Mask, spacing: Sequence[float], margin: int
) -> tuple[npt.NDArray[np.intp], Floats]:
    """Return the box that is searched: the index of its first voxel, and its HU with a margin along y and x.

    Voxels outside the image have -1000 HU.
    """
    lowest = int(np.flatnonzero(tube.any(axis=(1, 2)))[0])
    end = tube[lowest : lowest + max(1, round(10 / spacing[0]))]
    carina = [float(np.median(indices)) for indices in np.nonzero(end)[1:]]
    first = max(0, lowest - round(BELOW_MM / spacing[0]))
    last = min(len(hu), lowest + 1 + round(ABOVE_MM / spacing[0]))
    starts, spans, padding = [first], [slice(first, last)], [(0, 0)]
    for axis, (centre, extent) in enumerate(zip(carina, WINDOW_MM, strict=True), 1):
        low, high = (round(centre + mm / spacing[axis]) for mm in extent)
        starts.append(low)
        n = hu.shape[axis]
        inside = [min(max(index, 0), n) for index in (low - margin, high + margin)]
        spans.append(slice(*inside))
        padding.append((inside[0] - low + margin, high + margin - inside[1]))
    window = np.clip(hu[tuple(spans)], -1000, 1000).astype(np.float32)
    return np.array(starts, np.intp), np.pad(window, padding, constant_values=-1000)


def _smoothed(window: Floats, slice_mm: float) -> Floats:
    """Return the mean of neighbouring slices, which together are at most `SMOOTHING_MM` thick."""
    n = int(SMOOTHING_MM / slice_mm)
    n -= 1 - n % 2
    return np.asarray(ndimage.uniform_filter1d(window, n, axis=0, mode="nearest")) if n > 1 else window


def _scores(window: Floats, spacing: Sequence[float], margin: int) -> Floats:
    """Return the score of each circle, shape (radius, z, y, x); -1 for circles that cannot be an aorta."""
    angles = [2 * math.pi * k / N_DIRECTIONS for k in range(N_DIRECTIONS)]
    left = [math.cos(angle) > 0.7 for angle in angles]
    right = [math.cos(angle) < -0.3 for angle in angles]

    def at(distance: float, angle: float) -> Floats:
        return _shifted(
            window, distance * math.sin(angle) / spacing[1], distance * math.cos(angle) / spacing[2], margin
        )

    no_edge, full_edge = (np.float32(limit) for limit in EDGE_HU)
    out = []
    for radius in RADII_MM:
        few = angles[::3]
        mean = (at(0.0, 0.0) + sum(at(radius / 2, angle) for angle in few)) / np.float32(len(few) + 1)
        darker, bright, uneven, lung_left, lung_right = (np.zeros_like(mean) for _ in range(5))
        for angle, is_left, is_right in zip(angles, left, right, strict=True):
            even = np.abs(at(radius - INSIDE_MM, angle) - mean) < EVEN_HU
            outside = at(radius + OUTSIDE_MM, angle)
            difference = outside - mean
            edge = np.clip((np.abs(difference) - no_edge) / (full_edge - no_edge), 0, 1) * even
            brighter = difference > 0
            darker += edge * ~brighter
            bright += edge * brighter
            uneven += ~even
            if is_left:
                lung_left += at(radius + LUNG_MM, angle) < LUNG_HU
            if is_right:
                lung_right += outside < LUNG_HU
        possible = (
            (lung_left >= LEFT_LUNG * sum(left))
            & (lung_right <= RIGHT_LUNG * sum(right))
            & (uneven <= UNEVEN_OUTLINE * N_DIRECTIONS)
            & (mean > TISSUE_HU)
        )
        edges = darker + np.minimum(bright, np.float32(BONE_SHARE * N_DIRECTIONS))
        out.append(np.where(possible, edges / np.float32(N_DIRECTIONS), np.float32(-1)))
    return np.stack(out)


def _shifted(window: Floats, dy: float, dx: float, margin: int) -> Floats:
    """Return the window without its margin, shifted by fractions of voxels with linear interpolation."""
    row, column = math.floor(dy), math.floor(dx)
    y, x = np.float32(dy - row), np.float32(dx - column)
    height, width = window.shape[1] - 2 * margin, window.shape[2] - 2 * margin
    part = window[:, margin + row : margin + row + height + 1, margin + column : margin + column + width + 1]
    rows = (1 - y) * part[:, :-1] + y * part[:, 1:]
    return np.asarray((1 - x) * rows[..., :-1] + x * rows[..., 1:])


def _best_chain(scores: Floats, spacing: Sequence[float]) -> Indices:
    """Return the chain of circles with the largest sum, as rows of slice, row, column and index of the radius.

    Each circle adds its score above `THRESHOLD`, and each step between slices costs `SHIFT_COST`. The chain is empty if
    no circle exceeds the threshold.
    """
    n_radii, n_slices, height, width = scores.shape
    moves = list(_moves(spacing))
    reach = max(dy for _, dy, _, _ in moves)
    steps = np.full(scores.shape, -1, np.int16)
    sums = scores - np.float32(THRESHOLD)
    for z in range(1, n_slices):
        border = [(1, 1), (reach, reach), (reach, reach)]
        before = np.pad(sums[:, z - 1], border, constant_values=-1)
        best = np.zeros((n_radii, height, width), np.float32)
        for index, (dr, dy, dx, cost) in enumerate(moves):
            candidate = (
                before[1 + dr : 1 + dr + n_radii, reach + dy : reach + dy + height, reach + dx : reach + dx + width]
                - cost
            )
            better = candidate > best
            best[better] = candidate[better]
            steps[:, z][better] = index
        sums[:, z] += best
    r, z, y, x = (int(index) for index in np.unravel_index(int(sums.argmax()), sums.shape))
    if sums[r, z, y, x] <= 0:
        return np.empty((0, 4), np.intp)
    chain = [(z, y, x, r)]
    while steps[r, z, y, x] >= 0:
        dr, dy, dx, _ = moves[steps[r, z, y, x]]
        r, z, y, x = r + dr, z - 1, y + dy, x + dx
        chain.append((z, y, x, r))
    return np.array(chain[::-1], np.intp)


def _uniform_part(chain: Indices) -> Indices:
    """Return the longest run of a chain whose radii are near the median radius, see `RADIUS_STEPS`."""
    if not len(chain):
        return chain
    near = np.abs(chain[:, 3] - np.median(chain[:, 3])) <= RADIUS_STEPS
    edges = np.flatnonzero(np.diff(np.concatenate([[False], near, [False]])))
    starts, stops = edges[::2], edges[1::2]
    longest = int((stops - starts).argmax())
    return chain[starts[longest] : stops[longest]]


def _moves(spacing: Sequence[float]) -> Iterator[tuple[int, int, int, np.float32]]:
    """Yield the steps of radius, row and column from a slice to the one below, with their costs, cheapest first."""
    reach = max(1, round(LARGEST_SLOPE * spacing[0] / min(spacing[1], spacing[2])))
    around = range(-reach, reach + 1)
    steps = [
        (SHIFT_COST * (abs(dr) + math.hypot(dy * spacing[1], dx * spacing[2]) / 3), dr, dy, dx)
        for dr in (-1, 0, 1)
        for dy in around
        for dx in around
    ]
    for cost, dr, dy, dx in sorted(steps):
        yield dr, dy, dx, np.float32(cost)


def _core(plane: Floats, centre: tuple[int, int], radius: float, spacing: Sequence[float]) -> Floats:
    """Return the HU of the voxels of a slice inside a circle without its rim."""
    core_mm = max(radius - RIM_MM, SMALLEST_CORE_MM)
    rows, columns = (int(core_mm / spacing[axis]) for axis in (1, 2))
    y, x = np.ogrid[-rows : rows + 1, -columns : columns + 1]
    inside = (y * spacing[1]) ** 2 + (x * spacing[2]) ** 2 <= core_mm**2
    part = plane[centre[0] - rows : centre[0] + rows + 1, centre[1] - columns : centre[1] + columns + 1]
    return np.asarray(part[inside])


def _spread_of_slices(blood: Sequence[Floats]) -> float:
    """Return the robust standard deviation of the medians of slices, HU, without that expected from noise."""
    medians = np.array([np.median(values) for values in blood])
    spread = _robust_sd(medians)
    noise = float(np.median([_robust_sd(values) for values in blood]))
    # The variance of a median of n normal values is about pi / 2 times that of their mean.
    voxels = float(np.median([values.size for values in blood]))
    expected = math.pi / 2 * noise**2 / voxels
    return math.sqrt(max(spread**2 - expected, 0.0))


def _robust_sd(values: npt.NDArray[Any]) -> float:
    """Return the standard deviation of a normal distribution with the same median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _spine_mm(plane: Floats, centre: tuple[int, int], spacing: Sequence[float]) -> float:
    """Return the distance of a point of a slice to the centre of the bone around it, mm; NaN without bone behind it."""
    rows, columns = (int(BONE_MM / spacing[axis]) for axis in (1, 2))
    y, x = np.ogrid[-rows : rows + 1, -columns : columns + 1]
    part = plane[centre[0] - rows : centre[0] + rows + 1, centre[1] - columns : centre[1] + columns + 1]
    dy, dx = y * spacing[1], x * spacing[2]
    bone = (part > BONE_HU) & (dy**2 + dx**2 <= BONE_MM**2)
    n = int(np.count_nonzero(bone))
    back, left = (float((distance * bone).sum()) / max(n, 1) for distance in (dy, dx))
    return math.hypot(back, left) if n and back > 0 else math.nan
