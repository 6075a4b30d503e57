"""Hostile DICOM files: a series of five slices, of which one slice or all slices are hostile.

Several functions return a function of the slice index that returns the bytes of a hostile slice.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from hostile.corpus import CASES, EITHER, READ, REFUSED, Case

PLANES = np.random.default_rng(1).integers(-1024, 3071, (5, 16, 18)).astype("<i2")
VICTIM = 2
NAME = f"{VICTIM}.dcm"


def dataset_of(index: int) -> FileDataset:
    """Return a valid slice as scanners write it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["hostile", str(index)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.Manufacturer, dataset.PatientName, dataset.PatientID = "CT", "Maker", "A^B", "1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (
        generate_uid(entropy_srcs=["hostile", w]) for w in ("study", "series")
    )
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["hostile", "frame"])
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.KVP, dataset.SliceThickness = 2, index + 1, 120, 1.5
    dataset.ImagePositionPatient = [-10.5, 20.25, -100 + 1.5 * index]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.8, 0.7]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = PLANES.shape[1:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    dataset.PixelData = PLANES[index].tobytes()
    return dataset


def bytes_of(dataset: FileDataset) -> bytes:
    """Return the bytes of a file with a dataset."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@lru_cache
def plain(index: int) -> bytes:
    """Return the bytes of the file of a valid slice."""
    return bytes_of(dataset_of(index))


def series(folder: Path, victims, make: Callable[[int], bytes]) -> Path:
    """Write a folder of five slices, those with the indices `victims` as `make` returns them; return the folder."""
    inside = folder / "series"
    inside.mkdir()
    for index in range(len(PLANES)):
        (inside / f"{index}.dcm").write_bytes(make(index) if index in victims else plain(index))
    return inside


def of_dicom(name: str, expected: str, *words: str, make: Callable[[int], bytes], all_slices: bool = False) -> None:
    """Add a case in which `make` returns the bytes of one slice, or of all slices."""
    victims = range(len(PLANES)) if all_slices else (VICTIM,)
    names = (NAME, "series") if not all_slices else ("series", *(f"{index}.dcm" for index in victims))
    CASES[f"dicom_{name}"] = Case(f"dicom_{name}", lambda folder: series(folder, victims, make), expected, names, words)


def of_tags(name: str, expected: str, *words: str, all_slices: bool = True, **tags) -> None:
    """Add a case in which attributes have the given values; an attribute with the value None is missing."""

    def make(index: int) -> bytes:
        dataset = dataset_of(index)
        for keyword, value in tags.items():
            if value is None:
                delattr(dataset, keyword)
            elif isinstance(value, bytes):
                put(dataset, keyword, value)
            else:
                setattr(dataset, keyword, value)
        return bytes_of(dataset)

    of_dicom(name, expected, *words, make=make, all_slices=all_slices)


def put(dataset: Dataset, keyword: str, value: bytes) -> None:
    """Set the raw bytes of an attribute, which no library would write."""
    tag = Tag(keyword)
    vr = pydicom.datadict.dictionary_VR(tag)
    dataset[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


def place_of(content: bytes, keyword: str) -> int:
    """Return the offset of an element in a file in explicit little endian."""
    tag = Tag(keyword)
    return content.index(struct.pack("<HH", tag.group, tag.element), 132)


of_dicom("plain", READ, make=plain)

# --- truncated: in the preamble, the DICM prefix, the meta header; before, in and after elements; in the pixels

for _cut in (0, 50, 127, 130, 132, 140, 200, 300):
    of_dicom(f"cut_at_{_cut}", REFUSED, make=lambda index, cut=_cut: plain(index)[:cut])
for _keyword in (
    "ImageType",
    "SOPClassUID",
    "Modality",
    "PatientName",
    "KVP",
    "SeriesInstanceUID",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SamplesPerPixel",
    "Rows",
    "PixelSpacing",
    "BitsAllocated",
    "RescaleSlope",
    "PixelData",
):
    for _more in (0, 6, 10):
        of_dicom(
            f"cut_in_{_keyword}_{_more}",
            REFUSED,
            make=lambda index, keyword=_keyword, more=_more: plain(index)[: place_of(plain(index), keyword) + more],
        )
of_dicom("cut_by_a_byte", REFUSED, make=lambda index: plain(index)[:-1])
of_dicom("all_cut_in_their_pixels", REFUSED, make=lambda index: plain(index)[:-40], all_slices=True)

# --- lengths


def length_of(keyword: str, value: int) -> Callable[[int], bytes]:
    """Return a maker of slices in which the length field of an element has another value.

    The length field has 32 bits for pixels, 16 bits for other elements.
    """

    def make(index: int) -> bytes:
        content = bytearray(plain(index))
        at = place_of(content, keyword)
        if keyword == "PixelData":
            content[at + 8 : at + 12] = struct.pack("<I", value)
        else:
            content[at + 6 : at + 8] = struct.pack("<H", value)
        return bytes(content)

    return make


for _length in (0, 7, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF):
    of_dicom(f"pixels_of_{_length}_bytes", REFUSED, make=length_of("PixelData", _length))
for _keyword in ("PatientName", "ImagePositionPatient", "Rows", "RescaleSlope"):
    for _length in (1, 0xFFFF):
        of_dicom(f"length_of_{_keyword}_{_length}", REFUSED, make=length_of(_keyword, _length))


def with_sequence(sequence: bytes) -> Callable[[int], bytes]:
    """Return a maker of slices with the given bytes, of a private sequence, before the pixels."""

    def make(index: int) -> bytes:
        content = plain(index)
        at = place_of(content, "PixelData")
        return content[:at] + sequence + content[at:]

    return make


_OPEN = struct.pack("<HH2sHI", 0x7FE0, 0x0001, b"SQ", 0, 0xFFFFFFFF)
_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
_CLOSE = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
of_dicom("sequences_twenty_deep", EITHER, make=with_sequence((_OPEN + _ITEM) * 20 + _CLOSE * 20))
of_dicom("sequences_very_deep", EITHER, make=with_sequence((_OPEN + _ITEM) * 20_000 + _CLOSE * 20_000))
of_dicom(
    "sequences_very_deep_everywhere",
    EITHER,
    make=with_sequence((_OPEN + _ITEM) * 20_000 + _CLOSE * 20_000),
    all_slices=True,
)
of_dicom("sequences_without_end", REFUSED, make=with_sequence((_OPEN + _ITEM) * 20_000))
of_dicom(
    "sequence_longer_than_the_file",
    REFUSED,
    make=with_sequence(struct.pack("<HH2sHI", 0x7FE0, 0x0001, b"SQ", 0, 0x7FFFFFF0) + _ITEM),
)
of_dicom(
    "element_of_gigabytes", REFUSED, make=with_sequence(struct.pack("<HH2sHI", 0x7FE0, 0x0001, b"OB", 0, 0x7FFFFFF0))
)
of_dicom("type_of_value_unknown", EITHER, make=with_sequence(struct.pack("<HH2sH", 0x7FE0, 0x0001, b"ZZ", 4) + b"abcd"))

# --- sizes

for _name, _tags in {
    "all_it_can": {"Rows": 65535, "Columns": 65535},
    "nothing": {"Rows": 0, "Columns": 0},
    "one_more_row": {"Rows": 17},
    "missing": {"Rows": None},
    "in_text": {"Rows": b"1616"},
}.items():
    of_tags(f"size_{_name}", REFUSED, **_tags)
of_tags("size_smaller_than_its_pixels", REFUSED, Rows=8)
of_tags("size_of_one_slice_smaller", REFUSED, all_slices=False, Rows=8)
for _frames in (b"2147483648", b"4294967297 ", b"-3", b"0 ", b"3 ", b"junk"):
    of_tags(
        f"frames_{_frames.decode().strip()}",
        REFUSED if _frames.strip() not in (b"0", b"-3", b"junk") else EITHER,
        NumberOfFrames=_frames,
    )
for _name, _tags in {
    "allocated_12": {"BitsAllocated": 12},
    "allocated_64": {"BitsAllocated": 64},
    "allocated_0": {"BitsAllocated": 0},
    "allocated_8": {"BitsAllocated": 8},
    "allocated_1": {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0},
    "stored_more_than_allocated": {"BitsStored": 32, "HighBit": 31},
    "stored_none": {"BitsStored": 0},
    "high_bit_beyond": {"HighBit": 99},
    "high_bit_in_the_middle": {"HighBit": 3},
    "signs_of_a_third_kind": {"PixelRepresentation": 7},
    "four_samples": {"SamplesPerPixel": 4},
    "no_samples": {"SamplesPerPixel": 0},
    "colour": {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
    "palette": {"PhotometricInterpretation": "PALETTE COLOR"},
    "interpretation_unknown": {"PhotometricInterpretation": b"WHATEVER"},
}.items():
    expected = (
        REFUSED
        if _name in ("allocated_64", "allocated_0", "allocated_8", "allocated_1", "four_samples", "colour")
        else EITHER
    )
    of_tags(f"bits_{_name}", expected, **_tags)

# --- numbers

for _name, _spacing in {
    "missing": None,
    "zero": [0, 0],
    "negative": [-0.8, 0.7],
    "one_alone": b"0.8 ",
    "text": b"wide\\high ",
    "empty": b"",
    "nan": b"nan\\nan ",
    "infinite": b"inf\\0.7 ",
    "huge": b"1e300\\1e300 ",
    "tiny": b"1e-300\\1e-300 ",
    "with_a_comma": b"0,8\\0,7 ",
    "hexadecimal": b"0x1p-1\\0x1p-1 ",
    "three": b"0.8\\0.7\\0.6 ",
}.items():
    of_tags(f"spacing_{_name}", REFUSED, PixelSpacing=_spacing)
for _name, _position in {
    "missing": None,
    "nan": b"nan\\nan\\nan ",
    "infinite": b"inf\\0\\0 ",
    "text": b"a\\b\\c ",
    "two": b"1\\2 ",
    "with_underscores": b"-1_0.5\\2_0.25\\-9_7",
    "huge": b"1e300\\1e300\\1e300 ",
    "with_a_comma": b"-10,5\\20,25\\-97,0 ",
}.items():
    of_tags(f"position_{_name}", REFUSED, ImagePositionPatient=_position, all_slices=False)
for _name, _orientation in {
    "missing": None,
    "no_rotation": [1, 0, 0, 1, 0, 0],
    "zero": [0, 0, 0, 0, 0, 0],
    "sheared": [1, 0, 0, 0.5, 1, 0],
    "long": [2, 0, 0, 0, 2, 0],
    "nan": b"nan\\0\\0\\0\\1\\0 ",
    "five": b"1\\0\\0\\0\\1 ",
    "text": b"x\\y\\z\\x\\y\\z ",
}.items():
    of_tags(f"orientation_{_name}", REFUSED, ImageOrientationPatient=_orientation)
for _name, _tags in {
    "slope_nan": {"RescaleSlope": b"nan "},
    "slope_infinite": {"RescaleSlope": b"inf "},
    "slope_zero": {"RescaleSlope": b"0 "},
    "slope_huge": {"RescaleSlope": b"1e300 "},
    "slope_text": {"RescaleSlope": b"steep "},
    "slope_two": {"RescaleSlope": b"1\\2 "},
    "intercept_nan": {"RescaleIntercept": b"nan "},
    "intercept_huge": {"RescaleIntercept": b"99999 "},
    "intercept_text": {"RescaleIntercept": b"junk"},
    "slope_missing_alone": {"RescaleSlope": None},
}.items():
    of_tags(f"rescale_{_name}", EITHER if _name.endswith("alone") else REFUSED, **_tags)
of_tags("thickness_nan", EITHER, SliceThickness=b"nan ", KVP=b"inf ")
of_tags(
    "numbers_in_text",
    EITHER,
    InstanceNumber=b"first ",
    SeriesNumber=b"99999999999999999999",
    AcquisitionNumber=b"\xff\xfe",
)

# --- texts

of_tags("charset_unknown", EITHER, SpecificCharacterSet=b"KLINGON ", Manufacturer=b"\xff\xfe\x80\x1b$)C")
of_tags("charset_of_many", EITHER, SpecificCharacterSet=b"ISO 2022 IR 87\\" * 40, PatientName=b"\x1b$B" * 20)
of_tags("charset_binary", EITHER, SpecificCharacterSet=b"ISO_IR 100\\..\\\x80\xff", PatientID=bytes(range(255, -1, -1)))
of_tags("texts_of_escapes", EITHER, Manufacturer=b"\x1b[31m\x07\r\n\t%s%n", ConvolutionKernel=b"../../../etc/passwd")
of_tags("texts_of_megabytes", EITHER, ImageComments=b"x" * 60_000)
of_tags("uid_text", EITHER, SeriesInstanceUID=b"../../../../tmp/evil")
of_tags("uid_empty", EITHER, SeriesInstanceUID=b"", SOPInstanceUID=b"", StudyInstanceUID=b"")
of_tags("modality_nul", REFUSED, Modality=b"\0\0")
of_tags("class_unknown", EITHER, SOPClassUID=b"1.2.3.4.5.6 ")

# --- transfer syntaxes


def in_syntax(uid: str, encode: Callable[[bytes], bytes] | None = None) -> Callable[[int], bytes]:
    """Return a maker of slices that declare a transfer syntax, with pixels as `encode` returns them."""

    def make(index: int) -> bytes:
        content = plain(index)
        padded = (uid + "\0" * (len(uid) % 2)).encode()
        old = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + ExplicitVRLittleEndian.encode() + b"\0"
        new = struct.pack("<HH2sH", 2, 0x10, b"UI", len(padded)) + padded
        assert old in content
        content = content.replace(old, new)
        group = int.from_bytes(content[140:144], "little") + len(new) - len(old)
        content = content[:140] + group.to_bytes(4, "little") + content[144:]
        if encode is not None:
            at = place_of(content, "PixelData")
            content = (
                content[:at] + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + encode(content[at + 12 :])
            )
        return content

    return make


_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def fragment(content: bytes, length: int | None = None) -> bytes:
    """Return an item of encapsulated pixels; `length` is its declared length, by default the true one."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content) if length is None else length) + content


JUNK = bytes(np.random.default_rng(5).integers(0, 256, 400, np.uint8))
for _name, _uid in {
    "implicit": "1.2.840.10008.1.2",
    "big_endian": "1.2.840.10008.1.2.2",
    "unknown": "1.2.3.4.5.6.7.8.9",
    "nonsense": "x",
    "video": "1.2.840.10008.1.2.4.100",
    "deflated": str(DeflatedExplicitVRLittleEndian),
}.items():
    of_dicom(f"syntax_is_not_{_name}", REFUSED, make=in_syntax(_uid))
for _name, _uid in {
    "jpeg": str(JPEGLosslessSV1),
    "jpegls": str(JPEGLSLossless),
    "jpeg2000": str(JPEG2000Lossless),
    "rle": str(RLELossless),
    "baseline": "1.2.840.10008.1.2.4.50",
    "htj2k": "1.2.840.10008.1.2.4.201",
    "jpegxl": "1.2.840.10008.1.2.4.110",
}.items():
    of_dicom(f"{_name}_of_junk", REFUSED, make=in_syntax(_uid, lambda _: fragment(b"") + fragment(JUNK) + _END))
    of_dicom(f"{_name}_without_fragments", REFUSED, make=in_syntax(_uid, lambda _: fragment(b"") + _END))
    of_dicom(f"{_name}_not_encapsulated", REFUSED, make=in_syntax(_uid))
    of_dicom(
        f"{_name}_fragment_too_long",
        REFUSED,
        make=in_syntax(_uid, lambda _: fragment(b"") + fragment(JUNK, 1 << 30) + _END),
    )
    of_dicom(f"{_name}_without_end", REFUSED, make=in_syntax(_uid, lambda _: fragment(b"") + fragment(JUNK)))
    of_dicom(
        f"{_name}_table_of_nonsense",
        REFUSED,
        make=in_syntax(_uid, lambda _: fragment(b"\xff" * 64) + fragment(JUNK) + _END),
    )


def j2k(width: int, height: int) -> bytes:
    """Return a JPEG 2000 stream that declares an image size and contains no pixels."""
    size = struct.pack(">HHIIIIIIIIHBBB", 41, 0, width, height, 0, 0, width, height, 0, 0, 1, 15, 1, 1)
    cod = struct.pack(">HBBHBBBBBB", 12, 0, 0, 1, 0, 5, 4, 4, 0, 1)
    return b"\xff\x4f\xff\x51" + size + b"\xff\x52" + cod + b"\xff\x93" + bytes(64) + b"\xff\xd9"


def jpeg(width: int, height: int, marker: int = 0xC3) -> bytes:
    """Return a stream of lossless JPEG, or of JPEG-LS with marker 0xF7, that declares an image size without pixels."""
    frame = struct.pack(">HBHHBBBB", 11, 16, height, width, 1, 1, 0x11, 0)
    scan = struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0)
    return b"\xff\xd8\xff" + bytes([marker]) + frame + b"\xff\xda" + scan + bytes(64) + b"\xff\xd9"


