"""The result of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lungmix.analysis.comparison import Comparison
from lungmix.cluster import ResourceUsage
from lungmix.errors import ClusterError, RoomError, more_memory, redact, reveal
from lungmix.mixture import Fits, TissueModel
from lungmix.store.models import ModelId
from lungmix.store.tables import Row

_SHOWN = 4


@dataclass(repr=False)
class RunResult:
    """Result of a run.

    Attributes
    ----------
    done : list of str
        Cases that went through.
    failed : dict of str to str
        Reason for every case or source that did not, without names of files: what may be passed on.
    messages : dict of str to str
        The same with names, for the person at the terminal.
    places : dict of str to str
        Where the cases of this run came from, such as ``source 2, item 17``.
    model : TissueModel or None
        The mixture of the store: that of the labels, unless `stale` says otherwise.
    model_id : ModelId or None
        Its name and digest.
    stale : dict of str to str
        Cases that `fit` or `measure` left with labels by another mixture, and name and digest of that.
    fits : Fits or None
        Both fits, where a mixture was fitted.
    comparison : Comparison or None
        Both fits side by side.
    selection : list of dict
        Several numbers of components and their BIC, where that was asked for.
    rows : list of dict
        Measurements, one row a labelled case.
    radiomics : list of dict
        First-order features, one row a region of a labelled case, where that was asked for.
    skipped : dict of str to str
        Parts of sources that are not meant to be scans, or were not chosen, with the reason; no failures.
    notes : dict of str to tuple of str
        Notes on cases, such as gaps that were interpolated; names of files are marked.
    errors : dict of str to Exception
        The errors behind `failed`, for debugging.
    spent : dict of str to Spent
        Time and memory by stage; stages whose results were all kept are missing.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    model: TissueModel | None = None
    model_id: ModelId | None = None
    stale: dict[str, str] = field(default_factory=dict)
    fits: Fits | None = None
    comparison: Comparison | None = None
    selection: list[dict[str, Any]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    radiomics: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    spent: dict[str, ResourceUsage] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return a few lines: counts, failures with their reasons, the model."""
        counts = f"{len(self.done)} done, {len(self.failed)} failed"
        if self.skipped:
            counts += f", {len(self.skipped)} skipped"
        lines = [f"<RunResult: {counts}>"]
        if self.model_id is not None:
            lines.append(f"  model: {self.model_id}")
        failed = [f"  failed: {name}: {reason}" for name, reason in list(self.failed.items())[:_SHOWN]]
        if len(self.failed) > _SHOWN:
            failed.append(f"  failed: {len(self.failed) - _SHOWN} more, see `failed`")
        return "\n".join([*lines, *failed])

    def skip(self, name: str, reason: str) -> None:
        """Record a source that is not meant to be a scan."""
        self.skipped[name], self.messages[name] = redact(reason), reveal(reason)

    def note(self, name: str, notes: Sequence[str]) -> None:
        """Add notes on a case, once each."""
        if notes:
            self.notes[name] = tuple(dict.fromkeys((*self.notes.get(name, ()), *notes)))

    def fail(self, name: str, reason: str, error: Exception | None = None) -> None:
        """Record a failure; names of files in the reason are marked."""
        self.failed[name], self.messages[name] = redact(reason), reveal(reason)
        if error is not None:
            self.errors[name] = error


def refuse_without_room(report: RunResult) -> None:
    """End a run that could do nothing, because workers have too little memory for every case.

    Raises
    ------
    ClusterError
        If no case went through, and each failed for that.
    """
    errors = [report.errors.get(name) for name in report.failed]
    refusals = [error for error in errors if isinstance(error, RoomError)]
    if report.done or not refusals or len(refusals) < len(errors):
        return
    largest = max(refusals, key=lambda error: error.enough)
    names = ", ".join(error.case for error in refusals[:_SHOWN])
    more = f" and {len(refusals) - _SHOWN} more" if len(refusals) > _SHOWN else ""
    needs = "needs" if len(refusals) == 1 else "need up to"
    size = f"{largest.enough / 1e6:.0f}"
    remedy = more_memory(f"{size}MB", is_local=largest.is_local)
    has = f"a worker has {largest.limit / 1e6:.0f} MB of memory"
    raise ClusterError(f"nothing can be done: {has}, and {names}{more} {needs} {size} MB: {remedy}")
