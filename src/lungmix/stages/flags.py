"""Flags: what people should know of a case before they use its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lungmix.errors import DamageError
from lungmix.stages import regions
from lungmix.stages.plausibility import findings_of
from lungmix.store import Case

NOTED_SHARE = 0.02
"""More than this share of a mask outside both lungs is noted: it can change the lung involvement by a percent."""

_WHERE = {"elsewhere": "lie outside them (table, gas, or between the lungs)", "airway": "are airway"}
_OPTIONS = {"elsewhere": "elsewhere", "airway": "airways"}


def flags_of(case: Case) -> list[str]:
    """Return a sentence for everything about a case that is doubtful; failures are told elsewhere."""
    return [*_of_hu(case), *_of_rejected(case)]


def remarks_on(row: Mapping[str, Any], store: str = "STORE") -> list[str]:
    """Return what the whole-mask numbers of a row of measurements hold beside the lungs.

    Parameters
    ----------
    row : mapping
        A row of ``measurements.csv``.
    store : str
        The store, for the command that leaves it out.
    """
    found = []
    whole, *lungs = (float(row.get(key, math.nan)) for key in ("lung_ml", "right_ml", "left_ml"))
    beside = _beside_the_lungs(row)
    if sum(beside.values()) > NOTED_SHARE * whole:
        texts = [f"{ml:,.0f} mL {_WHERE[key]}" for key, ml in beside.items() if ml >= 0.5]
        options = " ".join(f"--exclude-{_OPTIONS[key]}" for key, ml in beside.items() if ml >= 0.5)
        shares = [float(row.get(key, math.nan)) for key in ("right_lung_involvement", "left_lung_involvement")]
        volumes = [(ml, share) for ml, share in zip(lungs, shares, strict=True) if ml > 0]
        involved = ""
        if volumes and all(math.isfinite(share) for _, share in volumes):
            without = sum(ml * share for ml, share in volumes) / sum(ml for ml, _ in volumes)
            involved = f"; LI {float(row['lung_involvement']):.1f} % with them, {without:.1f} % without"
        found.append(
            f"{whole:,.0f} mL in the mask, {sum(lungs):,.0f} mL in both lungs: {' and '.join(texts)}{involved}: "
            f"`lungmix measure {store} {options}` leaves them out"
        )
    if row.get("touches_border") == 1:
        found.append("the mask, or a lung that it dropped, reaches the border of the scan: lung may be missing")
    return found


def _beside_the_lungs(row: Mapping[str, Any]) -> dict[str, float]:
    """Volumes of the parts outside both lungs that the whole-mask columns count."""
    parts = {key: float(row.get(f"{key}_ml", math.nan)) for key in _WHERE}
    out = float(row.get("left_out_ml", 0))
    if not all(map(math.isfinite, (*parts.values(), out))):
        return {}
    for excluded in ((), ("elsewhere",), ("airway",), ("elsewhere", "airway")):
        if math.isclose(out, sum(parts[key] for key in excluded), rel_tol=1e-9, abs_tol=1e-9):
            return {key: ml for key, ml in parts.items() if key not in excluded}
    return {}


def _of_rejected(case: Case) -> list[str]:
    found = []
    for one in case.stages.get(regions.STAGE, {}).get(regions.REJECTED, []):
        if one["touches_edge"]:
            why = "reaches the edge of the image, and the mask holds nothing that does"
        else:
            why = "is cut off by the opening or too small for the mask; --min-voxels and --opening decide that"
        found.append(f"about {one['ml']:,.0f} mL that look like lung are not in the mask: this piece {why}")
    return found


def _of_hu(case: Case) -> list[str]:
    try:
        findings = findings_of(case)
    except DamageError:
        return []
    if any(one.severity == "refused" for one in findings):
        if case.failure is not None:
            return []
        what, then = "not HU of a chest CT", "it enters no pooled fit"
    else:
        what, then = "doubtful HU", "it is measured, and enters no pooled fit"
    return [f"{what}: {one.reason}; {then}" for one in findings]
