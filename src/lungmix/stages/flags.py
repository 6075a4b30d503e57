"""Flags: doubts about a case that readers of its numbers should see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lungmix.errors import DamageError
from lungmix.stages import regions
from lungmix.stages.given_mask import is_given, notes_on
from lungmix.stages.plausibility import findings_of
from lungmix.store import Case

FLAGGED_FRACTION = 0.02
"""Fraction of a mask outside both lungs above which a flag is set: it can change the lung involvement by a percent."""

_REGION_TEXTS = {"elsewhere": "lie outside them (table, gas, or between the lungs)", "airway": "are airway"}


def flags_of(case: Case) -> list[str]:
    """Return a sentence for everything about a case that is doubtful; failures are reported elsewhere."""
    return [*_hu_flags(case), *notes_on(case), *_rejected_lung_flags(case)]


def remarks_on(row: Mapping[str, Any]) -> list[str]:
    """Return sentences about tissue outside the lungs that the whole-mask numbers of a row of measurements include.

    Parameters
    ----------
    row : mapping
        A row of ``measurements.csv``.
    """
    remarks = []
    mask_ml, *lungs = (float(row.get(key, math.nan)) for key in ("lung_ml", "right_ml", "left_ml"))
    outside = _volumes_outside_lungs(row)
    texts = [f"{ml:,.0f} mL {_REGION_TEXTS[key]}" for key, ml in outside.items() if ml >= 0.5]
    if texts and sum(outside.values()) > FLAGGED_FRACTION * mask_ml:
        names = ", ".join(key.upper() for key, ml in outside.items() if ml >= 0.5)
        shares = [float(row.get(key, math.nan)) for key in ("right_lung_involvement", "left_lung_involvement")]
        volumes = [(ml, share) for ml, share in zip(lungs, shares, strict=True) if ml > 0]
        involved = ""
        if volumes and all(math.isfinite(share) for _, share in volumes):
            without = sum(ml * share for ml, share in volumes) / sum(ml for ml, _ in volumes)
            involved = f"; LI {float(row['lung_involvement']):.1f} % with them, {without:.1f} % without"
        remarks.append(
            f"{mask_ml:,.0f} mL in the mask, {sum(lungs):,.0f} mL in both lungs: {' and '.join(texts)}{involved}: "
            f"`Pipeline.measure(exclude_regions=[{names}])` leaves them out"
        )
    if row.get("touches_border") == 1:
        remarks.append("the mask, or a lung that it dropped, reaches the border of the scan: lung may be missing")
    return remarks


def _volumes_outside_lungs(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the volumes (mL) of regions outside both lungs that the whole-mask columns count."""
    parts = {key: float(row.get(f"{key}_ml", math.nan)) for key in _REGION_TEXTS}
    out = float(row.get("left_out_ml", 0))
    if not all(map(math.isfinite, (*parts.values(), out))):
        return {}
    for excluded in ((), ("elsewhere",), ("airway",), ("elsewhere", "airway")):
        if math.isclose(out, sum(parts[key] for key in excluded), rel_tol=1e-9, abs_tol=1e-9):
            return {key: ml for key, ml in parts.items() if key not in excluded}
    return {}


def _rejected_lung_flags(case: Case) -> list[str]:
    flags = []
    for component in case.stages.get(regions.STAGE, {}).get(regions.REJECTED, []):
        if component["touches_edge"]:
            why = "reaches the edge of the image, and the mask holds nothing that does"
        elif is_given(case):
            why = "is not in the mask file"
        else:
            why = "is cut off by the opening or too small for the mask; `min_voxels` and `opening` decide that"
        flags.append(f"about {component['ml']:,.0f} mL that look like lung are not in the mask: this component {why}")
    return flags


def _hu_flags(case: Case) -> list[str]:
    try:
        findings = findings_of(case)
    except DamageError:
        return []
    if any(finding.severity == "rejected" for finding in findings):
        if case.failure is not None:
            return []
        kind, consequence = "not HU of a chest CT", "it enters no pooled fit"
    else:
        kind, consequence = "doubtful HU", "it is measured, and enters no pooled fit"
    return [f"{kind}: {finding.reason}; {consequence}" for finding in findings]
