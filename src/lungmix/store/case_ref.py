"""Reference to a case, which is sent to tasks in place of the case."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from lungmix.store.case_writer import CaseWriter
from lungmix.store.cohort import Cohort, open_cohort
from lungmix.store.zarr_store import is_remote


@dataclass(frozen=True)
class CaseRef:
    """Reference to a case.

    Attributes
    ----------
    url, name : str
        URL of the store and name of the case.
    attempt : str
        Attempt at a stage to which a task belongs; it can write only until a newer attempt begins.
    """

    url: str
    name: str
    attempt: str = ""

    @classmethod
    def of(cls, cohort: Cohort, name: str, attempt: str = "") -> CaseRef:
        """Return a reference to a case for the tasks of an attempt; see `CaseWriter.start_stage`."""
        # Absolute, as workers may have another working directory.
        return cls(cohort.url if is_remote(cohort.url) else str(Path(cohort.url).absolute()), name, attempt)

    def open(self, mode: Literal["r", "r+"] = "r") -> CaseWriter:
        """Open the case in this process, where references of one attempt share it.

        Raises
        ------
        StoreError
            If a writing task belongs to an attempt that was replaced.
        """
        if not self.attempt:
            return CaseWriter(open_cohort(self.url, mode)[self.name])
        case = _open_case(self)
        if mode != "r":
            case.check_attempt(self.attempt)
        return case


@lru_cache(maxsize=32)
def _open_case(case_ref: CaseRef) -> CaseWriter:
    case = CaseWriter(open_cohort(case_ref.url, "r+")[case_ref.name])
    if case.attempt != case_ref.attempt:
        # A network file system may return older attributes, which must not be cached.
        case.check_attempt(case_ref.attempt)
        case = CaseWriter(open_cohort(case_ref.url, "r+")[case_ref.name])
    return case
