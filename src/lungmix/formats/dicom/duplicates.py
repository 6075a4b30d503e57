"""Whether two files that call themselves the same object are copies of each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset
from pydicom.pixels import iter_pixels
from pydicom.uid import DeflatedExplicitVRLittleEndian

from lungmix.formats.dicom.raw_reader import is_of_file_system

_PIECE = 1 << 20
_RESCALE = ("RescaleSlope", "RescaleIntercept")


def same_content(one: str, two: str) -> bool:
    """Whether both files hold the same pixels.

    Archives hold whole copies of thousands of slices: of files of one size the bytes are compared first. Others, whose
    headers may have been edited, are compared by their pixels: as they are stored, or, where they are compressed in
    different ways, decoded.

    Raises
    ------
    OSError
        If one of them cannot be read.
    """
    if Path(one).samefile(two):
        return True
    sizes = [Path(file).stat().st_size for file in (one, two)]
    if sizes[0] == sizes[1] and _same_bytes(one, two):
        return True
    try:
        first, second = (pydicom.dcmread(file, specific_tags=["PixelData", *_RESCALE]) for file in (one, two))
        stored = [dataset.get("PixelData") for dataset in (first, second)]
        if stored[0] is None or any(first.get(keyword) != second.get(keyword) for keyword in _RESCALE):
            return False
        if stored[0] == stored[1] or _syntax(first) == _syntax(second):
            return bool(stored[0] == stored[1])
        sources = [_whole(file, dataset) for file, dataset in ((one, first), (two, second))]
        pairs = zip(*map(iter_pixels, sources), strict=True)
        return all(np.array_equal(a, b) for a, b in pairs)
    except Exception as error:  # whatever broken bytes lead to: then they are not the same
        if is_of_file_system(error):
            raise
        return False


def _same_bytes(one: str, two: str) -> bool:
    with Path(one).open("rb", buffering=0) as first, Path(two).open("rb", buffering=0) as second:
        while piece := first.read(_PIECE):
            if piece != second.read(_PIECE):
                return False
    return True


def _syntax(dataset: FileDataset) -> str:
    return str(dataset.file_meta.get("TransferSyntaxUID", ""))


def _whole(file: str, dataset: FileDataset) -> FileDataset | str:
    """What pixels are decoded from, frame by frame; deflated files have to be inflated first."""
    return pydicom.dcmread(file) if _syntax(dataset) == DeflatedExplicitVRLittleEndian else file
