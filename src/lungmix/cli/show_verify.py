"""Result of a verification for the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from rich.console import Console

from lungmix.cli.redaction import printable
from lungmix.cli.show_fits import print_lines
from lungmix.errors import count_of
from lungmix.verify import Verification


def show_verified(
    console: Console,
    store: str,
    verified: Sequence[str],
    verification: Verification,
    invalidated: Mapping[str, Mapping[str, str]],
    unchecked: int = 0,
) -> None:
    """Print problems and notes by case, how many cases passed, and what was or can be invalidated.

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
        Reasons by case and invalidated stage.
    unchecked : int
        Number of cases of the store that are not in the random sample.
    """
    for name, reasons in verification.faults.items():
        print_lines(console, *(f"{name}: {printable(reason)}" for reason in reasons))
    for name, notes in verification.notes.items():
        print_lines(console, printable(f"{name}: {'; '.join(notes)}"))
    passed = sum(name not in verification.faults for name in verified)
    if unchecked:
        others = f"{count_of(unchecked, 'other case')} of the store not checked: give --all to check each"
        print_lines(console, f"{passed} of {count_of(len(verified), 'checked case')} passed; {others}")
    else:
        print_lines(console, f"{passed} of {count_of(len(verified), 'case')} passed")
    for name, stages in invalidated.items():
        print_lines(console, f"{name}: invalidated: {', '.join(stages)}")
    if invalidated:
        print_lines(console, printable("run `Pipeline.run(sources)` to recompute the invalidated stages"))
    elif verification.damaged:
        command = f"lungmix verify {shlex.quote(store)} --invalidate"
        print_lines(console, f"run `{command}` to invalidate corrupt stages; the next run recomputes them")
