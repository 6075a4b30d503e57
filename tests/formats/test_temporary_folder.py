"""If the folder for temporary files is full, read-only or missing, the message says so with a remedy."""

import errno
import os
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from lungmix.errors import SourceError, reveal
from lungmix.formats import RejectedSource, find_scans, remote, tempdirs
from lungmix.formats.write import write_image
from lungmix.geometry import Geometry

VOLUME = np.arange(210, dtype=np.int16).reshape(7, 6, 5)
HEADER = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 5 6 7\nendian: little\nencoding: raw\ndata file: %s\n"


@pytest.fixture
def archive(tmp_path):
    write_image(tmp_path / "a.nrrd", [VOLUME], Geometry((5, 6, 7)), np.int16)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.write(tmp_path / "a.nrrd", "a.nrrd")
    return tmp_path / "x.zip"


@pytest.fixture
def bucket(monkeypatch):
    """Bucket as a dictionary of objects, in place of an object store."""
    contents = {}

    class Result:
        def __init__(self, content):
            self._content = content

        def bytes(self):
            return self._content

    def head(store, key):
        if key not in contents:
            raise FileNotFoundError(key)
        return meta(key)

    def meta(key):
        return {"path": key, "size": len(contents[key]), "e_tag": "1", "last_modified": datetime.now(UTC)}

    def get(store, key, *, options):
        return Result(contents[key][slice(*options["range"])])

    def everything(*args, **options):
        return [[meta(key) for key in contents]]

    monkeypatch.setattr(remote, "open_bucket", lambda url: None)
    monkeypatch.setattr("obstore.head", head)
    monkeypatch.setattr("obstore.get", get)
    monkeypatch.setattr("obstore.list", everything)
    monkeypatch.setattr("obstore.list_with_delimiter", lambda *_: {"objects": everything()[0]})
    return contents


def reason(source):
    (item,) = find_scans(source)
    assert isinstance(item, RejectedSource)
    return reveal(item.reason)


def test_missing_temporary_folder_is_reported_with_a_remedy(archive, bucket, tmp_path, monkeypatch):
    bucket["a.nrrd"] = (archive.parent / "a.nrrd").read_bytes()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    for source in (archive, "s3://bucket/a.nrrd"):
        assert reason(source) == (
            "no temporary folder can be created (No such file or directory): set TMPDIR to a writable folder"
        )


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "no temporary folder can be created (Read-only file system): set TMPDIR to a writable folder"),
        (errno.ENOSPC, "no temporary folder can be created (No space left on device): set TMPDIR to a writable folder"),
    ],
)
def test_unwritable_temporary_folder_is_reported_with_a_remedy(archive, number, words, monkeypatch):
    def refuse(*args, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert reason(archive).startswith(words)
    with pytest.raises(SourceError, match=os.strerror(number)), tempdirs.temporary_folder():
        pass


def fill(monkeypatch):
    """Make every write to a file in a temporary folder fail as on a full disk."""
    opened = Path.open

    class Full:
        def __init__(self, stream):
            self._stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._stream.close()

        def write(self, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        truncate = write

    def open_full(self, mode="r", *args, **options):
        stream = opened(self, mode, *args, **options)
        return Full(stream) if "x" in mode else stream

    monkeypatch.setattr(Path, "open", open_full)


def test_disk_full_while_unpacking_is_reported_with_a_remedy(archive, monkeypatch):
    fill(monkeypatch)
    assert reason(archive).startswith("x.zip needs more space than there is for temporary files: ")
    assert reason(archive).endswith("set TMPDIR to a folder with more free space")


def test_disk_full_during_a_download_is_reported_with_a_remedy(archive, bucket, monkeypatch):
    bucket["a.nrrd"] = (archive.parent / "a.nrrd").read_bytes()
    (scan,) = find_scans("s3://bucket/a.nrrd")
    fill(monkeypatch)
    assert reason("s3://bucket/a.nrrd").startswith("a.nrrd needs more space than there is for temporary files: ")
    with pytest.raises(SourceError, match="set TMPDIR to a folder with more free space"):
        list(scan.slabs(4))


@pytest.mark.parametrize("needed", [0, 1 << 40])
def test_too_little_disk_space_is_reported_before_the_download(archive, bucket, needed, monkeypatch):
    bucket["a.nrrd"] = (archive.parent / "a.nrrd").read_bytes()
    monkeypatch.setattr(remote, "usable_bytes", lambda folder: needed)
    (item,) = find_scans("s3://bucket/a.nrrd")
    assert isinstance(item, RejectedSource) == (needed == 0)


def test_data_file_in_a_bucket_is_read_by_its_plain_name(bucket):
    bucket["scans/scan.nhdr"] = HEADER % b"scan.raw"
    bucket["scans/scan.raw"] = VOLUME.tobytes()
    for source in ("s3://bucket/scans", "s3://bucket/scans/scan.nhdr"):
        (scan,) = find_scans(source)
        assert not isinstance(scan, RejectedSource), scan.reason
        assert np.array_equal(np.concatenate(list(scan.slabs(4))), VOLUME)
