"""Hostile image files: NRRD, MetaImage, NIfTI."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np

from hostile.corpus import CASES, READ, REFUSED, Case, read, refused

VOLUME = np.random.default_rng(0).integers(-1024, 3071, (4, 5, 6)).astype("<i2")
RAW = VOLUME.tobytes()
SPACING = (0.7, 0.8, 1.25)

# --- NRRD

FIELDS = {
    "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "6 5 4",
    "space directions": "(0.7,0,0) (0,0.8,0) (0,0,1.25)", "kinds": "domain domain domain", "endian": "little",
    "encoding": "raw", "space origin": "(-10,20,30.5)",
}  # fmt: skip


def nrrd(
    folder: Path, data: bytes = RAW, *, name: str = "scan.nrrd", more: str = "", end: str = "\n", **changes
) -> Path:
    """Write a NRRD file with changed fields; names have ``_`` for blanks, a field with the value None is missing."""
    fields = {**FIELDS, **{key.replace("_", " "): value for key, value in changes.items()}}
    lines = [f"{key}: {value}" for key, value in fields.items() if value is not None]
    path = folder / name
    path.write_bytes(("NRRD0004\n" + "\n".join(lines) + "\n" + more + end).encode("latin-1") + data)
    return path


def of_nrrd(name: str, expected: str, *words: str, data: bytes = RAW, **changes) -> None:
    """Add a case that is a NRRD file with changed fields, see `nrrd`."""
    CASES[f"nrrd_{name}"] = Case(
        f"nrrd_{name}", lambda folder: nrrd(folder, data, **changes), expected, ("scan.nrrd",), words
    )


of_nrrd("plain", READ)
of_nrrd("big_endian", READ, endian="big", data=VOLUME.astype(">i2").tobytes())
of_nrrd("whole_numbers_as_float", READ, type="float", data=VOLUME.astype("<f4").tobytes())
of_nrrd("spacings_without_space", READ, space=None, space_directions=None, space_origin=None, spacings="0.7 0.8 1.25")
of_nrrd("comments_and_keys", READ, more="# a remark\nsecret:=" + "x" * 20_000 + "\n")
of_nrrd("carriage_returns", READ, more="content: x\r\n", end="\r\n")
of_nrrd("wrong_endianness", REFUSED, "'endian'", endian="middle")
of_nrrd("without_endianness", REFUSED, "'endian'", endian=None)
of_nrrd("line_of_a_megabyte", REFUSED, more="content: " + "x" * (2 << 20) + "\n")
of_nrrd("field_of_a_library_s_buffer", REFUSED, more="spa" + "A" * 5000 + "\n")
of_nrrd("direction_of_a_library_s_buffer", REFUSED, space_directions="(0.7,0,0) (0,0.8" + "A" * 5000 + ",0) (0,0,1)")
of_nrrd("header_without_end", REFUSED, "cut short", end="", data=b"")
of_nrrd("without_voxels", REFUSED, "cut short", data=b"")
of_nrrd("cut_short", REFUSED, "cut short", data=RAW[:-7])
of_nrrd("sizes_too_small", REFUSED, "more voxels", sizes="6 5 3")
of_nrrd("sizes_too_large", REFUSED, "cut short", sizes="60 50 40")
of_nrrd("sizes_absurd", REFUSED, "no CT has", sizes="99999 99999 99999")
of_nrrd("sizes_beyond_64_bits", REFUSED, sizes="4294967296 4294967296 4294967296")
of_nrrd("sizes_negative", REFUSED, "'sizes'", sizes="6 5 -4")
of_nrrd("sizes_zero", REFUSED, "'sizes'", sizes="6 5 0")
of_nrrd("sizes_missing", REFUSED, "'sizes'", sizes=None)
of_nrrd("dimension_huge", REFUSED, "'dimension'", dimension="4294967295")
of_nrrd("field_twice", REFUSED, "twice", more="sizes: 5 6 4\n")
of_nrrd("directions_nan", REFUSED, space_directions="(nan,0,0) (0,0.8,0) (0,0,1.25)")
of_nrrd("directions_infinite", REFUSED, space_directions="(inf,0,0) (0,0.8,0) (0,0,1.25)")
of_nrrd("directions_not_invertible", REFUSED, space_directions="(1,0,0) (1,0,0) (0,0,1)")
of_nrrd("directions_zero", REFUSED, space_directions="(0,0,0) (0,0,0) (0,0,0)")
of_nrrd("directions_sheared", REFUSED, "right angles", space_directions="(0.7,0,0) (0,0.8,0) (0,0.6,1.25)")
of_nrrd("directions_none", REFUSED, space_directions="none none none")
of_nrrd("spacing_huge", REFUSED, "implausible spacing", space_directions="(7000,0,0) (0,8000,0) (0,0,9000)")
of_nrrd("spacing_tiny", REFUSED, "implausible spacing", space_directions="(7e-9,0,0) (0,8e-9,0) (0,0,9e-9)")
of_nrrd("spacings_negative", REFUSED, space=None, space_directions=None, space_origin=None, spacings="-1 1 1")
of_nrrd("origin_kilometres_away", REFUSED, space_origin="(1e30,0,0)")
of_nrrd("origin_nan", REFUSED, space_origin="(nan,0,0)")
of_nrrd(
    "voxel_nan",
    REFUSED,
    "nan",
    type="float",
    data=np.where(VOLUME[2, 1, 1] == VOLUME, np.nan, VOLUME).astype("<f4").tobytes(),
)
of_nrrd(
    "voxel_infinite", REFUSED, "inf", type="double", data=np.where(VOLUME[2, 1, 1] == VOLUME, np.inf, VOLUME).tobytes()
)
of_nrrd("hu_beyond_16_bits", REFUSED, "16 bits", type="int", data=(VOLUME.astype("<i4") * 100).tobytes())
of_nrrd("type_block", REFUSED, type="block", more="block size: 2\n")
of_nrrd("type_nonsense", REFUSED, type="../../etc/passwd")
of_nrrd("ascii", REFUSED, "encoding", encoding="ascii", data=" ".join(map(str, VOLUME.ravel())).encode())
of_nrrd("hex", REFUSED, "encoding", encoding="hex", data=RAW.hex().encode())
of_nrrd("encoding_nonsense", REFUSED, "encoding", encoding="rot13")
of_nrrd(
    "colours",
    REFUSED,
    dimension="4",
    sizes="3 6 5 4",
    kinds="RGB-color domain domain domain",
    space_directions="none (0.7,0,0) (0,0.8,0) (0,0,1.25)",
    data=RAW * 3,
)
of_nrrd(
    "time_series",
    REFUSED,
    dimension="4",
    sizes="6 5 4 2",
    kinds="domain domain domain time",
    space_directions="(0.7,0,0) (0,0.8,0) (0,0,1.25) none",
    data=RAW * 2,
)
of_nrrd("lines_skipped", REFUSED, "skips", more="line skip: 3\n")
of_nrrd("bytes_skipped_backwards", REFUSED, "skips", more="byte skip: -1\n")
of_nrrd("gzip", READ, encoding="gzip", data=gzip.compress(RAW))
of_nrrd("gzip_cut_short", REFUSED, "cut short", encoding="gzip", data=gzip.compress(RAW)[:-40])
of_nrrd("gzip_without_its_checksum", REFUSED, encoding="gzip", data=gzip.compress(RAW)[:-8])
of_nrrd("gzip_with_a_wrong_checksum", REFUSED, "corrupt", encoding="gzip", data=gzip.compress(RAW)[:-8] + bytes(8))
of_nrrd("gzip_that_is_none", REFUSED, "corrupt", encoding="gzip")
of_nrrd("gzip_that_goes_on", REFUSED, "more voxels", encoding="gzip", data=gzip.compress(RAW + bytes(100)))
CASES["nrrd_bzip2"] = Case(
    "nrrd_bzip2", lambda folder: nrrd(folder, bz2.compress(RAW), encoding="bz2"), READ, (), (), simpleitk=False
)
of_nrrd("bzip2_cut_short", REFUSED, encoding="bz2", data=bz2.compress(RAW)[:-40])
of_nrrd("data_file_absolute", REFUSED, "outside", data=b"", data_file="/etc/hostname")
of_nrrd("data_file_above", REFUSED, "outside", data=b"", data_file="../secret.raw")
of_nrrd("data_file_above_in_windows", REFUSED, "outside", data=b"", data_file="..\\secret.raw")
of_nrrd("data_file_dots", REFUSED, "outside", data=b"", data_file="..")
of_nrrd("data_file_device", REFUSED, "outside", data=b"", data_file="/dev/zero")
of_nrrd("data_file_list", REFUSED, "several", data=b"", data_file="LIST\n/etc/passwd\n/etc/hostname")
of_nrrd("data_file_pattern", REFUSED, "several", data=b"", data_file="slice%03d.raw 1 4 1")
of_nrrd("data_file_format_string", REFUSED, "several", data=b"", data_file="%n%n%s%s")
of_nrrd("data_file_with_nul", REFUSED, data=b"", data_file="a\0b.raw")
of_nrrd("data_file_missing", REFUSED, "not there", data=b"", data_file="none.raw")
of_nrrd("data_file_itself", REFUSED, data=b"", data_file="scan.nrrd")


@refused("declares", names=("scan.nrrd",))
def nrrd_gzip_bomb(folder):
    # Six gigabytes of zeros, compressed to six megabytes.
    inflate = zlib.compressobj(9, wbits=31)
    piece = bytes(1 << 24)
    packed = b"".join(inflate.compress(piece) for _ in range(12)) + inflate.flush()
    return nrrd(folder, packed, encoding="gzip", sizes="4096 4096 1024")


@refused("outside", names=("scan.nhdr",))
def nrrd_data_file_behind_a_link(folder):
    (folder / "secret").write_bytes(RAW)
    (folder / "in").mkdir()
    (folder / "in" / "voxels.raw").symlink_to(folder / "secret")
    return nrrd(folder / "in", b"", name="scan.nhdr", data_file="voxels.raw")


@refused("not there", names=("scan.nhdr",))
def nrrd_data_file_is_a_pipe(folder):
    os.mkfifo(folder / "voxels.raw")
    return nrrd(folder, b"", name="scan.nhdr", data_file="voxels.raw")


@read()
def nrrd_data_file_beside_it(folder):
    (folder / "voxels.raw").write_bytes(RAW)
    return nrrd(folder, b"", name="scan.nhdr", data_file="voxels.raw")


# --- MetaImage

META = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "-10 20 30.5",
    "ElementSpacing": "0.7 0.8 1.25", "DimSize": "6 5 4", "ElementType": "MET_SHORT", "ElementDataFile": "LOCAL",
}  # fmt: skip


def meta(folder: Path, data: bytes = RAW, name: str = "scan.mha", before: bytes = b"", **changes) -> Path:
    """Write a MetaImage file with changed fields; a field with the value None is missing."""
    fields = {**META, **changes}
    last = fields.pop("ElementDataFile")
    fields["ElementDataFile"] = last
    lines = "".join(f"{key} = {value}\n" for key, value in fields.items() if value is not None)
    (folder / name).write_bytes(before + lines.encode("latin-1") + data)
    return folder / name


def of_meta(name: str, expected: str, *words: str, data: bytes = RAW, **changes) -> None:
    """Add a case that is a MetaImage file with changed fields, see `meta`."""
    CASES[f"meta_{name}"] = Case(
        f"meta_{name}", lambda folder: meta(folder, data, **changes), expected, ("scan.mha",), words
    )


ZLIB = zlib.compress(RAW)


def packed(data: bytes) -> dict[str, str]:
    """Return the fields of a MetaImage header that declare compressed voxels."""
    return {"CompressedData": "True", "CompressedDataSize": str(len(data))}


of_meta("plain", READ)
of_meta("compressed", READ, CompressedData="True", CompressedDataSize=str(len(ZLIB)), data=ZLIB)
of_meta("big_endian", READ, BinaryDataByteOrderMSB="True", data=VOLUME.astype(">i2").tobytes())
of_meta("dims_absurd", REFUSED, "no CT has", DimSize="99999 99999 99999")
of_meta("dims_beyond_64_bits", REFUSED, DimSize="18446744073709551617 1 1")
of_meta("dims_negative", REFUSED, DimSize="-6 5 4")
of_meta("dims_too_few", REFUSED, DimSize="6 5")
of_meta("axes_huge", REFUSED, "NDims", NDims="99999999999")
of_meta("axes_negative", REFUSED, "NDims", NDims="-1")
of_meta("axes_missing", REFUSED, "NDims", NDims=None)
of_meta(
    "flat", REFUSED, "2-D", NDims="2", DimSize="6 20", TransformMatrix="1 0 0 1", Offset="0 0", ElementSpacing="1 1"
)
of_meta("spacing_zero", REFUSED, "ElementSpacing", ElementSpacing="0 0.8 1.25")
of_meta("spacing_nan", REFUSED, "ElementSpacing", ElementSpacing="nan 0.8 1.25")
of_meta("matrix_nan", REFUSED, "TransformMatrix", TransformMatrix="nan 0 0 0 1 0 0 0 1")
of_meta("matrix_singular", REFUSED, TransformMatrix="1 0 0 1 0 0 0 0 1")
of_meta("matrix_sheared", REFUSED, TransformMatrix="1 0 0 0 1 0 0 0.5 1")
of_meta("object_odd", REFUSED, "an object that is not an image", ObjectType="Tube")
of_meta("type_odd", REFUSED, ElementType="MET_STRING")
of_meta("channels", REFUSED, "3 values", ElementNumberOfChannels="3", data=RAW * 3)
of_meta("data_file_absolute", REFUSED, "outside", ElementDataFile="/etc/hostname", data=b"")
of_meta("data_file_above", REFUSED, "outside", ElementDataFile="../secret.raw", data=b"")
of_meta("data_file_list", REFUSED, "several", ElementDataFile="LIST", data=b"/etc/passwd\n")
of_meta("data_file_pattern", REFUSED, "several", ElementDataFile="a%03d.raw 1 4 1", data=b"")
of_meta("data_file_empty", REFUSED, ElementDataFile="")
of_meta("compressed_size_lies", REFUSED, "size", CompressedData="True", CompressedDataSize="17", data=ZLIB)
of_meta("compressed_cut_short", REFUSED, "cut short", data=ZLIB[:-30], **packed(ZLIB[:-30]))
of_meta("compressed_size_missing", REFUSED, "size", data=ZLIB, CompressedData="True")
of_meta("compressed_without_its_checksum", REFUSED, data=ZLIB[:-4], **packed(ZLIB[:-4]))
of_meta("compressed_wrong_checksum", REFUSED, "corrupt", data=ZLIB[:-4] + b"abcd", **packed(ZLIB))
of_meta("compressed_that_is_not", REFUSED, "corrupt", **packed(RAW))
of_meta("voxels_as_text", REFUSED, "text", BinaryData="False", data=" ".join(map(str, VOLUME.ravel())).encode())
of_meta("switch_odd", REFUSED, CompressedData="perhaps")
of_meta("header_skipped", REFUSED, "skips", HeaderSize="-1")
of_meta("rescaled", REFUSED, "HU", ElementToIntensityFunctionSlope="2")
of_meta("binary_junk_before", REFUSED, before=bytes(range(256)) * 8)
of_meta("line_of_two_megabytes", REFUSED, before=b"Comment = " + b"x" * (2 << 20) + b"\n")
of_meta("cut_short", REFUSED, "cut short", data=RAW[:-1])
of_meta("longer_than_it_says", REFUSED, "more voxels", data=RAW + RAW)
of_meta("field_behind_a_blank_of_another_kind", REFUSED, **{"\xa0Offset": "1 2 3"})
of_meta("field_twice", REFUSED, "twice", before=b"DimSize = 5 6 4\n")


@refused("declares", names=("scan.mha",))
def meta_zlib_bomb(folder):
    deflate = zlib.compressobj(9)
    content = b"".join(deflate.compress(bytes(1 << 24)) for _ in range(12)) + deflate.flush()
    return meta(folder, content, DimSize="4096 4096 1024", **packed(content))


# --- NIfTI


def nifti(
    folder: Path, data: bytes = RAW, *, name: str = "scan.nii", pack=None, raw: dict | None = None, **changes
) -> Path:
    """Write a NIfTI file with changed fields of the header; `raw` are bytes to write over the header, by offset."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((6, 5, 4))
    affine = np.diag([-0.7, -0.8, 1.25, 1])
    affine[:3, 3] = (10, -20, 30.5)
    header.set_zooms(SPACING)
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    header["magic"], header["vox_offset"] = b"n+1", 352
    header["scl_slope"], header["scl_inter"] = 1, 0
    for field, value in changes.items():
        header[field] = value
    block = bytearray(header.binaryblock)
    for at, value in (raw or {}).items():
        block[at : at + len(value)] = value
    content = bytes(block) + bytes(4) + data
    (folder / name).write_bytes(pack(content) if pack else content)
    return folder / name


