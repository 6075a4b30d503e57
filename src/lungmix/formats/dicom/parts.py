"""Series that change on their way through the patient, so that each part would pass for a volume of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt

from lungmix.errors import named
from lungmix.formats.dicom.groups import Group, axes_of, has_place, normal_of

_PARALLEL = 0.99
_NEXT = 1.5
_SEAM = 0.5
# A folder of files that all differ must not take hours; parts that matter are large.
_MOST_GROUPS = 256


@dataclass(frozen=True)
class _Extent:
    """Where the slices of a group lie along a direction, mm: the first, the last, their mean and usual distance."""

    first: float
    last: float
    middle: float
    usual: float

    @classmethod
    def of(cls, group: Group, normal: npt.NDArray[np.float64]) -> _Extent:
        along = np.sort(np.array([one.position for one in group.slices]) @ normal)
        usual = float(np.median(np.diff(along))) if len(along) > 1 else 0.0
        return cls(float(along[0]), float(along[-1]), float(along.mean()), usual)


def continued(groups: Sequence[Group]) -> dict[int, str]:
    """Groups that go on where another one of the same series ends, with a sentence that names the slices.

    Phases, kernels and reformats of a whole scan lie at the same places and are volumes. Where the orientation, the
    size or the kernel changes half way, each part is only a piece of one.

    Parameters
    ----------
    groups : sequence of Group
        All of a source.

    Returns
    -------
    dict of int to str
        By the index of the group; files are marked (`lungmix.errors.named`).
    """
    by_series: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        if group.first.unused is None and all(map(has_place, group.slices)):
            by_series[group.series].append(index)
    found: dict[int, str] = {}
    for indices in by_series.values():
        largest = sorted(indices, key=lambda i: -len(groups[i].slices))[:_MOST_GROUPS]
        normals = {i: normal_of(groups[i].first) for i in largest}
        known: dict[tuple[int, bytes], _Extent] = {}
        for one, two in permutations(largest, 2):
            if one in found or abs(float(normals[one] @ normals[two])) < _PARALLEL:
                continue
            extents = []
            for i in (one, two):
                key = (i, normals[one].tobytes())
                if key not in known:
                    known[key] = _Extent.of(groups[i], normals[one])
                extents.append(known[key])
            if _goes_on(*extents):
                found[one] = _told(groups[one], groups[two], first=extents[0].middle < extents[1].middle)
    return found


def _goes_on(mine: _Extent, other: _Extent) -> bool:
    """Whether one begins about where the other ends."""
    usual = max(mine.usual, other.usual)
    below, above = (mine, other) if mine.middle < other.middle else (other, mine)
    return -_SEAM * usual < above.first - below.last < _NEXT * usual


def _told(one: Group, two: Group, *, first: bool) -> str:
    # Numbers are those of both parts in the order of z.
    below, above = (len(group.slices) for group in ((one, two) if first else (two, one)))
    numbers = [_range(1, below), _range(below + 1, below + above)]
    here, there = numbers if first else numbers[::-1]
    normal = normal_of(one.first)
    return f"{here} ({_files(one, normal)}) and {there} ({_files(two, normal)}) differ in {_difference(one, two)}"


def _range(first: int, last: int) -> str:
    return f"slice {first}" if first == last else f"slices {first} to {last}"


def _files(group: Group, normal: npt.NDArray[np.float64]) -> str:
    ordered = sorted(group.slices, key=lambda one: float(np.dot(one.position, normal)))  # type: ignore[arg-type]
    ends = [named(one.file) for one in (ordered[0], ordered[-1])]
    return ends[0] if len(ordered) == 1 else f"{ends[0]} to {ends[1]}"


def _difference(one: Group, two: Group) -> str:
    a, b = one.first, two.first
    known = {
        "orientation": float(np.abs(np.stack(axes_of(a)) - np.stack(axes_of(b))).max()) > 1e-3,
        "size": (a.rows, a.columns) != (b.rows, b.columns),
        "pixel spacing": a.spacing != b.spacing,
        "kernel": a.kernel != b.kernel,
        "frame of reference": a.identity.frame_uid != b.identity.frame_uid,
        "phase": a.phase != b.phase,
    }
    return " and ".join(what for what, differs in known.items() if differs) or "acquisition"
