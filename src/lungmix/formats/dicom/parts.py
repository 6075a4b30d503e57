"""Series that change on their way through the patient, so that each part would pass for a volume of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt

from lungmix.errors import named
from lungmix.formats.dicom.groups import Group, axes_of, has_place, normal_of

_PARALLEL = 0.99
_NEXT = 1.5
_SEAM = 0.5


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
        for one, two in permutations(indices, 2):
            if one not in found:
                told = _told(groups[one], groups[two])
                if told is not None:
                    found[one] = told
    return found


def _told(one: Group, two: Group) -> str | None:
    normal = normal_of(one.first)
    if abs(float(normal @ normal_of(two.first))) < _PARALLEL:
        return None
    mine, others = (_along(group, normal) for group in (one, two))
    usual = max(_usual(mine), _usual(others))
    if not usual:
        return None
    first = mine.mean() < others.mean()
    below, above = (mine, others) if first else (others, mine)
    if not -_SEAM * usual < above[0] - below[-1] < _NEXT * usual:
        return None
    # Numbers are those of both parts in the order of z.
    numbers = [_range(1, len(below)), _range(len(below) + 1, len(below) + len(above))]
    here, there = numbers if first else numbers[::-1]
    return f"{here} ({_files(one, normal)}) and {there} ({_files(two, normal)}) differ in {_difference(one, two)}"


def _along(group: Group, normal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.sort(np.array([slice_.position for slice_ in group.slices]) @ normal)


def _usual(along: npt.NDArray[np.float64]) -> float:
    return float(np.median(np.diff(along))) if len(along) > 1 else 0.0


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
