"""Problems and notes that a verification collects."""

from __future__ import annotations

from dataclasses import dataclass, field

from lungmix.errors import redact


@dataclass
class Verification:
    """Result of a verification.

    Attributes
    ----------
    wrong : dict of str to list of str
        Problems of each case or file of the store; an empty list for a case that passed. Names of files in the texts
        are marked (`lungmix.errors.mark_path`).
    notes : dict of str to list of str
        Notes on each case or file that are no problems, such as stages that were not run.
    damaged : dict of str to dict
        For each case, the stages to recompute (or ``air``, packed air), each with the reason.
    """

    wrong: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    damaged: dict[str, dict[str, str]] = field(default_factory=dict)

    def add_problem(self, name: str, reason: str, stage: str | None = None) -> None:
        """Add a problem of a case or file, without duplicates; `stage` is the stage that has to be recomputed."""
        reasons = self.wrong.setdefault(name, [])
        if reason not in reasons:
            reasons.append(reason)
        if stage is not None:
            self.damaged.setdefault(name, {}).setdefault(stage, redact(reason))

    def add_note(self, name: str, note: str) -> None:
        """Add a note on a case or file, without duplicates."""
        notes = self.notes.setdefault(name, [])
        if note not in notes:
            notes.append(note)

    @property
    def faults(self) -> dict[str, list[str]]:
        """Cases and files of `wrong` with at least one problem."""
        return {name: reasons for name, reasons in self.wrong.items() if reasons}
