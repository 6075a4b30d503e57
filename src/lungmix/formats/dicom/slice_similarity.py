"""Similarity of neighbouring slices, by which an order is chosen if attributes and positions give different orders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError
from lungmix.formats.dicom.header import Header
from lungmix.formats.dicom.linked_components import connected_components
from lungmix.formats.dicom.read import read_slice
from lungmix.formats.dicom.stack import Frame

# Slices are compared by means of pixel blocks, so that a thousand slices need a few MB.
_BLOCKS_PER_SIDE = 64
_LOWEST, _HIGHEST = -1024, 1000
_MIN_DIFFERENCE = 1e-3
# An order is preferred if the sum of the differences of its neighbours is below this fraction of the other order's sum.
_DECISIVE_RATIO = 0.95
# Neighbours in a volume differ by less than this fraction of the difference of distant slices.
_SMOOTH_RATIO = 0.8
_DISTANT_PAIRS = 12
# Minimum number of slices for a pattern, the fraction of positions that must show it, and its strength.
_MIN_ALTERNATING_SLICES = 12
_MIN_ALTERNATING_FRACTION = 0.75
_MIN_PAIR_RATIO, _MIN_PAIRED_FRACTION = 1.2, 0.9

Edge = tuple[int, int]
Plane = npt.NDArray[np.float32]


class SimilarOrder(Enum):
    """Order in which neighbouring slices are more similar: by position, by another attribute, or unknown."""

    POSITIONS = "positions"
    ATTRIBUTE = "attribute"
    UNKNOWN = "unknown"


def more_similar_order(slices: Sequence[Header], values: Sequence[float]) -> SimilarOrder:
    """Return the order in which neighbouring slices are more similar.

    Pairs of slices that are neighbours in both orders are ignored. Other pairs are compared only with pairs that share
    a slice with them, so that each swap or moved block of slices is judged by itself. Only the slices of these pairs
    are read, one at a time, and kept in memory as means of pixel blocks.

    Parameters
    ----------
    slices : sequence of Header
        Slices in the order of positions.
    values : sequence of float
        Attribute of each slice that gives another order, such as its instance number.
    """
    by_position = {(i, i + 1) for i in range(len(slices) - 1)}
    ranks = sorted(range(len(slices)), key=lambda i: values[i])
    by_attribute = {(min(pair), max(pair)) for pair in zip(ranks, ranks[1:], strict=False)}
    position_edges, attribute_edges = sorted(by_position - by_attribute), sorted(by_attribute - by_position)
    if not position_edges:
        return SimilarOrder.POSITIONS
    moved = sorted({i for edge in (*position_edges, *attribute_edges) for i in edge})
    n = len(slices)
    picked = moved[:: max(1, len(moved) // _DISTANT_PAIRS)]
    distant = [(i, (i + n // 2) % n) for i in picked]
    try:
        differences = _differences(slices, [*position_edges, *attribute_edges, *distant])
    except SourceError:
        return SimilarOrder.UNKNOWN
    distant_difference = float(np.median([differences[edge] for edge in distant]))
    parts = [
        (sum(position_differences), sum(attribute_differences), len(position_differences), len(attribute_differences))
        for position_differences, attribute_differences in _competing_edges(
            position_edges, attribute_edges, differences
        )
    ]
    for position_differences, attribute_differences, _, count in parts:
        if (
            attribute_differences < _DECISIVE_RATIO * position_differences
            and attribute_differences < _SMOOTH_RATIO * distant_difference * count
        ):
            return SimilarOrder.ATTRIBUTE
    if all(
        position_differences < _DECISIVE_RATIO * attribute_differences
        and position_differences < _SMOOTH_RATIO * distant_difference * count
        for position_differences, attribute_differences, count, _ in parts
    ):
        return SimilarOrder.POSITIONS
    return SimilarOrder.UNKNOWN


def looks_like_two_passes(slices: Sequence[Header]) -> bool:
    """Return True if slices alternate between two passes; False if they do not or pixels cannot tell.

    In a volume a slice is more similar to its neighbour than to the next slice but one. In two passes at different
    breathing states it is not; or a slice is much more similar to one neighbour than to the other, and this side
    alternates from slice to slice.

    Parameters
    ----------
    slices : sequence of Header
        Evenly spaced slices in the order of positions.
    """
    n = len(slices)
    if n < _MIN_ALTERNATING_SLICES:
        return False
    neighbours, next_but_one = [(i, i + 1) for i in range(n - 1)], [(i, i + 2) for i in range(n - 2)]
    distant = [(i, (i + n // 2) % n) for i in range(0, n, max(1, n // _DISTANT_PAIRS))]
    try:
        differences = _differences(slices, [*neighbours, *next_but_one, *distant])
    except SourceError:
        return False
    near = np.maximum([differences[edge] for edge in neighbours], _MIN_DIFFERENCE)
    far = np.array([differences[edge] for edge in next_but_one])
    if np.median(far) >= _SMOOTH_RATIO * np.median([differences[edge] for edge in distant]):
        return False
    alternating = far < _DECISIVE_RATIO * (near[:-1] + near[1:]) / 2
    log_ratio = np.log(near[:-1] / near[1:]) * (-1.0) ** np.arange(n - 2)
    log_ratio *= np.sign(np.median(log_ratio))
    paired = np.median(log_ratio) > math.log(_MIN_PAIR_RATIO) and (log_ratio > 0).mean() >= _MIN_PAIRED_FRACTION
    return bool(alternating.mean() >= _MIN_ALTERNATING_FRACTION or paired)


def _competing_edges(
    position_edges: Sequence[Edge], attribute_edges: Sequence[Edge], differences: Mapping[Edge, float]
) -> list[tuple[list[float], list[float]]]:
    """Return pairs of lists to compare: differences of neighbours by position, and by the attribute.

    Each pair is for a set of neighbours that share slices, with equally many differences of both orders. If the order
    by position has more of them, as where a block ends at a swapped slice, the largest are kept, which favour the
    other order; the remainder of all sets forms the last pair.
    """
    edges = [*position_edges, *attribute_edges]
    pairs: list[tuple[list[float], list[float]]] = []
    remainder: tuple[list[float], list[float]] = ([], [])
    for indices in connected_components(edges):
        position_differences = sorted((differences[edges[i]] for i in indices if i < len(position_edges)), reverse=True)
        attribute_differences = sorted(differences[edges[i]] for i in indices if i >= len(position_edges))
        count = min(len(position_differences), len(attribute_differences))
        if count:
            pairs.append((position_differences[:count], attribute_differences[:count]))
        remainder[0].extend(position_differences[count:])
        remainder[1].extend(attribute_differences[count:])
    return [*pairs, remainder] if remainder[0] else pairs


def _differences(slices: Sequence[Header], edges: Sequence[Edge]) -> dict[Edge, float]:
    """Return the mean absolute difference of pairs of slices, HU."""
    planes: dict[int, Plane] = {}
    for index in {i for edge in edges for i in edge}:
        planes[index] = _block_means(slices[index])
    return {edge: float(np.abs(planes[edge[0]] - planes[edge[1]]).mean()) for edge in edges}


def _block_means(header: Header) -> Plane:
    """Return means of pixel blocks of a slice, at most `_BLOCKS_PER_SIDE` along each side."""
    frame = None if header.frame is None else Frame(header.frame, *header.rescale)
    plane = np.clip(np.asarray(read_slice(header.file, frame), np.float32), _LOWEST, _HIGHEST)
    size = [math.ceil(length / _BLOCKS_PER_SIDE) for length in plane.shape]
    rows, columns = (length // step for length, step in zip(plane.shape, size, strict=True))
    blocks = plane[: rows * size[0], : columns * size[1]].reshape(rows, size[0], columns, size[1])
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)
