"""Metadata of a data set as an RO-Crate: a graph of its files, people, licence and software, in JSON-LD.

Source: "RO-Crate Metadata Specification 1.2".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from lungmix._version import __version__
from lungmix.publish.about import LICENSES, About, citation_of, doi_url
from lungmix.publish.contents import contents_of
from lungmix.publish.datacite import METHOD_DOI, SUBJECTS, Release
from lungmix.publish.folder import LICENSE_FILE, ROCRATE_FILE, SUMS_FILE

MEDIA_TYPES = {
    ".cff": "application/yaml",
    ".csv": "text/csv",
    ".dcm": "application/dicom",
    ".gz": "application/gzip",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".md": "text/markdown",
    ".nrrd": "application/octet-stream",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".webp": "image/webp",
}
_NRRD = "https://teem.sourceforge.net/nrrd/format.html"
_SOFTWARE, _ACTION = "#lungmix", "#publication"

Entity = dict[str, Any]


def media_type(path: str) -> str:
    """Return the media type of a file."""
    return MEDIA_TYPES.get(PurePosixPath(path).suffix, "application/octet-stream")


def rocrate_text(
    about: About, description: str, method: str, day: str, sums: Mapping[str, str], sizes: Mapping[str, int],
    cases: Mapping[str, str], previous: Release | None,
) -> str:  # fmt: skip
    """Return the text of the metadata file of the crate.

    Parameters
    ----------
    about : About
        Statements of the publisher.
    description, method : str
        Sentences about the data set, and the citation of its method.
    day : str
        Date of the publication, as ``2026-01-31``.
    sums, sizes : mapping
        SHA-256 sums, and sizes in bytes, of all other files by path, without those of the file of sums. A path that
        ends with a slash is a folder.
    cases : mapping of str to str
        Case of each image by path.
    previous : Release or None
        The previous version.
    """
    people, affiliations = _people(about)
    license_entity = _license(about)
    article = _ref(doi_url(METHOD_DOI))
    graph: list[Entity] = [
        {
            "@id": ROCRATE_FILE, "@type": "CreativeWork", "about": _ref("./"),
            "conformsTo": _ref("https://w3id.org/ro/crate/1.2"),
        },
        {
            "@id": "./", "@type": "Dataset", "name": about.title, "description": description, "version": about.version,
            "datePublished": day, "license": _ref(license_entity["@id"]),
            "author": [_ref(person["@id"]) for person in people], "keywords": list(SUBJECTS),
            "creditText": citation_of(about, int(day[:4])), "citation": article,
            **({"identifier": _ref(doi_url(about.doi)), "cite-as": doi_url(about.doi)} if about.doi else {}),
            **({"publisher": _ref("#publisher")} if about.publisher else {}),
            **({"isBasedOn": _ref(_previous(previous)["@id"])} if previous else {}),
            "hasPart": [_ref(path) for path in sorted({*sums, SUMS_FILE})], "mentions": _ref(_ACTION),
        },
        *(_file(path, sums.get(path), sizes.get(path), cases.get(path, "")) for path in sorted({*sums, SUMS_FILE})),
        *people, *affiliations,
        *([_doi(about.doi)] if about.doi else []),
        *([{"@id": "#publisher", "@type": "Organization", "name": about.publisher}] if about.publisher else []),
        *([license_entity] if about.license in LICENSES else []),
        {**article, "@type": "ScholarlyArticle", "name": method},
        *([_previous(previous)] if previous else []),
        {
            # A `SoftwareApplication` would need the address of a page.
            "@id": _SOFTWARE, "@type": "CreativeWork", "name": "lungmix", "version": __version__,
            "description": "the program that wrote the data set",
        },
        {
            "@id": _ACTION, "@type": "CreateAction", "name": "publication of the data set", "endTime": day,
            "instrument": _ref(_SOFTWARE), "result": _ref("./"),
        },
        {"@id": _NRRD, "@type": ["WebPage", "Standard"], "name": "Definition of the file format NRRD"},
    ]  # fmt: skip
    context = "https://w3id.org/ro/crate/1.2/context"
    return json.dumps({"@context": context, "@graph": graph}, indent=1, ensure_ascii=False) + "\n"


def _ref(identifier: str) -> Entity:
    return {"@id": identifier}


def _file(path: str, digest: str | None, size: int | None, case: str) -> Entity:
    if path.endswith("/"):
        return {
            "@id": path,
            "@type": "Dataset",
            "name": PurePosixPath(path).name,
            "description": contents_of(path, case),
        }
    format_of: Any = [media_type(path), _ref(_NRRD)] if path.endswith(".nrrd") else media_type(path)
    return {
        "@id": path, "@type": "File", "name": PurePosixPath(path).name, "description": contents_of(path, case),
        "encodingFormat": format_of, **({} if size is None else {"contentSize": str(size)}),
        **({} if digest is None else {"sha256": digest}),
    }  # fmt: skip


def _people(about: About) -> tuple[list[Entity], list[Entity]]:
    """Return the creators, and the organisations that they belong to."""
    names = dict.fromkeys(creator.affiliation for creator in about.creators if creator.affiliation)
    affiliations = {name: f"#affiliation-{number}" for number, name in enumerate(names, 1)}
    people = []
    for number, creator in enumerate(about.creators, 1):
        person: Entity = {
            "@id": f"https://orcid.org/{creator.orcid}" if creator.orcid else f"#creator-{number}",
            "@type": "Person" if creator.family else "Organization", "name": creator.name,
        }  # fmt: skip
        if creator.family:
            person |= {"familyName": creator.family} | ({"givenName": creator.given} if creator.given else {})
        if creator.affiliation:
            # An organisation within another one is its part.
            key = "affiliation" if creator.family else "parentOrganization"
            person[key] = _ref(affiliations[creator.affiliation])
        people.append(person)
    organisations = [{"@id": key, "@type": "Organization", "name": name} for name, key in affiliations.items()]
    return people, organisations


def _doi(doi: str) -> Entity:
    return {
        "@id": doi_url(doi), "@type": "PropertyValue", "name": "DOI", "propertyID": "https://registry.identifiers.org/registry/doi",
        "value": f"doi:{doi}", "url": doi_url(doi),
    }  # fmt: skip


def _license(about: About) -> Entity:
    if about.license not in LICENSES:
        return {"@id": LICENSE_FILE}
    name, url = LICENSES[about.license]
    return {"@id": url, "@type": "CreativeWork", "name": name, "description": f"The licence {about.license}"}


def _previous(release: Release) -> Entity:
    key = doi_url(release.doi) if release.doi else f"#version-{release.version}"
    # A `Dataset` would have to be part of the crate.
    return {"@id": key, "@type": "CreativeWork", "name": release.title, "version": release.version}
