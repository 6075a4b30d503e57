"""Metadata of a data set are valid by the schemas of DataCite, RO-Crate and CFF, and state versions and files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec

import pytest
import yaml
from datacite import schema45
from jsonschema import Draft7Validator
from rocrate.rocrate import ROCrate

from lungmix.errors import UsageError
from lungmix.publish import About, Creator, publish
from lungmix.publish.datacite import Release, datacite_text, read_release
from lungmix.publish.texts import citation_text
from support.labelled import labelled_store
from support.programs import need

PEOPLE = (
    Creator("Doe, Jane", "A Hospital", "0000-0002-1825-0097"),
    Creator("Müller,", "A Hospital"),
    Creator("A Hospital", "A University"),
)
FIRST = About("Chest CT of “phantoms”", "1.0", "CC-BY-4.0", PEOPLE, publisher="A Repository", doi="10.5281/zenodo.1234")
SECOND = replace(FIRST, version="2.0", publisher="", doi="")
ABOUTS = {
    "with a DOI": FIRST,
    "without a DOI": SECOND,
    "own licence": replace(FIRST, license="LicenseRef-hospital", license_text="For members only."),
    "public domain": replace(SECOND, license="CC0-1.0", creators=PEOPLE[2:]),
}


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Folders of two versions: the first with a DOI, the second without."""
    folder = tmp_path_factory.mktemp("metadata")
    cohort, _ = labelled_store(folder / "s.zarr", 2)
    assert publish(cohort, folder / "one", FIRST).is_complete
    assert publish(cohort, folder / "two", SECOND, previous=folder / "one").is_complete
    return folder / "one", folder / "two"


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("about", ABOUTS.values(), ids=list(ABOUTS))
@pytest.mark.parametrize("previous", [None, Release("T", "0.9"), Release("T", "0.9", "10.5281/zenodo.12")])
def test_datacite_is_valid_by_its_schema_and_becomes_xml(about, previous):
    text = datacite_text(about, "Scans.", "Labels.", "2026-01-31", ["1 scan"], ["text/csv"], previous)
    document = json.loads(text)
    assert [error.message for error in schema45.validator.iter_errors(document)] == []
    assert about.title in schema45.tostring(document | {"doi": about.doi or "10.5281/zenodo.1"})


def test_schema_of_datacite_rejects_what_is_wrong():
    document = json.loads(datacite_text(FIRST, "Scans.", "Labels.", "2026-01-31", [], [], None))
    assert not schema45.validator.is_valid(document | {"doi": "zenodo.1234"})
    assert not schema45.validator.is_valid(document | {"surname": "Doe"})


def test_datacite_names_creators_licence_version_and_sizes(versions):
    document = read(versions[0], "datacite.json")
    jane, organisation = document["creators"][0], document["creators"][2]
    assert (jane["familyName"], jane["givenName"], jane["nameType"]) == ("Doe", "Jane", "Personal")
    assert jane["nameIdentifiers"][0]["nameIdentifier"] == "https://orcid.org/0000-0002-1825-0097"
    assert organisation["nameType"] == "Organizational"
    assert (document["doi"], document["version"]) == ("10.5281/zenodo.1234", "1.0")
    assert document["rightsList"][0]["rightsIdentifier"] == "cc-by-4.0"
    assert document["publisher"] == {"name": "A Repository"}
    assert read(versions[1], "datacite.json")["publisher"] == {"name": "(:unav)"}
    assert document["sizes"][0] == "2 scans"
    assert "fundingReferences" not in document


def test_new_version_refers_to_the_previous_one_by_doi_or_by_title(versions):
    relations = read(versions[1], "datacite.json")["relatedIdentifiers"]
    new_version = {"relationType": "IsNewVersionOf", "relatedIdentifierType": "DOI"}
    assert {"relatedIdentifier": "10.5281/zenodo.1234", **new_version} in relations
    assert "relatedItems" not in read(versions[1], "datacite.json")
    release = read_release(versions[1], Release("", ""))
    assert release == Release(FIRST.title, "2.0")
    text = datacite_text(FIRST, "Scans.", "Labels.", "2026-01-31", [], [], release)
    item = json.loads(text)["relatedItems"][0]
    assert (item["titles"][0]["title"], item["number"]) == (FIRST.title, "2.0")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"titles": []}', "not JSON"])