def of_nifti(name: str, expected: str, *words: str, file: str = "scan.nii", **changes) -> None:
    """Add a case that is a NIfTI file with changed fields, see `nifti`."""
    data = changes.pop("data", RAW)
    CASES[f"nifti_{name}"] = Case(
        f"nifti_{name}", lambda folder: nifti(folder, data, name=file, **changes), expected, (file,), words
    )


NAN = float("nan")
PIXDIM = (1.0, 0.7, 0.8, 1.25, 1.0, 1.0, 1.0, 1.0)
DIM = (3, 6, 5, 4, 1, 1, 1, 1)
of_nifti("plain", READ)
of_nifti("packed", READ, file="scan.nii.gz", pack=gzip.compress)
of_nifti("slope_nan_means_none", READ, scl_slope=NAN, scl_inter=NAN)
of_nifti("slope_zero_means_none", READ, scl_slope=0)
of_nifti("slope_two", READ, scl_slope=2, scl_inter=-1024)
of_nifti("slope_infinite", REFUSED, "scl_slope", scl_slope=np.inf)
of_nifti("slope_zero_with_intercept", REFUSED, "scl_slope", scl_slope=0, scl_inter=-1024)
of_nifti("slope_huge", REFUSED, "16 bits", scl_slope=1e30)
of_nifti("affine_nan", REFUSED, "sform", srow_x=(NAN, 0, 0, 0))
of_nifti("affine_infinite", REFUSED, "sform", srow_x=(np.inf, 0, 0, 0))
of_nifti("affine_singular", REFUSED, qform_code=0, srow_x=(-0.7, 0, 0, 0), srow_y=(0, 0, 0, 0))
of_nifti("affine_sheared", REFUSED, qform_code=0, srow_y=(0, -0.8, 0.9, 0), srow_z=(0, 0, 0.8675, 0))
of_nifti("affine_and_spacing_differ", REFUSED, "spacing", srow_x=(-1.4, 0, 0, 0))
of_nifti("quaternion_nan", REFUSED, "qform", sform_code=0, quatern_b=NAN)
of_nifti("quaternion_too_long", REFUSED, "qform", sform_code=0, quatern_b=7)
of_nifti("no_codes_at_all", READ, sform_code=0, qform_code=0)
of_nifti("pixdim_zero", REFUSED, "pixdim", pixdim=(1, 0, 0.8, 1.25, 1, 1, 1, 1))
of_nifti("pixdim_negative", REFUSED, "pixdim", pixdim=(1, -0.7, 0.8, 1.25, 1, 1, 1, 1))
of_nifti("pixdim_nan", REFUSED, "pixdim", pixdim=(1, NAN, 0.8, 1.25, 1, 1, 1, 1))
of_nifti("dims_negative", REFUSED, "dim", dim=(3, -6, 5, 4, 1, 1, 1, 1))
of_nifti("dims_zero", REFUSED, "dim", dim=(3, 6, 0, 4, 1, 1, 1, 1))
of_nifti("dims_huge", REFUSED, "no CT has", dim=(3, 32767, 32767, 32767, 1, 1, 1, 1))
of_nifti("axes_of_a_byte", REFUSED, "dim", dim=(255, 6, 5, 4, 1, 1, 1, 1))
of_nifti("axes_negative", REFUSED, "dim", dim=(-3, 6, 5, 4, 1, 1, 1, 1))
of_nifti("four_dimensions", REFUSED, "4-D", dim=(4, 6, 5, 4, 2, 1, 1, 1), data=RAW * 2)
of_nifti("fourth_of_one", READ, dim=(4, 6, 5, 4, 1, 1, 1, 1))
of_nifti("complex", REFUSED, datatype=32, bitpix=64, data=RAW * 4)
of_nifti("colours", REFUSED, datatype=128, bitpix=24, data=RAW * 2)
of_nifti("datatype_nonsense", REFUSED, datatype=-12345)
of_nifti("bitpix_lies", REFUSED, "bitpix", bitpix=8)
of_nifti("cut_short", REFUSED, "cut short", data=RAW[:-3])
of_nifti("longer_than_it_says", REFUSED, "more voxels", data=RAW + RAW)
of_nifti("magic_wrong", REFUSED, raw={344: b"zzzz"})
of_nifti("magic_of_a_pair", REFUSED, raw={344: b"ni1\0"})
of_nifti("header_size_wrong", REFUSED, raw={0: struct.pack("<i", 349)})
of_nifti("voxels_in_the_header", REFUSED, "vox_offset", vox_offset=17)
of_nifti("voxels_before_the_file", REFUSED, "vox_offset", vox_offset=-1e9)
of_nifti("voxels_far_away", REFUSED, "vox_offset", vox_offset=1e18)
of_nifti("voxels_nowhere", REFUSED, "vox_offset", vox_offset=NAN)
of_nifti("voxels_between_bytes", REFUSED, "vox_offset", vox_offset=352.5)
of_nifti("packed_by_name_alone", REFUSED, "no gzip", file="scan.nii.gz")
of_nifti("packed_and_cut_in_the_header", REFUSED, file="scan.nii.gz", pack=lambda b: gzip.compress(b)[:60])
of_nifti("packed_and_cut", REFUSED, file="scan.nii.gz", pack=lambda b: gzip.compress(b)[:-30])
of_nifti(
    "packed_with_a_wrong_checksum",
    REFUSED,
    "corrupt",
    file="scan.nii.gz",
    pack=lambda b: gzip.compress(b)[:-8] + bytes(8),
)
of_nifti("header_alone", REFUSED, data=b"")
of_nifti("header_cut", REFUSED, raw={}, pack=lambda b: b[:200])


# --- all formats


def of_all(name: str, content: bytes) -> None:
    """Add one case per format: a file with this content and the extension of the format."""
    for extension in ("nrrd", "nhdr", "mha", "mhd", "nii", "nii.gz"):
        file = f"scan.{extension}"

        def write(folder: Path, file: str = file) -> Path:
            (folder / file).write_bytes(content)
            return folder / file

        CASES[f"{name}_{extension}"] = Case(f"{name}_{extension}", write, REFUSED, (file,), ())


of_all("empty", b"")
of_all("nuls", bytes(5000))
of_all("text", b"hello, this is no image\n" * 50)
