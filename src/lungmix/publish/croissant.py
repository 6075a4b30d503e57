"""Metadata of a data set in the format Croissant 1.0 of MLCommons, JSON-LD with the words of schema.org."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lungmix.publish.about import LICENSES, About, citation_of, doi_url, json_creators
from lungmix.publish.folder import CASES_FILE, FILES_FILE, LABELS_FILE, MODELS_FILE, SPLIT_FILE, ZONES_FILE

RECORD_SETS = {
    CASES_FILE: "cases",
    FILES_FILE: "images",
    ZONES_FILE: "zones",
    LABELS_FILE: "labels",
    SPLIT_FILE: "patients",
    MODELS_FILE: "models",
}
"""Name of the record set of each table."""

_KEYS = {
    "cases": ["case"],
    "images": ["path"],
    "zones": ["case", "zone"],
    "labels": ["image", "label"],
    "patients": ["patient"],
    "models": ["patient", "component"],
}
"""Columns by which the records of a set are told apart."""

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant_text(
    about: About,
    description: str,
    day: str,
    sums: Mapping[str, str],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    meanings: Mapping[tuple[str, str], str],
) -> str:
    """Return the text of the Croissant file.

    Parameters
    ----------
    about : About
        Statements of the publisher.
    description : str
        Sentences about the data set.
    day : str
        Date of the publication, as ``2026-01-31``.
    sums : mapping of str to str
        SHA-256 sums of the tables by file.
    rows : mapping of str to sequence of mapping
        Rows of each table by file: those of the record sets `RECORD_SETS`.
    meanings : mapping
        Description of each column by file and column.
    """
    version = (
        about.version if about.version.count(".") == 2 else f"{about.version}{'.0' * (2 - about.version.count('.'))}"
    )
    record_sets = {file: name for file, name in RECORD_SETS.items() if rows.get(file)}
    document = {
        "@context": CONTEXT,
        "@type": "Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": about.title,
        "description": description,
        "version": version,
        "license": LICENSES[about.license][1] if about.license in LICENSES else about.license,
        "creator": json_creators(about.creators),
        "citeAs": citation_of(about, int(day[:4])),
        "datePublished": day,
        "url": doi_url(about.doi) if about.doi else ".",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file,
                "name": file,
                "contentUrl": file,
                "encodingFormat": "text/csv",
                "sha256": sums[file],
            }
            for file in record_sets
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": record_set,
                "name": record_set,
                "key": _key_of(record_set),
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"{record_set}/{column}",
                        "name": column,
                        "description": meanings.get((file, column)) or column,
                        "dataType": _type_of([row[column] for row in rows[file]]),
                        "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
                        **(
                            {"references": {"field": {"@id": "splits/name" if column == "split" else "cases/case"}}}
                            if column == "split" or (column == "case" and record_set != "cases")
                            else {}
                        ),
                    }
                    for column in rows[file][0]
                ],
            }
            for file, record_set in record_sets.items()
        ]
        + ([_SPLITS] if SPLIT_FILE in rows else []),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _key_of(record_set: str) -> Any:
    columns = [{"@id": f"{record_set}/{column}"} for column in _KEYS[record_set]]
    return columns if len(columns) > 1 else columns[0]


_SPLITS: dict[str, Any] = {
    "@type": "cr:RecordSet",
    "@id": "splits",
    "name": "splits",
    "dataType": "cr:Split",
    "key": {"@id": "splits/name"},
    "field": [
        {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"},
        {"@type": "cr:Field", "@id": "splits/url", "name": "url", "dataType": ["sc:URL", "cr:Split"]},
    ],
    "data": [
        {"splits/name": "train", "splits/url": "cr:TrainingSplit"},
        {"splits/name": "test", "splits/url": "cr:TestSplit"},
    ],
}
"""Record set that says, in the words of Croissant, what the sides are."""


def _type_of(values: Sequence[Any]) -> str:
    # Columns with empty cells are floats for readers of tables, as whole numbers cannot be missing there.
    if values and all(isinstance(value, int) for value in values):
        return "sc:Integer"
    if any(value != "" for value in values) and all(value == "" or isinstance(value, int | float) for value in values):
        return "sc:Float"
    return "sc:Text"