def test_previous_version_without_such_metadata_has_the_title_of_the_new_one(text, tmp_path):
    default = Release("T", "1.0")
    assert read_release(tmp_path, default) == default
    (tmp_path / "datacite.json").write_text(text)
    assert read_release(tmp_path, default) == default


def test_rocrate_is_read_by_its_library_and_lists_every_file(versions):
    folder = versions[1]
    crate = ROCrate(folder)
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    entities = {entity.id: entity for entity in crate.data_entities}
    assert set(entities) == present - {"ro-crate-metadata.json"}
    for path, entity in entities.items():
        if path != "SHA256SUMS":
            content = (folder / path).read_bytes()
            assert int(entity["contentSize"]) == len(content)
            assert entity["sha256"] == hashlib.sha256(content).hexdigest()
        assert entity["description"]
    assert (crate.name, crate.root_dataset["version"]) == (FIRST.title, "2.0")
    assert crate.license.id == "https://creativecommons.org/licenses/by/4.0/legalcode"
    assert crate.root_dataset["author"][0].id == "https://orcid.org/0000-0002-1825-0097"
    assert crate.root_dataset["isBasedOn"].id == "https://doi.org/10.5281/zenodo.1234"


def test_rocrate_defines_everything_that_it_refers_to(versions):
    for folder in versions:
        graph = read(folder, "ro-crate-metadata.json")["@graph"]
        identifiers = [entity["@id"] for entity in graph]
        assert len(set(identifiers)) == len(identifiers)
        assert references_in(graph) - set(identifiers) == {"https://w3id.org/ro/crate/1.2"}


def references_in(value):
    """Return the identifiers of entities that others refer to: objects with no key but ``@id``."""
    if isinstance(value, list):
        return set().union(*map(references_in, value))
    if not isinstance(value, dict):
        return set()
    return {value["@id"]} if set(value) == {"@id"} else references_in(list(value.values()))


def test_rocrate_with_another_licence_refers_to_its_file(tmp_path):
    cohort, _ = labelled_store(tmp_path / "s.zarr", 1)
    assert publish(cohort, tmp_path / "d", ABOUTS["own licence"]).is_complete
    assert ROCrate(tmp_path / "d").license.id == "LICENSE.txt"


def test_doi_is_in_the_citation_of_every_file(versions):
    first, _ = versions
    for name in ("README.md", "croissant.json", "ro-crate-metadata.json"):
        assert "https://doi.org/10.5281/zenodo.1234" in (first / name).read_text()
    assert read(first, "croissant.json")["url"] == "https://doi.org/10.5281/zenodo.1234"
    assert yaml.safe_load((first / "CITATION.cff").read_text())["doi"] == "10.5281/zenodo.1234"


@pytest.mark.parametrize("doi", ["https://doi.org/10.5281/zenodo.1234", "10.1", "10.5281/zen odo", "zenodo.1234"])
def test_texts_that_are_no_doi_are_rejected(doi):
    with pytest.raises(UsageError, match="is no DOI: write it without an address"):
        replace(FIRST, doi=doi)


@pytest.fixture(scope="module")
def citation_schema():
    """Schema of CFF, which check-jsonschema brings."""
    need(find_spec("check_jsonschema") is not None, "check-jsonschema is not installed")
    file = files("check_jsonschema") / "builtin_schemas" / "vendor" / "citation-file-format.json"
    return Draft7Validator(json.loads(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("about", ABOUTS.values(), ids=list(ABOUTS))
def test_citation_file_is_valid_by_its_schema(about, citation_schema):
    document = yaml.load(citation_text(about, "2026-01-31"), yaml.BaseLoader)
    assert [error.message for error in citation_schema.iter_errors(document)] == []
    assert not citation_schema.is_valid(document | {"doi": "zenodo"})
    assert document["title"] == about.title
