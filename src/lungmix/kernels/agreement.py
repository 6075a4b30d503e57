"""Agreement of a mask with a reference mask: their overlap, and the distances between their surfaces.

Both follow from counts, which are made slab by slab and added up, so that no volume has to fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import nan

import numpy as np
import numpy.typing as npt

from lungmix.kernels.surfaces import Mask

TOLERANCES_MM = (1, 3)
"""Largest distances, mm, at which two surfaces still agree, in ``surface_dice_1mm`` and ``surface_dice_3mm``."""

_ROUNDING_MM = 1e-6
_PERCENT = 95


@dataclass(frozen=True)
class Overlap:
    """Numbers of voxels in a mask, in a reference mask, and in their intersection.

    Attributes
    ----------
    mask, reference : int
        Voxels in the mask; voxels in the reference.
    both : int
        Voxels in the mask and in the reference.
    """

    mask: int = 0
    reference: int = 0
    both: int = 0

    @classmethod
    def of(cls, mask: Mask, reference: Mask) -> Overlap:
        """Count the voxels of two masks of equal shape."""
        counts = (np.count_nonzero(voxels) for voxels in (mask, reference, mask & reference))
        return cls(*(int(n) for n in counts))

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(self.mask + other.mask, self.reference + other.reference, self.both + other.both)


@dataclass(frozen=True, eq=False)
class DistanceCounts:
    """Number of surface voxels at each distance from another surface.

    Attributes
    ----------
    squares : ndarray of float64
        Distinct squared distances in mm², ascending.
    counts : ndarray of int64, same shape
        Number of surface voxels at each of these distances.
    """

    squares: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, squares: npt.NDArray[np.float64]) -> DistanceCounts:
        """Count how often each squared distance occurs; `squares` has one entry per surface voxel, in mm²."""
        distinct, counts = np.unique(squares, return_counts=True)
        return cls(distinct, counts.astype(np.int64))

    @classmethod
    def total(cls, parts: Iterable[DistanceCounts]) -> DistanceCounts:
        """Add up the counts of several slabs, or those of two surfaces."""
        members = [cls(), *parts]
        squares = np.concatenate([part.squares for part in members])
        distinct, positions = np.unique(squares, return_inverse=True)
        counts = np.zeros(len(distinct), np.int64)
        np.add.at(counts, positions, np.concatenate([part.counts for part in members]))
        return cls(distinct, counts)

    @property
    def voxels(self) -> int:
        """Number of surface voxels."""
        return int(self.counts.sum())

    @property
    def is_finite(self) -> bool:
        """True if there is at least one distance, and all distances are finite."""
        return bool(len(self.squares)) and bool(np.isfinite(self.squares[-1]))

    def mean(self) -> float:
        """Return the mean distance in mm; NaN unless `is_finite`."""
        if not self.is_finite:
            return nan
        return float(np.sqrt(self.squares) @ self.counts) / self.voxels

    def percentile(self, percent: float) -> float:
        """Return a percentile in mm, interpolated linearly as in ``numpy.percentile``; NaN unless `is_finite`."""
        if not self.is_finite:
            return nan
        rank = percent / 100 * (self.voxels - 1)
        first = int(rank)
        positions = np.searchsorted(np.cumsum(self.counts), (first, min(first + 1, self.voxels - 1)), side="right")
        low, high = (float(value) for value in np.sqrt(self.squares[positions]))
        return low + (high - low) * (rank - first)

    def within(self, tolerance: float) -> int:
        """Return the number of surface voxels at most `tolerance` mm away from the other surface."""
        return int(self.counts[np.sqrt(self.squares) <= tolerance + _ROUNDING_MM].sum())


def agreement_of(overlap: Overlap, distances: DistanceCounts, voxel_ml: float) -> dict[str, float]:
    """Return the measures of agreement of a mask with a reference.

    Parameters
    ----------
    overlap : Overlap
        Voxel counts of the mask and the reference.
    distances : DistanceCounts
        Distances of the surface of the mask from that of the reference, and the reverse, added up. A distance is
        infinite if the other mask is empty.
    voxel_ml : float
        Volume of a voxel in mL.

    Returns
    -------
    dict of str to float
        Values by column of ``evaluation.csv``; see `lungmix.kernels.data_dictionary.EVALUATION`. A ratio whose
        denominator has no voxels is NaN, and so are distances where one of the masks is empty.
    """
    mask, reference, both = overlap.mask, overlap.reference, overlap.both
    return {
        "dice": _ratio(2 * both, mask + reference),
        "jaccard": _ratio(both, mask + reference - both),
        "volume_ml": mask * voxel_ml,
        "reference_ml": reference * voxel_ml,
        "volume_difference_percent": 100 * _ratio(mask - reference, reference),
        "asd_mm": distances.mean(),
        "hd95_mm": distances.percentile(_PERCENT),
        "hd_mm": distances.percentile(100),
        **{
            f"surface_dice_{tolerance}mm": _ratio(distances.within(tolerance), distances.voxels)
            for tolerance in TOLERANCES_MM
        },
        "sensitivity": _ratio(both, reference),
        "precision": _ratio(both, mask),
    }


def _ratio(part: float, total: float) -> float:
    return part / total if total else nan
