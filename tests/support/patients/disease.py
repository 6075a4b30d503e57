"""Diseases of a lung: each orders the voxels of the lung and takes its volume from the front of that order."""

from dataclasses import dataclass

import numpy as np

from support.patients.anatomy import wall_point
from support.patients.canvas import Part

DENSE_OF = {-1: Part.DENSE_RIGHT, 1: Part.DENSE_LEFT}


@dataclass(frozen=True)
class Disease:
    """Base of diseases, each of which fills a volume of a lung.

    Attributes
    ----------
    side : int
        -1 for the right lung, 1 for the left lung.
    ml : float
        Volume in mL.
    hu : float
        Mean HU.
    """

    side: int
    ml: float
    hu: float = 40

    def part(self):
        return DENSE_OF[self.side]

    def order(self, x, y, z, depth):
        """Return a value for each voxel of the lung; the disease fills voxels from the lowest value on.

        `depth` is the distance of each voxel from the chest wall.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Consolidation(Disease):
    """Dense lung at the wall with an irregular border and ground glass around it.

    Attributes
    ----------
    angle, height : float
        Position on the wall: degrees from the back, mm along z.
    flat : float
        Thickness divided by half the width.
    """

    angle: float = 40
    height: float = 80
    flat: float = 0.7
    irregular: float = 5.0

    def order(self, x, y, z, depth):
        (a, b, c), normal = wall_point(self.side, self.angle, self.height)
        deep = (x - a) * normal[0] + (y - b) * normal[1]
        square = (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2
        along = np.sqrt(np.maximum(square - deep**2, 0))
        return np.hypot(along, depth / self.flat) + self.irregular * waves(x, y, z)


@dataclass(frozen=True)
class Mass(Disease):
    """Round mass around a point; (x, y, z) in mm, x away from the midline."""

    centre: tuple = (80, 0, 120)
    irregular: float = 2.0

    def order(self, x, y, z, depth):
        a, b, c = self.centre
        return np.sqrt((x - self.side * a) ** 2 + (y - b) ** 2 + (z - c) ** 2) + self.irregular * waves(x, y, z)


@dataclass(frozen=True)
class WallMass(Mass):
    """Round mass that touches the wall at an angle (degrees from the back) and height (mm)."""

    angle: float = 100
    height: float = 120

    def order(self, x, y, z, depth):
        foot, normal = wall_point(self.side, self.angle, self.height)
        radius = (3000 * self.ml / 4 / np.pi) ** (1 / 3)
        a, b, c = foot + 0.7 * radius * normal
        return np.sqrt((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) + self.irregular * waves(x, y, z)


@dataclass(frozen=True)
class Atelectasis(Disease):
    """Lower lobe without air, folded against the spine and the diaphragm."""

    def order(self, x, y, z, depth):
        return np.hypot(np.abs(x - 3) - 24, 0.8 * (y - 76)) + 0.3 * np.maximum(z + 10, 0) + 2 * waves(x, y, z)


@dataclass(frozen=True)
class Effusion(Disease):
    """Free fluid of a patient who lies on the back: dorsal, deepest at the base, with a meniscus at the wall."""

    hu: float = 10

    def part(self):
        return Part.EFFUSION

    def order(self, x, y, z, depth):
        return -y + 0.2 * z - 18 * np.exp(-depth / 7)


@dataclass(frozen=True)
class Compressed(Effusion):
    """Lung without air next to a fluid that was painted before."""

    hu: float = 40

    def part(self):
        return DENSE_OF[self.side]


@dataclass(frozen=True)
class Pneumothorax(Disease):
    """Gas between lung and wall, in front."""

    hu: float = -1000

    def part(self):
        return Part.PNEUMOTHORAX

    def order(self, x, y, z, depth):
        return y + 0.15 * z + 1.0 * np.minimum(depth, 40)


@dataclass(frozen=True)
class Bullae(Disease):
    """Gas in thin walls near the apex, part of the lung."""

    hu: float = -990

    def part(self):
        return None

    def order(self, x, y, z, depth):
        distances = [
            np.sqrt((x - self.side * a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / r
            for a, b, c, r in ((70, -20, 200, 1.0), (78, 24, 190, 0.8), (92, 0, 150, 0.9), (60, -60, 160, 0.7))
        ]
        return np.min(distances, axis=0)


def waves(x, y, z):
    """Return a smooth irregular function of the position, about -1 to 1."""
    total = 0
    for kx, ky, kz, phase in (
        (0.2, 0.11, -0.13, 0),
        (-0.12, 0.21, 0.1, 2),
        (0.07, -0.1, 0.23, 4),
        (0.3, 0.22, 0.19, 1),
    ):
        total = total + np.sin(kx * x + ky * y + kz * z + phase)
    return total / 2.5
