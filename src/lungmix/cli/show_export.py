"""Print the files of an export on the terminal, or return them as a JSON object for programs."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from lungmix.cli.redaction import may_show_names, printable
from lungmix.cli.spelling import spelled
from lungmix.errors import count_of
from lungmix.export import Exported


def show_exported(console: Console, result: Exported) -> None:
    """Print one file per line, and the reason of every case that failed."""
    for file in (*(file for files in result.files.values() for file in files), *result.tables):
        console.print(str(file), markup=False, highlight=False)
    for name, count in result.stored.items():
        console.print(f"{name}: {count_of(count, 'object')} stored", markup=False, highlight=False)
    for name, reason in result.failed.items():
        reason = result.messages[name] if may_show_names() else reason
        console.print(printable(f"failed: {name}: {reason}"), markup=False, highlight=False)
    if result.failed:
        console.print(f"{len(result.files)} done, {len(result.failed)} failed", highlight=False)


def exported_values(store: str, result: Exported) -> dict[str, Any]:
    """Return the files and failures of an export, JSON-ready."""
    return {
        "store": store,
        "files": {name: [str(file) for file in files] for name, files in result.files.items()},
        "stored": result.stored,
        "tables": [str(file) for file in result.tables],
        "failed": spelled(result.failed),
        "made_with": result.made_with,
    }
