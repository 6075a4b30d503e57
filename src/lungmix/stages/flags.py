"""Flags: doubts about a case that readers of its measurements should know, found in its records and measurements."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lungmix.errors import DamageError
from lungmix.kernels.data_dictionary import QUALITY
from lungmix.kernels.plausibility import LIMITS, Finding, HuSummary, SummaryError
from lungmix.parameters import ANATOMICAL
from lungmix.quality_flags import QualityParameters, RaisedFlag, raise_flags, slice_to_look_at
from lungmix.stages import convert, mask, quality, regions
from lungmix.stages.given_mask import is_given, notes_on
from lungmix.stages.plausibility import findings_of
from lungmix.store import Case, Cohort
from lungmix.store.choices import last_quality
from lungmix.store.models import GIVEN, label_doubts, mask_text
from lungmix.store.tables import Row
from lungmix.tissue import ELSEWHERE, TISSUES

FLAGGED_FRACTION = 0.02
"""If a larger fraction of a mask is outside both lungs, a remark names the parts and their volumes.

Such a fraction can change the lung involvement by one percent.
"""

FLAG_OF_FINDING = {
    "clipped": "hu_clipped", "steps": "hu_steps", "few-values": "few_values", "little-air": "little_air",
}  # fmt: skip
"""Name of the flag by the code of a finding that does not reject a scan; see `lungmix.kernels.plausibility`."""

_PART_TEXTS = {
    "table_ml": "lie outside the body (table or clothes)",
    "gas_ml": "are gas of bowel or stomach",
    "between_ml": "lie between the lungs",
}
_UNKNOWN_PARTS = "lie outside them (table, gas, or between the lungs)"


def numbers_of_flags(case: Case, row: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the numbers of a case that raise flags, by name; numbers that were not measured are missing.

    Parameters
    ----------
    case : Case
        The case.
    row : mapping, optional
        Row of the case in ``measurements.csv``.
    """
    return _evidence_of(case, row).numbers


@dataclass(frozen=True)
class _Evidence:
    """Everything that flags of a case are raised by.

    Attributes
    ----------
    numbers : dict
        Numbers by name.
    hu_sentences : dict of str to str
        Sentences on doubtful HU, by the code of the finding.
    doubts : list of str
        Sentences on failed checks of the mixture that labels the case.
    """

    numbers: dict[str, Any]
    hu_sentences: dict[str, str]
    doubts: list[str] = field(default_factory=list)


def _evidence_of(case: Case, row: Mapping[str, Any] | None) -> _Evidence:
    recorded = quality.numbers_of(case)
    numbers = {key: value for key, value in recorded.items() if key not in ("key", "slices")}
    if not recorded and regions.REJECTED in (record := case.stages.get(regions.STAGE, {})):
        numbers["rejected_ml"] = sum(float(component["ml"]) for component in record[regions.REJECTED])
    numbers |= exact_parts(case)
    numbers |= _numbers_of_slices(case)
    try:
        findings: Sequence[Finding] | None = findings_of(case)
    except DamageError:
        findings = None
    numbers |= _numbers_of_hu(case, findings)
    labels = [float(row[tissue.key]) for tissue in TISSUES if tissue.key in row] if row else []
    if labels:
        numbers["largest_label_percent"] = max(labels)
    doubts = label_doubts(case) if row else []
    if row:
        numbers["mixture_faults"] = len(doubts)
    return _Evidence(numbers, _hu_sentences(case, findings or ()), doubts)


def raised_flags(
    case: Case, parameters: QualityParameters | None = None, row: Mapping[str, Any] | None = None
) -> list[RaisedFlag]:
    """Return the flags of a case.

    Parameters
    ----------
    case : Case
        The case.
    parameters : QualityParameters, optional
        Thresholds.
    row : mapping, optional
        Row of the case in ``measurements.csv``; without it, flags of labels are not raised.
    """
    return _raised(case, _evidence_of(case, row), parameters)


