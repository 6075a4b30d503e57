"""Opening of mask files, whose format is detected by extension and first bytes."""

from __future__ import annotations

from pathlib import Path

from lungmix.errors import SourceError, error_about, mark_path
from lungmix.formats.images import extension_of
from lungmix.formats.masks.dicom_file import is_dicom, kind_of
from lungmix.formats.masks.dicom_seg import open_seg
from lungmix.formats.masks.images import open_image
from lungmix.formats.masks.mask_file import MaskFile
from lungmix.formats.masks.rtstruct import open_rtstruct


def open_mask(path: Path) -> MaskFile:
    """Return the mask in a file: NRRD, ``.seg.nrrd``, NIfTI, MetaImage, DICOM SEG or RTSTRUCT; voxels are not read.

    Raises
    ------
    SourceError
        If the file is no mask or cannot be read.
    """
    path = Path(path)
    with error_about(path=path):
        try:
            if not path.is_file():
                raise SourceError(f"{mark_path(path)} is no file: check the path")
            if extension_of(path):
                return open_image(path)
            kind = kind_of(path) if is_dicom(path) else None
            if kind is not None:
                return open_seg(path) if kind == "seg" else open_rtstruct(path)
        except OSError as error:
            raise SourceError(
                f"{mark_path(path)} cannot be read ({error.strerror or 'reading failed'}): check its permissions"
            ) from None
        raise SourceError(
            f"{mark_path(path)} is no mask that can be read: give NRRD, NIfTI, MetaImage, DICOM SEG or RTSTRUCT"
        )


def is_mask_file(path: Path) -> bool:
    """Return True for a file that may be a mask by its extension or its first bytes."""
    path = Path(path)
    try:
        return path.is_file() and (extension_of(path) is not None or (is_dicom(path) and kind_of(path) is not None))
    except (OSError, SourceError):
        return False
