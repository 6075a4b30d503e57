"""Lungs with lesions, vessels and thin walls, whose tissue is known in each voxel, for methods that smooth labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lungmix.mixture import TissueModel
from lungmix.phantom.scene import TISSUE_MEANS, TISSUE_SDS

AIR, HEALTHY, GGO, CONSOLIDATION, OTHER = range(1, 6)


@dataclass(frozen=True)
class Lesions:
    """Two lungs of healthy tissue with emphysema, ground glass, consolidation, vessels and thin walls.

    Attributes
    ----------
    shape : tuple of int
        ``(z, y, x)`` voxels.
    spacing : tuple of float
        Spacing along z, y, x, mm.
    wall_mm : float
        Thickness of the walls, which are as dense as consolidation; 0 for none.
    noise : float
        SD of noise that is added to the HU of the tissues, HU.
    blur : float
        SD of the point spread of tissues and noise in a slice, voxels; 0 for independent voxels.
    seed : int
        Seed of shapes and HU.
    """

    shape: tuple[int, int, int] = (64, 160, 160)
    spacing: tuple[float, float, float] = (1.25, 0.8, 0.8)
    wall_mm: float = 0.8
    noise: float = 0.0
    blur: float = 0.0
    seed: int = 0

    def truth(self):
        """Return the tissue of each voxel: uint8, 0 outside the lungs."""
        random = np.random.default_rng(self.seed)
        extent = np.array(self.shape) * self.spacing
        z, y, x = np.ogrid[tuple(slice(step / 2, size, step) for step, size in zip(self.spacing, extent, strict=True))]
        truth = np.zeros(self.shape, np.uint8)
        for middle in (0.26, 0.74):
            distance = ((z / extent[0] - 0.5) / 0.6) ** 2 + ((y / extent[1] - 0.5) / 0.47) ** 2
            truth[distance + ((x / extent[2] - middle) / 0.23) ** 2 < 1] = HEALTHY
        lung = np.argwhere(truth)

        def blob(radius):
            """Return an irregular blob around a voxel of the lungs; its size is known by its radius in mm."""
            centre = lung[random.integers(len(lung))] * self.spacing
            phase = random.uniform(0, 2 * np.pi, 3)
            steps = [(axis - c) / radius for axis, c in zip((z, y, x), centre, strict=True)]
            bumps = sum(np.sin(3.5 * step + shift) for step, shift in zip(steps, phase, strict=True))
            return sum(step**2 for step in steps) + 0.2 * bumps < 1

        volume = len(lung) * float(np.prod(self.spacing))
        count = max(1, round(volume / 60_000))
        for tissue, radii, often in ((AIR, (5, 11), 2), (GGO, (6, 14), 3), (CONSOLIDATION, (4, 9), 2)):
            for _ in range(often * count):
                truth[blob(random.uniform(*radii)) & (truth > 0)] = tissue
        for _ in range(2 * count):
            # Walls are pieces of planes.
            normal = random.normal(size=3)
            normal /= np.linalg.norm(normal)
            centre = lung[random.integers(len(lung))] * self.spacing
            away = sum(n * (axis - c) for n, axis, c in zip(normal, (z, y, x), centre, strict=True))
            near = sum((axis - c) ** 2 for axis, c in zip((z, y, x), centre, strict=True)) < 15**2
            truth[(np.abs(away) < self.wall_mm / 2) & near & (truth > 0)] = CONSOLIDATION
        for _ in range(6 * count):
            direction = random.normal(size=3)
            direction /= np.linalg.norm(direction)
            centre = lung[random.integers(len(lung))] * self.spacing
            steps = [axis - c for axis, c in zip((z, y, x), centre, strict=True)]
            along = sum(d * step for d, step in zip(direction, steps, strict=True))
            square = sum(step**2 for step in steps) - along**2
            truth[(square < random.uniform(0.7, 2.0) ** 2) & (np.abs(along) < 20) & (truth > 0)] = OTHER
        return truth

    def hu(self, truth):
        """Return HU of the tissues with the means and SDs of the published mixture, and noise: int16."""
        random = np.random.default_rng([self.seed, 1])
        index = np.maximum(truth, 1).astype(int) - 1
        draws, noise = (random.standard_normal(self.shape, np.float32) for _ in range(2))
        values = TISSUE_MEANS[index] + draws * TISSUE_SDS[index]
        if self.blur:
            values = ndimage.gaussian_filter(values, (0, self.blur, self.blur))
            noise = ndimage.gaussian_filter(noise, (0, self.blur, self.blur))
            noise /= noise.std()
        return np.clip(np.rint(values + self.noise * noise), -1024, 3071).astype(np.int16)


def model_of(hu, truth):
    """Return the mixture with the share, mean and variance of the HU of each tissue."""
    values = [hu[truth == k].astype(float) for k in range(1, 6)]
    shares = np.array([len(v) for v in values]) / sum(map(len, values))
    return TissueModel(tuple(shares), tuple(v.mean() for v in values), tuple(v.var() for v in values))