def _raised(case: Case, evidence: _Evidence, parameters: QualityParameters | None) -> list[RaisedFlag]:
    reasons = {FLAG_OF_FINDING.get(code, "implausible_hu"): text for code, text in evidence.hu_sentences.items()}
    if evidence.doubts:
        reasons["doubtful_mixture"] = f"labels by a mixture whose checks fail: {'; '.join(evidence.doubts)}"
    rejected = _rejected_lung_sentences(case)
    if rejected:
        reasons["rejected_lung"] = "; ".join(rejected)
    slices = quality.numbers_of(case).get("slices", {})
    shown = {"smaller_side_percent": "lung", "lung_ml": "lung", "largest_label_percent": "lung"}
    slices = {**{name: slices[key] for name, key in shown.items() if key in slices}, **slices}
    return raise_flags(evidence.numbers, parameters, slices, reasons)


def flagged_cases(cohort: Cohort, names: Iterable[str]) -> dict[str, list[str]]:
    """Return the flags of each case that the thresholds of the store flag. Flags that depend on labels do not count.

    Parameters
    ----------
    cohort : Cohort
        The store.
    names : iterable of str
        Cases to check.

    Returns
    -------
    dict of str to list of str
        Names of the flags by case; cases without flags are missing.
    """
    parameters = last_quality(cohort)
    raised = {name: [flag.name for flag in raised_flags(cohort[name], parameters)] for name in names}
    return {name: flags for name, flags in raised.items() if flags}


def flags_of(
    case: Case, parameters: QualityParameters | None = None, row: Mapping[str, Any] | None = None
) -> list[str]:
    """Return one sentence for each doubt about a case; failures of stages are not among them.

    Parameters
    ----------
    case : Case
        The case.
    parameters : QualityParameters, optional
        Thresholds.
    row : mapping, optional
        Row of the case in ``measurements.csv``.
    """
    return doubts_of(case, parameters, row)[0]


def doubts_of(
    case: Case, parameters: QualityParameters | None = None, row: Mapping[str, Any] | None = None
) -> tuple[list[str], list[RaisedFlag]]:
    """Return the results of `flags_of` and of `raised_flags`, reading the records of the case once."""
    evidence = _evidence_of(case, row)
    remarks = remarks_on(row, evidence.numbers) if row else []
    raised = flags = _raised(case, evidence, parameters)
    if any("in both lungs" in remark for remark in remarks) and not evidence.numbers.get("gas_ml"):
        # A remark already names these parts, with exact volumes and a remedy.
        flags = [flag for flag in flags if flag.name != "outside_lungs"]
    # Scans with doubtful HU are not pooled, even if the thresholds of the flags are higher: say so in any case.
    hu = evidence.hu_sentences.values()
    sentences = dict.fromkeys([*hu, *notes_on(case), *(flag.reason for flag in flags), *remarks])
    return list(sentences), raised


def quality_row(case: Case, row: Mapping[str, Any], parameters: QualityParameters | None = None) -> Row:
    """Return the row of a case in ``qc.csv``.

    Parameters
    ----------
    case : Case
        The case.
    row : mapping
        Row of the case in ``measurements.csv``.
    parameters : QualityParameters, optional
        Thresholds.
    """
    evidence = _evidence_of(case, row)
    flags = _raised(case, evidence, parameters)
    index = slice_to_look_at(flags)
    reasons = [*([quality.NOT_MEASURED] if quality.is_unmeasured(case) else []), *(flag.reason for flag in flags)]
    texts: Row = {
        "case": case.name,
        "flags": " ".join(flag.name for flag in flags),
        "slice": math.nan if index is None else index,
        "reasons": "; ".join(reasons),
    }
    return texts | {
        column.key: float(evidence.numbers.get(column.key, math.nan)) for column in QUALITY if column.key not in texts
    }


