"""Reduced copies of volumes: means of blocks of voxels, sampled so that the voxels are a few millimetres wide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungmix.kernels.downsampling import mean_of_blocks

Triple = tuple[int, int, int]

N_LEVELS = 3
"""Number of resolutions of an image."""

COARSEST_MM = 4.0
"""Greatest width of the voxels of the reduced copy, unless those of the scan are wider."""

FINEST_MM = 2.5
"""Greatest distance of the voxels that are sampled from a finer level."""


def level_factors(spacing_zyx: Sequence[float]) -> list[Triple]:
    """Return the voxels along z, y, x in a voxel of each resolution level of an image.

    Levels are reduced in plane. Along z they are reduced only if slices are not much thicker than pixels are wide.

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
    """Sampling of a reduced copy.

    Attributes
    ----------
    level : int
        Resolution level that is sampled.
    blocks : tuple of int
        Voxels along z, y, x in a voxel of this level.
    stride : tuple of int
        Step on this level, along z, y, x.
    """

    level: int
    blocks: Triple
    stride: Triple

    @property
    def factors(self) -> Triple:
        """Voxels of the volume in one step, along z, y, x."""
        z, y, x = (block * step for block, step in zip(self.blocks, self.stride, strict=True))
        return z, y, x

    def spacing(self, spacing_zyx: Sequence[float]) -> tuple[float, float, float]:
        """Return the spacing of the reduced voxels of a volume with some spacing, mm."""
        z, y, x = (factor * s for factor, s in zip(self.factors, spacing_zyx, strict=True))
        return z, y, x

    def apply(self, hu: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """Return the reduced copy of HU, int16 ``[z, y, x]``, which begin and end with whole steps or the volume."""
        reduced = hu if self.blocks == (1, 1, 1) else mean_of_blocks(hu, self.blocks)
        z, y, x = self.stride
        return np.ascontiguousarray(reduced[::z, ::y, ::x])


def reduction_of(spacing_zyx: Sequence[float]) -> Reduction:
    """Return the sampling of a reduced copy of an axial array.

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
