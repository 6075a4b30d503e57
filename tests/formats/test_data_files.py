"""Headers with voxels in another file, which must be in the folder of the header, however its path is spelled."""

import os

import numpy as np
import pytest

from lungmix.formats import RejectedSource, Scan, find_scans

VOLUME = np.arange(-100, 110, dtype="<i2").reshape(7, 6, 5)
HEADERS = {
    ".nhdr": b"NRRD0004\ntype: short\ndimension: 3\nsizes: 5 6 7\nendian: little\nencoding: raw\ndata file: %s\n",
    ".mhd": b"ObjectType = Image\nNDims = 3\nDimSize = 5 6 7\nElementType = MET_SHORT\nElementDataFile = %s\n",
}


@pytest.fixture(params=HEADERS)
def header(request, tmp_path):
    """Return a function that writes a header with a name of its data file, and returns the path of the header."""
    folder = tmp_path / "scans"
    folder.mkdir()

    def write(name):
        path = folder / f"scan{request.param}"
        path.write_bytes(HEADERS[request.param] % os.fsencode(name))
        return path

    write.folder = folder
    return write


def only(path):
    (item,) = find_scans(path)
    return item


@pytest.mark.parametrize(
    "spelled",
    [
        "scan.raw",
        "./scan.raw",
        ".//scan.raw",
        "../scans/scan.raw",
        "%FOLDER/scan.raw",
        "sub/../scan.raw",
        ".\\scan.raw",
    ],
)
def test_data_file_in_the_headers_own_folder_is_read_however_it_is_spelled(header, spelled):
    (header.folder / "scan.raw").write_bytes(VOLUME.tobytes())
    (header.folder / "sub").mkdir()
    scan = only(header(spelled.replace("%FOLDER", str(header.folder))))
    assert isinstance(scan, Scan), scan.reason
    assert np.array_equal(np.concatenate(list(scan.slabs(3))), VOLUME)
    assert scan.files[1] == str(header.folder / "scan.raw")


@pytest.mark.parametrize(
    "name", ["J\xf6rg.raw", "100%.raw", "a%03d.raw", "list.raw", "a b;c.raw", os.fsdecode(b"J\xf6.raw")]
)
def test_data_file_of_any_name_is_read(header, name):
    (header.folder / name).write_bytes(VOLUME.tobytes())
    scan = only(header(name))
    assert isinstance(scan, Scan), scan.reason
    assert np.array_equal(np.concatenate(list(scan.slabs(3))), VOLUME)


@pytest.mark.parametrize(
    "spelled", ["../secret.raw", "%FOLDER/../secret.raw", "link.raw", "away/secret.raw", "/dev/zero"]
)
def test_data_file_in_another_folder_is_rejected_however_it_is_spelled(header, tmp_path, spelled):
    (tmp_path / "secret.raw").write_bytes(VOLUME.tobytes())
    (header.folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    (header.folder / "away").symlink_to(tmp_path)
    item = only(header(spelled.replace("%FOLDER", str(header.folder))))
    assert isinstance(item, RejectedSource)
    assert "outside its own folder" in item.reason


def test_folder_of_a_header_may_itself_be_reached_by_a_link(header, tmp_path):
    (header.folder / "scan.raw").write_bytes(VOLUME.tobytes())
    path = header(str(header.folder / "scan.raw"))
    (tmp_path / "link").symlink_to(header.folder)
    assert isinstance(only(tmp_path / "link" / path.name), Scan)


def test_data_file_is_not_listed_in_addition_to_its_header(header):
    (header.folder / "scan.raw").write_bytes(VOLUME.tobytes())
    header("./scan.raw")
    (item,) = find_scans(header.folder)
    assert isinstance(item, Scan)