def remarks_on(row: Mapping[str, Any], numbers: Mapping[str, float] | None = None) -> list[str]:
    """Return sentences about volume in the mask that is not lung and that the measurements of the mask include.

    If the number ``cut_end_cm2`` was not measured, a sentence also says that the mask touches the border of the scan.

    Parameters
    ----------
    row : mapping
        A row of ``measurements.csv``.
    numbers : mapping, optional
        Numbers of quality control, with volumes of table, gas and tissue between the lungs; see `numbers_of_flags`.
    """
    remarks, numbers = [], numbers or {}
    mask_ml, *lungs = (float(row.get(key, math.nan)) for key in ("lung_ml", "right_ml", "left_ml"))
    outside = _volumes_outside_lungs(row)
    volumes = _parts_of(outside.get("elsewhere", 0.0), numbers)
    volumes |= {"are airway": outside["airway"]} if "airway" in outside else {}
    texts = [f"{ml:,.0f} mL {text}" for text, ml in volumes.items() if ml >= 0.5]
    if texts and sum(outside.values()) > FLAGGED_FRACTION * mask_ml:
        names = ", ".join(key.upper() for key, ml in outside.items() if ml >= 0.5)
        shares = [float(row.get(key, math.nan)) for key in ("right_lung_involvement", "left_lung_involvement")]
        involvements = [(ml, share) for ml, share in zip(lungs, shares, strict=True) if ml > 0]
        involved = ""
        if involvements and all(math.isfinite(share) for _, share in involvements):
            without = sum(ml * share for ml, share in involvements) / sum(ml for ml, _ in involvements)
            involved = f"; LI {float(row['lung_involvement']):.1f} % with them, {without:.1f} % without"
        listed = f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else texts[0]
        remarks.append(
            f"{mask_ml:,.0f} mL in the mask, {sum(lungs):,.0f} mL in both lungs: {listed}{involved}: "
            f"`Pipeline.measure(exclude_regions=[{names}])` leaves them out"
        )
    if row.get("touches_border") == 1 and "cut_end_cm2" not in numbers:
        remarks.append("the mask, or a lung that it dropped, reaches the border of the scan: lung may be missing")
    return remarks


def exact_parts(case: Case) -> dict[str, float]:
    """Return the volumes in mL of the parts of the mask outside lungs and airway, by name.

    The parts were measured on the reduced copy of the scan. The results are scaled so that their sum is the volume of
    the region `elsewhere` in the full scan. Gas near a lung, which belongs to the region of the lung, is added.
    """
    numbers = quality.numbers_of(case)
    voxels = case.stages.get(regions.STAGE, {}).get("voxels", {}).get(ELSEWHERE.key)
    if voxels is None or not _PART_TEXTS.keys() <= numbers.keys() or not regions.is_valid(case):
        return {}
    elsewhere_ml = voxels * case.geometry.voxel_ml
    reduced = _parts_elsewhere(elsewhere_ml, numbers)
    if not sum(reduced.values()):
        return {}
    near_lung_ml = numbers["gas_ml"] - reduced["gas_ml"]
    exact = _scaled(reduced, elsewhere_ml)
    exact["gas_ml"] += near_lung_ml
    return {name: round(ml, 2) for name, ml in exact.items()}


