"""Masks in archives and in an object store."""

import os
import pickle
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import obstore
import pytest
import SimpleITK as sitk

from lungmix.errors import SourceError, redact
from lungmix.formats import remote, write_image
from lungmix.formats.masks import sources
from lungmix.formats.masks.sources import open_masks
from lungmix.geometry import Geometry

GRID = Geometry((6, 5, 4))
LABELS = np.random.default_rng(0).integers(0, 3, GRID.shape).astype(np.uint8)
NAMES = ["one.nrrd", "three/lung_left.nii.gz", "three/two.mhd"]


@pytest.fixture(autouse=True)
def temporary_files(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with masks of three formats, one of which has its voxels in a second file, and with a text file."""
    root = tmp_path_factory.mktemp("sources") / "masks"
    (root / "three").mkdir(parents=True)
    for name in NAMES[:2]:
        write_image(root / name, [LABELS], GRID, np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(LABELS), str(root / "three" / "two.mhd"))
    (root / "readme.txt").write_text("words")
    return root


def pack(folder, archive):
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for file in sorted(folder.rglob("*.*")):
                packed.write(file, file.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz") as packed:
            for file in sorted(folder.rglob("*.*")):
                packed.add(file, file.relative_to(folder))
    return archive


def read(mask):
    mask = pickle.loads(pickle.dumps(mask))
    return np.concatenate(list(mask.label_slabs({1: 1, 2: 2}, mask.geometry, 3)))


def check(opened, root):
    assert sorted(str(item.path.relative_to(root)) for item in opened) == NAMES
    for item in opened:
        assert np.array_equal(read(item.mask), LABELS)
    return {item.path.name: item.mask.fingerprint for item in opened}


@pytest.mark.parametrize("name", ["case-001.zip", "case-001.tar.gz", "Case.001.TGZ"])
def test_an_archive_is_read_as_a_folder_of_its_name(folder, tmp_path, name):
    (tmp_path / "a").mkdir()
    archive = pack(folder, tmp_path / "a" / name)
    root = tmp_path / "a" / name.removesuffix(".gz").rpartition(".")[0]
    digests = check(open_masks(archive), root)
    # The digests of masks in an archive do not depend on the folder that it is unpacked to.
    assert check(open_masks(archive), root) == digests
    os.utime(archive, (0, 0))
    assert {*check(open_masks(archive), root).values()}.isdisjoint(digests.values())
    check(open_masks(tmp_path / "a"), root)


def test_archives_of_a_folder_are_unpacked_but_not_those_in_archives(folder, tmp_path):
    (tmp_path / "a").mkdir()
    pack(folder, tmp_path / "a" / "inner.zip")
    pack(tmp_path / "a", tmp_path / "outer.zip")
    assert open_masks(tmp_path / "outer.zip") == []
    check(open_masks(tmp_path / "a"), tmp_path / "a" / "inner")


def test_archives_of_scans_are_not_unpacked(folder, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    archive = pack(folder, tmp_path / "a" / "scans.zip")
    monkeypatch.setattr(sources, "unpack", None)
    assert open_masks(tmp_path / "a", excluded=[str(archive)]) == []


def test_a_corrupt_archive_of_a_folder_does_not_affect_other_files(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "a")
    (tmp_path / "a" / "Rossi.zip").write_bytes(b"PK\3\4 no archive")
    (fault,) = (item.mask for item in open_masks(tmp_path / "a") if isinstance(item.mask, SourceError))
    assert "corrupt or protected archive" in str(fault)
    assert "Rossi" not in redact(fault.raw_message)
    with pytest.raises(SourceError, match="corrupt or protected archive"):
        open_masks(tmp_path / "a" / "Rossi.zip")


def test_masks_in_an_object_store_equal_those_of_the_folder(bucket, folder, temporary_files):
    address = bucket.upload(folder, "masks")
    opened = open_masks(address)
    digests = check(opened, Path(address))
    assert {item.mask.path.replace(address, str(folder)) for item in opened} == {str(folder / name) for name in NAMES}
    assert check(open_masks(address), Path(address)) == digests
    assert list(temporary_files.iterdir()) == []
    obstore.put(bucket.store(), "masks/one.nrrd", (folder / "one.nrrd").read_bytes() + b"\n")
    (stale,) = (item.mask for item in opened if item.path.name == "one.nrrd")
    with pytest.raises(SourceError, match="changed while it was read"):
        read(stale)
    (single,) = open_masks(f"{address}/one.nrrd")
    assert single.mask.fingerprint != digests["one.nrrd"]
    assert single.path == Path(f"{address}/one.nrrd")


def test_an_archive_in_an_object_store_is_unpacked_where_it_is_read(bucket, folder, tmp_path, temporary_files):
    (tmp_path / "packed").mkdir()
    pack(folder, tmp_path / "packed" / "case-001.zip")
    address = bucket.upload(tmp_path / "packed", "packed")
    for place in (address, f"{address}/case-001.zip"):
        check(open_masks(place), Path(address) / "case-001")
    assert list(temporary_files.iterdir()) == []


def test_objects_that_are_not_needed_are_not_downloaded(bucket, folder, monkeypatch):
    address = bucket.upload(folder, "partly")
    downloaded = []
    original = remote._download

    def download(store, member, file, max_bytes):
        if max_bytes != 0:
            downloaded.append(member.key)
        original(store, member, file, max_bytes)

    monkeypatch.setattr(remote, "_download", download)
    opened = open_masks(address, is_needed=lambda path: path.name == "one.nrrd")
    assert sorted(downloaded) == ["partly/one.nrrd", "partly/readme.txt", "partly/three/two.raw"]
    assert [item.path.name for item in opened if item.mask is not None] == ["one.nrrd"]


def test_an_address_without_objects_is_rejected(bucket):
    with pytest.raises(SourceError, match="does not exist in its bucket"):
        open_masks(bucket.url("nothing"))
