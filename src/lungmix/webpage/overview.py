"""Overview of a cohort: its cases with their stages, and its scanners as in Table 1 of Zaffino et al. 2021."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from lungmix.privacy.acquisition import Acquisition
from lungmix.quality_flags import RaisedFlag
from lungmix.stages.flags import doubts_of
from lungmix.stages.measure import stored_rows
from lungmix.stages.quality import is_unmeasured
from lungmix.store import Cohort
from lungmix.store.choices import last_quality
from lungmix.store.models import ModelUse, model_use


@dataclass(frozen=True)
class CaseOverview:
    """Summary of a case.

    Attributes
    ----------
    name : str
        Case name.
    size, spacing : tuple
        Number of voxels, and spacing in mm, along x, y, z.
    stages : list of str
        Names of the finished stages.
    note : str
        Reason of the failure of the case, and its corrupt stages; empty if there are none.
    flags : list of str
        Sentences about doubts, such as the sentences of flags.
    quality : list of RaisedFlag
        Raised flags of quality control, with numbers and thresholds.
    quality_measured : bool
        False for a case that has a mask, but no numbers of quality control.
    """

    name: str
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    stages: list[str]
    note: str
    flags: list[str] = field(default_factory=list)
    quality: list[RaisedFlag] = field(default_factory=list)
    quality_measured: bool = True


@dataclass(frozen=True)
class Scanner:
    """Row of the table of scanners: a scanner model with the number of its scans and their settings."""

    manufacturer: str
    model: str
    scans: int
    kvp: str
    thickness: str


@dataclass(frozen=True)
class CohortOverview:
    """Overview of a cohort: cases, scanners, totals, models of the labels and presets of the masks."""

    store: str
    cases: list[CaseOverview]
    scanners: list[Scanner]
    slices: int
    voxels: int
    made_with: ModelUse
    damaged: dict[str, str] = field(default_factory=dict)
    """Reason and remedy for each case with unreadable metadata, and for each scan that could not be converted."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {**asdict(self), "made_with": self.made_with.to_dict(), "warnings": self.warnings}

    @property
    def warnings(self) -> list[str]:
        """Messages about cases with labels by different models, or masks with different parameters."""
        return self.made_with.warnings()


def overview_of(cohort: Cohort) -> CohortOverview:
    """Return the overview of a cohort, which reads its metadata and no images."""
    cases, by_scanner = [], defaultdict(list)
    slices = voxels = 0
    present = dict(cohort.items())
    measurements, parameters = {str(row["case"]): row for row in stored_rows(cohort)}, last_quality(cohort)
    for name, case in present.items():
        geometry, acquisition = case.geometry, case.acquisition
        failure = case.failure
        notes = [f"{failure['stage']} failed: {failure['reason']}"] if failure else []
        notes += [f"{stage} is corrupt: {damage['reason']}" for stage, damage in case.damage.items()]
        note = "; ".join(notes)
        row = measurements.get(name)
        flags, quality = doubts_of(case, parameters, row)
        stages, measured = list(case.stages), not is_unmeasured(case)
        cases.append(CaseOverview(name, geometry.size, geometry.spacing, stages, note, flags, quality, measured))
        by_scanner[(acquisition.manufacturer or "unknown", acquisition.model or "unknown")].append(acquisition)
        x, y, z = geometry.size
        slices, voxels = slices + z, voxels + x * y * z
    scanners = [
        Scanner(maker, model, len(scans), _frequencies(scans, "kvp"), _frequencies(scans, "slice_thickness"))
        for (maker, model), scans in sorted(by_scanner.items())
    ]
    failed = {
        name: f"case {name}: {record['stage']} failed: {record['reason']}" for name, record in cohort.failed.items()
    }
    use = model_use(cohort, present)
    return CohortOverview(cohort.url, cases, scanners, slices, voxels, use, cohort.damaged | failed)


def _frequencies(scans: list[Acquisition], name: str) -> str:
    """Return text with the distinct values of an attribute, the most frequent first.

    If there are several values, each has the number of its scans, as in ``120 (14), 100 (2)``.
    """
    values = Counter(getattr(acquisition, name) for acquisition in scans)
    texts = [
        ("unknown" if value is None else f"{value:g}") + (f" ({count})" if len(values) > 1 else "")
        for value, count in values.most_common()
    ]
    return ", ".join(texts)
