"""What a cohort consists of: cases, stages, and the scanners as in the paper's Table 1."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from lungmix.privacy.acquisition import Acquisition
from lungmix.stages.flags import flags_of, remarks_on
from lungmix.stages.measure import stored_rows
from lungmix.store import Cohort
from lungmix.store.models import ModelUse, model_use


@dataclass(frozen=True)
class CaseOverview:
    """A case in one line.

    Attributes
    ----------
    name : str
        Case name.
    size, spacing : tuple
        Voxels and mm along x, y, z.
    stages : list of str
        Finished stages.
    note : str
        Why it failed or which stages are damaged, if so.
    flags : list of str
        What is doubtful about it.
    """

    name: str
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    stages: list[str]
    note: str
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scanner:
    """A row of Table 1."""

    manufacturer: str
    model: str
    scans: int
    kvp: str
    thickness: str


@dataclass(frozen=True)
class CohortOverview:
    """A cohort in two tables, and the models and presets that made it."""

    store: str
    cases: list[CaseOverview]
    scanners: list[Scanner]
    slices: int
    voxels: int
    made_with: ModelUse
    damaged: dict[str, str] = field(default_factory=dict)
    """Cases whose metadata cannot be read, and scans that never became a case, with the reason and the remedy."""

    def to_dict(self) -> dict[str, Any]:
        """Return this as a JSON-ready dictionary."""
        return {**asdict(self), "made_with": self.made_with.to_dict(), "warnings": self.warnings}

    @property
    def warnings(self) -> list[str]:
        """A sentence for each disagreement between models or presets."""
        return self.made_with.warnings(self.store)


def overview_of(cohort: Cohort) -> CohortOverview:
    """Describe a cohort from its metadata alone."""
    cases, by_scanner = [], defaultdict(list)
    slices = voxels = 0
    present = dict(cohort.items())
    measured = {str(row["case"]): row for row in stored_rows(cohort)}
    for name, case in present.items():
        geometry, known = case.geometry, case.acquisition
        failure = case.failure
        notes = [f"{failure['stage']} failed: {failure['reason']}"] if failure else []
        notes += [f"{stage} is damaged: {one['reason']}" for stage, one in case.damage.items()]
        note = "; ".join(notes)
        flags = [*flags_of(case), *remarks_on(measured.get(name, {}))]
        cases.append(CaseOverview(name, geometry.size, geometry.spacing, list(case.stages), note, flags))
        by_scanner[(known.manufacturer or "unknown", known.model or "unknown")].append(known)
        x, y, z = geometry.size
        slices, voxels = slices + z, voxels + x * y * z
    scanners = [
        Scanner(maker, model, len(known), _spread(known, "kvp"), _spread(known, "slice_thickness"))
        for (maker, model), known in sorted(by_scanner.items())
    ]
    failed = {name: f"case {name}: {one['stage']} failed: {one['reason']}" for name, one in cohort.failed.items()}
    use = model_use(cohort, present)
    return CohortOverview(cohort.url, cases, scanners, slices, voxels, use, cohort.damaged | failed)


def _spread(known: list[Acquisition], name: str) -> str:
    """The most frequent value, then the others with how often they occur."""
    values = Counter(getattr(one, name) for one in known)
    texts = [
        ("unknown" if value is None else f"{value:g}") + (f" ({count})" if len(values) > 1 else "")
        for value, count in values.most_common()
    ]
    return ", ".join(texts)
