"""Files next to scans: known formats that are not supported are rejected by name, files that are no scans skipped."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import nibabel
import numpy as np
import pytest

from lungmix.errors import reveal
from lungmix.formats import RejectedSource, Scan, SkippedSource, find_scans, write_image
from lungmix.geometry import Geometry

VOLUME = np.arange(-105, 105, dtype=np.int16).reshape(7, 6, 5)
NRRD = b"NRRD0004\ntype: short\n"


def zipped():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.nrrd", b"x")
    return stream.getvalue()


def tarred():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x.nrrd"))
    return stream.getvalue()


UNREAD = {
    "p.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(50), "7z archive"),
    "p.rar": (b"Rar!\x1a\x07\x01\0" + bytes(50), "RAR archive"),
    "called_otherwise": (b"Rar!\x1a\x07\0" + bytes(50), "RAR archive"),
    "p": (zipped(), "zip file by its bytes"),
    "q.data": (tarred(), "tar file by its bytes"),
    "disc.iso": (bytes(32769) + b"CD001", "image of a disc"),
    "s.dcm.gz": (gzip.compress(bytes(128) + b"DICM" + bytes(99)), "compressed with gzip"),
    "s.nrrd.gz": (gzip.compress(NRRD), "compressed with gzip"),
    "s.mha.bz2": (bz2.compress(b"ObjectType = Image\n"), "compressed with bzip2"),
    "s.dcm.xz": (lzma.compress(bytes(300)), "compressed with xz"),
    "s.nii.zst": (b"\x28\xb5\x2f\xfd" + bytes(50), "compressed with Zstandard"),
    "s.tar.zst": (b"\x28\xb5\x2f\xfd" + bytes(50), "compressed with Zstandard"),
    "s.nii.lz4": (b"\x04\x22\x4d\x18" + bytes(50), "compressed with LZ4"),
    "s.tar.Z": (b"\x1f\x9d" + bytes(50), "compressed with compress"),
    "v.mnc": (b"\x89HDF\r\n\x1a\n" + bytes(50), "MINC"),
    "w.mnc": (b"CDF\x01" + bytes(50), "MINC"),
    "v.mgz": (gzip.compress(bytes(300)), "FreeSurfer"),
    "v.vti": (b'<?xml version="1.0"?>\n<VTKFile type="ImageData">', "VTK image"),
    "v.vtk": (b"# vtk DataFile Version 3.0\nx\nBINARY\nDATASET STRUCTURED_POINTS\n", "VTK image"),
    "renamed.img": (NRRD, "not by its name: give it the ending .nrrd"),
    "renamed": (b"NDims = 3\nDimSize = 5 6 7\n", "not by its name: give it the ending .mha"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_unsupported_format_is_rejected_by_its_name(tmp_path, name):
    content, words = UNREAD[name]
    (tmp_path / name).write_bytes(content)
    write_image(tmp_path / "good.nrrd", [VOLUME], Geometry((5, 6, 7)), np.int16)
    items = find_scans(tmp_path)
    assert sum(isinstance(item, Scan) for item in items) == 1
    (refusal,) = [item for item in items if not isinstance(item, Scan)]
    assert isinstance(refusal, RejectedSource)
    assert name in reveal(refusal.reason)
    assert words in refusal.reason
    (alone,) = find_scans(tmp_path / name)
    assert isinstance(alone, RejectedSource)
    assert words in alone.reason


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.AnalyzeImage])
def test_analyze_pair_is_one_failure(tmp_path, kind):
    nibabel.save(kind(np.zeros((5, 6, 7), np.int16), np.eye(4)), tmp_path / "p.img")
    write_image(tmp_path / "good.nrrd", [VOLUME], Geometry((5, 6, 7)), np.int16)
    refusal = next(item for item in find_scans(tmp_path) if not isinstance(item, Scan))
    assert "p.hdr" in refusal.reason
    assert "pair" in refusal.reason
    assert len(find_scans(tmp_path)) == 2
    for name in ("p.img", "p.hdr"):
        (alone,) = find_scans(tmp_path / name)
        assert "pair" in alone.reason


@pytest.mark.parametrize("inner", [zipped, tarred])
def test_archive_in_an_archive_is_rejected_and_the_other_scans_are_read(tmp_path, inner):
    write_image(tmp_path / "x.nrrd", [VOLUME], Geometry((5, 6, 7)), np.int16)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "x.nrrd", "p1/x.nrrd")
        archive.writestr("p2.zip" if inner is zipped else "p2.tar", inner())
    scan, refusal = find_scans(tmp_path / "all.zip")
    assert isinstance(scan, Scan)
    assert isinstance(refusal, RejectedSource)
    assert "an archive in an archive" in refusal.reason


@pytest.mark.parametrize(
    "name",
    [
        "c.tar.gz.md5", "c.zip.sha256", "c.tar.gz.sig", "c.nii.gz.json", "c.tar.asc", "README", "Thumbs.db",
        "README.md",
        ".DS_Store", "desktop.ini", "MD5SUMS", "notes.txt.gz", "table.csv.gz", "report.docx", "__MACOSX/._x.nrrd",
    ],
)  # fmt: skip
def test_sidecar_is_skipped(tmp_path, name):
    content = {"report.docx": zipped(), "Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(90), ".DS_Store": b"\0\0\0\1Bud1\0"}
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    plain = b"\x00\x05\x16\x07" if "MACOSX" in name else b"d41d8cd98f00b204e9800998ecf8427e  c.tar.gz\n"
    path.write_bytes(gzip.compress(plain) if name.endswith(".gz") else content.get(name, plain))
    write_image(tmp_path / "good.nrrd", [VOLUME], Geometry((5, 6, 7)), np.int16)
    skipped, scan = sorted(find_scans(tmp_path), key=lambda item: isinstance(item, Scan))
    assert isinstance(skipped, SkippedSource)
    assert isinstance(scan, Scan)


def test_system_file_next_to_slices_without_extension_is_no_corrupt_slice(tmp_path):
    from lungmix.phantom import Phantom, write_phantom

    write_phantom(tmp_path / "series", Phantom((6, 16, 16)))
    for number, slice_ in enumerate(sorted((tmp_path / "series").iterdir())):
        slice_.rename(slice_.with_name(f"IM{number:04d}"))
    (tmp_path / "series" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1\0")
    assert not [item for item in find_scans(tmp_path / "series") if isinstance(item, RejectedSource)]
