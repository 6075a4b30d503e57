"""Voxels of a DICOM series, slice by slice, through SimpleITK and GDCM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from lungmix.errors import SourceError
from lungmix.formats.scan import Scan
from lungmix.formats.streams import to_hu


def slabs_of(scan: Scan, thickness: int) -> Iterator[npt.NDArray[np.int16]]:
    """See `Scan.slabs`. Slope and intercept are those of each slice."""
    nz, ny, nx = scan.geometry.shape
    for start in range(0, nz, thickness):
        files = scan.files[start : start + thickness]
        slab = np.empty((len(files), ny, nx), np.int16)
        for i, file in enumerate(files):
            slab[i] = _slice_of(file, (ny, nx), start + i)
        yield slab


def _slice_of(file: str, shape: tuple[int, int], number: int) -> npt.NDArray[np.int16]:
    name = Path(file).name
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(file)
    try:
        values = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError:
        raise SourceError(f"{name} (slice {number + 1}) is cut short or damaged: get the file again") from None
    if values.shape != (1, *shape):
        raise SourceError(
            f"{name} (slice {number + 1}) has {values.shape} pixels, the series {shape}: get the file again"
        )
    return to_hu(values, 1.0, 0.0, name, number)[0]
