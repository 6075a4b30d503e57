"""Overview of a cohort: cases, stages, and scanners as in Table 1 of Zaffino et al. 2021."""

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
        Voxels and mm along x, y, z.
    stages : list of str
        Finished stages.
    note : str
        Reason of its failure, and its corrupt stages; empty where there are none.
    flags : list of str
        Sentences on doubts about its values.
    quality : list of RaisedFlag
        Flags of quality control with numbers and thresholds.
    quality_measured : bool
        False for a case with a mask whose numbers of quality control were not measured.
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
    """Scanner with its scans, a row of the table of scanners."""

    manufacturer: str
    model: str
    scans: int
    kvp: str
    thickness: str


@dataclass(frozen=True)
class CohortOverview:
    """Cases and scanners of a cohort, with the models and presets of its labels and masks."""

    store: str
    cases: list[CaseOverview]
    scanners: list[Scanner]
    slices: int
    voxels: int
    made_with: ModelUse
    damaged: dict[str, str] = field(default_factory=dict)
    """Reasons and remedies by case, for cases with unreadable metadata and scans that could not be converted."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {**asdict(self), "made_with": self.made_with.to_dict(), "warnings": self.warnings}

    @property
    def warnings(self) -> list[str]:
        """Messages, one for each inconsistency between models or presets."""
        return self.made_with.warnings()


def overview_of(cohort: Cohort) -> CohortOverview:
    """Return the overview of a cohort from its metadata alone."""
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
    """Return the values of an attribute by decreasing frequency, with their numbers where there are several."""
    values = Counter(getattr(acquisition, name) for acquisition in scans)
    texts = [
        ("unknown" if value is None else f"{value:g}") + (f" ({count})" if len(values) > 1 else "")
        for value, count in values.most_common()
    ]
    return ", ".join(texts)
