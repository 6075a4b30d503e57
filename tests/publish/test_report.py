"""The page and its figures are part of a data set: without identifiers, links to other places and random bytes."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image, PngImagePlugin

from lungmix.publish import About, Creator, check_dataset, identifiers_of, publish
from lungmix.publish.folder import read_sums
from lungmix.publish.identifiers import IdentifierSearch
from lungmix.publish.searched import SearchByFile, text_blocks
from support.labelled import labelled_store

ABOUT = About("Chest CT of phantoms", "1.0", "CC-BY-4.0", (Creator("A Hospital"),))
SECOND = About("Chest CT of phantoms", "2.0", "CC-BY-4.0", ABOUT.creators)
KEY = {"case-001": {"patient_name": "Qzxplant^Maria", "patient_id": "PAT-90210", "birth_date": "19470213"}}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A store, its scores and its publication with a page; the store is named like a person."""
    folder = tmp_path_factory.mktemp("report")
    cohort, scores = labelled_store(folder / "qzxplant.zarr", 3)
    result = publish(cohort, folder / "one", ABOUT, scores=scores, key=KEY, page=True)
    assert result.is_complete, result.problems
    return cohort, scores, folder / "one"


def files_of_page(folder):
    return {path for path in read_sums(folder) if path.startswith("report/")}


def test_page_and_figures_are_in_the_sums_and_in_the_crate(published):
    cohort, _, folder = published
    paths = files_of_page(folder)
    assert {f"report/data/{name}.js" for name in cohort} < paths
    for figure in ("mixture", "slices", "pipeline", "scores"):
        assert {f"report/figures/{figure}.png", f"report/figures/{figure}.svg"} < paths
    graph = json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]
    described = {entity["@id"]: entity.get("description") for entity in graph}
    assert all(described[path] for path in paths)
    text = (folder / "report" / "index.html").read_text()
    assert "<h1>Chest CT of phantoms</h1>" in text
    assert "qzxplant" not in text
    linked = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert linked
    assert all((folder / "report" / link.partition("?")[0]).is_file() for link in linked if "data:" not in link)


def test_page_has_the_same_bytes_each_time_and_is_linked_in_the_next_version(published, tmp_path):
    cohort, scores, first = published
    result = publish(cohort, tmp_path / "two", SECOND, scores=scores, previous=first, page=True)
    assert result.is_complete, result.problems
    for path in files_of_page(first):
        assert (tmp_path / "two" / path).samefile(first / path)
    again = publish(cohort, tmp_path / "three", SECOND, previous=first)
    assert again.is_complete
    assert not files_of_page(tmp_path / "three")


@pytest.fixture
def page(published, tmp_path):
    """A data set whose page may be damaged."""
    cohort, scores, _ = published
    folder = tmp_path / "d"
    assert publish(cohort, folder, ABOUT, scores=scores, page=True).is_complete
    return folder


def test_identifiers_links_and_texts_in_the_page_are_detected(page):
    report = page / "report"
    with (report / "data" / "case-001.js").open("a") as stream:
        stream.write('"Qzxplant"')
    with (report / "index.html").open("a") as stream:
        stream.write('<img src="https://elsewhere.example/x.png">')
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "somebody")
    Image.open(report / "figures" / "scores.png").save(report / "figures" / "scores.png", pnginfo=text)
    problems = check_dataset(page, identifiers_of(KEY)[0])
    assert "an identifier of the key table is in its bytes" in problems["report/data/case-001.js"]
    assert "loads or links to something outside of the data set" in problems["report/index.html"]
    assert "has text besides its picture, or is no picture" in problems["report/figures/scores.png"]
    assert len(problems) == 3


def test_partial_files_of_a_killed_call_are_removed(published, tmp_path):
    cohort, _, _ = published
    folder = tmp_path / "d"
    (folder / ".report.0123.partial" / "data").mkdir(parents=True)
    (folder / ".report.0123.partial" / "data" / "x.js").write_text("x")
    (folder / ".cases.csv.0123.partial").write_text("x")
    (folder / "publishing.jsonl").write_text("")
    result = publish(cohort, folder, ABOUT)
    assert result.is_complete, result.problems


def test_words_of_the_page_are_searched_for_in_all_other_files_only():
    searches = SearchByFile(["White", "Qzxplant"])
    assert not searches.of("report/index.html").is_in(b"fill: white;")
    assert searches.of("report/index.html").is_in(b"Dr. Qzxplant")
    assert searches.of("cases.csv").is_in(b"case-001,White")
    assert not SearchByFile(["Little"]).of("images/a/a.ome.zarr/zarr.json").is_in(b'"endian": "little"')


def test_digits_count_unless_they_are_part_of_a_decimal_number():
    search = IdentifierSearch(["12345"])
    assert not search.is_in(b"[0.12345,1]")
    assert not search.is_in(b"[12345.5,1]")
    assert search.is_in(b"[12345,1]")
    assert search.is_in(b"id 12345.")
    assert search.is_in(b"v.12345")


def test_header_of_compressed_files_is_searched_and_random_bytes_are_not(tmp_path):
    file = tmp_path / "x.nrrd"
    file.write_bytes(b"NRRD0004\nname:=Qzxplant\n\n" + bytes(3000) + b" Late ")
    content = b"".join(text_blocks(file, "images/a/a_ct.nrrd"))
    assert b"Qzxplant" in content
    assert b"Late" not in content
    script = tmp_path / "x.js"
    script.write_bytes(b'lungmix.deliver({"grey":"' + b"Mary+" * 50 + b'","case":"Qzxplant"});')
    content = b"".join(text_blocks(script, "report/data/x.js"))
    assert b"Mary" not in content
    assert b"Qzxplant" in content
