"""Detection of files in unsupported formats, and of files that accompany scans, such as checksums."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from contextlib import suppress
from pathlib import Path

from lungmix.formats.directory import begins_text

_HEAD_BYTES = 1024
_DISC_OFFSET = 32769
"""Offset of the identifier of an ISO 9660 image."""

_SIDECARS = (
    ".md5", ".sha1", ".sha224", ".sha256", ".sha384", ".sha512", ".b2", ".sfv", ".crc32", ".sig", ".asc", ".sign",
    ".minisig",
    ".json", ".txt", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".md", ".html", ".htm", ".pdf", ".log", ".ini",
    ".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp", ".jar", ".whl", ".db", ".lnk", ".url",
)  # fmt: skip
_SIDECAR_NAMES = {
    ".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", "autorun.inf", "readme", "license", "licence",
    "md5sums", "sha1sums", "sha256sums", "sha512sums", "version", "changes",
}  # fmt: skip

_UNPACK = "unpack it by hand and give the folder"
_CONVERT = "convert it to .nii.gz or .nrrd"
_ARCHIVES = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"MSCF\0\0\0\0", "a CAB archive"),
    (b"xar!", "a XAR archive"),
    (b"MSWIM\0\0\0", "a WIM archive"),
    (b"\x60\xea", "an ARJ archive"),
)
_PACKERS = (
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"\x04\x22\x4d\x18", "LZ4"),
    (b"\x1f\x9d", "compress"),
    (b"\x1f\xa0", "compress"),
    (b"LZIP", "lzip"),
)
_VOLUMES = (
    (b"CDF\x01", "a MINC or NetCDF file"),
    (b"CDF\x02", "a MINC or NetCDF file"),
    (b"CDF\x05", "a NetCDF file"),
    (b"#INRIMAGE-4", "an INRIMAGE file"),
    (b"# AmiraMesh", "an Amira file"),
    (b"# Avizo", "an Amira file"),
    (b"# PAR (", "a Philips PAR/REC file"),
    (b"v3dhv", "a Vaa3D file"),
)
_VOLUME_EXTENSIONS = {
    ".mnc": "a MINC file", ".mgz": "a FreeSurfer volume", ".mgh": "a FreeSurfer volume",
    ".gipl": "a GIPL file", ".vmr": "a BrainVoyager volume", ".rec": "a Philips PAR/REC file",
    ".head": "an AFNI volume", ".brik": "an AFNI volume", ".mrb": "a bundle of 3D Slicer",
    ".vti": "a VTK image", ".isq": "a Scanco volume", ".lsm": "a microscope's volume", ".czi": "a microscope's volume",
}  # fmt: skip
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_NAMES = (".h5", ".hdf5", ".mnc")
_VTK = re.compile(rb"# vtk DataFile.*DATASET STRUCTURED_POINTS", re.DOTALL)
_META = re.compile(rb"\s*(?:ObjectType\s*=\s*Image|NDims\s*=\s*\d)")


def is_sidecar(file: Path) -> bool:
    """Return True if a file is named like one that accompanies scans: checksum, signature, text or system file."""
    name = file.name.lower()
    return name in _SIDECAR_NAMES or name.endswith(_SIDECARS)


def unsupported_reason(file: Path, *, in_archive: bool = False) -> str | None:
    """Return the reason why a file that may contain scans is not supported, with a remedy; None for other files.

    Parameters
    ----------
    file : Path
        File that is neither an image by its extension nor DICOM by its bytes.
    in_archive : bool
        True for a file in an archive; archives in archives are not opened.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    if is_sidecar(file):
        return None
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        disc = b""
        if file.suffix.lower() in (".iso", ".img", ""):
            stream.seek(_DISC_OFFSET)
            disc = stream.read(5)
    if disc == b"CD001":
        return "is an image of a disc, which is not supported: mount it and give the folder"
    return (
        _archive_reason(file, head, in_archive=in_archive)
        or _volume_reason(file, head)
        or _compression_reason(file, head)
    )


