"""Comparison of two files with the same SOPInstanceUID."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset
from pydicom.pixels import iter_pixels
from pydicom.uid import DeflatedExplicitVRLittleEndian

from lungmix.formats.dicom.raw_reader import is_file_system_error

_PIECE = 1 << 20
_RESCALE = ("RescaleSlope", "RescaleIntercept")


def has_same_pixels(first: str, second: str) -> bool:
    """Return True if both files hold the same pixels.

    Files of equal size are compared byte by byte first, which is fast: archives may contain a series of thousands of
    slices twice. Other files, whose headers may have been edited, are compared by their pixels: as stored, or decoded
    if the transfer syntaxes differ.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    if Path(first).samefile(second):
        return True
    sizes = [Path(file).stat().st_size for file in (first, second)]
    if sizes[0] == sizes[1] and _same_bytes(first, second):
        return True
    try:
        first_dataset, second_dataset = (
            pydicom.dcmread(file, specific_tags=["PixelData", *_RESCALE]) for file in (first, second)
        )
        stored = [dataset.get("PixelData") for dataset in (first_dataset, second_dataset)]
        if stored[0] is None or any(first_dataset.get(keyword) != second_dataset.get(keyword) for keyword in _RESCALE):
            return False
        if stored[0] == stored[1] or _transfer_syntax(first_dataset) == _transfer_syntax(second_dataset):
            return bool(stored[0] == stored[1])
        # Deflated files are inflated first; frames of others are decoded one by one from the file.
        sources = [
            pydicom.dcmread(file) if _transfer_syntax(dataset) == DeflatedExplicitVRLittleEndian else file
            for file, dataset in ((first, first_dataset), (second, second_dataset))
        ]
        pairs = zip(*map(iter_pixels, sources), strict=True)
        return all(np.array_equal(first_frame, second_frame) for first_frame, second_frame in pairs)
    except Exception as error:  # pydicom raises any exception on corrupt files, which then count as different
        if is_file_system_error(error):
            raise
        return False


def _same_bytes(first: str, second: str) -> bool:
    with Path(first).open("rb", buffering=0) as first_stream, Path(second).open("rb", buffering=0) as second_stream:
        while piece := first_stream.read(_PIECE):
            if piece != second_stream.read(_PIECE):
                return False
    return True


def _transfer_syntax(dataset: FileDataset) -> str:
    return str(dataset.file_meta.get("TransferSyntaxUID", ""))
