"""Labels of tissues and of regions of a lung mask, each with name, colour and code.

Names, order and colours are from Zaffino et al. 2021, section 2.3 and Figure 3. Codes are from SNOMED CT or DICOM;
a concept that has no code there has one of a private scheme.
"""

from __future__ import annotations

from colorsys import hls_to_rgb
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Code:
    """A medical concept as DICOM and 3D Slicer write it: a code and its meaning.

    Attributes
    ----------
    value : str
        Code value, at most 16 characters.
    scheme : str
        Coding scheme: ``SCT`` is SNOMED CT, ``DCM`` is DICOM, ``99...`` is private.
    meaning : str
        Meaning for people, at most 64 characters.
    """

    value: str
    scheme: str
    meaning: str


PRIVATE_SCHEME = "99LUNGMIX"
"""Coding scheme of concepts without a standard code; DICOM reserves names that begin with 99 for this."""

PRIVATE_SCHEME_NAME = "Private codes of lungmix"

ANATOMICAL = Code("123037004", "SCT", "Anatomical Structure")
ALTERED = Code("49755003", "SCT", "Morphologically Altered Structure")
LUNG_CODE = Code("39607008", "SCT", "Lung")


@dataclass(frozen=True)
class Tissue:
    """A tissue class, or a region of the lung mask.

    Attributes
    ----------
    label : int
        Voxel value in label maps.
    key : str
        Name of its column in tables.
    name : str
        Name for people.
    color : str
        Hexadecimal sRGB colour, ``#rrggbb``.
    code : Code
        Type of the segment.
    category : Code
        Category of the type.
    """

    label: int
    key: str
    name: str
    color: str
    code: Code
    category: Code = ANATOMICAL

    @property
    def rgba(self) -> tuple[int, int, int, int]:
        """Colour as four integers from 0 to 255, opaque."""
        red, green, blue = (int(self.color[i : i + 2], 16) for i in (1, 3, 5))
        return red, green, blue, 255


TISSUES: tuple[Tissue, ...] = (
    Tissue(1, "air", "Air", "#2ca02c", Code("AIR", PRIVATE_SCHEME, "Air in lung")),
    Tissue(2, "healthy", "Healthy lung", "#ffe135", LUNG_CODE),
    Tissue(3, "ggo", "Ground-glass opacity", "#7ec8f0", Code("112120", "DCM", "Ground glass opacity"), ALTERED),
    Tissue(4, "consolidation", "Consolidation", "#8b4a1f", Code("9656002", "SCT", "Consolidation"), ALTERED),
    Tissue(5, "other", "Other denser tissue", "#ff8c1a", Code("OTHER", PRIVATE_SCHEME, "Other denser tissue in lung")),
)
"""The tissues in the order of their mean HU, which is the order of the sorted mixture components."""

LUNG_COLOR = "#4aa8ff"
"""Colour of the lung mask."""

LUNG = Tissue(1, "lung", "Lung", LUNG_COLOR, LUNG_CODE)
"""Label of the lung mask."""

INVOLVED = ("ggo", "consolidation", "other")
"""Tissues whose percentages add up to the lung involvement."""


RIGHT = Tissue(1, "right", "Right lung", "#4f81c7", LUNG_CODE)
LEFT = Tissue(2, "left", "Left lung", "#e0707a", LUNG_CODE)
AIRWAY = Tissue(
    3, "airway", "Trachea and main bronchi", "#f2c14e", Code("AIRWAY", PRIVATE_SCHEME, "Trachea and main bronchi")
)
ELSEWHERE = Tissue(
    4, "elsewhere", "Outside the lungs", "#9a8fbf", Code("ELSEWHERE", PRIVATE_SCHEME, "Outside the lungs")
)

SIDES: tuple[Tissue, ...] = (RIGHT, LEFT, AIRWAY, ELSEWHERE)
"""Regions of a mask: every voxel of the mask is in exactly one. Right and left have the numbers that lungmask uses."""

LUNGS = (RIGHT, LEFT)

DENSE: tuple[Tissue, ...] = (
    Tissue(1, "right_aerated", "Right lung, aerated", "#4f81c7", LUNG_CODE),
    Tissue(2, "left_aerated", "Left lung, aerated", "#e0707a", LUNG_CODE),
    Tissue(3, "right_dense", "Right lung, dense", "#1f3f73", Code("DENSE-R", PRIVATE_SCHEME, "Dense right lung")),
    Tissue(4, "left_dense", "Left lung, dense", "#8f2f38", Code("DENSE-L", PRIVATE_SCHEME, "Dense left lung")),
)
"""Parts of masks of the preset ``anatomical``.

Aerated lung contains air. Dense lung contains none, and is lung because of its position.
"""


@dataclass(frozen=True)
class Lobe(Tissue):
    """A lobe of a lung.

    Attributes
    ----------
    side : Tissue
        The lung.
    """

    side: Tissue = RIGHT

    @property
    def region(self) -> str:
        """Name of the lobe among the regions of masks, such as ``right_upper``."""
        return self.key.removesuffix("_lobe")


