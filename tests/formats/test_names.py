"""Files whose names are not UTF-8 are read and written like any others; messages show these bytes as escapes."""

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import lungmix
from lungmix.callbacks.json_log import JsonLog
from lungmix.cli import main
from lungmix.cli.show_fits import to_json
from lungmix.errors import SourceError, reveal
from lungmix.formats import find_scans
from lungmix.formats.native import local_name
from lungmix.formats.source_lists import read_list
from lungmix.formats.write import write_image
from lungmix.geometry import Geometry
from lungmix.phantom import Phantom, write_phantom
from lungmix.webpage.page import write_page
from support.labelled import unlabelled
from support.series import only_scan, read, refused, scans

LATIN1 = b"J\xf6rg"
NAME = os.fsdecode(LATIN1)
VOLUME = np.arange(210, dtype=np.int16).reshape(7, 6, 5)


def write(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    write_image(file, [VOLUME], Geometry((5, 6, 7)), np.int16)
    return file


def of_latin1(archive, name="JXrg"):
    """Replace bytes of names in an archive by as many bytes that are not UTF-8."""
    archive.write_bytes(archive.read_bytes().replace(name.encode(), LATIN1))
    return archive


@pytest.mark.parametrize("what", ["folder", "slice at an end", "slice in the middle"])
def test_series_with_a_name_that_is_no_utf8_is_read_as_any_other(tmp_path, what):
    phantom = Phantom((6, 16, 16))
    write_phantom(tmp_path / "plain", phantom)
    (expected,) = find_scans(tmp_path / "plain")
    slices = sorted((tmp_path / "plain").iterdir())
    volume = np.concatenate(list(expected.slabs(4)))
    source = tmp_path / "plain"
    if what == "folder":
        source = source.rename(tmp_path / os.fsdecode(b"J\xf6rg"))
    else:
        slice_ = slices[0 if "end" in what else 3]
        slice_.rename(slice_.with_name(os.fsdecode(b"00\xe420.dcm")))
    (scan,) = find_scans(source)
    assert scan.geometry == expected.geometry
    assert np.array_equal(np.concatenate(list(scan.slabs(4))), volume)


@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz", ".mha", ".mhd"])
def test_images_are_written_and_read_by_names_that_are_no_utf8(tmp_path, extension):
    file = write(tmp_path / NAME / (NAME + extension))
    assert np.array_equal(read(only_scan(file)), VOLUME)
    if extension == ".mhd":
        assert b"ElementDataFile = J\xf6rg.zraw" in file.read_bytes()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, None])
def test_members_of_archives_whose_names_are_no_utf8_are_read(tmp_path, form):
    member = write(tmp_path / "a.nrrd")
    if form is None:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.write(member, "JXrg/JXrg.nrrd")
        source = of_latin1(tmp_path / "x.zip")
    else:
        with tarfile.open(tmp_path / "x.tar", "w", format=form) as archive:
            archive.add(member, f"{NAME}/{NAME}.nrrd")
        source = tmp_path / "x.tar"
    source = source.rename(source.with_name(NAME + source.suffix))
    assert np.array_equal(read(only_scan(source)), VOLUME)


def test_zip_with_invalid_utf8_names_is_rejected_with_this_reason(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(write(tmp_path / "a.nrrd"), "J\u00f6rg.nrrd")
    content = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(content.replace("J\u00f6rg".encode(), b"J\xf6rrg"))
    (item,) = refused(find_scans(tmp_path / "x.zip"))
    assert "x.zip declares its file names to be UTF-8, but they are not: unpack" in reveal(item.reason)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", b"# of J\xf6rg\na.nrrd\nJ\xf6rg/J\xf6rg.nrrd\n"),
        (NAME + ".csv", b"path;who\na.nrrd;J\xf6rg\nJ\xf6rg/J\xf6rg.nrrd;J\xf6rg\n"),
    ],
)
def test_lists_of_names_that_are_no_utf8_are_read(tmp_path, name, content):
    write(tmp_path / "a.nrrd")
    write(tmp_path / NAME / f"{NAME}.nrrd")
    (tmp_path / name).write_bytes(content)
    items = find_scans(tmp_path / name)
    assert [Path(scan.path).name for scan in scans(items)] == ["a.nrrd", f"{NAME}.nrrd"]
    assert not refused(items)


def test_list_reports_missing_entries_and_the_others_are_read(tmp_path):
    write(tmp_path / f"{NAME}.nrrd")
    (tmp_path / "list.txt").write_bytes(b"J\xf6rg.nrrd\nM\xfcller.nrrd\n")
    items = find_scans(tmp_path / "list.txt")
    assert len(scans(items)) == 1
    assert [reveal(item.reason) for item in refused(items)] == [
        "M\\udcfcller.nrrd does not exist: check the path, and the encoding of the list"
    ]


