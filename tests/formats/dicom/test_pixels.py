"""Pixels in every encoding used for CT, compared with the written values and with other readers."""

import struct
import warnings

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from lungmix.errors import SourceError
from lungmix.formats import find_scans
from support.series import SPACING, copy, hu_of, only_scan, read, refused, write_series

SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
)


BY_GDCM = {
    JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
    JPEGExtended12Bit: gdcm.TransferSyntax.JPEGExtendedProcess2_4,
}


def recode(file, syntax):
    """Write a file again with its pixels in another transfer syntax."""
    dataset = pydicom.dcmread(file)
    if syntax in BY_GDCM:
        reader = gdcm.ImageReader()
        reader.SetFileName(str(file))
        assert reader.Read()
        change_syntax = gdcm.ImageChangeTransferSyntax()
        change_syntax.SetTransferSyntax(gdcm.TransferSyntax(BY_GDCM[syntax]))
        change_syntax.SetInput(reader.GetImage())
        assert change_syntax.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(file))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change_syntax.GetOutput())
        assert writer.Write()
    elif syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(file)
    else:
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pydicom.dcmwrite(
                file,
                dataset,
                implicit_vr=syntax == ImplicitVRLittleEndian,
                little_endian=syntax != ExplicitVRBigEndian,
                force_encoding=True,
            )
    assert pydicom.dcmread(file, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax


def store_as(file, values, bits=16, signed=False, **tags):
    """Replace the stored values (pixels) of a file."""
    dataset = pydicom.dcmread(file)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = np.asarray(values).astype("<i2" if signed else "<u2").tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(file)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)
def test_every_transfer_syntax_gives_the_voxels_that_were_written(tmp_path, syntax):
    files = write_series(tmp_path / "s")
    for file in files:
        recode(file, syntax)
    scan = only_scan(tmp_path / "s")
    assert np.array_equal(read(scan), hu_of())


def test_jpeg_with_loss_is_read_as_by_simpleitk_and_noted(tmp_path):
    y, x = np.mgrid[:32, :32]
    hu = np.stack([(20 * y + 10 * x + 50 * z - 800).astype(np.int16) for z in range(4)])
    files = write_series(tmp_path / "s", hu, LossyImageCompression="01")
    for file, plane in zip(files, hu, strict=True):
        store_as(file, plane + 1024, 12, False, RescaleIntercept=-1024)
        recode(file, JPEGExtended12Bit)
    scan = only_scan(tmp_path / "s")
    by_sitk = sitk.GetArrayFromImage(sitk.ReadImage([str(file) for file in files]))
    assert np.array_equal(read(scan), by_sitk)
    assert np.abs(read(scan) - hu).max() < 60
    assert "slices 1 to 4 were once compressed with loss" in scan.notes[0]


@pytest.mark.parametrize("bits", [12, 13, 14, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless]
)
def test_signed_and_unsigned_pixels_of_12_to_16_bits(tmp_path, bits, signed, syntax):
    files = write_series(tmp_path / "s", hu_of((3, 16, 16)))
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    intercept = 0 if signed else -min(1024, 1 << bits - 1)
    if bits == 16 and not signed:
        high = 32767 + 1024  # higher values exceed HU of 16 bits
    random = np.random.default_rng(bits)
    expected = []
    for file in files:
        values = random.integers(low, high + 1, (16, 16))
        values[0, :2] = low, high
        store_as(file, values, bits, signed, RescaleIntercept=intercept)
        if syntax != ExplicitVRLittleEndian:
            recode(file, syntax)
        expected.append(values + intercept)
    assert np.array_equal(read(only_scan(tmp_path / "s")), expected)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_slope_and_intercept_are_those_of_each_slice(tmp_path_factory, seed):
    random = np.random.default_rng(seed)
    files = write_series(tmp_path_factory.mktemp("r") / "s", hu_of((4, 8, 8)))
    expected = []
    for file in files:
        slope, intercept = random.choice([0.5, 1, 1.25, 2]), int(random.integers(-1100, 100))
        values = random.integers(0, 4096, (8, 8))
        store_as(file, values, 12, False, RescaleSlope=slope, RescaleIntercept=intercept)
        expected.append(np.rint(values * slope + intercept))
    assert np.array_equal(read(only_scan(files[0].parent)), expected)


