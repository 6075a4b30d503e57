"""Labels under a Potts prior, which the stage ``label`` writes on request: a second pass over HU and mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.cluster.compute import compute_in_order
from lungmix.errors import UsageError
from lungmix.graphs.memory import potts_chunks
from lungmix.kernels.labels import count_labels
from lungmix.kernels.packed_masks import span_of
from lungmix.kernels.potts import (
    WEIGHT_UNITS,
    axis_weights,
    count_neighbours,
    estimate_beta,
    potts_labels,
    tables_of,
)
from lungmix.parameters import POTTS_ITERATIONS, PottsParameters
from lungmix.store import CaseRef, CaseWriter
from lungmix.store.objects import Receipts
from lungmix.store.schema import POTTS_RECORD

if TYPE_CHECKING:
    from lungmix.mixture import TissueModel

IMAGE = "tissue_potts"
VOXELS = "potts_voxels"
"""Record key of the number of voxels of each label."""

_VERSION = 1

Components = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
"""Weights, means and variances of a mixture. Workers make tables from them, which are too large for each task."""


@dataclass(frozen=True, eq=False)
class NeighbourCounts:
    """Numbers of voxels by the arrangement of labels among their neighbours, see `count_neighbours`.

    Attributes
    ----------
    codes : ndarray of int64
        Codes that occur, ascending.
    counts : ndarray of int64
        Number of voxels of each code.
    """

    codes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, labels: npt.NDArray[np.uint8], core: slice) -> NeighbourCounts:
        """Return the counts of some slices; parameters are those of `count_neighbours`."""
        counts = count_neighbours(labels, core)
        codes = np.flatnonzero(counts)
        return cls(codes, counts[codes])

    @classmethod
    def total(cls, slabs: Sequence[NeighbourCounts]) -> NeighbourCounts:
        """Return the sum of the counts of several slabs."""
        codes, index = np.unique(np.concatenate([slab.codes for slab in slabs]), return_inverse=True)
        counts = np.zeros(len(codes), np.int64)
        np.add.at(counts, index, np.concatenate([slab.counts for slab in slabs]))
        return cls(codes, counts)


@dataclass(frozen=True)
class PottsSetting:
    """Numbers that the labels of a case under a Potts prior depend on, besides HU, mask and mixture.

    Attributes
    ----------
    beta : float
        Strength of the prior.
    is_estimated : bool
        True if the beta was estimated from the case, False if it was given.
    weights : tuple of int
        Weights of a neighbour along z, y and x, see `axis_weights`.
    """

    beta: float
    is_estimated: bool
    weights: tuple[int, int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the record of these numbers."""
        return {
            "version": _VERSION, "beta": self.beta, "estimated": self.is_estimated, "iterations": POTTS_ITERATIONS,
            "weights": [weight / WEIGHT_UNITS for weight in self.weights],
        }  # fmt: skip


def is_made_with(record: Mapping[str, Any], parameters: PottsParameters | None) -> bool:
    """Return True if the record of labels says that they were made with these parameters, or without any."""
    potts = record.get(POTTS_RECORD)
    if potts is None or parameters is None:
        return potts is None and parameters is None
    return parameters_of(record) == parameters


def parameters_of(record: Mapping[str, Any]) -> PottsParameters | None:
    """Return the parameters that the record of labels names; None without a Potts prior as in this version."""
    try:
        potts = record[POTTS_RECORD]
        if (potts["version"], potts["iterations"]) != (_VERSION, POTTS_ITERATIONS):
            return None
        return PottsParameters(None if potts["estimated"] else float(potts["beta"]))
    except (KeyError, TypeError, ValueError, UsageError):
        return None


def setting_for(
    case: CaseWriter, model: TissueModel, parameters: PottsParameters, slabs: Sequence[NeighbourCounts]
) -> PottsSetting:
    """Return the setting for a case, whose beta is estimated from the counts of its slabs if it is not given."""
    x, y, z = case.geometry.spacing
    weights = axis_weights((z, y, x))
    if parameters.beta is not None:
        return PottsSetting(parameters.beta, is_estimated=False, weights=weights)
    total = NeighbourCounts.total(slabs)
    beta = estimate_beta(total.codes, total.counts, weights, model.n_components)
    return PottsSetting(beta, is_estimated=True, weights=weights)


