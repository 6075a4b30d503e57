"""How alike neighbouring slices are: what decides where attributes and positions order slices in different ways."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError
from lungmix.formats.dicom.header import Header
from lungmix.formats.dicom.linked_components import linked
from lungmix.formats.dicom.read import values_of
from lungmix.formats.dicom.stack import Frame

# Slices are compared in blocks of pixels, so that of a thousand slices a few MB are kept.
_SIDE = 64
_LOWEST, _HIGHEST = -1024, 1000
_LEAST = 1e-3
# The sums of two orders differ by this share before one is preferred.
_DECISIVE = 0.95
# Neighbours of a volume differ by less than this share of what distant slices differ.
_SMOOTH = 0.8
_DISTANT_PAIRS = 12
# Fewer slices say too little of a pattern; and what share of the places has to show it, and how clearly.
_FEWEST_ALTERNATING = 12
_MOST_PLACES = 0.75
_PAIRED, _MOST_PAIRS = 1.2, 0.9

Edge = tuple[int, int]
Plane = npt.NDArray[np.float32]


class Likeness(Enum):
    """Order in which neighbouring slices are more alike: that of positions, that of the attribute, or neither."""

    POSITIONS = "positions"
    ATTRIBUTE = "attribute"
    UNKNOWN = "unknown"


def likeness(slices: Sequence[Header], values: Sequence[float]) -> Likeness:
    """Return the order in which neighbouring slices are more alike.

    Neighbours in both orders say nothing. The others are compared where they meet: the two slices of a swapped pair
    with the slices around them, and ends of blocks with each other. Only slices that an order moves are read, one at a
    time, and kept as means of blocks of pixels.

    Parameters
    ----------
    slices : sequence of Header
        In the order of positions.
    values : sequence of float
        Attribute of each slice that orders them in another way, such as its instance number.
    """
    by_position = {(i, i + 1) for i in range(len(slices) - 1)}
    ranks = sorted(range(len(slices)), key=lambda i: values[i])
    by_attribute = {(min(pair), max(pair)) for pair in zip(ranks, ranks[1:], strict=False)}
    here, there = sorted(by_position - by_attribute), sorted(by_attribute - by_position)
    if not here:
        return Likeness.POSITIONS
    moved = sorted({i for edge in (*here, *there) for i in edge})
    n = len(slices)
    picked = moved[:: max(1, len(moved) // _DISTANT_PAIRS)]
    distant = [(i, (i + n // 2) % n) for i in picked]
    try:
        differences = _differences(slices, [*here, *there, *distant])
    except SourceError:
        return Likeness.UNKNOWN
    usual = float(np.median([differences[edge] for edge in distant]))
    parts = [(sum(ours), sum(theirs), len(ours), len(theirs)) for ours, theirs in _to_compare(here, there, differences)]
    for ours, theirs, _, count in parts:
        if theirs < _DECISIVE * ours and theirs < _SMOOTH * usual * count:
            return Likeness.ATTRIBUTE
    if all(ours < _DECISIVE * theirs and ours < _SMOOTH * usual * count for ours, theirs, count, _ in parts):
        return Likeness.POSITIONS
    return Likeness.UNKNOWN


def looks_like_two_passes(slices: Sequence[Header]) -> bool:
    """Return True if every second slice shows another pass than the slices between them; False if pixels cannot tell.

    In a volume a slice is more like its neighbour than like the next slice but one. In two passes in different breath
    it is not, or it is much more like the neighbour on one side than like the one on the other, side by side in turn.

    Parameters
    ----------
    slices : sequence of Header
        In the order of positions, evenly spaced.
    """
    n = len(slices)
    if n < _FEWEST_ALTERNATING:
        return False
    next_ones, next_but_one = [(i, i + 1) for i in range(n - 1)], [(i, i + 2) for i in range(n - 2)]
    distant = [(i, (i + n // 2) % n) for i in range(0, n, max(1, n // _DISTANT_PAIRS))]
    try:
        differences = _differences(slices, [*next_ones, *next_but_one, *distant])
    except SourceError:
        return False
    near = np.maximum([differences[edge] for edge in next_ones], _LEAST)
    far = np.array([differences[edge] for edge in next_but_one])
    if np.median(far) >= _SMOOTH * np.median([differences[edge] for edge in distant]):
        return False
    alternating = far < _DECISIVE * (near[:-1] + near[1:]) / 2
    in_turn = np.log(near[:-1] / near[1:]) * (-1.0) ** np.arange(n - 2)
    in_turn *= np.sign(np.median(in_turn))
    paired = np.median(in_turn) > math.log(_PAIRED) and (in_turn > 0).mean() >= _MOST_PAIRS
    return bool(alternating.mean() >= _MOST_PLACES or paired)


def _to_compare(
    here: Sequence[Edge], there: Sequence[Edge], differences: Mapping[Edge, float]
) -> list[tuple[list[float], list[float]]]:
    """Differences of neighbours in the one order and in the other that have slices in common, as many of each.

    Where the one order has more of them, as where a block ends beside a swapped slice, those are compared that speak
    most for the other order; the rest is compared together.
    """
    edges = [*here, *there]
    found: list[tuple[list[float], list[float]]] = []
    rest: tuple[list[float], list[float]] = ([], [])
    for indices in linked(edges):
        ours = sorted((differences[edges[i]] for i in indices if i < len(here)), reverse=True)
        theirs = sorted(differences[edges[i]] for i in indices if i >= len(here))
        count = min(len(ours), len(theirs))
        if count:
            found.append((ours[:count], theirs[:count]))
        rest[0].extend(ours[count:])
        rest[1].extend(theirs[count:])
    return [*found, rest] if rest[0] else found


def _differences(slices: Sequence[Header], edges: Sequence[Edge]) -> dict[Edge, float]:
    """Mean absolute difference of two slices, HU."""
    planes: dict[int, Plane] = {}
    for index in {i for edge in edges for i in edge}:
        planes[index] = _reduced(slices[index])
    return {edge: float(np.abs(planes[edge[0]] - planes[edge[1]]).mean()) for edge in edges}


def _reduced(header: Header) -> Plane:
    """Means of blocks of pixels of a slice, at most `_SIDE` along each side."""
    frame = None if header.frame is None else Frame(header.frame, *header.rescale)
    plane = np.clip(np.asarray(values_of(header.file, frame), np.float32), _LOWEST, _HIGHEST)
    size = [math.ceil(length / _SIDE) for length in plane.shape]
    rows, columns = (length // step for length, step in zip(plane.shape, size, strict=True))
    blocks = plane[: rows * size[0], : columns * size[1]].reshape(rows, size[0], columns, size[1])
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)
