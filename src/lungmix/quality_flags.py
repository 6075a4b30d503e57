"""Flags of quality control: which number each compares, its threshold, and the reason of the threshold.

The default thresholds of the flags of HU also decide which scans enter a pooled fit: `lungmix.kernels.plausibility`
imports them from this module.

`lungmix.kernels.quality` measures most numbers on the reduced copy of a scan, whose voxels are means of several voxels
and about 4 mm wide. Other numbers come from records of the store. A number that could not be measured raises no flag.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lungmix.errors import UsageError


@dataclass(frozen=True)
class Flag:
    """A flag of quality control.

    Attributes
    ----------
    name : str
        Name in tables and options.
    number : str
        Name of the number that is compared, a column of ``qc.csv``.
    raised : {"from", "below", "away"}
        Condition that raises the flag. ``from``: the number is the threshold or more. ``below``: it is less than the
        threshold. ``away``: it differs from -1000 HU by the threshold or more.
    threshold : float
        Default threshold.
    unit : str
        Unit of number and threshold; empty for counts and ratios.
    measured : str
        Definition of the number.
    reason : str
        Reason of the threshold.
    text : str
        Sentence about a flagged case; a name of a number in braces is replaced by its value.
    """

    name: str
    number: str
    raised: Literal["from", "below", "away"]
    threshold: float
    unit: str
    measured: str
    reason: str
    text: str

    def applies(self, value: float, threshold: float) -> bool:
        """Return True if a number raises this flag; NaN raises none."""
        if self.raised == "below":
            return value < threshold
        return (abs(value + 1000) if self.raised == "away" else value) >= threshold


FLAGS: tuple[Flag, ...] = (
    Flag(
        "rejected_lung", "rejected_ml", "from", 20, "mL",
        "volume of components outside the mask that look like lung: aerated, and enclosed by the body",
        "bowel gas that blends with its wall was observed up to 15 mL; the lost apex of a lung has 40 mL",
        "about {rejected_ml:,.0f} mL that look like lung are not in the mask",
    ),
    Flag(
        "cut_end", "cut_end_cm2", "from", 2, "cm²",
        "area of both lungs on the first and the last slice",
        "a cut tip of 2 cm² loses a few mL, below 0.1 % of a lung; trachea and noise stay below",
        "the first or last slice cuts the lungs through {cut_end_cm2:,.0f} cm²: a part of them is not in the scan",
    ),
    Flag(
        "cut_edge", "cut_edge_cm2", "from", 2, "cm²",
        "area of the lungs, or of a lung that the mask rejected, on the image edge or at the field of view's border",
        "a chest wall lies between a whole lung and the edge, so that the area is 0",
        "the image edge or the field of view cuts a lung along {cut_edge_cm2:,.0f} cm²: a part of it is not in the "
        "scan",
    ),
    Flag(
        "small_side", "smaller_side_percent", "below", 30, "%",
        "smaller lung, of both lungs",
        "the left lung is 43 to 48 % of both; below 30 % a lobe or more is missing, collapsed, consolidated or lost",
        "the smaller lung is {smaller_side_percent:.0f} % of both: collapsed, consolidated, removed, or lost by the "
        "mask",
    ),
    Flag(
        "uneven_bases", "base_difference_mm", "from", 25, "mm",
        "difference in height of the lowest parts of right and left lung at the back",
        "healthy lungs end within 15 mm of each other there; fluid and collapse lift the lung above them by more",
        "the lungs end {base_difference_mm:,.0f} mm apart at the back: effusion, atelectasis or consolidation at one "
        "base, or a raised diaphragm",
    ),
    Flag(
        "small_volume", "lung_ml", "below", 300, "mL",
        "volume of the mask",
        "both lungs of a child of two years hold about 300 mL; in adults it is a mask of a part",
        "the mask has {lung_ml:,.0f} mL: a small child, or a part of the lungs",
    ),
    Flag(
        "large_volume", "lung_ml", "from", 10_000, "mL",
        "volume of the mask",
        "the largest lungs with emphysema, at full inspiration, hold 9 to 10 L",
        "the mask has {lung_ml:,.0f} mL, more than lungs have",
    ),
    Flag(
        "outside_lungs", "outside_percent", "from", 2, "%",
        "part of the mask outside lungs and airway: table, gas of bowel or stomach, tissue between the lungs",
        "from 2 % on it can change the lung involvement by a percent",
        "{outside_percent:.1f} % of the mask lie outside the lungs: {outside_parts}",
    ),
    Flag(
        "no_trachea", "trachea_mm", "below", 20, "mm",
        "length of the trachea that was found: a tube of gas in soft tissue near the midline",
        "a chest CT shows 60 to 120 mm of it; without it the airway counts as lung, or the scan is another part",
        "no trachea was found: airways may count as lung, or the scan shows another part of the body",
    ),
    Flag(
        "outside_air", "outside_air_hu", "away", 25, "HU",
        "median of the air around the body, 8 to 60 mm from the skin, without padding",
        "CT is calibrated to -1000 HU in air; 25 HU shift the lung involvement by more than a percent",
        "air around the body is at {outside_air_hu:,.0f} HU, not at -1,000: HU are shifted, or clipped",
    ),
    Flag(
        "tracheal_air", "tracheal_air_hu", "away", 60, "HU",
        "mean of the air inside the trachea, one reduced voxel from its wall",
        "scatter and blur lift it by up to 50 HU, and by more in thick slices",
        "air in the trachea is at {tracheal_air_hu:,.0f} HU, not near -1,000: HU are shifted or blurred, or it is "
        "not the trachea",
    ),
    Flag(
        "hu_clipped", "clipped_percent", "from", 0.05, "%",
        "voxels at an end of the range of HU that is a clip within the values of air, lung and soft tissue",
        "dense bone is rare, so that its clip holds few voxels; ends that no tissue reaches do not count",
        "{clipped_percent:.2g} % of all voxels are at the end of a range that cuts tissue",
    ),
    Flag(
        "hu_steps", "missing_percent", "from", 40, "%",
        "values that do not occur where voxels are many",
        "CT in whole HU leaves no value out; steps of 2 HU leave out half",
        "{missing_percent:.0f} % of the values do not occur where voxels are many: HU come in steps",
    ),
    Flag(
        "few_values", "values", "below", 65, "",
        "number of different values",
        "label maps and drawings have few; the noise of CT alone spreads over more than 64",
        "it holds only {values:.0f} different values",
    ),
    Flag(
        "little_air", "aerated_percent", "below", 1, "%",
        "voxels of the scan in the range of air and aerated lung",
        "lungs with dense disease and nothing around the body still hold more",
        "only {aerated_percent:.2g} % of all voxels are in the range of air and lungs",
    ),
    Flag(
        "implausible_hu", "implausible", "from", 1, "",
        "number of reasons for which HU are not those of a chest, accepted on request",
        "such a scan is measured on request only",
        "its HU are not those of a chest CT",
    ),
    Flag(
        "noise", "noise_hu", "from", 50, "HU",
        "standard deviation of HU in the trachea, at full size, about the mean of each slice",
        "from 50 HU on, noise alone moves 2 % of healthy lung below -950 HU",
        "noise is {noise_hu:.0f} HU (SD in the trachea): it counts as emphysema and as ground glass",
    ),
    Flag(
        "thick_slices", "slice_mm", "from", 5.5, "mm",
        "slice spacing or nominal thickness, the larger",
        "5 mm is the thickest that is usual for chests; above it partial volume of vessels and fissures counts as "
        "ground glass",
        "slices are {slice_mm:.3g} mm thick: partial volume counts as ground glass",
    ),
    Flag(
        "slice_gaps", "slice_gap", "from", 1.5, "",
        "slice spacing over nominal thickness",
        "with a third of the lung between slices, volumes rest on interpolation",
        "slices lie {slice_gap:.2g} times their thickness apart: tissue between them was not imaged",
    ),
    Flag(
        "interpolated", "interpolated_slices", "from", 1, "",
        "slices that were interpolated because the originals are missing, unevenly spaced or tilted",
        "interpolation narrows the histogram of HU",
        "{interpolated_slices:.0f} slices were interpolated: the originals are missing, uneven or tilted",
    ),
    Flag(
        "dense_tissue", "dense_ml", "from", 10, "mL",
        "dense tissue outside the mask between lung and ribs, at the side or the back, with aerated lung above and "
        "below; not seen: at the front, at mediastinum or diaphragm, and where no aerated lung is left",
        "10 mL are a ball of 27 mm; the arch of the aorta beside the lung can count a few mL",
        "about {dense_ml:,.0f} mL of dense tissue between lung and ribs are not in the mask: a mass, consolidation or "
        "pleural effusion",
    ),
    Flag(
        "dense_at_mediastinum", "mediastinal_ml", "from", 20, "mL",
        "dense lung in the mask, in components from 10 mL on, of which a third or more is open to the mediastinum",
        "a healthy hilum has up to 15 mL in voxels of 4 mm; a mass or an atelectasis at the mediastinum has more",
        "{mediastinal_ml:,.0f} mL of dense lung merge with the mediastinum: HU do not tell where the lung ends there",
    ),
    Flag(
        "one_label", "largest_label_percent", "from", 90, "%",
        "most frequent label, of lung voxels; it depends on the model, and excludes no case from a fit",
        "healthy lungs have 50 to 75 % of one tissue, severe emphysema up to 85 % air",
        "{largest_label_percent:.0f} % of the lung voxels have one label: model and scan may not fit together",
    ),
    Flag(
        "doubtful_mixture", "mixture_faults", "from", 1, "",
        "failed checks of the mixture of the labels; they depend on the model, and exclude no case from a fit",
        "each is a sign that a label is not the tissue that it is named after",
        "labels by a mixture of which {mixture_faults:.0f} checks fail",
    ),
)  # fmt: skip
"""All flags, in the order of tables."""

PARTS = {
    "table_ml": "outside the body (table or clothes)",
    "gas_ml": "gas of bowel or stomach",
    "between_ml": "between the lungs",
}
"""Text about each part of a mask outside lungs and airway, by the name of the number that is its volume."""

_BY_NAME = {flag.name: flag for flag in FLAGS}


@dataclass(frozen=True)
class QualityParameters:
    """Thresholds of the flags of quality control.

    Attributes
    ----------
    thresholds : mapping of str to float
        Thresholds that differ from the defaults, by flag; `FLAGS` lists them. ``inf`` for flags that are raised from a
        threshold on, and ``-inf`` for those raised below one, switch a flag off.

    Raises
    ------
    UsageError
        If there is no such flag, or a threshold is no number.
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        thresholds: Mapping[str, Any] = self.thresholds
        for name, value in thresholds.items():
            if name not in _BY_NAME:
                raise UsageError(f"there is no flag {name!r}: choose from {', '.join(_BY_NAME)}")
            if not isinstance(value, int | float) or math.isnan(value):
                raise UsageError(f"the threshold of {name} cannot be {value!r}: give a number")
        object.__setattr__(self, "thresholds", {name: float(value) for name, value in thresholds.items()})

    def threshold_of(self, flag: Flag) -> float:
        """Return the threshold of a flag."""
        return self.thresholds.get(flag.name, flag.threshold)

    def updated(self, texts: Iterable[str]) -> QualityParameters:
        """Return these parameters with thresholds from texts such as ``noise=60`` or ``noise=default``."""
        thresholds = dict(self.thresholds)
        for text in texts:
            name, _, value = text.partition("=")
            if value == "default" and name in _BY_NAME:
                thresholds.pop(name, None)
                continue
            try:
                thresholds[name] = math.nan if value == "default" else float(value)
            except ValueError:
                raise UsageError(f"the threshold {text} is not understood: write noise=60 or noise=default") from None
        return QualityParameters(thresholds)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; infinite thresholds become text."""
        return {name: value if math.isfinite(value) else str(value) for name, value in self.thresholds.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QualityParameters:
        """Return the parameters of a dictionary, the inverse of `to_dict`."""
        return cls({name: float(value) for name, value in values.items()})


@dataclass(frozen=True)
class RaisedFlag:
    """A flag that the numbers of a case raise.

    Attributes
    ----------
    name : str
        Name of the flag.
    value, threshold : float
        The number of the case, and the threshold that raises the flag.
    unit : str
        Unit of `value` and `threshold`.
    reason : str
        Sentence about the case, with its numbers.
    slice : int or None
        Index of the axial slice that shows the problem, 0 at the feet; None if the flag is not about one slice.
    """

    name: str
    value: float
    threshold: float
    unit: str
    reason: str
    slice: int | None = None

    @property
    def excess(self) -> float:
        """Ratio of number and threshold, 1 or more; flags that are raised below a threshold have the inverse ratio."""
        if _BY_NAME[self.name].raised == "below":
            return self.threshold / max(self.value, 1e-9)
        distance = abs(self.value + 1000) if _BY_NAME[self.name].raised == "away" else self.value
        return distance / max(self.threshold, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "name": self.name, "value": self.value, "threshold": self.threshold, "unit": self.unit,
            "reason": self.reason, "slice": self.slice,
        }  # fmt: skip


def raise_flags(
    numbers: Mapping[str, float],
    parameters: QualityParameters | None = None,
    slices: Mapping[str, int] | None = None,
    reasons: Mapping[str, str] | None = None,
) -> list[RaisedFlag]:
    """Return the flags that numbers raise.

    Parameters
    ----------
    numbers : mapping of str to float
        Numbers by name; missing ones raise no flag.
    parameters : QualityParameters, optional
        Thresholds.
    slices : mapping of str to int, optional
        Index of the axial slice to look at, by the name of a number.
    reasons : mapping of str to str, optional
        Sentences by flag that replace the sentences of `FLAGS`.
    """
    parameters, slices, reasons = parameters or QualityParameters(), slices or {}, reasons or {}
    raised = []
    for flag in FLAGS:
        value, threshold = float(numbers.get(flag.number, math.nan)), parameters.threshold_of(flag)
        if flag.applies(value, threshold):
            texts = {**numbers, "outside_parts": parts_text(numbers)}
            reason = reasons.get(flag.name, flag.text.format_map(texts))
            raised.append(RaisedFlag(flag.name, value, threshold, flag.unit, reason, slices.get(flag.number)))
    return raised


def slice_to_look_at(flags: Iterable[RaisedFlag]) -> int | None:
    """Return the slice of the flag that is farthest beyond its threshold; flags without a slice do not count.

    The result is None if no flag has a slice.
    """
    shown = [flag for flag in flags if flag.slice is not None]
    return max(shown, key=lambda flag: flag.excess).slice if shown else None


def parts_text(numbers: Mapping[str, float]) -> str:
    """Return text with the volume of each part of a mask outside lungs and airway, such as ``3 mL gas of bowel``."""
    volumes = {text: float(numbers.get(name, 0)) for name, text in PARTS.items()}
    return ", ".join(f"{ml:,.0f} mL {text}" for text, ml in volumes.items() if ml >= 0.5) or "less than 1 mL"