def smooth_case(
    client: Client,
    case: CaseWriter,
    case_ref: CaseRef,
    model: TissueModel,
    setting: PottsSetting,
    memory_limit: int | None,
) -> tuple[Receipts, dict[str, Any]]:
    """Write the labels of a case under a Potts prior, and return their receipts and their part of the record."""
    files = case.create_image(IMAGE)
    ny, nx = case.geometry.shape[1:]
    edges = np.cumsum([0, *potts_chunks(case.layout.stored, ny, nx, model.n_components, memory_limit)]).tolist()
    slabs = [dask.delayed(_read_slab)(case_ref, *span) for span in pairwise(edges)]
    ends = [dask.delayed(_outer_slices)(slab) for slab in slabs] if len(slabs) > 1 else []
    components: Components = (model.weights, model.means, model.variances)
    tasks = [
        dask.delayed(_smooth_slab)(
            slab,
            ends[i - 1] if i else None,
            ends[i + 1] if i + 1 < len(slabs) else None,
            case_ref,
            edges[i],
            components,
            setting,
        )
        for i, slab in enumerate(slabs)
    ]
    counts = np.zeros(256, np.int64)
    for slab_counts, slab_files in compute_in_order(client, tasks):
        counts += slab_counts
        files |= slab_files
    voxels = [int(n) for n in counts[: model.n_components + 1]]
    return files, {POTTS_RECORD: setting.to_dict(), VOXELS: voxels}


@dataclass(frozen=True, eq=False)
class _Slices:
    """HU and lung mask of some slices, ``[z, y, x]``; HU are 0 in rows without lung."""

    hu: npt.NDArray[np.int16]
    lung: npt.NDArray[np.uint8]


def _read_slab(case_ref: CaseRef, start: int, stop: int) -> _Slices:
    case = case_ref.open("r+")
    shape = (stop - start, *case.geometry.shape[1:])
    slices = _Slices(np.zeros(shape, np.int16), np.zeros(shape, np.uint8))
    for begin, end in case.layout.within(start, stop):
        lung = case.read("lung", begin, end)
        rows = span_of(lung.any(axis=(0, 2)))
        if rows is not None:
            slices.lung[begin - start : end - start] = lung
            slices.hu[begin - start : end - start, rows] = case.read(case.measured_image, begin, end, rows)
    return slices


def _outer_slices(slices: _Slices) -> tuple[_Slices, _Slices]:
    """Return the first and the last slices of a slab that the neighbouring slabs need."""
    parts = slice(None, POTTS_ITERATIONS), slice(-POTTS_ITERATIONS, None)
    first, last = (_Slices(slices.hu[part].copy(), slices.lung[part].copy()) for part in parts)
    return first, last


def _smooth_slab(
    slices: _Slices,
    before: tuple[_Slices, _Slices] | None,
    after: tuple[_Slices, _Slices] | None,
    case_ref: CaseRef,
    start: int,
    components: Components,
    setting: PottsSetting,
) -> tuple[npt.NDArray[np.int64], Receipts]:
    """Write the labels of a slab; return the number of voxels of each label, and receipts."""
    counts = np.zeros(256, np.int64)
    files: Receipts = {}
    hu, lung, depth = slices.hu, slices.lung, len(slices.hu)
    if not lung.any():
        counts[0] = lung.size
        return counts, files
    case = case_ref.open("r+")
    parts = [*([] if before is None else [before[1]]), slices, *([] if after is None else [after[0]])]
    first = 0 if before is None else len(before[1].hu)
    if len(parts) > 1:
        hu, lung = np.concatenate([part.hu for part in parts]), np.concatenate([part.lung for part in parts])
    core = slice(first, first + depth)
    labels = potts_labels(hu, lung, tables_of(*components), setting.weights, setting.beta, core=core)
    for begin, end in case.layout.within(start, start + depth):
        slab = labels[begin - start : end - start]
        counts += count_labels(slab)
        if slab.any():
            files |= case.write(IMAGE, begin, slab)
    return counts, files