for _name, _uid, _stream in (
    ("jpeg2000", str(JPEG2000Lossless), j2k),
    ("jpeg", str(JPEGLosslessSV1), jpeg),
    ("jpegls", str(JPEGLSLossless), lambda w, h: jpeg(w, h, 0xF7)),
):
    for _w, _h in ((18, 16), (65535, 65535), (0, 0)):
        of_dicom(
            f"{_name}_of_{_w}_by_{_h}",
            EITHER if (_w, _h) == (18, 16) else REFUSED,
            make=in_syntax(_uid, lambda _, s=_stream, w=_w, h=_h: fragment(b"") + fragment(s(w, h) + b"\0") + _END),
        )


def deflated(index: int, change: Callable[[bytes], bytes] = lambda b: b, more: int = 0) -> bytes:
    """Return a deflated slice, with deflated bytes as `change` returns them, and `more` zeros before the pixels."""
    content = in_syntax(str(DeflatedExplicitVRLittleEndian))(index)
    start = 144 + int.from_bytes(content[140:144], "little")
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    at = place_of(content, "PixelData")
    packed = deflate.compress(content[start:at])
    if more:
        packed += deflate.compress(struct.pack("<HH2sHI", 0x7FE0, 0x0001, b"OB", 0, more))
        for _ in range(more >> 24):
            packed += deflate.compress(bytes(1 << 24))
    packed += deflate.compress(content[at:]) + deflate.flush()
    return content[:start] + change(packed)


