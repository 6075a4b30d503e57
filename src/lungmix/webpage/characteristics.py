"""Table of characteristics (Table 1) as text, CSV, Markdown and HTML, to paste into a manuscript."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Sequence

from lungmix.analysis.characteristics import COUNT, MEAN, MEDIAN, MISSING, PATIENTS, PERCENT, Cell, Row
from lungmix.analysis.group_comparison import GroupStudy
from lungmix.webpage.columns import title_of

_STYLE = (
    "table{border-collapse:collapse;font:14px/1.4 sans-serif}caption{text-align:left;margin:0 0 .5em}"
    "th,td{padding:.2em .8em;text-align:left;vertical-align:top}thead th{border-top:2px solid;border-bottom:1px solid}"
    "tbody tr:last-child>*{border-bottom:2px solid}th[scope=row]{font-weight:normal}.level{padding-left:2em}"
    "tfoot td{font-size:12px;max-width:60em}tbody td{white-space:nowrap}body>div{overflow-x:auto}"
)


def text_table(result: GroupStudy) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table as text, with one empty cell for a title that is above it already."""
    header = ["characteristic", "level", "of", "summary", "all", *result.groups]
    rows: list[list[str]] = []
    previous = ""
    for row in result.table:
        title = row.title or title_of(row.key)
        rows.append([
            "" if title == previous else title, "missing" if row.kind == MISSING else row.level, row.of, row.kind,
            *(_text(row, cell) for cell in row.cells),
        ])  # fmt: skip
        previous = title
    return header, rows


def footnotes(result: GroupStudy) -> list[str]:
    """Return the sentences below the table: what its cells are, and who is a patient."""
    kinds = {row.kind for row in result.table}
    notes = ["Values are numbers (percentages of patients or scans with a value)"]
    if MEAN in kinds:
        notes[0] += ", means ± standard deviations (SD)"
    if MEDIAN in kinds:
        notes[0] += ", medians [first and third quartile]"
    notes[0] += "."
    of_patients = [row.title for row in result.table if row.of == PATIENTS and row.kind in (PERCENT, MEAN, MEDIAN)]
    if of_patients:
        titles = ", ".join(dict.fromkeys(of_patients))
        notes.append(f"Counted once for each patient of a column: {titles}. All others: once for each scan.")
    notes.append(f"{result.patients_by[:1].upper()}{result.patients_by[1:]}.")
    pairs = {(scan.patient, scan.group) for scan in result.scans if scan.group is not None}
    if len(pairs) > len({patient for patient, _ in pairs}):
        notes.append("Patients with scans in several groups count in each of them.")
    return notes


def csv_table(result: GroupStudy) -> str:
    """Return the table as CSV."""
    header, rows = text_table(result)
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *_with_titles(rows)])
    return stream.getvalue()


def markdown_table(result: GroupStudy) -> str:
    """Return the table as Markdown."""
    header, rows = narrow_table(result)
    lines = [header, ["---"] * len(header), *rows]
    text = "\n".join("| " + " | ".join(_markdown_cell(cell) for cell in line) + " |" for line in lines)
    return "\n".join([text, "", *footnotes(result)]) + "\n"


def html_table(result: GroupStudy) -> str:
    """Return the table as an HTML page without other files, from which it can be copied."""
    header, rows = narrow_table(result)
    cells = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
    body = []
    for title, *numbers in rows:
        level = ' class="level"' if title.startswith(_INDENT) else ""
        texts = "".join(f"<td>{html.escape(text)}</td>" for text in numbers)
        body.append(f'<tr><th scope="row"{level}>{html.escape(title.strip(_INDENT))}</th>{texts}</tr>')
    notes = html.escape(" ".join(footnotes(result)))
    caption = "Characteristics of patients and scans" + (f" by {result.by}" if result.by else "")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(caption)}</title>'
        f"<style>{_STYLE}</style></head><body><div>\n<table><caption>{html.escape(caption)}</caption>\n"
        f"<thead><tr>{cells}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody>\n"
        f'<tfoot><tr><td colspan="{len(header)}">{notes}</td></tr></tfoot></table>\n</div></body></html>\n'
    )


_INDENT = "\u2003"


def narrow_table(result: GroupStudy) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table as text, with characteristic, level and kind in one column."""
    rows: list[list[str]] = []
    previous = ""
    for row in result.table:
        title = row.title or title_of(row.key)
        texts = [_text(row, cell) for cell in row.cells]
        if row.kind in (PERCENT, MISSING):
            if title != previous:
                rows.append([f"{title}, {PERCENT}", *[""] * len(texts)])
            rows.append([f"{_INDENT}{'missing' if row.kind == MISSING else row.level}", *texts])
        else:
            rows.append([title if row.kind == COUNT else f"{title}, {row.kind}", *texts])
        previous = title
    return ["", "All", *result.groups], rows


def _with_titles(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    out: list[list[str]] = []
    for title, *cells in rows:
        out.append([title or out[-1][0], *cells])
    return out


def _text(row: Row, cell: Cell) -> str:
    if row.kind in (COUNT, MISSING):
        return str(cell.n)
    if row.kind == PERCENT:
        return str(cell.n) if math.isnan(cell.percent) else f"{cell.n} ({cell.percent:.0f})"
    if not cell.n:
        return "–"
    numbers = (cell.value, cell.sd) if row.kind == MEAN else (cell.value, cell.low, cell.high)
    value, *spread = (f"{number:,.{row.digits}f}".replace("-", "−") for number in numbers)
    if row.kind == MEAN:
        return f"{value} ± {spread[0]}" if cell.n > 1 else value
    return f"{value} [{spread[0]} to {spread[1]}]" if "−" in "".join(spread) else f"{value} [{spread[0]}–{spread[1]}]"


def _markdown_cell(text: str) -> str:
    # A backslash protects what Markdown would take as markup.
    return "".join(f"\\{character}" if character in r"\|*_`[]<>#" else character for character in text)
