"""Side: reads mask, air and image, writes the sides and the counts per HU by side; depends on the mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.engine.gather import gather_small
from lungmix.geometry import Geometry
from lungmix.kernels.bits import unpack
from lungmix.kernels.counts import N_HU
from lungmix.kernels.mask import recipe_for
from lungmix.kernels.sides import Labels, Reduced, find_sides, nearest_rows, side_counts
from lungmix.parameters import MaskParameters
from lungmix.stages import convert, mask
from lungmix.store import Case, CaseRef, Cohort
from lungmix.store.records import key_of
from lungmix.tissue import SIDES

STAGE = "side"
COARSEST_MM = 4.0
"""Voxels of the reduced copy are at most this wide, unless those of the scan are wider."""

FINEST_MM = 2.5
"""Of a finer level only every so many voxels are taken as come nearest to this from below."""


def key_for(case: Case) -> str:
    """What sides depend on."""
    return key_of(stage=STAGE, version=1, mask=case.stages[mask.STAGE]["key"], direction=list(case.geometry.direction))


def side_case(client: Client, cohort: Cohort, name: str, watch: Callable[[int, int], None] | None = None) -> str:
    """Tell the lungs of a masked case apart, unless that is done."""
    case = cohort[name]
    key = key_for(case)
    if is_valid(case):
        return "kept"
    case.forget(STAGE)
    case.create("side")
    where = CaseRef(cohort.url, name)
    # The reduced answer goes from worker to worker: it holds a few million voxels at most.
    small = dask.delayed(_decide)(where)
    finish = dask.delayed(_finish_slab)
    found = gather_small(client, [finish(small, where, start, stop) for start, stop in case.layout.slabs()], watch)
    counts = reduce(np.add, (one.dense() for one in found))
    touches = reduce(np.logical_or, (one.touches for one in found))
    case.write_side_counts(counts)
    voxels = {side.key: int(n) for side, n in zip(SIDES, counts.sum(axis=1), strict=True)}
    faces = {
        side.key: [face for face, hit in zip(FACES, row, strict=True) if hit]
        for side, row in zip(SIDES, touches, strict=True)
    }
    case.record(STAGE, {"key": key, "voxels": voxels, "touches": faces})
    return "done"


def is_valid(case: Case) -> bool:
    """Whether a masked case has the sides of its mask."""
    return case.stages.get(STAGE, {}).get("key") == key_for(case)


def cases_without(cohort: Cohort) -> list[str]:
    """Masked and converted cases that lack the sides of their mask."""
    return [
        name
        for name, case in cohort.items()
        if {mask.STAGE, convert.STAGE} <= case.stages.keys() and not is_valid(case)
    ]


FACES = ("z first", "z last", "y first", "y last", "x first", "x last")
"""Ends of the volume that a lung can touch, by array axis."""


@dataclass(frozen=True, eq=False)
class _Found:
    """What a slab holds of each side; counts without the zeros, for they travel.

    Attributes
    ----------
    index : ndarray of int64
        Places in the flat counts.
    count : ndarray of uint64
        Their values.
    touches : ndarray of bool, shape (4, 6)
        Side by end of the volume.
    """

    index: npt.NDArray[np.int64]
    count: npt.NDArray[np.uint64]
    touches: npt.NDArray[np.bool_]

    def dense(self) -> npt.NDArray[np.uint64]:
        counts = np.zeros(len(SIDES) * N_HU, np.uint64)
        counts[self.index] = self.count
        return counts.reshape(len(SIDES), N_HU)


def reduced_factors(case: Case) -> tuple[int, tuple[int, int, int], tuple[int, int, int]]:
    """The level that a reduced copy is taken from, the stride on it, and voxels of the scan in one step of both."""
    spacing, levels = case.geometry.spacing_zyx, case.layout.levels
    level = max(
        (i for i, one in enumerate(levels) if max(one.factors[a] * spacing[a] for a in (1, 2)) <= COARSEST_MM),
        default=0,
    )
    z, y, x = (max(1, int(FINEST_MM / (factor * s))) for factor, s in zip(levels[level].factors, spacing, strict=True))
    a, b, c = levels[level].factors
    return level, (z, y, x), (a * z, b * y, c * x)


def steps_of(geometry: Geometry, factors: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Way in LPS, mm, of a step along z, y, x: the columns of a 3 x 3 matrix."""
    columns = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    return np.asarray(columns[:, ::-1] * factors, np.float64)


def _decide(where: CaseRef) -> Labels:
    case = where.open()
    parameters = MaskParameters(**case.stages[mask.STAGE]["parameters"])
    recipe = recipe_for(parameters, case.geometry.spacing_zyx)
    return find_sides(_reduced(case), recipe.closings)


def _reduced(case: Case) -> Reduced:
    level, stride, factors = reduced_factors(case)
    lung, hu = (_strided(case, name, level, stride) for name in ("lung", "ct"))
    nx = case.geometry.shape[2]
    air = [
        unpack(case.read_packed(convert.AIR, start, stop)[-start % factors[0] :: factors[0], :: factors[1]], nx)[
            ..., :: factors[2]
        ]
        for start, stop in case.layout.slabs()
    ]
    return Reduced(lung > 0, np.concatenate(air) > 0, hu, factors, steps_of(case.geometry, factors))


def _strided(case: Case, name: str, level: int, stride: tuple[int, int, int]) -> npt.NDArray[Any]:
    """Every so many voxels of a level of an image; no more than a stored slab is in memory at a time."""
    source, thick = case.zarr_array(name, level), case.layout.levels[level].shards[0]
    z, y, x = stride
    parts = [
        np.ascontiguousarray(np.asarray(source[start : start + thick])[-start % z :: z, ::y, ::x])
        for start in range(0, source.shape[0], thick)
    ]
    return np.concatenate(parts)


def _finish_slab(small: Labels, where: CaseRef, start: int, stop: int) -> _Found:
    case = where.open("r+")
    lung = case.read("lung", start, stop)
    touches = np.zeros((len(SIDES), len(FACES)), np.bool_)
    hit = np.flatnonzero(lung.any(axis=(0, 2)))
    if not hit.size:
        return _Found(np.zeros(0, np.int64), np.zeros(0, np.uint64), touches)
    factors, shape = reduced_factors(case)[2], case.geometry.shape
    low, high = int(hit[0]), int(hit[-1]) + 1
    spans = ((start, stop), (low, high), (0, shape[2]))
    near = [nearest_rows(*span, factor, n) for span, factor, n in zip(spans, factors, small.shape, strict=True)]
    labels = np.zeros(lung.shape, np.uint8)
    # Only the rows that hold lung are read.
    labels[:, low:high], counts = side_counts(
        case.read("ct", start, stop, slice(low, high)), lung[:, low:high], small, near
    )
    case.write("side", start, labels)
    ends = (
        labels[:1] if start == 0 else labels[:0], labels[-1:] if stop == shape[0] else labels[:0],
        labels[:, :1], labels[:, -1:], labels[:, :, :1], labels[:, :, -1:],
    )  # fmt: skip
    for face, end in enumerate(ends):
        for side in SIDES:
            touches[side.label - 1, face] = bool((end == side.label).any())
    flat = counts.reshape(-1)
    index = np.flatnonzero(flat)
    return _Found(index, flat[index], touches)
