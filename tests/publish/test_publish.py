"""A cohort becomes a folder of plain files with metadata; its check finds what does not belong in it."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest
import SimpleITK as sitk

import lungmix
from lungmix.errors import UsageError
from lungmix.geometry import Geometry
from lungmix.publish import About, Creator, check_dataset, dataset, identifiers_of, publish, read_creators
from lungmix.publish.contents import contents_of
from lungmix.publish.folder import read_record, read_sums
from lungmix.publish.identifiers import IdentifierSearch
from lungmix.stages.measure import measure_cohort
from support.labelled import add_case, labelled_store

ABOUT = About("Chest CT of phantoms", "1.0", "CC-BY-4.0", (Creator("Doe, Jane", "A Hospital", "0000-0002-1825-0097"),))
SECOND = About("Chest CT of phantoms", "2.0", "CC-BY-4.0", ABOUT.creators)
KEY = {"case-001": {"patient_name": "Qzxplant^Maria", "patient_id": "PAT-90210", "birth_date": "19470213", "sex": "F"}}


def store_of(url, scans=3):
    return labelled_store(url, scans)


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A store, its scores and its first publication, which tests must not change."""
    folder = tmp_path_factory.mktemp("publish")
    cohort, scores = store_of(folder / "s.zarr")
    result = publish(cohort, folder / "one", ABOUT, scores=scores, key=KEY)
    return cohort, scores, folder / "one", result


@pytest.fixture
def copy(published, tmp_path):
    """A copy of the publication, which tests may damage."""
    for path, content in contents(published[2]).items():
        (tmp_path / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / path).write_bytes(content)
    return tmp_path / "copy"


def test_folder_is_complete_and_passes_its_check(published):
    cohort, _, folder, result = published
    assert (result.is_complete, result.done, result.problems) == (True, sorted(cohort), {})
    assert check_dataset(folder, identifiers_of(KEY)[0]) == {}
    assert set(read_sums(folder)) == set(contents(folder)) - {"SHA256SUMS"}


def test_images_have_the_voxels_and_the_geometry_of_the_store(published):
    cohort, _, folder, _ = published
    for name, case in cohort.items():
        for image in ("ct", "lung", "tissue", "tissue_median"):
            read = sitk.ReadImage(str(folder / f"images/{name}/{name}_{image}.nrrd"))
            assert np.array_equal(sitk.GetArrayFromImage(read), case.array(image).compute())
            assert read.GetSpacing() == case.geometry.spacing
            assert read.GetOrigin() == case.geometry.origin


