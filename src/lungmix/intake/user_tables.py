"""Tables with lines about scans or patients, which users write: read them, and match their names to cases."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath

from lungmix.errors import UsageError, mark_path, mark_untrusted
from lungmix.formats.images import KINDS
from lungmix.formats.tables import Rows, rows_of, text_of

CASE_COLUMNS = ("case", "scan")
PATIENT_COLUMNS = ("patient", "patient_id", "patientid")
"""Names of the columns that name a case and a patient."""

_EXTENSIONS = (*sorted(KINDS, key=len, reverse=True), ".zip", ".tar.gz", ".tar")


def read_user_table(file: Path, names: Collection[str], contents: str, needs: str) -> tuple[list[str], Rows]:
    """Return the header and the lines of a CSV file, see `lungmix.formats.tables`.

    Parameters
    ----------
    file : Path
        The file.
    names : collection of str
        Possible column names, in lower case.
    contents, needs : str
        Contents of the file, such as ``scores``, and its form, for messages.

    Returns
    -------
    header : list of str
        Cells of the first line.
    lines : list of (int, list of str)
        Number and cells of each further line, without spaces at their ends.

    Raises
    ------
    UsageError
        If the file cannot be read, or has fewer than two lines.
    """
    text = read_user_text(file, contents)
    try:
        rows = rows_of(text, names)
    except csv.Error as error:
        raise UsageError(f"{mark_path(file)} is not a valid CSV table: check its quotes") from error
    table = [(number, [cell.strip() for cell in cells]) for number, cells in rows]
    if len(table) < 2:
        raise UsageError(f"{mark_path(file)} holds no {contents}: it needs {needs}")
    return table[0][1], table[1:]


def read_user_text(file: Path, contents: str, kind: str = "CSV") -> str:
    """Return the text of a file in UTF-8 or UTF-16, without a byte order mark.

    Parameters
    ----------
    file : Path
        The file.
    contents, kind : str
        Contents of the file, such as ``scores``, and its kind, for messages.

    Raises
    ------
    UsageError
        If the file cannot be read, or is no text.
    """
    try:
        return text_of(file.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{mark_path(file)} cannot be read ({error.strerror}): give the {kind} file of the {contents}"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{mark_path(file)} is not text in UTF-8 or UTF-16: save it as {kind} in UTF-8") from error


def check_cells(file: Path, header: Sequence[str], lines: Rows) -> None:
    """Raise a `UsageError` if a line has more or fewer cells than the header."""
    for number, cells in lines:
        if len(cells) != len(header):
            raise UsageError(
                f"{mark_path(file)}, line {number}: {len(cells)} cells in a table of {len(header)} columns: correct "
                "this line"
            )


def missing_columns(file: Path, header: Sequence[str], needed: str) -> UsageError:
    """Return the error that a table lacks columns; `needed` names them."""
    return UsageError(
        f"{mark_path(file)} has the columns {mark_untrusted(', '.join(header))}: it needs {needed} in its first line"
    )


def plain_name(name: object) -> str:
    """Return a patient's name in lower case, with spaces between its parts in place of the ``^`` of DICOM."""
    return " ".join(re.split(r"[\^,\s]+", str(name).strip("^, ").lower()))


def file_names(row: Mapping[str, str] | None) -> list[str]:
    """Return the name of a scan's file or folder in lower case, with and without its extension.

    Parameters
    ----------
    row : mapping of str to str, or None
        Row of a key table.
    """
    if row is None:
        return []
    name = PurePath(row["path"]).name.lower()
    return [name, next((name[: -len(end)] for end in _EXTENSIONS if name.endswith(end)), name)]


def patient_names(row: Mapping[str, str] | None) -> list[str]:
    """Return the ID and the name of a scan's patient, in lower case, by the row of a key table."""
    return [] if row is None else [plain_name(row[name]) for name in ("patient_id", "patient_name") if row.get(name)]
