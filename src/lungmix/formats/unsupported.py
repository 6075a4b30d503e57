"""Files that are no scan: formats that are known and not read, and what lies beside scans without being one."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from contextlib import suppress
from pathlib import Path

_BEGINNING = 1024
_DISC = 32769
"""Where an image of a disc says so."""

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
_BY_NAME = {
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
    """Return True for what lies beside scans by its name: checksums, signatures, texts, a system's own files."""
    name = file.name.lower()
    return name in _SIDECAR_NAMES or name.endswith(_SIDECARS)


def why_unread(file: Path, *, in_archive: bool = False) -> str | None:
    """Return what a file is that holds or may hold scans and is not read, with the remedy; None for any other.

    Parameters
    ----------
    file : Path
        No scan by its name, nor by its bytes one of DICOM.
    in_archive : bool
        Whether it was found in an archive, whose own archives are not opened.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    if is_sidecar(file):
        return None
    with file.open("rb") as stream:
        head = stream.read(_BEGINNING)
        disc = b""
        if file.suffix.lower() in (".iso", ".img", ""):
            stream.seek(_DISC)
            disc = stream.read(5)
    if disc == b"CD001":
        return "is an image of a disc, which is not read: mount it and give the folder"
    return _archive(file, head, in_archive=in_archive) or _volume(file, head) or _packed(file, head)


def _archive(file: Path, head: bytes, *, in_archive: bool) -> str | None:
    what = next((what for magic, what in _ARCHIVES if head.startswith(magic)), None)
    if what is not None:
        return f"is {what}, which is not read: {_UNPACK}"
    what = (
        "a zip file" if head.startswith((b"PK\3\4", b"PK\5\6")) else "a tar file" if head[257:262] == b"ustar" else None
    )
    if file.suffix.lower() in (".npz", ".mrb"):
        return None if what is None else f"is not a volume that is read: {_CONVERT}"
    if what is not None and in_archive:
        return f"is an archive in an archive ({what}), which is not opened: {_UNPACK}"
    ending = ".zip" if what == "a zip file" else ".tar"
    return None if what is None else f"is {what} by its bytes: give it the ending {ending}, or unpack it"


def _volume(file: Path, head: bytes) -> str | None:
    """Return what a volume is that is not read, or is called by a name that says nothing of it."""
    suffix = file.suffix.lower()
    if _is_pair(head):
        return f"is the header of an Analyze or NIfTI pair (.hdr and .img), which is not read: {_CONVERT}"
    if is_pair_data(file):
        return f"belongs to an Analyze or NIfTI pair, which is not read: {_CONVERT}"
    what = next((what for magic, what in _VOLUMES if head.startswith(magic)), None)
    if what is None and head.startswith(_HDF5) and suffix in _HDF5_NAMES:
        what = "a MINC file" if suffix == ".mnc" else "an HDF5 file"
    if what is None and (_VTK.match(head) or (b"<VTKFile" in head and b"ImageData" in head)):
        what = "a VTK image"
    what = what or _BY_NAME.get(suffix)
    if what is not None:
        return f"is {what}, which is not read: {_CONVERT}"
    for ending, is_it in (
        (".nrrd", head.startswith(b"NRRD000")),
        (".nii", _is_nifti(head)),
        (".mha", _META.match(head) is not None),
    ):
        if is_it:
            return f"is a volume by its bytes and not by its name: give it the ending {ending}"
    return None


def _is_pair(head: bytes) -> bool:
    """Return True for the 348 bytes that begin an Analyze file or a NIfTI pair."""
    sizes = (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
    return len(head) >= 348 and 348 in sizes and not _is_nifti(head)


def is_pair_data(file: Path) -> bool:
    """Return True for the voxels of an Analyze or NIfTI pair, of which its header speaks."""
    return file.suffix.lower() == ".img" and _header_beside(file) is not None


def _is_nifti(head: bytes) -> bool:
    return head[344:347] == b"n+1" or head[4:7] == b"n+2"


def _header_beside(file: Path) -> Path | None:
    for suffix in (".hdr", ".HDR"):
        header = file.with_suffix(suffix)
        if header.is_file():
            with header.open("rb") as stream:
                return header if _is_pair(stream.read(_BEGINNING)) else None
    return None


def _packed(file: Path, head: bytes) -> str | None:
    """Return what a compressed file is, unless it holds text."""
    packer = next((packer for magic, packer in _PACKERS if head.startswith(magic)), None)
    inside = b""
    with suppress(zlib.error, OSError, lzma.LZMAError, EOFError, ValueError):
        if head.startswith(b"\x1f\x8b"):
            packer = "gzip"
            inside = zlib.decompressobj(31).decompress(head, _BEGINNING)
        elif head.startswith(b"BZh"):
            packer = "bzip2"
            inside = bz2.BZ2Decompressor().decompress(head, _BEGINNING)
        elif head.startswith(b"\xfd7zXZ\0"):
            packer = "xz"
            inside = lzma.LZMADecompressor(memlimit=1 << 26).decompress(head, _BEGINNING)
    if packer is None or is_sidecar(file.with_suffix("")) or (inside and _is_text(inside)):
        return None
    return f"is compressed with {packer}, which is not read so: unpack it by hand"


def _is_text(beginning: bytes) -> bool:
    text = beginning.decode("utf-8", "ignore")
    whole = len(text.encode()) >= len(beginning) - 3
    # Headers of volumes begin with text too.
    is_header = beginning.startswith(b"NRRD000") or _META.match(beginning) is not None
    return whole and not is_header and all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)
