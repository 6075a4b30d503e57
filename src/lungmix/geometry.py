"""Where a volume lies in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Geometry:
    """Size, spacing, origin and direction in ITK's convention: millimetres, axes x, y, z, patient space LPS.

    Attributes
    ----------
    size : tuple of int
        Voxels along x, y, z. The array of such a volume has the reverse shape, ``[z, y, x]``.
    spacing : tuple of float
        Distance of voxel centres along x, y, z, in mm.
    origin : tuple of float
        Position of the centre of the first voxel in LPS, in mm.
    direction : tuple of float
        The 3 x 3 direction cosines, row by row; column ``j`` is the direction of axis ``j``.
    orientation_known : bool
        False where the file does not say how its axes lie in the patient. `direction` is then the identity by
        convention only, and right and left, front and back, head and feet are not known.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY
    orientation_known: bool = True

    def __post_init__(self) -> None:
        for name, kind, length in (
            ("size", int, 3),
            ("spacing", float, 3),
            ("origin", float, 3),
            ("direction", float, 9),
        ):
            values = tuple(kind(value) for value in getattr(self, name))
            if len(values) != length:
                raise ValueError(f"{name} needs {length} numbers, got {len(values)}")
            object.__setattr__(self, name, values)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the array, ``(z, y, x)``."""
        x, y, z = self.size
        return z, y, x

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """Spacing in array order, mm."""
        x, y, z = self.spacing
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        x, y, z = self.spacing
        return x * y * z / 1000.0

    @classmethod
    def from_sitk(cls, image: Any) -> Geometry:
        """Geometry of a ``SimpleITK.Image`` or of an ``ImageFileReader`` that has read its information."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def apply_to(self, image: Any) -> Any:
        """Set this geometry on a ``SimpleITK.Image`` of the same size and return it."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; doubles survive JSON to the last bit.

        ``orientation_known`` is written only where it is False, so that other stores keep their bytes.
        """
        values: dict[str, Any] = {
            "size": list(self.size),
            "spacing": list(self.spacing),
            "origin": list(self.origin),
            "direction": list(self.direction),
        }
        return values if self.orientation_known else {**values, "orientation_known": False}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Geometry:
        """Inverse of :meth:`to_dict`."""
        known = values.get("orientation_known", True) is not False
        return cls(values["size"], values["spacing"], values["origin"], values["direction"], known)
