"""Position and orientation of a volume in the patient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

_DECIMALS = 6
"""Direction cosines are rounded to so many decimals before they are compared, because files hold rounded values."""

_ROUNDING = 0.382
"""Part of a voxel that is added before positions are rounded down: positions of first voxels are often multiples of a
half or of a tenth of a voxel, which an error of rounding must not move to another index."""


@dataclass(frozen=True)
class AxisOrder:
    """Order and direction of the axes of a volume's array in the patient: its storage order.

    The axial array is the same volume with axes that run to the head, to the back and to the left of the patient. A
    volume can be stored in 48 orders, 6 orders of its axes times 8 combinations of their directions; all of them have
    the same axial array.

    Attributes
    ----------
    axes : tuple of int
        Indices of three array axes: the axis between feet and head, the one between front and back, and the one
        between right and left.
    flipped : tuple of bool
        One value per array axis. True for an axis that runs the other way: from head to feet, back to front, or left
        to right.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)

    @property
    def is_axial(self) -> bool:
        """True if arrays in this order are axial arrays already."""
        return self == AxisOrder()

    @property
    def cranial_axis(self) -> int:
        """Index of the array axis that runs between feet and head, in either direction."""
        return self.axes[0]

    def to_axial(self, array: Any) -> Any:
        """Return the axial array of an array that is stored in this order, as a view."""
        return array[self._flips].transpose(self.axes)

    def from_axial(self, array: Any) -> Any:
        """Return the array in this storage order of an axial array, as a view: the inverse of `to_axial`."""
        return array.transpose(self._inverse_axes)[self._flips]

    def by_patient(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Return three values, one per array axis, such as spacings, in the order of the axes of the axial array."""
        z, y, x = (values[axis] for axis in self.axes)
        return z, y, x

    def by_array(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Return three values, one per axis of the axial array, in the order of the array axes."""
        z, y, x = (values[axis] for axis in self._inverse_axes)
        return z, y, x

    @property
    def _inverse_axes(self) -> tuple[int, int, int]:
        z, y, x = (self.axes.index(axis) for axis in range(3))
        return z, y, x

    @property
    def _flips(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flip else None) for flip in self.flipped)


def axis_order(direction: Sequence[float]) -> AxisOrder:
    """Return the order and direction of the array axes of a volume in the patient.

    As in ITK's ``DICOMOrient``, the largest of the 9 cosines assigns an array axis to a patient direction; then the
    largest cosine of the remaining axes and directions does, and so on. Two cosines are equal if an axis is at 45
    degrees. They are then ordered by the direction of their axes in the patient and not by the position of the axes in
    the array, so that all 48 storage orders have the same axial array.

    Parameters
    ----------
    direction : sequence of float
        The 3 x 3 direction cosines of `Geometry`.
    """
    cosines = [round(float(value), _DECIMALS) for value in direction]
    if len(cosines) != 9:
        raise ValueError(f"direction needs 9 numbers, got {len(cosines)}")
    columns = [tuple(cosines[column::3]) for column in range(3)]

    def rank(pair: tuple[int, int]) -> tuple[float, int, tuple[float, ...]]:
        patient_axis, column = pair
        first = next((value for value in columns[column] if value), 1.0)
        line = tuple(value if first > 0 else -value for value in columns[column])
        return abs(columns[column][patient_axis]), patient_axis, line

    axes, flipped = [0, 0, 0], [False, False, False]
    pairs = [(patient_axis, column) for patient_axis in range(3) for column in range(3)]
    while pairs:
        patient_axis, column = max(pairs, key=rank)
        # Patient directions are numbered x, y, z, axes of the array z, y, x.
        axes[2 - patient_axis], flipped[2 - column] = 2 - column, columns[column][patient_axis] < 0
        pairs = [pair for pair in pairs if pair[0] != patient_axis and pair[1] != column]
    return AxisOrder((axes[0], axes[1], axes[2]), (flipped[0], flipped[1], flipped[2]))


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
        False if the file does not state its orientation. `direction` is then the identity by convention only, and
        right and left, front and back, head and feet are unknown.
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
    def axis_order(self) -> AxisOrder:
        """Order and direction of the array axes in the patient; an unknown orientation counts as axial."""
        return axis_order(self.direction) if self.orientation_known else AxisOrder()

    @property
    def axial(self) -> Geometry:
        """Geometry of the axial array of the same voxels."""
        order, n = self.axis_order, self.size
        columns = [tuple(self.direction[column::3]) for column in range(3)]
        origin = list(self.origin)
        for column, (cosines, spacing) in enumerate(zip(columns, self.spacing, strict=True)):
            if order.flipped[2 - column]:
                origin = [o + c * spacing * (n[column] - 1) for o, c in zip(origin, cosines, strict=True)]
                columns[column] = tuple(-c for c in cosines)
        # The column of each axis of the axial array, x first.
        selected = [2 - axis for axis in order.axes[::-1]]
        size, spacing_xyz = ([values[column] for column in selected] for values in (n, self.spacing))
        direction = [columns[column][row] for row in range(3) for column in selected]
        return Geometry(size, spacing_xyz, origin, direction, self.orientation_known)  # type: ignore[arg-type]

    @property
    def first_index(self) -> tuple[int, int, int]:
        """Index of the first voxel along z, y, x, counted along the array axes from the origin of the patient space.

        If a volume is cropped, the index grows by the number of voxels that were cut off.
        """
        columns = (self.direction[column::3] for column in range(3))
        x, y, z = (
            math.floor(math.fsum(o * c for o, c in zip(self.origin, cosines, strict=True)) / spacing + _ROUNDING)
            for cosines, spacing in zip(columns, self.spacing, strict=True)
        )
        return z, y, x

    @property
    def slice_spacing(self) -> float:
        """Distance between the centres of neighbouring axial slices, mm."""
        return self.spacing_zyx[self.axis_order.cranial_axis]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres, bit for bit the same in all storage orders."""
        z, y, x = self.axis_order.by_patient(self.spacing_zyx)
        return float(x * y * z / 1000.0)

    @classmethod
    def from_sitk(cls, image: Any) -> Geometry:
        """Return the geometry of a ``SimpleITK.Image`` or of an ``ImageFileReader`` that has read its information."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def apply_to(self, image: Any) -> Any:
        """Set this geometry on a ``SimpleITK.Image`` of the same size and return it."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; doubles survive JSON to the last bit.

        ``orientation_known`` is written only if it is False, so that stores keep the bytes of versions without it.
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
        """Return the geometry of a dictionary, the inverse of :meth:`to_dict`."""
        orientation_known = values.get("orientation_known", True) is not False
        return cls(values["size"], values["spacing"], values["origin"], values["direction"], orientation_known)
