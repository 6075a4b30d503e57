"""What a comparison found."""

from __future__ import annotations

from dataclasses import dataclass, field

from lungmix.errors import redact


@dataclass
class Verification:
    """What was compared and what differs.

    Attributes
    ----------
    wrong : dict of str to list of str
        What differs, by case, or by file of the store; of cases empty lists where all is as it should be. Names of
        files in it are marked (`lungmix.errors.mark_path`).
    notes : dict of str to list of str
        What people should know of cases and files that are as they should be, such as stages that were not made.
    damaged : dict of str to dict
        Of cases, by stage or ``air``, what `withdraw` gives as the reason.
    """

    wrong: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    damaged: dict[str, dict[str, str]] = field(default_factory=dict)

    def add_problem(self, name: str, reason: str, stage: str | None = None) -> None:
        """Take note of a difference, once; `stage` is the one that has to be made again."""
        told = self.wrong.setdefault(name, [])
        if reason not in told:
            told.append(reason)
        if stage is not None:
            self.damaged.setdefault(name, {}).setdefault(stage, redact(reason))

    def add_note(self, name: str, words: str) -> None:
        """Take note of what is no difference."""
        if words not in self.notes.setdefault(name, []):
            self.notes[name].append(words)

    @property
    def faults(self) -> dict[str, list[str]]:
        """`wrong` without what is as it should be."""
        return {name: reasons for name, reasons in self.wrong.items() if reasons}