def test_table_of_cases_has_scores_and_measurements_and_every_column_is_described(published):
    cohort, scores, folder, _ = published
    with (folder / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    measured = cohort.measurements().set_index("case")
    assert {row["case"]: int(row["score"]) for row in rows} == scores
    assert {row["case"]: float(row["lung_involvement"]) for row in rows} == measured["lung_involvement"].to_dict()
    with (folder / "data_dictionary.csv").open() as stream:
        described = {(row["file"], row["column"]): row["meaning"] for row in csv.DictReader(stream)}
    assert {column for file, column in described if file == "cases.csv"} == set(rows[0])
    assert all(described.values())


def test_croissant_is_valid_and_loads_cases_and_images(published):
    mlcroissant = pytest.importorskip("mlcroissant")
    cohort, _, folder, _ = published
    loaded = mlcroissant.Dataset(str(folder / "croissant.json"))
    assert not loaded.metadata.issues.errors
    assert [record["cases/case"].decode() for record in loaded.records("cases")] == sorted(cohort)
    paths = {record["images/path"].decode() for record in loaded.records("images")}
    assert paths == {image.path for image in read_record(folder)["images"]}


def test_data_card_describes_every_file(published):
    for path in contents(published[2]):
        case = path.split("/")[1] if path.startswith("images/") else ""
        assert contents_of(path, case)
        assert f"| {path.replace(case, 'CASE') if case else path} |" in (published[2] / "README.md").read_text()


def test_data_card_says_what_it_is_and_how_to_use_and_load_it(published):
    text = (published[2] / "README.md").read_text()
    for words in (
        "3 chest CT scans (120 slices) of 3 patients", "Creative Commons Attribution 4.0 International",
        "Doe, Jane (20", "faces were not removed", "published:", "physical", "SimpleITK.ReadImage", "identifiers",
    ):  # fmt: skip
        assert words in text


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("cases.csv", "bytes"),
        ("README.md", "bytes"),
        ("images/{}/{}_ct.nrrd", "bytes"),
        ("images/{}/{}_tissue.nrrd", "decompressed bytes"),
    ],
)
def test_planted_name_is_detected_in_bytes_and_in_compressed_bytes(published, copy, place, problem):
    case = sorted(published[0])[0]
    path = place.format(case, case)
    content = (copy / path).read_bytes()
    if problem == "decompressed bytes":
        header, _, voxels = content.partition(b"\n\n")
        planted = bytearray(gzip.decompress(voxels))
        planted[len(planted) // 2 : len(planted) // 2 + 8] = b"qZXPLANT"
        content = header + b"\n\n" + gzip.compress(bytes(planted))
    elif path.endswith(".nrrd"):
        content = content.replace(b"\n\n", b"\nname:=Qzxplant\n\n", 1)
    else:
        content += b"Maria Qzxplant\n"
    (copy / path).write_bytes(content)
    problems = check_dataset(copy, identifiers_of(KEY)[0])
    assert problems == {path: ["does not have its sum", f"an identifier of the key table is in its {problem}"]}


def test_files_that_are_missing_unexpected_cut_or_moved_are_detected(published, copy):
    first, second, third = sorted(published[0])
    (copy / "images" / first / f"{first}_lung.nrrd").unlink()
    (copy / "notes Qzxplant.txt").write_text("")
    cut = copy / "images" / second / f"{second}_ct.nrrd"
    cut.write_bytes(cut.read_bytes()[:-9])
    moved = copy / "images" / third / f"{third}_tissue.nrrd"
    moved.write_bytes(moved.read_bytes().replace(b"space origin: (", b"space origin: (1", 1))
    problems = check_dataset(copy, identifiers_of(KEY)[0])
    assert problems[f"images/{first}/{first}_lung.nrrd"] == ["is missing"]
    assert "is not part of the data set" in problems["notes Qzxplant.txt"]
    assert "an identifier of the key table is in its name" in problems["notes Qzxplant.txt"]
    assert "its compressed bytes are corrupt or cut short" in problems[f"images/{second}/{second}_ct.nrrd"]
    assert "does not have the geometry of its CT" in problems[f"images/{third}/{third}_tissue.nrrd"]


def test_next_version_keeps_the_files_of_unchanged_scans(tmp_path):
    cohort, _ = store_of(tmp_path / "s.zarr", 2)
    first, second = tmp_path / "one", tmp_path / "two"
    assert publish(cohort, first, ABOUT).is_complete
    before = contents(first)
    rng = np.random.default_rng(0)
    ct = rng.integers(-900, 0, (8, 9, 10)).astype("int16")
    add_case(cohort, "case-new", ct, np.ones(ct.shape, "uint8"), Geometry((10, 9, 8), (1.0, 2.0, 3.0)))
    measure_cohort(cohort, list(cohort), cohort.model)
    result = publish(cohort, second, SECOND, previous=first)
    assert (result.is_complete, result.written, result.linked) == (True, 4, 8)
    assert contents(first) == before
    for path in before:
        if path.startswith("images/"):
            assert (second / path).samefile(first / path)
    changes = (second / "CHANGELOG.md").read_text()
    assert changes.index("## 2.0") < changes.index("- added: case-new") < changes.index("## 1.0")
    assert "- unchanged: 8 images" in changes
    assert check_dataset(second) == {}
    with pytest.raises(UsageError, match="complete data set"):
        publish(cohort, second, SECOND, previous=first)


def test_key_table_of_another_store_is_rejected(published, tmp_path):
    with pytest.raises(UsageError, match="no row of a published case"):
        publish(published[0], tmp_path / "d", ABOUT, key={"case-999": {"patient_id": "PAT-90210"}})
    assert not (tmp_path / "d").exists()


def test_data_card_says_how_many_scans_are_not_in_the_key_table(tmp_path):
    store, _ = store_of(tmp_path / "s.zarr", 2)
    key = {"case-001": {"patient_id": "PAT-90210"}}
    assert publish(store, tmp_path / "d", ABOUT, key=key).is_complete
    assert "1 published scan not in the key table." in (tmp_path / "d" / "README.md").read_text()


def test_killed_publication_is_resumed_without_writing_finished_images_again(tmp_path, monkeypatch):
    cohort, _ = store_of(tmp_path / "s.zarr", 2)
    export, calls = dataset.export_image, []

    def killed_at_the_fourth(case, path, image):
        calls.append(image)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return export(case, path, image)

    monkeypatch.setattr(dataset, "export_image", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        publish(cohort, tmp_path / "d", ABOUT)
    assert not (tmp_path / "d" / "SHA256SUMS").exists()
    monkeypatch.setattr(dataset, "export_image", export)
    result = publish(cohort, tmp_path / "d", ABOUT)
    assert result.is_complete
    assert result.kept >= 3
    assert result.kept + result.written == 8
    assert publish(cohort, tmp_path / "e", ABOUT).is_complete
    assert contents(tmp_path / "d") == contents(tmp_path / "e")


def test_identifier_in_the_sources_of_a_table_keeps_the_version_from_completion(tmp_path):
    cohort, _ = store_of(tmp_path / "s.zarr", 1)
    about = About("Scans of Qzxplant", "1.0", "CC-BY-4.0", ABOUT.creators)
    result = publish(cohort, tmp_path / "d", about, key=KEY)
    assert not result.is_complete
    texts, metadata = {"README.md", "CITATION.cff"}, {"croissant", "datacite", "datalist", "ro-crate-metadata"}
    assert set(result.problems) == texts | {f"{name}.json" for name in metadata}
    assert not (tmp_path / "d" / "SHA256SUMS").exists()
    assert "SHA256SUMS" in check_dataset(tmp_path / "d")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16-le"])
def test_search_reads_encodings_and_capitals_across_blocks_and_only_full_words(encoding):
    search = IdentifierSearch(["Müller"])
    content = "xx MÜLLER yy".encode(encoding)
    assert search.is_in(content)
    assert search.is_in_blocks([content[: len(content) // 2], content[len(content) // 2 :]])
    assert not search.is_in("xMüllers".encode(encoding if encoding != "utf-16-le" else "utf-8"))


def test_parts_of_names_that_texts_contain_anyway_are_counted_not_searched():
    rows = {"case-001": {"patient_name": "Lung^Qzxplant", "patient_id": "12", "path": "/scans/case-001.nrrd"}}
    assert identifiers_of(rows) == (["Lung^Qzxplant", "Qzxplant"], 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("T", "1.0", "MIT-like", ABOUT.creators), "license_text"),
        (("T", "one two", "CC-BY-4.0", ABOUT.creators), "version"),
        (("", "1.0", "CC-BY-4.0", ABOUT.creators), "title"),
        (("T", "1.0", "CC-BY-4.0", ()), "creators"),
    ],
)
def test_statements_that_say_nothing_are_rejected(arguments, message):
    with pytest.raises(UsageError, match=message):
        About(*arguments)


@pytest.mark.parametrize("license", ["CC-BY-4.0", "cc-by-4.0", "CC BY 4.0"])
def test_licences_are_recognised_as_people_write_them(license):
    assert About("T", "1.0", license, ABOUT.creators).license == "CC-BY-4.0"


def test_creators_are_read_from_a_table_and_wrong_lines_are_named(tmp_path):
    table = tmp_path / "people.csv"
    table.write_text('name,orcid\n"Doe, Jane",0000-0002-1825-0097\nA Hospital,\n')
    assert read_creators(table) == (Creator("Doe, Jane", "", "0000-0002-1825-0097"), Creator("A Hospital"))
    table.write_text("name,orcid\nDoe,12\n")
    with pytest.raises(UsageError, match=r"line 2: 12 is no ORCID: write it like"):
        read_creators(table)
    table.write_text("name,orcid\nDoe,0000-0002-1825-0079\n")
    with pytest.raises(UsageError, match="line 2: 0000-0002-1825-0079 is no ORCID: the check digit"):
        read_creators(table)


CREATORS = (Creator("Doe, Jane", "A Hospital", "0000-0002-1825-0097"), Creator("A Hospital"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.csv",
            "name,family,given,affiliation,orcid\n,Doe,Jane,A Hospital,https://orcid.org/0000-0002-1825-0097\n"
            "A Hospital,,,,\n",
        ),
        (
            "a.csv",
            'Name;Affiliation;ORCID\n"Doe, Jane";A Hospital;0000-0002-1825-0097\nA Hospital;;\n',
        ),
        (
            "a.json",
            '[{"name": "Doe, Jane", "affiliation": "A Hospital", "orcid": "0000-0002-1825-0097"}, "A Hospital"]',
        ),
        (
            "a.json",
            '{"authors": [{"family-names": "Doe", "given-names": "Jane", "affiliation": "A Hospital", '
            '"orcid": "https://orcid.org/0000-0002-1825-0097"}, {"name": "A Hospital"}]}',
        ),
    ],
)
def test_creators_are_read_from_tables_and_json(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_creators(tmp_path / name) == CREATORS


def test_creators_are_read_from_a_name_per_line(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffDoe, Jane\n\n  A Hospital\n", encoding="utf-8")
    assert read_creators(tmp_path / "a.txt") == (Creator("Doe, Jane"), Creator("A Hospital"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "\n", "holds no creators"),
        ("a.json", "[]", "holds no creators"),
        ("a.json", "{", "is not JSON"),
        ("a.json", '{"creators": 3}', "no list of creators"),
        ("a.json", "[3]", "creator 1: it is neither a name nor an object"),
        ("a.json", '["Doe", {"orcid": "0000-0002-1825-0097"}]', "creator 2: no name"),
        ("a.json", '[{"name": 3}]', "creator 1: its name is no text"),
        ("a.csv", "who,orcid\nDoe,\n", "it needs a column name"),
        ("a.csv", "name,orcid\n,0000-0002-1825-0097\n", "line 2: no name"),
    ],
)
def test_files_without_creators_are_errors(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_creators(tmp_path / name)


def test_missing_file_of_creators_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_creators(tmp_path / "a.json")


@pytest.mark.parametrize("orcid", ["0000-0002-1825-0097", "0000-0002-1694-233X", "0000-0001-5109-3700", ""])
def test_right_check_digits_of_orcids_are_accepted(orcid):
    assert Creator("Doe, Jane", "", orcid).orcid == orcid


@pytest.mark.parametrize(
    ("orcid", "problem"),
    [
        ("0000-0002-1825-0098", "is 7"),
        ("0000-0002-1694-2331", "is X"),
        ("0000-0002-8125-0097", "check digit"),
        ("https://orcid.org/0000-0002-1825-0097", "write it like"),
    ],
)
def test_mistyped_orcids_are_rejected(orcid, problem):
    with pytest.raises(UsageError, match=problem):
        Creator("Doe, Jane", "", orcid)


def test_folder_with_other_files_is_left_alone(published, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="files of its own"):
        publish(published[0], tmp_path, ABOUT)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_command_publishes_on_workers_and_checks(tmp_path):
    from support.command import run_here

    store_of(tmp_path / "s.zarr", 2)
    (tmp_path / "people.csv").write_text('name\n"Doe, Jane"\n')
    words = ("--title", "T", "--license", "CC0-1.0", "--version", "1.0", "--creators", tmp_path / "people.csv")
    done = run_here("publish", tmp_path / "s.zarr", tmp_path / "d", *words, "--no-page", "--workers", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"]
    cohort = lungmix.open_cohort(tmp_path / "s.zarr")
    in_process = publish(cohort, tmp_path / "e", About("T", "1.0", "CC0-1.0", (Creator("Doe, Jane"),)))
    assert in_process.is_complete
    assert contents(tmp_path / "d") == contents(tmp_path / "e")
    assert run_here("publish", tmp_path / "s.zarr", "--check", tmp_path / "d").returncode == 0
    (tmp_path / "key.csv").write_text("store,case,patient_name\nelsewhere,case-001,Doe^Jane\n")
    named = run_here("publish", "--check", tmp_path / "d", "--key-table", tmp_path / "key.csv", "--json")
    assert named.returncode == 1
    assert "README.md" in json.loads(named.stdout)["problems"]
    assert "Doe" not in named.stdout
    assert run_here("publish", "--check", tmp_path / "d", "--json").returncode == 0
    for words in ([tmp_path / "x"], [], [tmp_path / "s.zarr", tmp_path / "x", "--check", tmp_path / "d"]):
        assert "STORE" in run_here("publish", *words).stderr
    (tmp_path / "d" / "cases.csv").write_text("case\n")
    checked = run_here("publish", tmp_path / "s.zarr", "--check", tmp_path / "d", "--json")
    assert checked.returncode == 1
    assert json.loads(checked.stdout)["problems"] == {"cases.csv": ["does not have its sum"]}
