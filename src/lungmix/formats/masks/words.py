"""Names and codes of segments, and the regions or tissues that they stand for.

Source of the codes: SNOMED CT (SCT, and its older notation SRT), DICOM PS3.16 (DCM), Foundational Model of Anatomy
(FMA), RadLex. Names are those of 3D Slicer, TotalSegmentator, lungmask, treatment planning systems and this package.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import product
from types import MappingProxyType

from lungmix.tissue import DENSE, SIDES, TISSUES

_SIDES = {"right": ("right", "r", "rt"), "left": ("left", "l", "lt")}
_LOBES = {
    "right_upper": ("right", "upper", "rul"),
    "right_middle": ("right", "middle", "rml"),
    "right_lower": ("right", "lower", "rll"),
    "left_upper": ("left", "upper", "lul"),
    "left_lower": ("left", "lower", "lll"),
}
_OTHER_LEVELS = {"upper": "superior", "lower": "inferior"}
LOBES = tuple(_LOBES)
"""Regions of the five lobes."""

LUNG_REGIONS = frozenset({"lung", "right", "left", *LOBES})
"""Regions that are both lungs, one lung or a lobe."""

_NOT_WORDS = re.compile(r"[\W_]+")
_MAX_NAME_LENGTH = 200


def _words_of_lungs() -> dict[str, str]:
    words = dict.fromkeys(
        ("lung", "lungs", "both lungs", "lungs both", "lung both", "bilateral lungs", "lung total", "lungs total",
         "total lung", "total lungs", "whole lung", "whole lungs", "lung lr", "lungs lr", "lung mask", "lungs mask",
         "lung structure"),
        "lung",
    )  # fmt: skip
    for side, names in _SIDES.items():
        for name, lung in product(names, ("lung", "lungs")):
            words |= dict.fromkeys((f"{name} {lung}", f"{lung} {name}"), side)
        words |= {f"structure of {side} lung": side, f"{side} lung structure": side}
    return words


def _words_of_lobes() -> dict[str, str]:
    words: dict[str, str] = {}
    for region, (side, level, short) in _LOBES.items():
        names = (
            short, f"{side} {level} lobe", f"{level} {side} lobe", f"{level} lobe {side}",
            f"lung {level} lobe {side}", f"lung {side} {level} lobe", f"lung lobe {level} {side}",
            f"{side} lung {level} lobe", f"{level} lobe of {side} lung", f"{level} lobe of the {side} lung",
            f"structure of {level} lobe of {side} lung", f"{side} {level} lobe of lung", f"{side} {level} lung lobe",
        )  # fmt: skip
        words |= dict.fromkeys(names, region)
        # The Chest Imaging Platform writes RightSuperiorLobe.
        other = _OTHER_LEVELS.get(level, level)
        words |= dict.fromkeys((f"{side}{other}lobe", f"{side} {other} lobe", f"{other} lobe of {side} lung"), region)
    return words


_WORDS_OF_OTHERS = {
    "airway": ("airway", "airways", "trachea", "bronchi", "bronchus", "trachea and bronchi", "lung trachea bronchia"),
    "elsewhere": (),
    "air": (),
    "healthy": ("healthy", "normal lung", "normal parenchyma", "healthy parenchyma"),
    "ggo": ("ggo", "ground glass", "ground glass opacity", "ground glass opacities", "ground glass opacification"),
    "consolidation": ("consolidations", "pulmonary consolidation", "lung consolidation"),
    "lesion": (
        "lesion", "lesions", "covid lesion", "covid 19 lesion", "covid infection", "infection", "infections",
        "lung lesion", "lung lesions",
    ),
    "tumor": ("gtv", "gtv 1", "gtv1", "tumor", "tumour", "lung tumor", "lung tumour", "neoplasm"),
    "nodule": ("nodule", "nodules", "lung nodule", "lung nodules"),
    "effusion": ("effusion", "pleural effusion"),
}  # fmt: skip


def normalize_name(name: str) -> str:
    """Return a name as words in lower case with single blanks between them, as the keys of `REGION_BY_WORD` are."""
    return _NOT_WORDS.sub(" ", name[:_MAX_NAME_LENGTH].lower()).strip()


REGION_BY_WORD: Mapping[str, str] = MappingProxyType(
    _words_of_lungs()
    | _words_of_lobes()
    | {word: region for region, words in _WORDS_OF_OTHERS.items() for word in words}
    | {normalize_name(tissue.name): tissue.key for tissue in (*SIDES, *TISSUES)}
    | {normalize_name(part.name): part.key.removesuffix("_aerated") for part in DENSE}
)
"""Region by the normalized name of a segment (`normalize_name`)."""

REGIONS = frozenset(REGION_BY_WORD.values())
"""All regions that a segment may have."""

REGION_BY_CODE: Mapping[tuple[str, str], str] = MappingProxyType({
    ("SCT", "39607008"): "lung", ("SRT", "T-28000"): "lung", ("FMA", "7195"): "lung", ("RADLEX", "RID1301"): "lung",
    ("SCT", "3341006"): "right", ("SRT", "T-28100"): "right", ("FMA", "7309"): "right", ("RADLEX", "RID1302"): "right",
    ("SCT", "44029006"): "left", ("SRT", "T-28500"): "left", ("FMA", "7310"): "left", ("RADLEX", "RID1326"): "left",
    ("SCT", "42400003"): "right_upper", ("SRT", "T-28200"): "right_upper", ("FMA", "7333"): "right_upper",
    ("SCT", "72481006"): "right_middle", ("SRT", "T-28300"): "right_middle", ("FMA", "7383"): "right_middle",
    ("SCT", "266005"): "right_lower", ("SRT", "T-28400"): "right_lower", ("FMA", "7337"): "right_lower",
    ("SCT", "44714003"): "left_upper", ("SRT", "T-28600"): "left_upper", ("FMA", "7370"): "left_upper",
    ("SCT", "41224006"): "left_lower", ("SRT", "T-28700"): "left_lower", ("FMA", "7371"): "left_lower",
    ("SCT", "44567001"): "airway", ("SRT", "T-25000"): "airway", ("SCT", "955009"): "airway",
    ("SRT", "T-26000"): "airway", ("SCT", "110726009"): "airway", ("SRT", "T-DD006"): "airway",
    ("DCM", "112120"): "ggo", ("SCT", "9656002"): "consolidation",
    ("SCT", "52988006"): "lesion", ("SRT", "M-01100"): "lesion",
    ("SCT", "108369006"): "tumor", ("SRT", "M-8FFFF"): "tumor", ("SCT", "27925004"): "nodule",
    ("SRT", "M-03010"): "nodule", ("SCT", "60046008"): "effusion", ("SRT", "D2-80100"): "effusion",
    ("99LUNGMIX", "AIR"): "air", ("99LUNGMIX", "OTHER"): "other", ("99LUNGMIX", "AIRWAY"): "airway",
    ("99LUNGMIX", "ELSEWHERE"): "elsewhere",
    ("99LUNGMIX", "DENSE-R"): "right_dense", ("99LUNGMIX", "DENSE-L"): "left_dense",
})  # fmt: skip
"""Region by coding scheme and code value. A code may have a modifier of the side as well, see `region_of_code`."""

_LEVEL_BY_CODE = {
    ("SCT", "45653009"): "upper", ("SRT", "T-28820"): "upper",
    ("SCT", "90572001"): "lower", ("SRT", "T-28830"): "lower",
}  # fmt: skip
_SIDE_BY_CODE = {
    ("SCT", "24028007"): "right", ("SRT", "G-A100"): "right", ("SCT", "7771000"): "left", ("SRT", "G-A101"): "left",
}  # fmt: skip
_SCHEMES = {"SNM3": "SRT", "99SDM": "SRT", "RADLEX": "RADLEX", "SNOMED": "SCT"}
_MAKERS = {
    "lungmix": "lungmix", "highdicom": "highdicom", "qiicr": "dcmqi", "dcmqi": "dcmqi", "3d slicer": "3D Slicer",
    "slicer": "3D Slicer", "totalsegmentator": "TotalSegmentator", "lungmask": "lungmask", "itk snap": "ITK-SNAP",
    "plastimatch": "Plastimatch", "ohif": "OHIF", "mim": "MIM", "mitk": "MITK", "varian": "Varian",
    "raysearch": "RaySearch", "raystation": "RaySearch", "elekta": "Elekta", "brainlab": "Brainlab",
    "pinnacle": "Pinnacle", "philips": "Philips", "siemens": "Siemens", "ge medical systems": "GE", "limbus": "Limbus",
    "monai": "MONAI", "rt utils": "rt-utils", "mirada": "Mirada",
}  # fmt: skip

Coded = tuple[str, str]


def region_of_name(name: str) -> str | None:
    """Return the region of a segment by its name; None for unknown words."""
    return REGION_BY_WORD.get(normalize_name(name))


def region_of_code(code: Coded | None, modifiers: Iterable[Coded] = ()) -> str | None:
    """Return the region of a code, with the side that modifiers state; None if unknown, or a lobe without a side."""
    if code is None:
        return None
    code = canonical_code(code)
    sides = {_SIDE_BY_CODE.get(canonical_code(modifier)) for modifier in modifiers} - {None}
    side = sides.pop() if len(sides) == 1 else None
    level = _LEVEL_BY_CODE.get(code)
    if level is not None:
        return None if side is None else f"{side}_{level}"
    region = REGION_BY_CODE.get(code)
    return side if region == "lung" and side is not None else region


def canonical_code(code: Coded) -> Coded:
    """Return a code with the usual designator of its scheme."""
    scheme, value = code[0].strip().upper(), code[1].strip()
    return _SCHEMES.get(scheme, scheme), value


def region_of(name: str, code: Coded | None = None, modifiers: Iterable[Coded] = ()) -> str | None:
    """Return the region of a segment; None if it is unknown, or if name and code contradict each other.

    If name or code is the lung as a whole, and the other one a side, a lobe or a tissue, the more specific one counts.
    Exports of this package give the right lung the code of the lung and the name of the side; other programs give it
    the name "lung" and a code with the side.
    """
    by_name, by_code = region_of_name(name), region_of_code(code, modifiers)
    if by_name is None or by_code is None or by_name == by_code:
        return by_name or by_code
    if "lung" in (by_name, by_code):
        return by_code if by_name == "lung" else by_name
    for general, special in ((by_name, by_code), (by_code, by_name)):
        if special.startswith(f"{general}_"):
            return special
    return None


def maker_of(*texts: str | None) -> str | None:
    """Return the known program or manufacturer that texts of a header name; None without one.

    The first text with a known word decides. The text itself is never returned, since it may name a patient.
    """
    for text in texts:
        words = f" {normalize_name(text or '')} "
        for word, maker in _MAKERS.items():
            if f" {word} " in words:
                return maker
    return None
