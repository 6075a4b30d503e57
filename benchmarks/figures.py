"""Results of a benchmark: tables, and figures with their targets; printed, and written as JSON and Markdown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Grid


@dataclass(frozen=True)
class Check:
    """A measured figure with its target."""

    what: str
    value: float
    target: float
    unit: str = "x"
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target

    def cells(self) -> list[str]:
        bound = "at least" if self.at_least else "at most"
        return [self.what, f"{_number(self.value)} {self.unit}", f"{bound} {_number(self.target)} {self.unit}",
                "yes" if self.met else "no"]  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of text and numbers with a title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


CHECK_COLUMNS = ("figure", "measured", "target", "met")


@dataclass
class Sheet:
    """Tables and checks of one benchmark."""

    name: str
    tables: list[Table] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    data: dict[str, object] = field(default_factory=dict)

    def show(self) -> None:
        for table in self.tables:
            show(table)
        if self.checks:
            show(checks_table(self.checks))

    def save(self, folder: Path | None) -> None:
        """``name.json`` for programs, ``name.md`` for the docs."""
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(json.dumps(asdict(self), indent=1) + "\n")
        parts = [markdown(table) for table in self.tables]
        if self.checks:
            parts.append(markdown(checks_table(self.checks, "")))
        (folder / f"{self.name}.md").write_text("\n".join(parts))

    @classmethod
    def load(cls, path: Path) -> Sheet:
        kept = json.loads(path.read_text())
        return cls(
            kept["name"],
            [Table(**table) for table in kept["tables"]],
            [Check(**check) for check in kept["checks"]],
            kept["data"],
        )


def checks_table(checks: Sequence[Check], title: str = "Beside the targets") -> Table:
    return Table(title, CHECK_COLUMNS, [check.cells() for check in checks])


def show(table: Table) -> None:
    """Print a table."""
    grid = Grid(
        title=table.title, caption=table.note or None, box=box.SIMPLE, title_justify="left", caption_justify="left"
    )
    for index, column in enumerate(table.columns):
        grid.add_column(column, justify="left" if index == 0 else "right")
    for row in table.rows:
        grid.add_row(*row)
    Console(width=None if Console().is_terminal else 150, highlight=False).print(grid)


def markdown(table: Table) -> str:
    """Return the table in Markdown, with its title in bold before it."""
    rule = ["---", *["---:"] * (len(table.columns) - 1)]
    lines = ["| " + " | ".join(row) + " |" for row in (table.columns, rule, *table.rows)]
    head = [f"**{table.title}**", ""] if table.title else []
    tail = ["", table.note] if table.note else []
    return "\n".join([*head, *lines, *tail]) + "\n"


def parser_for(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="use smaller scans, to see that the benchmark works; its figures mean nothing",
    )
    parser.add_argument(
        "--scans", type=Path, metavar="FOLDER", help="folder in which phantom scans are kept for later runs"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder into which tables are written")
    return parser


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