def _archive_reason(file: Path, head: bytes, *, in_archive: bool) -> str | None:
    kind = next((kind for magic, kind in _ARCHIVES if head.startswith(magic)), None)
    if kind is not None:
        return f"is {kind}, which is not supported: {_UNPACK}"
    kind = (
        "a zip file" if head.startswith((b"PK\3\4", b"PK\5\6")) else "a tar file" if head[257:262] == b"ustar" else None
    )
    if file.suffix.lower() in (".npz", ".mrb"):
        return None if kind is None else f"is not a supported volume: {_CONVERT}"
    if kind is not None and in_archive:
        return f"is an archive in an archive ({kind}), which is not opened: {_UNPACK}"
    ending = ".zip" if kind == "a zip file" else ".tar"
    return None if kind is None else f"is {kind} by its bytes: give it the ending {ending}, or unpack it"


def _volume_reason(file: Path, head: bytes) -> str | None:
    """Return the reason why a volume is not supported, or the extension that its name lacks; None for other files."""
    suffix = file.suffix.lower()
    if _is_pair(head):
        return f"is the header of an Analyze or NIfTI pair (.hdr and .img), which is not supported: {_CONVERT}"
    if is_pair_data(file):
        return f"belongs to an Analyze or NIfTI pair, which is not supported: {_CONVERT}"
    kind = next((kind for magic, kind in _VOLUMES if head.startswith(magic)), None)
    if kind is None and head.startswith(_HDF5) and suffix in _HDF5_NAMES:
        kind = "a MINC file" if suffix == ".mnc" else "an HDF5 file"
    if kind is None and (_VTK.match(head) or (b"<VTKFile" in head and b"ImageData" in head)):
        kind = "a VTK image"
    kind = kind or _VOLUME_EXTENSIONS.get(suffix)
    if kind is not None:
        return f"is {kind}, which is not supported: {_CONVERT}"
    for ending, matches in (
        (".nrrd", head.startswith(b"NRRD000")),
        (".nii", _is_nifti(head)),
        (".mha", _META.match(head) is not None),
    ):
        if matches:
            return f"is a volume by its bytes and not by its name: give it the ending {ending}"
    return None


def _is_pair(head: bytes) -> bool:
    """Return True for the 348 bytes that begin an Analyze file or a NIfTI pair."""
    sizes = (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
    return len(head) >= 348 and 348 in sizes and not _is_nifti(head)


def is_pair_data(file: Path) -> bool:
    """Return True for the voxels of an Analyze or NIfTI pair, whose header is reported instead."""
    return file.suffix.lower() == ".img" and _header_beside(file) is not None


def _is_nifti(head: bytes) -> bool:
    return head[344:347] == b"n+1" or head[4:7] == b"n+2"


def _header_beside(file: Path) -> Path | None:
    for suffix in (".hdr", ".HDR"):
        header = file.with_suffix(suffix)
        if header.is_file():
            with header.open("rb") as stream:
                return header if _is_pair(stream.read(_HEAD_BYTES)) else None
    return None


def _compression_reason(file: Path, head: bytes) -> str | None:
    """Return the reason that a file is compressed, with a remedy; None if it is not compressed, or contains text."""
    compression = next((compression for magic, compression in _PACKERS if head.startswith(magic)), None)
    content = b""
    with suppress(zlib.error, OSError, lzma.LZMAError, EOFError, ValueError):
        if head.startswith(b"\x1f\x8b"):
            compression = "gzip"
            content = zlib.decompressobj(31).decompress(head, _HEAD_BYTES)
        elif head.startswith(b"BZh"):
            compression = "bzip2"
            content = bz2.BZ2Decompressor().decompress(head, _HEAD_BYTES)
        elif head.startswith(b"\xfd7zXZ\0"):
            compression = "xz"
            content = lzma.LZMADecompressor(memlimit=1 << 26).decompress(head, _HEAD_BYTES)
    if compression is None or is_sidecar(file.with_suffix("")) or (content and _is_text(content)):
        return None
    return f"is compressed with {compression}, which is not supported: unpack it by hand"


def _is_text(content: bytes) -> bool:
    # Headers of volumes also begin with text.
    is_header = content.startswith(b"NRRD000") or _META.match(content) is not None
    return not is_header and begins_text(content)