def _lobe(label: int, side: Tissue, level: str, color: str, code: str) -> Lobe:
    name = f"{side.key} {level} lobe"
    meaning = f"{level.capitalize()} lobe of {side.key} lung"
    return Lobe(label, name.replace(" ", "_"), name.capitalize(), color, Code(code, "SCT", meaning), side=side)


LOBES: tuple[Lobe, ...] = (
    _lobe(1, RIGHT, "upper", "#4f81c7", "42400003"),
    _lobe(2, RIGHT, "middle", "#2fa39a", "72481006"),
    _lobe(3, RIGHT, "lower", "#1f3f73", "266005"),
    _lobe(4, LEFT, "upper", "#e0707a", "44714003"),
    _lobe(5, LEFT, "lower", "#8f2f38", "41224006"),
)
"""Lobes of both lungs, which only masks from files or segmenters can distinguish."""


@dataclass(frozen=True)
class ZonePart:
    """One of the parts into which a lung is divided along one direction.

    Attributes
    ----------
    key : str
        Name in tables.
    name : str
        Name for people.
    code : str
        Part of the code value.
    """

    key: str
    name: str
    code: str


ZONE_THIRDS = (ZonePart("upper", "upper", "U"), ZonePart("middle", "middle", "M"), ZonePart("lower", "lower", "L"))
ZONE_HALVES = (ZonePart("ventral", "ventral", "V"), ZonePart("dorsal", "dorsal", "D"))
ZONE_DEPTHS = (ZonePart("core", "core", "C"), ZonePart("peel", "peel", "P"))


@dataclass(frozen=True)
class LungZone(Tissue):
    """A zone of a lung: the part of one side, third, half and depth.

    Attributes
    ----------
    side : Tissue
        The lung.
    third, half, depth : ZonePart
        The parts whose intersection is the zone.
    """

    side: Tissue = RIGHT
    third: ZonePart = ZONE_THIRDS[0]
    half: ZonePart = ZONE_HALVES[0]
    depth: ZonePart = ZONE_DEPTHS[0]


def _lung_zones() -> tuple[LungZone, ...]:
    """Return the zones in the order of their labels: sides, in them thirds, in them halves, in them core and peel."""
    zones: list[LungZone] = []
    for side, third, half, depth in product(LUNGS, ZONE_THIRDS, ZONE_HALVES, ZONE_DEPTHS):
        # Hues of the right lung are blue to green, those of the left lung red to yellow; the peel is pale.
        hue = (0.62 if side == RIGHT else 0.0) + (-0.09 if side == RIGHT else 0.06) * ZONE_THIRDS.index(third)
        lightness = 0.35 + 0.13 * ZONE_HALVES.index(half) + 0.26 * ZONE_DEPTHS.index(depth)
        rgb = hls_to_rgb(hue, lightness, 0.7)
        parts = (third, half, depth)
        names = f"{third.name} third, {half.name}, {depth.name}"
        value = "-".join(("ZONE", side.name[0], "".join(part.code for part in parts)))
        zones.append(
            LungZone(
                len(zones) + 1,
                "_".join((side.key, *(part.key for part in parts))),
                f"{side.name}, {names}",
                "#" + "".join(f"{round(255 * part):02x}" for part in rgb),
                Code(value, PRIVATE_SCHEME, f"{side.name}, {names}"),
                side=side,
                third=third,
                half=half,
                depth=depth,
            )
        )
    return tuple(zones)


LUNG_ZONES: tuple[LungZone, ...] = _lung_zones()
"""Zones of both lungs: every combination of side, third, half and depth. docs/zones.md lists their labels."""


def _change(label: int, key: str, name: str, color: str, meaning: str) -> Tissue:
    code = Code(f"CHANGE-{label}", PRIVATE_SCHEME, meaning)
    return Tissue(label, key, name, color, code, ANATOMICAL if key == "normal" else ALTERED)


CHANGES: tuple[Tissue, ...] = (
    _change(1, "normal", "Normal in both scans", "#cfd8dc", "Normal in both scans"),
    _change(2, "gone", "Gone", "#2e9e5b", "Involved in the first scan only"),
    _change(3, "new", "New", "#d7263d", "Involved in the later scan only"),
    _change(4, "persistent", "Persistent, same tissue", "#7e57c2", "Involved in both scans, same tissue"),
    _change(5, "denser", "Persistent, denser", "#8b1a1a", "Involved in both scans, denser in the later"),
    _change(6, "less_dense", "Persistent, less dense", "#f2b134", "Involved in both scans, less dense in the later"),
)
"""Changes of a voxel from the first to a later scan. Air and healthy lung are normal, the other tissues involved."""


def segments_of(image: str) -> tuple[Tissue, ...]:
    """Return the segments of a label image in the order of their labels; empty for an image without labels."""
    of_lungs = {"lung": (LUNG,), "side": SIDES, "region": DENSE, "lobe": LOBES, "zone": LUNG_ZONES, "change": CHANGES}
    tissues = dict.fromkeys(("tissue", "tissue_median", "tissue_potts", "registered_tissue"), TISSUES)
    return (of_lungs | tissues).get(image, ())
