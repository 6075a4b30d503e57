"""The one table of tissues: label, name, colour.

Source of names, order and colours: Zaffino et al. 2021, section 2.3 and Figure 3.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tissue:
    """A tissue class.

    Attributes
    ----------
    label : int
        Voxel value in the label maps, 1 to 5.
    key : str
        Name of its column in tables.
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


BACKGROUND = 0
"""Label of every voxel outside the lungs."""

TISSUES: tuple[Tissue, ...] = (
    Tissue(1, "air", "Air", "#2ca02c"),
    Tissue(2, "healthy", "Healthy lung", "#ffe135"),
    Tissue(3, "ggo", "Ground-glass opacity", "#7ec8f0"),
    Tissue(4, "consolidation", "Consolidation", "#8b4a1f"),
    Tissue(5, "other", "Other denser tissue", "#ff8c1a"),
)
"""The tissues in the order of their mean HU, which is the order of the sorted mixture components."""

LUNG_COLOR = "#4aa8ff"
"""Colour of the lung mask."""

INVOLVED = ("ggo", "consolidation", "other")
"""Tissues whose percentages add up to the lung involvement."""
