"""Metadata of a data set in the JSON of DataCite, from which repositories and catalogues register and cite it.

Source: "DataCite Metadata Schema 4.5".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungmix.publish.about import LICENSES, About, Creator, doi_url
from lungmix.publish.folder import DATACITE_FILE

METHOD_DOI = "10.3390/bioengineering8020026"
UNKNOWN_PUBLISHER = "(:unav)"
"""Code of DataCite for a value that is not available; a repository enters its own name."""

SUBJECTS = ("chest CT", "lung segmentation", "ground-glass opacity", "Gaussian mixture", "radiomics")


@dataclass(frozen=True)
class Release:
    """Title, version and DOI of a published version; the DOI is empty where there is none."""

    title: str
    version: str
    doi: str = ""


def read_release(folder: Path, default: Release) -> Release:
    """Return the title, version and DOI that the metadata of a folder state, and `default` for what they lack."""
    try:
        document = json.loads((folder / DATACITE_FILE).read_text(encoding="utf-8"))
        return Release(
            str(document["titles"][0]["title"]),
            str(document.get("version", default.version)),
            str(document.get("doi", default.doi)),
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return default


def datacite_text(
    about: About, description: str, methods: str, day: str, sizes: Sequence[str], formats: Sequence[str],
    previous: Release | None,
) -> str:  # fmt: skip
    """Return the text of the DataCite file.

    Parameters
    ----------
    about : About
        Statements of the publisher. Without a DOI, the text has none: the repository that registers one adds it.
    description, methods : str
        Sentences about the contents of the data set, and about how it was made.
    day : str
        Date of the publication, as ``2026-01-31``.
    sizes, formats : sequence of str
        Sizes of the data set in words, and media types of its files.
    previous : Release or None
        The previous version.
    """
    related, items = _relations(previous)
    document: dict[str, Any] = {
        **({"doi": about.doi, "url": doi_url(about.doi)} if about.doi else {}),
        "schemaVersion": "http://datacite.org/schema/kernel-4",
        "types": {"resourceTypeGeneral": "Dataset", "resourceType": "Chest CT with lung masks and tissue labels"},
        "titles": [{"title": about.title}],
        "creators": [_creator(creator) for creator in about.creators],
        "publisher": {"name": about.publisher or UNKNOWN_PUBLISHER},
        "publicationYear": day[:4],
        "dates": [{"date": day, "dateType": "Issued"}],
        "version": about.version,
        "language": "en",
        "subjects": [{"subject": subject} for subject in SUBJECTS],
        "descriptions": [
            {"description": description, "descriptionType": "Abstract"},
            {"description": methods, "descriptionType": "Methods"},
        ],
        "rightsList": [_rights(about)],
        "sizes": list(sizes),
        "formats": list(formats),
        "relatedIdentifiers": [
            {"relatedIdentifier": METHOD_DOI, "relatedIdentifierType": "DOI", "relationType": "IsDocumentedBy"},
            *related,
        ],
        **({"relatedItems": items} if items else {}),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _creator(creator: Creator) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": creator.name, "nameType": "Personal" if creator.family else "Organizational"}
    if creator.family:
        entry |= {"familyName": creator.family} | ({"givenName": creator.given} if creator.given else {})
    if creator.orcid:
        entry["nameIdentifiers"] = [{
            "nameIdentifier": f"https://orcid.org/{creator.orcid}", "nameIdentifierScheme": "ORCID",
            "schemeUri": "https://orcid.org",
        }]  # fmt: skip
    if creator.affiliation:
        entry["affiliation"] = [{"name": creator.affiliation}]
    return entry


def _rights(about: About) -> dict[str, str]:
    if about.license not in LICENSES:
        return {"rights": about.license}
    name, url = LICENSES[about.license]
    return {
        "rights": name, "rightsUri": url, "rightsIdentifier": about.license.lower(), "rightsIdentifierScheme": "SPDX",
        "schemeUri": "https://spdx.org/licenses/",
    }  # fmt: skip


def _relations(previous: Release | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the previous version as related identifiers if it has a DOI, otherwise as related items."""
    if previous is None:
        return [], []
    relation = {"relationType": "IsNewVersionOf"}
    if previous.doi:
        return [{"relatedIdentifier": previous.doi, "relatedIdentifierType": "DOI", **relation}], []
    title, number = [{"title": previous.title}], {"number": previous.version, "numberType": "Other"}
    return [], [{"relatedItemType": "Dataset", **relation, "titles": title, **number}]
