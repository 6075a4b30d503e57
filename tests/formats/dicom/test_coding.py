"""Pixel encodings that decoders misread or do not support: they are read correctly, or rejected for this reason."""

import subprocess
import sys

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, HTJ2KLossless, JPEGLSLossless

from lungmix.errors import redact, reveal
from lungmix.formats import find_scans
from support.series import SHAPE, change, hu_of, only_scan, read, refused, write_series

GE_BIG_ENDIAN = "1.2.840.113619.5.2"


def reason(folder):
    (source,) = refused(find_scans(folder))
    return source.reason


def give_overlay(file, tag, vr, value):
    """Add to a file an overlay that has a bitmap and one more attribute."""
    dataset = pydicom.dcmread(file)
    rows, columns = SHAPE[1:]
    for element, kind, content in (
        (0x0010, "US", rows), (0x0011, "US", columns), (0x0040, "CS", "G"), (0x0050, "SS", [1, 1]),
        (0x0100, "US", 1), (0x0102, "US", 0), (0x3000, "OW", bytes(rows * columns // 8)), (tag, vr, value),
    ):  # fmt: skip
        dataset.add_new(0x60000000 + element, kind, content)
    dataset.save_as(file)


@pytest.mark.parametrize(
    ("syntax", "words"),
    [(HTJ2KLossless, "High-Throughput JPEG 2000"), (MPEG2MPML, "MPEG2"), ("1.2.3.4.5", "1.2.3.4.5")],
)
def test_pixels_in_an_unsupported_syntax_are_not_reported_as_damaged(tmp_path, syntax, words):
    for file in write_series(tmp_path / "s"):
        dataset = pydicom.dcmread(file)
        private = not syntax.startswith("1.2.840.10008.")
        if not private:
            dataset.PixelData = encapsulate([b"stream of a video" * 9])
            dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(file, implicit_vr=False if private else None, little_endian=True if private else None)
    message = reason(tmp_path / "s")
    assert "00001.dcm has pixels in an unsupported transfer syntax (" in reveal(message)
    assert words in reveal(message)
    assert "convert it to explicit little endian" in message
    assert "damaged" not in message
    assert words not in redact(message)


def test_private_big_endian_pixels_of_ge_are_read(tmp_path):
    for file in write_series(tmp_path / "s"):
        dataset = pydicom.dcmread(file)
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = GE_BIG_ENDIAN
        dataset.save_as(file, implicit_vr=True, little_endian=True)
    assert np.array_equal(read(only_scan(tmp_path / "s")), hu_of())


@pytest.mark.parametrize("shift", [0, 4])
def test_inconsistent_high_bit_is_rejected(tmp_path, shift):
    for file in write_series(tmp_path / "s", BitsStored=12, HighBit=15, PixelRepresentation=0):
        stored = np.frombuffer(pydicom.dcmread(file).PixelData, "<u2") << shift
        change(file, PixelData=stored.astype("<u2").tobytes())
    message = reason(tmp_path / "s")
    assert "declares that its 12 bits end at bit 15 (HighBit)" in message
    assert "set HighBit to 11" in message


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("tag", "vr", "value"), [(0x4000, "LT", "A comment"), (0x1001, "CS", "LAYER"), (0x0022, "LO", "A description")]
)
def test_slices_with_any_overlay_are_read(tmp_path, tag, vr, value, compressed):
    write_series(tmp_path / "plain")
    for file in write_series(tmp_path / "s", RescaleSlope=0.5):
        if compressed:
            dataset = pydicom.dcmread(file)
            dataset.compress(JPEGLSLossless, generate_instance_uid=False)
            dataset.save_as(file)
        give_overlay(file, tag, vr, value)
    scan = only_scan(tmp_path / "s")
    assert scan.geometry == only_scan(tmp_path / "plain").geometry
    assert np.array_equal(read(scan), np.rint((hu_of() + 1024.0) * 0.5 - 1024))


def test_damaged_pixels_with_an_overlay_are_reported_as_damaged(tmp_path):
    files = write_series(tmp_path / "s")
    for file in files:
        give_overlay(file, 0x4000, "LT", "A comment")
    files[3].write_bytes(files[3].read_bytes()[:-10])
    message = " ".join(reveal(source.reason) for source in refused(find_scans(tmp_path / "s")))
    assert "slice 4 (00004.dcm) is cut short: its pixels end early" in message


def test_folder_named_like_a_module_that_gdcm_imports_is_ignored(tmp_path):
    write_series(tmp_path / "s")
    (tmp_path / "dl").mkdir()
    (tmp_path / "DLFCN.py").write_text("raise SystemExit('imported from where Python was started')")
    code = (
        "import sys, lungmix.formats as formats\n"
        "(scan,) = formats.find_scans('s')\n"
        "assert len(list(scan.slabs(3))) == 3\n"
        "import gdcm, pydicom\n"
        "assert 'dl' not in sys.modules and 'DLFCN' not in sys.modules\n"
    )
    # As in a notebook, Python searches the working directory for modules before installed libraries.
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
