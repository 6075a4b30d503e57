"""Creators of a data set, read from a table, a JSON file or a list of names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lungmix.errors import UsageError, mark_path, mark_untrusted
from lungmix.formats.tables import column_of
from lungmix.intake.user_tables import check_cells, read_user_table, read_user_text
from lungmix.publish.about import Creator

_COLUMNS = {
    "name": ("name", "creator", "author"),
    "family": ("family", "family name", "family_name", "family-names", "familyname"),
    "given": ("given", "given name", "given_name", "given-names", "givenname"),
    "affiliation": ("affiliation",),
    "orcid": ("orcid",),
}
"""Names, in lower case, of the columns of a table, or of the keys of an object."""
_NEEDS = "a column name, or the columns family and given"
_ORCID_ADDRESSES = ("https://orcid.org/", "http://orcid.org/", "orcid.org/")


def read_creators(path: str | Path) -> tuple[Creator, ...]:
    """Read the creators of a data set from a file.

    A CSV file has the column ``name``, or ``family`` and ``given``, and ``affiliation`` and ``orcid`` where they are
    known. A ``.json`` file has a list of such objects or of names, also as ``creators`` or ``authors`` of an object. A
    ``.txt`` file has one name per line.

    Raises
    ------
    UsageError
        If the file cannot be read, has no creators, or one of them is invalid; the message names the first.
    """
    file = Path(path)
    kind = file.suffix.lower()
    entries = _of_json(file) if kind == ".json" else _of_text(file) if kind == ".txt" else _of_table(file)
    creators = [_creator(position, values) for position, values in entries]
    if not creators:
        raise UsageError(f"{mark_path(file)} holds no creators: write the name of each in a line")
    return tuple(creators)


def _creator(position: str, values: Mapping[str, str]) -> Creator:
    name = values.get("name", "")
    if not name and values.get("family"):
        name = ", ".join(part for part in (values["family"], values.get("given", "")) if part)
    if not name:
        raise UsageError(f"{position}: no name: fill it in or delete the entry")
    orcid = values.get("orcid", "")
    for address in _ORCID_ADDRESSES:
        orcid = orcid.removeprefix(address)
    try:
        return Creator(name, values.get("affiliation", ""), orcid)
    except UsageError as error:
        raise UsageError(f"{position}: {error.raw_message}") from None


def _of_table(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    names = [name for each in _COLUMNS.values() for name in each]
    header, lines = read_user_table(file, names, "creators", "a header such as name,affiliation,orcid and a line each")
    check_cells(file, header, lines)
    columns = {key: column_of(header, titles) for key, titles in _COLUMNS.items()}
    if columns["name"] is None and columns["family"] is None:
        raise UsageError(f"{mark_path(file)} has the columns {mark_untrusted(', '.join(header))}: it needs {_NEEDS}")
    for number, cells in lines:
        yield (
            f"{mark_path(file)}, line {number}",
            {key: cells[index] for key, index in columns.items() if index is not None},
        )


def _of_text(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for number, line in enumerate(read_user_text(file, "creators", "text").splitlines(), 1):
        if name := line.strip():
            yield f"{mark_path(file)}, line {number}", {"name": name}


def _of_json(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    text = read_user_text(file, "creators", "JSON")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"{mark_path(file)} is not JSON: correct it, or give a CSV file") from None
    if isinstance(document, dict):
        document = next((document[key] for key in ("creators", "authors") if key in document), [document])
    if not isinstance(document, list):
        raise UsageError(f"{mark_path(file)} has no list of creators: it needs a list of names or of objects")
    for number, entry in enumerate(document, 1):
        position = f"{mark_path(file)}, creator {number}"
        if isinstance(entry, str):
            yield position, {"name": entry.strip()}
        elif isinstance(entry, dict):
            yield position, _values_of(entry, position)
        else:
            raise UsageError(f"{position}: it is neither a name nor an object: it needs {_NEEDS}")


def _values_of(entry: Mapping[str, Any], position: str) -> dict[str, str]:
    by_key = {key.strip().lower(): value for key, value in entry.items()}
    values = {}
    for key, titles in _COLUMNS.items():
        value = next((by_key[title] for title in titles if by_key.get(title) is not None), "")
        if not isinstance(value, str):
            raise UsageError(f"{position}: its {key} is no text: write it between quotes")
        values[key] = value.strip()
    return values