of_dicom("deflated_plain", READ, make=deflated, all_slices=True)
of_dicom("deflated_cut_short", REFUSED, make=lambda index: deflated(index, lambda b: b[: len(b) // 2]))
of_dicom("deflated_changed", REFUSED, make=lambda index: deflated(index, lambda b: b[:40] + b[60:]))
of_dicom("deflated_bomb_before_its_pixels", REFUSED, make=lambda index: deflated(index, more=1 << 28))
of_dicom(
    "deflated_bomb_behind_its_pixels",
    REFUSED,
    make=lambda index: (
        in_syntax(str(DeflatedExplicitVRLittleEndian))(index)[:330] + zlib.compress(bytes(1 << 28), 9)[2:-4]
    ),
)

# --- whole files

for _name, _content in {
    "mark_alone": bytes(128) + b"DICM",
    "mark_and_nuls": bytes(128) + b"DICM" + bytes(5000),
    "mark_and_junk": bytes(128) + b"DICM" + JUNK * 10,
    "mark_and_text": bytes(128) + b"DICM" + b"no slice at all " * 99,
}.items():
    of_dicom(f"only_{_name}", REFUSED, make=lambda index, content=_content: content)
    of_dicom(f"all_only_{_name}", REFUSED, make=lambda index, content=_content: content, all_slices=True)


def group_length(value: int) -> Callable[[int], bytes]:
    """Return a maker of slices whose meta header declares another length of itself."""
    return lambda index: plain(index)[:140] + value.to_bytes(4, "little") + plain(index)[144:]


for _value in (0, 3, 0x7FFFFFFF, 0xFFFFFFFF):
    of_dicom(f"meta_header_of_{_value}_bytes", EITHER, make=group_length(_value))


def _index_of_everything(folder: Path) -> Path:
    series(folder, (), plain)
    item = Dataset()
    item.DirectoryRecordType, item.ReferencedFileID = "IMAGE", ["..", "..", "ETC", "PASSWD"]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
    index = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    index.FileSetID, index.DirectoryRecordSequence = "X", Sequence([item])
    (folder / "DICOMDIR").write_bytes(bytes_of(index))
    return folder


CASES["dicom_index_that_leads_out"] = Case("dicom_index_that_leads_out", _index_of_everything, READ, (), ())