def test_list_in_another_encoding_is_read_except_missing_entries(tmp_path):
    write(tmp_path / "a.nrrd")
    write(tmp_path / "J\u00f6rg.nrrd")
    (tmp_path / "list.txt").write_bytes(b"a.nrrd\nJ\xf6rg.nrrd\ns3://bucket/J\xf6rg.nrrd\n")
    items = find_scans(tmp_path / "list.txt")
    assert [Path(scan.path).name for scan in scans(items)] == ["a.nrrd"]
    assert [reveal(item.reason) for item in refused(items)] == [
        "J\\udcf6rg.nrrd does not exist: check the path, and the encoding of the list",
        "J\\udcf6rg.nrrd is no UTF-8, as names in object stores are: check the address",
    ]
    with pytest.raises(SystemExit) as end:
        main(["scan", str(tmp_path / "list.txt"), "--quiet"])
    assert end.value.code == 1


@pytest.mark.parametrize(("entries", "read"), [(["scans/a.nrrd", f"{NAME}.nrrd"], True), ([f"{NAME}.nrrd"], False)])
def test_list_in_a_bucket_is_rejected_only_where_no_entry_can_be_a_key(tmp_path, entries, read):
    (tmp_path / "list.txt").write_bytes(os.fsencode("\n".join(entries)))
    if read:
        assert read_list(tmp_path / "list.txt", "s3://bucket/x") == [f"s3://bucket/x/{entry}" for entry in entries]
    else:
        with pytest.raises(SourceError, match="no text in UTF-8 or UTF-16"):
            read_list(tmp_path / "list.txt", "s3://bucket/x")


def test_table_whose_other_columns_are_no_utf8_is_read(tmp_path):
    write(tmp_path / "a.nrrd")
    (tmp_path / "list.csv").write_bytes(b"path,who\na.nrrd,J\xf6rg\n")
    assert len(scans(find_scans(tmp_path / "list.csv"))) == 1


def test_list_that_is_no_utf8_without_existing_entries_is_rejected(tmp_path):
    write(tmp_path / "J\u00f6rg.nrrd")
    (tmp_path / "list.txt").write_bytes(b"a.nrrd\nJ\xf6rg.nrrd\n")
    (item,) = refused(find_scans(tmp_path / "list.txt"))
    assert "list.txt is no text in UTF-8 or UTF-16" in reveal(item.reason)


def test_local_names_are_those_of_the_file_system():
    for name in (b"a b", "J\u00f6rg".encode(), LATIN1):
        assert os.fsencode(local_name(name.decode("utf-8", "surrogateescape"))) == name


def test_json_and_logs_hold_text_that_every_reader_takes():
    stream = io.StringIO()
    JsonLog(stream).on_info(f"run {NAME}")
    assert json.loads(stream.getvalue())["message"] == "run J\\udcf6rg"
    assert json.loads(to_json([Path(NAME), NAME])) == ["J\\udcf6rg", "J\\udcf6rg"]
    assert json.loads(to_json({NAME: [1, None, True, float("nan"), 0.5]})) == {"J\\udcf6rg": [1, None, True, None, 0.5]}


def test_page_and_notebook_of_a_store_whose_name_is_no_utf8_are_text(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / f"{NAME}.zarr", "a")
    unlabelled(cohort, "case-001", "no lung")
    page = write_page(cohort, tmp_path / NAME)
    assert "J\\udcf6rg.zarr" in page.read_text(encoding="utf-8")
    assert "J\\udcf6rg.zarr" in cohort._repr_html_().encode().decode()


@pytest.mark.slow
def test_names_are_read_where_the_file_system_encoding_is_ascii(tmp_path):
    for name in ("J\u00f6rg", NAME):
        write(tmp_path / name / f"{name}.nrrd")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / NAME / f"{NAME}.nrrd", "J\u00f6rg/J\u00f6rg.nrrd")
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(tmp_path / NAME / f"{NAME}.nrrd", "J\u00f6rg/J\u00f6rg.nrrd")
    for name in ("J\u00f6rg", NAME):
        (tmp_path / f"{name}.txt").write_bytes(os.fsencode(f"{name}/{name}.nrrd\n"))
    sources = [os.fsencode(tmp_path / name) for name in ("x.zip", "x.tar", "J\u00f6rg.txt", f"{NAME}.txt")]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", "from lungmix.cli import main; main()", "scan", "--quiet"]
    for options in ([], ["--json"]):
        done = subprocess.run(
            [*command, *options, *sources], capture_output=True, env={**os.environ, **plain}, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr
        assert done.stdout.isascii()
    assert [entry["verdict"] for entry in json.loads(done.stdout)["found"]] == ["used"] * len(sources)
