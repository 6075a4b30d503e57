"""Reference to a case, which tasks get as an argument in place of the case itself."""

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
        Identifier of the attempt that the task belongs to; the task can write until a newer attempt begins. Empty for
        a task that only reads.
    """

    url: str
    name: str
    attempt: str = ""

    @classmethod
    def of(cls, cohort: Cohort, name: str, attempt: str = "") -> CaseRef:
        """Return a reference to a case for the tasks of an attempt; see `CaseWriter.start_stage`."""
        return cls(url_for_workers(cohort), name, attempt)

    def open(self, mode: Literal["r", "r+"] = "r") -> CaseWriter:
        """Open the case. References of one attempt share one opened case per process.

        Raises
        ------
        StoreError
            If the mode is ``r+`` and the attempt was replaced.
        """
        if not self.attempt:
            return CaseWriter(open_cohort(self.url, mode)[self.name])
        case = _open_case(self)
        if mode != "r":
            case.check_attempt(self.attempt)
        return case


def url_for_workers(cohort: Cohort) -> str:
    """Return the URL of a store; its path is absolute, as workers may have another working directory."""
    return cohort.url if is_remote(cohort.url) else str(Path(cohort.url).absolute())


@lru_cache(maxsize=32)
def _open_case(case_ref: CaseRef) -> CaseWriter:
    case = CaseWriter(open_cohort(case_ref.url, "r+")[case_ref.name])
    if case.attempt != case_ref.attempt:
        # A network file system may return older attributes, which must not be cached.
        case.check_attempt(case_ref.attempt)
        case = CaseWriter(open_cohort(case_ref.url, "r+")[case_ref.name])
    return case
