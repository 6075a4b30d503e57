"""Reduced copies of volumes, whose voxels are a few millimetres wide.

Voxels are averaged in blocks, as in the resolution levels of a stored image; of the result every n-th voxel is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.downsampling import mean_of_blocks

Triple = tuple[int, int, int]

N_LEVELS = 3
"""Number of resolution levels of a stored image, with the full resolution."""

COARSEST_MM = 4.0
"""Largest width of a block of averaged voxels in the axial plane, mm, unless the voxels of the scan are wider."""

FINEST_MM = 2.5
"""Largest distance, mm, between the voxels that are taken, if several blocks fit in it."""


def level_factors(spacing_zyx: Sequence[float]) -> list[Triple]:
    """Return, for each resolution level of an image, how many voxels along z, y, x are averaged to one voxel.

    Each level has half the resolution of the one before along y and x. Along z it has half the resolution only if the
    distance of slices is at most 1.5 times the width of pixels.

    Parameters
    ----------
    spacing_zyx : sequence of float
        Voxel spacing along z, y, x, mm.
    """
    factors: list[Triple] = [(1, 1, 1)]
    while len(factors) < N_LEVELS:
        z, y, x = factors[-1]
        thin = spacing_zyx[0] * z <= 1.5 * min(spacing_zyx[1], spacing_zyx[2]) * y
        factors.append((z * (2 if thin else 1), y * 2, x * 2))
    return factors


@dataclass(frozen=True)
class Reduction:
    """Recipe of a reduced copy: every ``stride``-th voxel of a resolution level is taken.

    Attributes
    ----------
    level : int
        Number of the resolution level; 0 is the full resolution.
    blocks : tuple of int
        Number of voxels of the volume along z, y, x that are averaged to one voxel of this level.
    stride : tuple of int
        Steps along z, y, x, in voxels of this level.
    """

    level: int
    blocks: Triple
    stride: Triple

    @property
    def factors(self) -> Triple:
        """Number of voxels of the volume in one step of the reduced copy, along z, y, x."""
        z, y, x = (block * step for block, step in zip(self.blocks, self.stride, strict=True))
        return z, y, x

    def spacing(self, spacing_zyx: Sequence[float]) -> tuple[float, float, float]:
        """Return the voxel spacing of the reduced copy of a volume, mm, given that of the volume along z, y, x."""
        z, y, x = (factor * s for factor, s in zip(self.factors, spacing_zyx, strict=True))
        return z, y, x

    def apply(self, hu: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """Return the reduced copy of HU, int16 ``[z, y, x]``.

        `hu` is a volume, or a part of it that begins at a whole step and ends at one or with the volume.
        """
        reduced = hu if self.blocks == (1, 1, 1) else mean_of_blocks(hu, self.blocks)
        z, y, x = self.stride
        return np.ascontiguousarray(reduced[::z, ::y, ::x])


def reduction_of(spacing_zyx: Sequence[float]) -> Reduction:
    """Return how the reduced copy of an axial array is made, whose axes run to the head, the back and the left.

    Parameters
    ----------
    spacing_zyx : sequence of float
        Voxel spacing along z, y, x, mm.
    """
    levels = level_factors(spacing_zyx)
    level = max(
        (i for i, blocks in enumerate(levels) if max(blocks[a] * spacing_zyx[a] for a in (1, 2)) <= COARSEST_MM),
        default=0,
    )
    z, y, x = (max(1, int(FINEST_MM / (block * s))) for block, s in zip(levels[level], spacing_zyx, strict=True))
    return Reduction(level, levels[level], (z, y, x))


@dataclass(frozen=True)
class ReducedGrid:
    """Positions of the reduced voxels of a volume: they begin at multiples of their size in the space of the patient.

    Multiples are counted from the origin of this space. So a crop of a scan has the same reduced voxels as the scan,
    except for those that the border of the crop divides.

    Attributes
    ----------
    reduction : Reduction
        How the volume is reduced.
    first : tuple of int
        Index of the first voxel of the volume along z, y, x, counted from the origin of the patient space.
    """

    reduction: Reduction
    first: Triple = (0, 0, 0)

    @property
    def missing(self) -> Triple:
        """Number of voxels, along z, y, x, of the first reduced voxel that lie before the volume."""
        z, y, x = (index % factor for index, factor in zip(self.first, self.reduction.factors, strict=True))
        return z, y, x

    @property
    def first_reduced(self) -> Triple:
        """Index of the first reduced voxel along z, y, x, counted from the origin of the patient space."""
        z, y, x = (index // factor for index, factor in zip(self.first, self.reduction.factors, strict=True))
        return z, y, x

    def complete(self, hu: npt.NDArray[Any], missing: Triple | None = None) -> npt.NDArray[Any]:
        """Return HU, with the missing voxels added in front as copies of the first plane, row or column.

        Parameters
        ----------
        hu : ndarray, shape (z, y, x)
            HU.
        missing : tuple of int, optional
            Number of voxels to add along z, y, x; by default `missing` of the whole volume.
        """
        added = self.missing if missing is None else missing
        return np.pad(hu, [(n, 0) for n in added], mode="edge") if any(added) else hu

    def indices(
        self, shape: Sequence[int], indices: Sequence[npt.NDArray[np.int64]]
    ) -> tuple[npt.NDArray[np.int64], ...]:
        """Return, along each axis, the index of the reduced voxel that contains each voxel.

        Parameters
        ----------
        shape : sequence of int
            Number of reduced voxels along z, y, x.
        indices : sequence of ndarray of int64
            Indices of voxels in the volume along z, y, x.
        """
        each = zip(indices, self.missing, self.reduction.factors, shape, strict=True)
        return tuple(np.minimum((index + missing) // factor, n - 1) for index, missing, factor, n in each)