def _parts_of(elsewhere_ml: float, numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the volumes in mL of the parts outside lungs and airway, by the text that describes each part."""
    parts = _parts_elsewhere(elsewhere_ml, numbers)
    if not sum(parts.values()):
        return {_UNKNOWN_PARTS: elsewhere_ml}
    return {_PART_TEXTS[name]: ml for name, ml in _scaled(parts, elsewhere_ml).items()}


def _parts_elsewhere(elsewhere_ml: float, numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the volumes in mL of the parts of the region `elsewhere`, as measured on the reduced copy."""
    parts = {name: float(numbers.get(name, 0.0)) for name in _PART_TEXTS}
    # Gas near a lung belongs to the region of the lung, so it is not counted here.
    parts["gas_ml"] = min(parts["gas_ml"], max(elsewhere_ml - parts["table_ml"] - parts["between_ml"], 0.0))
    return parts


def _scaled(parts: Mapping[str, float], sum_ml: float) -> dict[str, float]:
    """Return the volumes `parts`, multiplied by one factor so that their sum is `sum_ml`."""
    total = sum(parts.values())
    return {name: sum_ml * ml / total for name, ml in parts.items()}


def _volumes_outside_lungs(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the volumes in mL of the regions outside both lungs that the columns of the whole mask include.

    The column ``left_out_ml`` tells which regions were excluded: its volume is their sum.
    """
    parts = {key: float(row.get(f"{key}_ml", math.nan)) for key in ("elsewhere", "airway")}
    out = float(row.get("left_out_ml", 0))
    if not all(map(math.isfinite, (*parts.values(), out))):
        return {}
    for excluded in ((), ("elsewhere",), ("airway",), ("elsewhere", "airway")):
        if math.isclose(out, sum(parts[key] for key in excluded), rel_tol=1e-9, abs_tol=1e-9):
            return {key: ml for key, ml in parts.items() if key not in excluded}
    return {}


def _numbers_of_slices(case: Case) -> dict[str, float]:
    spacing, thickness = case.geometry.slice_spacing, case.acquisition.slice_thickness or 0.0
    numbers = {"slice_mm": max(spacing, thickness)}
    numbers["interpolated_slices"] = case.stages.get(convert.STAGE, {}).get(convert.INTERPOLATED, 0)
    return numbers | ({"slice_gap": spacing / thickness} if thickness > 0 else {})


def _numbers_of_hu(case: Case, findings: Sequence[Finding] | None) -> dict[str, float]:
    try:
        summary = HuSummary.from_dict(case.stages[convert.STAGE][convert.HU])
    except (KeyError, TypeError, AttributeError, SummaryError):
        return {}
    if findings is None:
        return {}
    clipped = [0.0]
    if summary.clipped_low and summary.minimum > LIMITS["clip_low_harmless"].value:
        clipped.append(100 * summary.at_minimum)
    if summary.clipped_high and summary.maximum < LIMITS["clip_high_harmless"].value:
        clipped.append(100 * summary.at_maximum)
    return {
        "clipped_percent": max(clipped),
        "missing_percent": 100 * summary.gaps,
        "values": summary.distinct,
        "aerated_percent": 100 * summary.aerated,
        "implausible": sum(finding.severity == "rejected" for finding in findings),
    }


def _rejected_lung_sentences(case: Case) -> list[str]:
    sentences = []
    for component in case.stages.get(regions.STAGE, {}).get(regions.REJECTED, []):
        if component["touches_edge"]:
            why = "reaches the edge of the image, and the mask holds nothing that does"
        elif is_given(case):
            origin = mask_text(case)
            why = "is not in the mask file" if origin == GIVEN else f"is not in the mask by {origin}"
        elif case.stages.get(mask.STAGE, {}).get("parameters", {}).get("preset") == ANATOMICAL:
            why = "is not aerated like lung, or lies outside the chest"
        else:
            why = "is cut off by the opening or too small for the mask; `min_voxels` and `opening` decide that"
        sentences.append(
            f"about {component['ml']:,.0f} mL that look like lung are not in the mask: this component {why}"
        )
    return sentences


def _hu_sentences(case: Case, findings: Sequence[Finding]) -> dict[str, str]:
    """Return one sentence for each finding about the HU of a case, by the code of the finding."""
    if any(finding.severity == "rejected" for finding in findings):
        if case.failure is not None:
            return {}
        kind, consequence = "not HU of a chest CT", "it enters no pooled fit"
    else:
        kind, consequence = "doubtful HU", "it is measured, and enters no pooled fit"
    return {finding.code: f"{kind}: {finding.reason}; {consequence}" for finding in findings}