def test_hu_outside_16_bits_are_rejected_with_file_and_slice(tmp_path):
    files = write_series(tmp_path / "s")
    store_as(files[4], np.full((20, 24), 65000), RescaleIntercept=-1024)
    with pytest.raises(SourceError, match=r"00005\.dcm.*16 bits"):
        read(only_scan(tmp_path / "s"))


def padded(shape, value, inside):
    """Return a round field of view in a square of padding, and the mask of the padding."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    outside = (y - shape[0] / 2 + 0.5) ** 2 + (x - shape[1] / 2 + 0.5) ** 2 > (min(shape) / 2) ** 2
    return np.where(outside, value, inside), outside


def padding_tag(file, tag, vr, value):
    """Write a padding attribute with the given VR; scanners also write wrong ones."""
    dataset = pydicom.dcmread(file)
    setattr(dataset, tag, 0)
    dataset[tag].VR = vr
    dataset[tag]._value = value
    dataset.save_as(file)


@pytest.mark.parametrize(
    ("stored", "signed", "intercept", "vr", "written", "expected"),
    [
        # A GE scanner writes signed pixels with an unsigned padding value; padding of -3024 HU counts as air.
        (-2000, True, -1024, "US", 63536, -3024),
        (-2000, True, -1024, "SS", -2000, -3024),
        # In unsigned pixels, the same bits would be bone, or a value that is no HU.
        (63536, False, -1024, "SS", -2000, -1024),
        (63536, False, -1024, "US", 63536, -1024),
        (4095, False, -1024, "US", 4095, -1024),
        (0, False, 0, "US", 0, -1024),
        (0, False, -1024, "US", 0, -1024),
        (32767, True, 0, "SS", 32767, -1024),
    ],
)
def test_padding_never_becomes_tissue(tmp_path, stored, signed, intercept, vr, written, expected):
    files = write_series(tmp_path / "s", hu_of((3, 24, 24)))
    inside = np.random.default_rng(0).integers(900, 1400, (24, 24))
    values, outside = padded((24, 24), stored, inside)
    for file in files:
        store_as(file, values, 16, signed, RescaleIntercept=intercept)
        padding_tag(file, "PixelPaddingValue", vr, written)
    hu = read(only_scan(tmp_path / "s"))
    assert (hu[:, outside] == expected).all()
    assert np.array_equal(hu[:, ~outside], np.stack([inside[~outside] + intercept] * 3))


def test_range_of_padding_becomes_air(tmp_path):
    files = write_series(tmp_path / "s", hu_of((3, 24, 24)))
    inside = np.random.default_rng(0).integers(900, 1400, (24, 24))
    values, outside = padded((24, 24), 3900, inside)
    values[outside] += np.arange(outside.sum()) % 100
    for file in files:
        store_as(file, values, 12, False, RescaleIntercept=-1024)
        padding_tag(file, "PixelPaddingValue", "US", 4000)
        padding_tag(file, "PixelPaddingRangeLimit", "US", 3900)
    hu = read(only_scan(tmp_path / "s"))
    assert (hu[:, outside] == -1024).all()
    assert np.array_equal(hu[:, ~outside], np.stack([inside[~outside] - 1024] * 3))


def test_tissue_with_the_value_of_the_padding_stays(tmp_path):
    files = write_series(tmp_path / "s", hu_of((3, 24, 24)))
    inside = np.full((24, 24), 40)
    inside[10:14, 10:14] = 0  # water
    values, outside = padded((24, 24), 0, inside)
    for file in files:
        store_as(file, values, 16, True, RescaleIntercept=0)
        padding_tag(file, "PixelPaddingValue", "SS", 0)
    hu = read(only_scan(tmp_path / "s"))
    assert (hu[:, outside] == -1024).all()
    assert (hu[:, 10:14, 10:14] == 0).all()


def test_padding_without_a_tag_outside_hu_is_rejected(tmp_path):
    files = write_series(tmp_path / "s", hu_of((3, 24, 24)))
    values, _ = padded((24, 24), 63536, np.full((24, 24), 1000))
    for file in files:
        store_as(file, values, 16, False, RescaleIntercept=-1024)
    with pytest.raises(SourceError, match="16 bits"):
        read(only_scan(tmp_path / "s"))


def test_files_without_preamble_and_prefix_are_read(tmp_path):
    files = write_series(tmp_path / "s")
    for number, file in enumerate(files):
        content = file.read_bytes()
        assert content[128:132] == b"DICM"
        bare = content[132:]
        if number % 2:
            # The meta header is missing too: the file is implicit little endian from its first byte.
            recode(file, ImplicitVRLittleEndian)
            content = file.read_bytes()
            (length,) = struct.unpack_from("<I", content, 140)
            bare = content[144 + length :]
        file.with_suffix("").write_bytes(bare)
        file.unlink()
    assert np.array_equal(read(only_scan(tmp_path / "s")), hu_of())


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1])
def test_truncated_compressed_pixels_are_damaged(tmp_path, syntax):
    files = write_series(tmp_path / "s", hu_of((4, 64, 64)))
    for file in files:
        recode(file, syntax)
    content = files[2].read_bytes()
    files[2].write_bytes(content[: len(content) * 2 // 3])
    sources = find_scans(tmp_path / "s")
    if refused(sources):
        assert "00003.dcm" in refused(sources)[0].reason
        return
    with pytest.raises(SourceError, match=r"00003\.dcm.*slice 3"):
        read(only_scan(tmp_path / "s"))


@pytest.mark.parametrize(
    ("keyword", "vr", "written"),
    [
        ("PixelSpacing", b"DS", b"LO"),
        ("ImagePositionPatient", b"DS", b"LT"),
        ("ImageOrientationPatient", b"DS", b"FD"),
        ("RescaleSlope", b"DS", b"LO"),
        ("RescaleIntercept", b"DS", b"SH"),
        ("Rows", b"US", b"SS"),
        ("PixelRepresentation", b"US", b"SS"),
    ],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless], ids=["plain", "compressed"])
def test_attributes_with_a_non_standard_vr_are_read(tmp_path, keyword, vr, written, syntax):
    files = write_series(tmp_path / "s")
    for file in files:
        recode(file, syntax)
        tag = pydicom.tag.Tag(keyword)
        element = struct.pack("<HH", tag.group, tag.element) + vr
        content = file.read_bytes()
        assert content.count(element) == 1
        file.write_bytes(content.replace(element, element[:4] + written))
    scan = only_scan(tmp_path / "s")
    assert scan.geometry.spacing == SPACING
    assert np.array_equal(read(scan), hu_of())


def test_voxels_are_those_of_simpleitk_and_of_pydicom(tmp_path):
    files = write_series(tmp_path / "s")
    scan = only_scan(tmp_path / "s")
    by_pydicom = [pydicom.dcmread(file).pixel_array.astype(int) - 1024 for file in files]
    by_sitk = sitk.GetArrayFromImage(sitk.ReadImage([str(file) for file in files]))
    assert np.array_equal(read(scan), by_sitk)
    assert np.array_equal(read(scan), by_pydicom)


def test_colour_image_in_the_folder_is_skipped(tmp_path):
    files = write_series(tmp_path / "s")
    copy(
        files[0],
        tmp_path / "s" / "picture.dcm",
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        PixelData=b"\0" * (20 * 24 * 3 * 2),
    )
    assert np.array_equal(read(only_scan(tmp_path / "s")), hu_of())
