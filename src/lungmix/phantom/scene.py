"""Phantom of analytic shapes, tissue textures and noise, generated slice by slice.

The random generator of a slice is seeded by the phantom's seed and the slice index. So the voxels do not depend on the
thickness of slabs, and only one slab is in memory.

Coordinates: u runs along x from -0.5 to 0.5, in widths of the image; v runs along y in the same unit, 0 in the middle;
w runs along z from -1 at the head to 1 at the feet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from lungmix.errors import UsageError
from lungmix.geometry import IDENTITY, Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.tissue import AIRWAY, LEFT, RIGHT

HU = npt.NDArray[np.int16]
Labels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

TRAPS = {
    "touching": "the lungs touch each other in the midline",
    "edge": "the right lung ends 5 pixels from the image edge",
    "cut": "the first and the last slice cut the lungs",
    "padding": "-2048 HU outside a circular field of view",
    "bowel": "bowel gas below the size of a lung",
    "big-bowel": "bowel gas above the size of a lung",
    "table": "the table under the patient",
    "vessels": "vessels inside the lung, dense enough that only the closing recovers them",
    "consolidation": "a ball of dense consolidation inside each lung that only the closing recovers",
    "noise": "heavy noise",
}
"""Difficulties of real scans that a phantom can include."""

# Mean and standard deviation in HU of air, healthy, GGO, consolidation and other, from Zaffino et al. 2021.
TISSUE_MEANS = np.array([-950.35445, -828.9766504, -652.26530371, -337.03481411, -12.53896037], np.float32)
TISSUE_SDS = np.sqrt(np.array([1936.65952913, 3413.06554292, 8927.18035462, 24547.22394621, 37633.9743736])).astype(
    np.float32
)
_WEIGHTS = (0.33915991, 0.36163895, 0.13880557, 0.05467644, 0.10571913)

# Half axes and positions of shapes: along u and v in widths of the image, along w in half heights of the volume.
_BODY = (0.46, 0.36)
_LUNG = (0.13, 0.22)
_LUNG_X = 0.185
_LUNG_Z = (-0.1, 0.75)
_EDGE_PIXELS = 5
_WAVES = 14
_TRACHEA_MM, _WALL_MM = 9.0, 4.0


@dataclass(frozen=True)
class Phantom:
    """Chest with two lungs and the true tissue of each voxel.

    Attributes
    ----------
    shape : tuple of int
        ``(z, y, x)`` voxels.
    spacing : tuple of float
        Voxel spacing along x, y, z, mm.
    seed : int
        Seed of the voxels.
    weights : tuple of float
        Fractions of the lung voxels that are air, healthy, GGO, consolidation and other.
    traps : frozenset of str
        Keys of `TRAPS`.
    name : str
        Name for files.
    acquisition : Acquisition
        Scanner attributes.
    origin, direction : tuple of float
        See `lungmix.geometry.Geometry`.

    Raises
    ------
    UsageError
        If a trap is unknown or a size is impossible.
    """

    shape: tuple[int, int, int] = (160, 256, 256)
    spacing: tuple[float, float, float] = (1.4, 1.4, 1.9)
    seed: int = 0
    weights: tuple[float, ...] = _WEIGHTS
    traps: frozenset[str] = field(default_factory=frozenset)
    name: str = "phantom"
    acquisition: Acquisition = field(default_factory=lambda: Acquisition(modality="CT", manufacturer="lungmix phantom"))
    origin: tuple[float, float, float] = (-179.2, -179.2, -300.0)
    direction: tuple[float, ...] = IDENTITY

    def __post_init__(self) -> None:
        object.__setattr__(self, "traps", frozenset(self.traps))
        unknown = self.traps - TRAPS.keys()
        if unknown:
            raise UsageError(f"there is no trap {sorted(unknown)[0]!r}: choose from {', '.join(TRAPS)}")
        if len(tuple(self.shape)) != 3 or min(self.shape) < 1 or min(self.spacing) <= 0:
            raise UsageError(f"a phantom of {self.shape} voxels of {self.spacing} mm is not possible")
        if len(self.weights) != 5 or min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6:
            raise UsageError(f"{self.weights} are no weights: give five fractions that add up to 1")

    @property
    def geometry(self) -> Geometry:
        """Size, spacing, origin and direction."""
        z, y, x = self.shape
        return Geometry((x, y, z), self.spacing, self.origin, self.direction)

    @property
    def lung_involvement(self) -> float:
        """Percentage of lung voxels that are GGO, consolidation and other, according to `weights`."""
        return 100.0 * sum(self.weights[2:])

    def slabs(self, thickness: int = 32) -> Iterator[HU]:
        """Return slabs of HU from the first slice to the last: int16 ``[slices, y, x]``."""
        return self._stacked(self._slice, thickness)

    def truth_slabs(self, thickness: int = 32) -> Iterator[Labels]:
        """Return slabs of the tissue of each voxel: uint8 ``[slices, y, x]``, 0 outside the lungs, 1 to 5 inside."""
        return self._stacked(self._truth, thickness)

    def side_truth_slabs(self, thickness: int = 32) -> Iterator[Labels]:
        """Return slabs of the region of each voxel: uint8 ``[slices, y, x]``; 1 right, 2 left, 3 trachea."""
        return self._stacked(self._side_truth, thickness)

    def volume(self) -> HU:
        """Return all HU as an array."""
        return np.concatenate(list(self.slabs()))

    def truth(self) -> Labels:
        """Return all tissues as an array."""
        return np.concatenate(list(self.truth_slabs()))

    def side_truth(self) -> Labels:
        """Return all regions as an array."""
        return np.concatenate(list(self.side_truth_slabs()))

    def _stacked(self, slice_of: Callable[[int], npt.NDArray[Any]], thickness: int) -> Iterator[npt.NDArray[Any]]:
        for start in range(0, self.shape[0], thickness):
            yield np.stack([slice_of(z) for z in range(start, min(start + thickness, self.shape[0]))])

    @cached_property
    def _u(self) -> Floats:
        nx = self.shape[2]
        return ((np.arange(nx, dtype=np.float32) + 0.5) / nx - 0.5).astype(np.float32)

    @cached_property
    def _v(self) -> Floats:
        ny, nx = self.shape[1:]
        # Rows in units of the width of the image, as columns are, so that a circle in u and v is round.
        rows = (np.arange(ny, dtype=np.float32) + 0.5 - ny / 2) * np.float32(self.spacing[1] / (self.spacing[0] * nx))
        return np.asarray(rows, np.float32)[:, None]

    @property
    def _width_mm(self) -> float:
        return self.shape[2] * self.spacing[0]

    def _w(self, z: int) -> float:
        """Return w of a slice, from -1 at the head to 1 at the feet, for both directions of the slices along z."""
        w = 2.0 * (z + 0.5) / self.shape[0] - 1.0
        return -w if self.direction[8] > 0 else w

    def _lung_x(self) -> tuple[float, float]:
        """Return the centres of the right and the left lung along u."""
        if "touching" in self.traps:
            return -_LUNG[0] * 0.97, _LUNG[0] * 0.97
        if "edge" in self.traps:
            return -0.5 + _EDGE_PIXELS / self.shape[2] + _LUNG[0], _LUNG_X
        return -_LUNG_X, _LUNG_X

    def _lungs(self, z: int) -> list[npt.NDArray[np.bool_]]:
        middle, half = (0.0, 1.6) if "cut" in self.traps else _LUNG_Z
        radius_2 = 1.0 - ((self._w(z) - middle) / half) ** 2
        if radius_2 <= 0:
            return []
        # Lungs that touch leave room for the trachea and its wall.
        room = ~self._trachea(z, _TRACHEA_MM + _WALL_MM)
        return [(((self._u - x) / _LUNG[0]) ** 2 + (self._v / _LUNG[1]) ** 2 < radius_2) & room for x in self._lung_x()]

    def _slice(self, z: int) -> HU:
        random = np.random.default_rng([self.seed, z])
        truth = self._truth(z)
        noise = random.standard_normal(self.shape[1:], np.float32)
        hu = self._thorax(z) + noise * np.float32(12)
        lung = truth > 0
        index = truth[lung].astype(np.intp) - 1
        hu[lung] = TISSUE_MEANS[index] + noise[lung] * TISSUE_SDS[index]
        if "noise" in self.traps:
            hu += random.standard_normal(self.shape[1:], np.float32) * np.float32(90)
        out = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
        if "padding" in self.traps:
            out[self._u**2 + self._v**2 > 0.25] = -2048
        return out

    def _truth(self, z: int) -> Labels:
        truth = np.zeros(self.shape[1:], np.uint8)
        lungs = self._lungs(z)
        if not lungs:
            return truth
        field_ = self._texture(z)
        cuts = ndtri(np.clip(np.cumsum(self.weights)[:4], 0, 1)).astype(np.float32)
        tissue = np.searchsorted(cuts, field_, side="right").astype(np.uint8) + np.uint8(1)
        for lung, x in zip(lungs, self._lung_x(), strict=True):
            truth[lung] = tissue[lung]
            if "consolidation" in self.traps:
                # Tissue 5 is as dense as liver; a radius of 8 mm is less than that of the closing of the presets.
                truth[lung & self._in_ball(z, x, 0.04, -0.1, 8 / self._width_mm)] = 5
            if "vessels" in self.traps:
                truth[lung & self._vessels(z, x)] = 5
        return truth

    def _side_truth(self, z: int) -> Labels:
        sides = np.zeros(self.shape[1:], np.uint8)
        sides[self._trachea(z)] = AIRWAY.label
        # Columns run to the patient's left if the first direction cosine is positive.
        order = (RIGHT, LEFT) if self.direction[0] > 0 else (LEFT, RIGHT)
        middle = sum(self._lung_x()) / 2
        lungs = self._lungs(z)
        for lung, side, first in zip(lungs, order, (True, False), strict=False):
            # Overlapping lungs are separated halfway between their centres.
            sides[lung & ((self._u < middle) == first)] = side.label
        return sides

    def _trachea(self, z: int, radius_mm: float = _TRACHEA_MM) -> npt.NDArray[np.bool_]:
        inside = self._u**2 + (self._v - 0.03) ** 2 < (radius_mm / self._width_mm) ** 2
        return np.asarray(inside & (self._w(z) < -0.3))

    def _texture(self, z: int) -> Floats:
        """Return a smooth random field, approximately standard normal: a sum of plane waves."""
        depth_mm, total = z * self.spacing[2], np.zeros(self.shape[1:], np.float32)
        for kx, ky, kz, phase in self._waves:
            along_x = self._u[None, :] * np.float32(kx * self._width_mm)
            along_y = self._v * np.float32(ky * self._width_mm) + np.float32(kz * depth_mm + phase)
            total += np.cos(along_x) * np.cos(along_y) - np.sin(along_x) * np.sin(along_y)
        return np.asarray(total * np.float32(np.sqrt(2 / _WAVES)), np.float32)

    @cached_property
    def _waves(self) -> npt.NDArray[np.float64]:
        random = np.random.default_rng([self.seed, 1 << 40])
        directions = random.normal(size=(_WAVES, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths_mm = random.uniform(9, 30, _WAVES)
        return np.column_stack([directions * (2 * np.pi / lengths_mm)[:, None], random.uniform(0, 2 * np.pi, _WAVES)])

    def _in_ball(self, z: int, x: float, y: float, w: float, radius: float) -> npt.NDArray[np.bool_]:
        """Return a mask of slice z of a ball around (x, y, w), with a radius in widths of the image."""
        dz = (self._w(z) - w) * self.shape[0] * self.spacing[2] / 2 / self._width_mm
        return np.asarray((self._u - x) ** 2 + (self._v - y) ** 2 + np.float32(dz * dz) < radius * radius)

    def _vessels(self, z: int, x: float) -> npt.NDArray[np.bool_]:
        """Return a mask of vessels in slice z: tubes with radii of 2 to 4 mm that fan out from the hilum."""
        out = np.zeros(self.shape[1:], np.bool_)
        random = np.random.default_rng([self.seed, 2 << 40])
        t = (self._w(z) - _LUNG_Z[0]) / _LUNG_Z[1]
        for _ in range(14):
            dx, dy, bend = random.uniform(-0.1, 0.1), random.uniform(-0.18, 0.18), random.uniform(0.5, 1.5)
            distance = abs(t) ** bend
            radius = random.uniform(2, 4) / self._width_mm
            out |= (self._u - x - dx * distance) ** 2 + (self._v - dy * distance) ** 2 < radius**2
        return out

    def _thorax(self, z: int) -> Floats:
        """Return the HU of a slice without noise and without lung tissue: body, ribs, spine, trachea, traps."""
        w = self._w(z)
        u, v = self._u, self._v
        wide = 0.62 if "edge" in self.traps else _BODY[0]
        body = (u / wide) ** 2 + (v / _BODY[1]) ** 2
        hu = np.full(self.shape[1:], -1000, np.float32)
        hu[body < 1] = -90
        hu[body < 0.88] = 45
        ring = (body > 0.72) & (body < 0.82)
        hu[ring & (np.sin(w * 40 + np.abs(u) * 25) > 0.35)] = 320
        hu[((u / 0.05) ** 2 + ((v - 0.26) / 0.045) ** 2) < 1] = 380
        hu[(np.abs(u) < 0.035) & (np.abs(v + 0.285) < 0.015)] = 300
        for trap, radius in (("bowel", 0.03), ("big-bowel", 0.11)):
            if trap in self.traps:
                hu[self._in_ball(z, 0.0, -0.08, 0.85, radius)] = -980
        hu[self._trachea(z)] = -1000
        if "table" in self.traps:
            table = (np.abs(v - 0.40 - 0.12 * u**2) < 0.012) & (np.abs(u) < 0.4)
            hu[table] = -120
        return hu
