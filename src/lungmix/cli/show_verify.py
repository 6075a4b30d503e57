"""Print the result of a verification on the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from lungmix.cli.redaction import printable
from lungmix.errors import count_of

if TYPE_CHECKING:
    from lungmix.verify import Verification


def show_verified(
    console: Console,
    store: str,
    verified: Sequence[str],
    verification: Verification,
    invalidated: Mapping[str, Mapping[str, str]],
    unchecked: int = 0,
) -> None:
    """Print problems and notes by case, the number of cases that passed, and stages that were or can be invalidated.

    Parameters
    ----------
    console : Console
        Terminal or file to print to.
    store : str
        Folder or URL of the store.
    verified : sequence of str
        Cases that were verified.
    verification : Verification
        Problems and notes.
    invalidated : mapping of str to mapping
        For each case and each of its invalidated stages, the reason.
    unchecked : int
        Number of cases of the store that are not in the random sample.
    """
    lines = [f"{name}: {reason}" for name, reasons in verification.faults.items() for reason in reasons]
    lines += [f"{name}: {'; '.join(notes)}" for name, notes in verification.notes.items()]
    passed = sum(name not in verification.faults for name in verified)
    if unchecked:
        others = f"{count_of(unchecked, 'other case')} of the store not checked: give --all to check each"
        lines.append(f"{passed} of {count_of(len(verified), 'checked case')} passed; {others}")
    else:
        lines.append(f"{passed} of {count_of(len(verified), 'case')} passed")
    lines += [f"{name}: invalidated: {', '.join(stages)}" for name, stages in invalidated.items()]
    if invalidated:
        lines.append("run `Pipeline.run(sources)` to recompute the invalidated stages")
    elif verification.damaged:
        command = f"lungmix verify {shlex.quote(store)} --invalidate"
        lines.append(f"run `{command}` to invalidate corrupt stages; the next run recomputes them")
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
