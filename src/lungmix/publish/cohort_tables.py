"""Further tables of a data set: lung zones, the names of labels, and the characteristics of the cohort as Table 1."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lungmix.analysis.group_comparison import compare_groups
from lungmix.errors import LungmixError
from lungmix.publish.by_others import StoredLabels
from lungmix.publish.folder import LABELS_FILE, TABLE_1_FILE, TABLE_1_TEXT, ZONES_FILE, ImageFile
from lungmix.publish.tables import Row, csv_text
from lungmix.store import Cohort
from lungmix.tissue import segments_of
from lungmix.webpage.characteristics import csv_table, markdown_table

NO_TABLE = (
    "No table: the scans were measured with different mixtures or masks, or not at all, so that their numbers cannot "
    "be summarised together.\n"
)
"""Text in place of Table 1."""


def cohort_tables(labels: StoredLabels, names: Sequence[str], images: Sequence[ImageFile]) -> dict[str, list[Row]]:
    """Return the rows of the tables of zones and of labels by file; without lung zones and lobes, no table of zones."""
    zones = zone_rows(labels, names)
    return {LABELS_FILE: label_rows(images)} | ({ZONES_FILE: zones} if zones else {})


def zone_rows(labels: StoredLabels, names: Sequence[str]) -> list[Row]:
    """Return the rows of lung zones and lobes of the named cases."""
    return [{key: "" if value != value else value for key, value in row.items()} for row in labels.zones(names)]


def label_rows(images: Sequence[ImageFile]) -> list[Row]:
    """Return a row per label of the published images: image, label, key, name and colour."""
    return [
        {"image": name, "label": item.label, "key": item.key, "name": item.name, "color": item.color}
        for name in sorted({image.image for image in images})
        for item in segments_of(name)
    ]


def table_1_texts(cohort: Cohort, names: Sequence[str], scores: Mapping[str, int]) -> dict[str, str]:
    """Return the characteristics of patients and scans as CSV and Markdown, by file.

    Where scans were measured with different mixtures or masks, the only text is the sentence `NO_TABLE`.
    """
    rows = [{"case": name, "S": scores.get(name, "")} for name in names]
    with TemporaryDirectory() as folder:
        table = Path(folder) / "scores.csv"
        table.write_text(csv_text(rows), encoding="utf-8")
        try:
            result = compare_groups(cohort, table=table)
        except LungmixError:
            return {TABLE_1_TEXT: NO_TABLE}
    return {TABLE_1_FILE: csv_table(result), TABLE_1_TEXT: markdown_table(result)}


def table_1_columns(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the columns of Table 1 by its file; none if there is no table."""
    header = next(csv.reader(io.StringIO(texts.get(TABLE_1_FILE, ""))), None)
    return {} if header is None else {TABLE_1_FILE: header}
