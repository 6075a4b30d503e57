"""The result of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np

from lungmix.analysis.comparison import Comparison
from lungmix.cluster import ResourceUsage
from lungmix.errors import ClusterError, RoomError, count_of, first_of, more_memory, redact, reveal
from lungmix.mixture import Fits, TissueModel
from lungmix.store.models import ModelId
from lungmix.store.tables import Row
from lungmix.tissue import TISSUES

_SHOWN = 4
_SUMMARIZED = (
    ("lung_ml", "lung", "mL", 0),
    *((tissue.key, {"ggo": "GGO"}.get(tissue.key, tissue.key), "%", 1) for tissue in TISSUES),
    ("lung_involvement", "LI", "%", 1),
    ("mean_hu", "mean density", "HU", 0),
)
"""Columns of the summary: key, title, unit, decimals."""


@dataclass(repr=False)
class CaseResult:
    """Outcome of a command that works case by case.

    Attributes
    ----------
    done : list of str
        Finished cases.
    failed : dict of str to str
        Reason of each failed case or source, without names of files.
    messages : dict of str to str
        The same reasons with names of files, for the terminal.
    skipped : dict of str to str
        Parts of sources that were not used, with the reason; these are no failures.
    notes : dict of str to tuple of str
        Notes on cases, such as gaps that were interpolated; names of files are marked.
    errors : dict of str to Exception
        The errors behind `failed`, for debugging.
    spent : dict of str to ResourceUsage
        Time and memory by stage; stages without work are missing.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict, kw_only=True)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict, kw_only=True)
    errors: dict[str, Exception] = field(default_factory=dict, kw_only=True)
    spent: dict[str, ResourceUsage] = field(default_factory=dict, kw_only=True)

    def __repr__(self) -> str:
        """Return a few lines: numbers of cases, statistics, failures with reasons."""
        counts = f"{len(self.done)} done, {len(self.failed)} failed"
        if self.skipped:
            counts += f", {len(self.skipped)} skipped"
        failed = [f"failed: {name}: {reason}" for name, reason in list(self.failed.items())[:_SHOWN]]
        if len(self.failed) > _SHOWN:
            failed.append(f"failed: {len(self.failed) - _SHOWN} more, see `failed`")
        lines = [*self._origin(), *self.statistics(), *failed]
        return "\n".join([f"<{type(self).__name__}: {counts}>", *(f"  {line}" for line in lines)])

    def statistics(self) -> list[str]:
        """Return lines that summarize the cases."""
        return []

    def _origin(self) -> list[str]:
        """Return lines about the model that the results were made with."""
        return []

    def skip(self, name: str, reason: str) -> None:
        """Record a part of a source that was not used, and the reason."""
        self.skipped[name], self.messages[name] = redact(reason), reveal(reason)

    def note(self, name: str, notes: Sequence[str]) -> None:
        """Add notes on a case without duplicates."""
        if notes:
            self.notes[name] = tuple(dict.fromkeys((*self.notes.get(name, ()), *notes)))

    def fail(self, name: str, reason: str, error: Exception | None = None) -> None:
        """Record a failure; names of files in the reason are marked."""
        self.failed[name], self.messages[name] = redact(reason), reveal(reason)
        if error is not None:
            self.errors[name] = error


@dataclass(repr=False)
class RunResult(CaseResult):
    """Result of a run.

    Attributes
    ----------
    done : list of str
        Finished cases.
    failed : dict of str to str
        Reason of each failed case or source, without names of files.
    messages : dict of str to str
        The same reasons with names of files, for the terminal.
    places : dict of str to str
        For each case of this run, a label that says where its scan was found without its name, such as
        ``source 2, item 17``.
    model : TissueModel or None
        Model of the store: the mixture that all labels are by, except labels of the cases in `stale`.
    model_id : ModelId or None
        Name and digest of `model`.
    stale : dict of str to str
        For each case whose labels are by another mixture, name and digest of that mixture.
    fits : Fits or None
        The fits ``paper``, ``converged`` and ``anchored``, if a mixture was fitted.
    comparison : Comparison or None
        The fits side by side, with their checks.
    selection : list of dict
        BIC by number of components, if `Pipeline.select` compared several numbers.
    rows : list of dict
        Measurements, one row per labelled case.
    spacings : dict of str to tuple of float
        Spacing of the measured cases along x, y, z, mm.
    radiomics : list of dict
        First-order features, one row per region of a labelled case, if requested.
    zones : list of dict
        Measurements of lung zones and of sums of zones, several rows per labelled case, if the store has lung zones.
    quality : list of dict
        Flags, reasons and numbers of quality control, one row per labelled case.
    skipped : dict of str to str
        Parts of sources that are no scans or were not selected, with the reason; these are no failures.
    notes : dict of str to tuple of str
        Notes on cases, such as gaps that were interpolated; names of files are marked.
    errors : dict of str to Exception
        The errors behind `failed`, for debugging.
    spent : dict of str to ResourceUsage
        Time and memory by stage; stages without work are missing.
    page : Path or None
        The HTML report, if `lungmix.run` was given a folder for it.
    """

    places: dict[str, str] = field(default_factory=dict)
    model: TissueModel | None = None
    model_id: ModelId | None = None
    stale: dict[str, str] = field(default_factory=dict)
    fits: Fits | None = None
    comparison: Comparison | None = None
    selection: list[dict[str, Any]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    spacings: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    radiomics: list[Row] = field(default_factory=list)
    zones: list[Row] = field(default_factory=list)
    quality: list[Row] = field(default_factory=list)
    page: Path | None = None

    def _origin(self) -> list[str]:
        return [] if self.model_id is None else [f"model: {self.model_id}"]

    def statistics(self) -> list[str]:
        """Return a line about voxel sizes, and a line with median and quartiles of the measurements."""
        lines = []
        if self.spacings:
            x, y, z = zip(*self.spacings.values(), strict=True)
            lines.append(f"voxel size in plane: {_median_and_range([*x, *y])}; slice spacing: {_median_and_range(z)}")
        columns = [column for column in _SUMMARIZED if self.rows and column[0] in self.rows[0]]
        if columns:
            texts = []
            for key, title, unit, digits in columns:
                values = [value for row in self.rows if not isnan(value := float(row[key]))]
                low, median, high = np.percentile(values or [nan], (25, 50, 75))
                texts.append(f"{title} {median:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}] {unit}")
            lines.append(f"median [quartiles] of {count_of(len(self.rows), 'case')}: {'; '.join(texts)}")
        return lines


def _median_and_range(values: Sequence[float]) -> str:
    low, median, high = (f"{value:.3g}" for value in np.percentile(values, (0, 50, 100)))
    return f"{median} mm" if low == high else f"{median} mm ({low} to {high})"


def raise_without_memory(result: CaseResult) -> None:
    """Raise an error if workers have too little memory for every case.

    Raises
    ------
    ClusterError
        If no case finished, and each failed for lack of memory.
    """
    errors = [result.errors.get(name) for name in result.failed]
    too_large = [error for error in errors if isinstance(error, RoomError)]
    if result.done or not too_large or len(too_large) < len(errors):
        return
    largest = max(too_large, key=lambda error: error.enough)
    names = first_of([error.case for error in too_large], _SHOWN)
    needs = "needs" if len(too_large) == 1 else "need up to"
    size = f"{largest.enough / 1e6:.0f}"
    remedy = more_memory(f"{size}MB", is_local=largest.is_local)
    has = f"a worker has {largest.limit / 1e6:.0f} MB of memory"
    raise ClusterError(f"too little memory for every case: {has}, and {names} {needs} {size} MB: {remedy}")
