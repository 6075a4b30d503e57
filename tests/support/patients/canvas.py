"""Volume of HU and names of parts, painted by shapes in millimetres."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Part(IntEnum):
    """Name of a voxel; the first five have the labels of the preset ``anatomical``."""

    OUTSIDE = 0
    RIGHT = 1
    LEFT = 2
    DENSE_RIGHT = 3
    DENSE_LEFT = 4
    EFFUSION = 5
    PNEUMOTHORAX = 6
    AIRWAY = 7
    AIRWAY_WALL = 8
    MEDIASTINUM = 9
    HEART = 10
    AORTA = 11
    OESOPHAGUS = 12
    OESOPHAGEAL_GAS = 13
    SPINE = 14
    RIBS = 15
    STERNUM = 16
    SCAPULAE = 17
    MUSCLE = 18
    FAT = 19
    DIAPHRAGM = 20
    LIVER = 21
    STOMACH = 22
    STOMACH_GAS = 23
    BOWEL_GAS = 24
    SPLEEN = 25
    ABDOMEN = 26
    ARMS = 27
    TABLE = 28
    CLOTHES = 29


AERATED = (Part.RIGHT, Part.LEFT)
DENSE = (Part.DENSE_RIGHT, Part.DENSE_LEFT)


@dataclass
class Canvas:
    """HU and parts on a grid of the patient.

    Attributes
    ----------
    z, y, x : ndarray of float32
        Coordinates of the voxels along the axes, mm in an adult: z runs to the head, y to the back, x to the left.
    hu : ndarray of float32, shape (z, y, x)
        Values.
    part : ndarray of uint8, shape (z, y, x)
        `Part` of each voxel.
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray

    def __post_init__(self):
        self.hu = np.full((len(self.z), len(self.y), len(self.x)), -1000, np.float32)
        self.part = np.zeros(self.hu.shape, np.uint8)

    def points(self, voxels):
        """Return the coordinates x, y, z of voxels given by flat indices."""
        z, y, x = np.unravel_index(voxels, self.hu.shape)
        return self.x[x], self.y[y], self.z[z]

    def box(self, low, high):
        """Return the slices of a box from `low` to `high` (x, y, z) and the open coordinates x, y, z in it."""
        spans = tuple(
            slice(*np.searchsorted(axis, (a, b))) for axis, a, b in zip(self._axes, low[::-1], high[::-1], strict=True)
        )
        z, y, x = (axis[span] for axis, span in zip(self._axes, spans, strict=True))
        return spans, x[None, None, :], y[None, :, None], z[:, None, None]

    def paint(self, shape, part, hu, over=None):
        """Paint where a shape is below 0; `over` are the only parts that may be replaced."""
        spans, x, y, z = self.box(shape.low, shape.high)
        if 0 in self.part[spans].shape:
            return
        inside = np.broadcast_to(shape(x, y, z) < 0, self.part[spans].shape)
        if over is not None:
            inside = inside & np.isin(self.part[spans], over)
        if part is not None:
            self.part[spans][inside] = part
        self.hu[spans][inside] = hu

    @property
    def _axes(self):
        return self.z, self.y, self.x


@dataclass(frozen=True)
class Ellipsoid:
    """Ellipsoid around a centre."""

    centre: tuple
    radii: tuple

    @property
    def low(self):
        return tuple(c - r for c, r in zip(self.centre, self.radii, strict=True))

    @property
    def high(self):
        return tuple(c + r for c, r in zip(self.centre, self.radii, strict=True))

    def __call__(self, x, y, z):
        """Return a value below 0 inside, in mm near the surface."""
        u, v, w = (((a - c) / r) ** 2 for a, c, r in zip((x, y, z), self.centre, self.radii, strict=True))
        return (np.sqrt(u + v + w) - 1) * np.float32(min(self.radii))


@dataclass(frozen=True)
class Tube:
    """Cylinder with round ends from `start` to `stop`, whose radius changes from one end to the other."""

    start: tuple
    stop: tuple
    radius: float
    end_radius: float | None = None

    @property
    def low(self):
        return tuple(min(a, b) - self._widest for a, b in zip(self.start, self.stop, strict=True))

    @property
    def high(self):
        return tuple(max(a, b) + self._widest for a, b in zip(self.start, self.stop, strict=True))

    @property
    def _widest(self):
        return max(self.radius, self.end_radius or 0)

    def __call__(self, x, y, z):
        """Return the distance from the surface, mm, below 0 inside."""
        a, b = np.array(self.start, np.float32), np.array(self.stop, np.float32)
        d = b - a
        t = ((x - a[0]) * d[0] + (y - a[1]) * d[1] + (z - a[2]) * d[2]) / np.float32(max(d @ d, 1e-6))
        t = np.clip(t, 0, 1)
        square = (x - a[0] - t * d[0]) ** 2 + (y - a[1] - t * d[1]) ** 2 + (z - a[2] - t * d[2]) ** 2
        end = self.radius if self.end_radius is None else self.end_radius
        return np.sqrt(square) - (np.float32(self.radius) + t * np.float32(end - self.radius))


def united(first, second, width):
    """Return the smooth union of two shapes: the fillet between them is about `width` mm wide."""
    blend = np.maximum(width - np.abs(first - second), 0)
    return np.minimum(first, second) - blend * blend / np.float32(4 * width)


def through(points, radii):
    """Return the tubes along a line through points."""
    pairs = zip(points, points[1:], radii, radii[1:], strict=False)
    return [Tube(a, b, r, s) for a, b, r, s in pairs]
