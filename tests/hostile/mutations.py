"""Valid files of every format, and random changes of their bytes."""

from __future__ import annotations

import bz2
import gzip
import struct
from functools import lru_cache
from pathlib import Path

from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from hostile import dicom, images, places

# Numbers and words that often make programs fail.
WORDS = (
    b"0", b"-1", b"1e308", b"nan", b"inf", b"99999999999", b"4294967296", b"2147483648", b"%s%n", b"LIST", b"../x",
    b"\0", b"\n", b"\r\n", b" ", b"\\", b"(" * 50, b"A" * 5000, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80",
    struct.pack("<f", float("nan")), struct.pack("<d", float("inf")), b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
)  # fmt: skip

Change = tuple[str, int, int]

CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "drop", "double", "word", "over", "end", "splice"]),
        st.integers(0, (1 << 20) - 1),
        st.integers(0, (1 << 32) - 1),
    ),
    min_size=1,
    max_size=5,
)


def mutated(content: bytes, changes: list[Change], other: bytes) -> bytes:
    """Return bytes after changes, three in four of which are in the first kilobyte, where headers are."""
    out = bytearray(content)
    for what, where, value in changes:
        size = max(len(out) if where % 4 == 0 else min(len(out), 1024), 1)
        at = (where >> 2) % size
        if what == "flip" and out:
            out[at] ^= 1 << value % 8
        elif what == "set":
            out[at : at + 4] = value.to_bytes(4, "little")
        elif what == "cut":
            del out[at : at + value % 40]
        elif what == "drop":
            del out[at:]
        elif what == "double":
            out[at:at] = out[at : at + value % 200]
        elif what == "word":
            out[at:at] = WORDS[value % len(WORDS)]
        elif what == "over":
            word = WORDS[value % len(WORDS)]
            out[at : at + len(word)] = word
        elif what == "end":
            out += bytes(value % 600)
        elif what == "splice":
            out[at : at + 64] = other[at : at + 64]
    return bytes(out)


def _of(write, *arguments, **options):
    def content(folder: Path) -> bytes:
        return write(folder, *arguments, **options).read_bytes()

    return content


def _compressed(uid) -> bytes:
    dataset = dicom.dataset_of(0)
    if uid in (JPEGLosslessSV1, JPEG2000Lossless):
        return _by_gdcm(uid)
    dataset.compress(uid, generate_instance_uid=False)
    return dicom.bytes_of(dataset)


def _by_gdcm(uid) -> bytes:
    import tempfile

    import gdcm

    kinds = {
        JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.dcm"
        file.write_bytes(dicom.plain(0))
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(file))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(kinds[uid]))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(file))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return file.read_bytes()


def _plain_dicom(index: int):
    return lambda folder: dicom.plain(index)


GZIP = gzip.compress(images.RAW)
SEEDS = {
    "nrrd": ("scan.nrrd", _of(images.nrrd)),
    "nrrd_gzip": ("scan.nrrd", _of(images.nrrd, GZIP, encoding="gzip")),
    "nrrd_bzip2": ("scan.nrrd", _of(images.nrrd, bz2.compress(images.RAW), encoding="bzip2")),
    "meta": ("scan.mha", _of(images.meta)),
    "meta_zlib": (
        "scan.mha",
        _of(images.meta, images.ZLIB, CompressedData="True", CompressedDataSize=str(len(images.ZLIB))),
    ),
    "nifti": ("scan.nii", _of(images.nifti)),
    "nifti_gzip": ("scan.nii.gz", _of(images.nifti, pack=gzip.compress, name="scan.nii.gz")),
    "nifti_inside_gzip": ("scan.nii.gz", _of(images.nifti)),
    "dicom": ("scan.dcm", _plain_dicom(0)),
    "dicom_deflated": ("scan.dcm", lambda folder: dicom.deflated(0)),
    "dicom_rle": ("scan.dcm", lambda folder: _compressed(RLELossless)),
    "dicom_jpeg": ("scan.dcm", lambda folder: _compressed(JPEGLosslessSV1)),
    "dicom_jpegls": ("scan.dcm", lambda folder: _compressed(JPEGLSLossless)),
    "dicom_jpeg2000": ("scan.dcm", lambda folder: _compressed(JPEG2000Lossless)),
    "zip": ("scans.zip", _of(places.zip_plain)),
    "tar": (
        "scans.tar",
        lambda folder: places.tarred(folder, [("a.nrrd", places.scan_bytes(folder))], "w").read_bytes(),
    ),
    "tar_gzip": ("scans.tar.gz", _of(places.tar_plain)),
    "tar_xz": ("scans.tar.xz", _of(places.tar_in_xz)),
    "list": ("list.csv", lambda folder: b'patient,path\n1,scan.nrrd\n2,"other.nrrd"\n'),
}
"""Name of a file, and function of a folder that returns its bytes, by format."""


@lru_cache
def seed_of(kind: str) -> bytes:
    """Return the bytes of a valid file of a format."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return SEEDS[kind][1](Path(folder))
