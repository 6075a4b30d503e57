"""The one table of the parts of a lung mask: label, name, colour; sides are the patient's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Side:
    """A part of the lung mask.

    Attributes
    ----------
    label : int
        Voxel value in the label map ``side``.
    key : str
        What its columns in tables begin with.
    name : str
        Name for people.
    color : str
        Hexadecimal sRGB colour, ``#rrggbb``.
    """

    label: int
    key: str
    name: str
    color: str

    @property
    def rgba(self) -> tuple[int, int, int, int]:
        """Colour as four integers from 0 to 255, opaque."""
        red, green, blue = (int(self.color[i : i + 2], 16) for i in (1, 3, 5))
        return red, green, blue, 255


RIGHT = Side(1, "right", "Right lung", "#4f81c7")
LEFT = Side(2, "left", "Left lung", "#e0707a")
AIRWAY = Side(3, "airway", "Trachea and main bronchi", "#f2c14e")
ELSEWHERE = Side(4, "elsewhere", "Outside the lungs", "#9a8fbf")

SIDES: tuple[Side, ...] = (RIGHT, LEFT, AIRWAY, ELSEWHERE)
"""Every voxel of a mask has one of these; right and left are numbered as by lungmask."""

LUNGS = (RIGHT, LEFT)
