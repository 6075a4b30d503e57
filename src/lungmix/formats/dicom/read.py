"""Reader of the voxels of a DICOM series, slice by slice.

SimpleITK decodes single-slice files, pydicom decodes frames of multi-frame files; both use GDCM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk
from pydicom.pixels import iter_pixels
from pydicom.uid import DeflatedExplicitVRLittleEndian

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.fallback_decoders import explain_decoding_failure, frame_for_pydicom
from lungmix.formats.dicom.library_warnings import hide_warnings_of
from lungmix.formats.dicom.padding import replace_padding
from lungmix.formats.dicom.stack import Frame, SliceStack
from lungmix.formats.native import native_path
from lungmix.formats.scan import Scan
from lungmix.formats.voxel_streams import to_hu

_HIGHEST = 32767


def slabs_of(scan: Scan, thickness: int, files: Iterable[str] | None = None) -> Iterator[npt.NDArray[np.int16]]:
    """Yield the HU of a DICOM scan slab by slab, see `Scan.slabs`; each slice has its own slope and intercept.

    Parameters
    ----------
    scan : Scan
        The scan.
    thickness : int
        Number of slices of a slab; the last slab may be thinner.
    files : iterable of str, optional
        The file of each slice; by default those of the scan. A file has to exist until the second file after it is
        requested.
    """
    assert scan.stack is not None
    planes = _slices(scan.files if files is None else files, scan.stack)
    if scan.stack.resampling is not None:
        planes = scan.stack.resampling.planes(planes)
    nz, ny, nx = scan.geometry.shape
    with hide_warnings_of("pydicom"):
        for start in range(0, nz, thickness):
            slab = np.empty((min(thickness, nz - start), ny, nx), np.int16)
            for i in range(len(slab)):
                slab[i] = next(planes)
            yield slab


def read_slice(file: str, frame: Frame | None = None) -> npt.NDArray[Any]:
    """Return the HU of the slice in a single-slice file, or of a frame of a multi-frame file.

    Raises
    ------
    SourceError
        If the slice cannot be decoded.
    """
    _, values = next(_values_of_files((file,)) if frame is None else _values_of_frames((file,), (frame,)))
    return values


def _slices(files: Iterable[str], stack: SliceStack) -> Iterator[npt.NDArray[np.int16]]:
    values = _values_of_files(files) if stack.frames is None else _values_of_frames(files, stack.frames)
    for number, (file, plane) in enumerate(values):
        if plane.shape != stack.shape:
            raise SourceError(
                f"{mark_path(file)} (slice {number + 1}) has {plane.shape} pixels, the series {stack.shape}: get the "
                "file again"
            )
        padding = stack.padding[number] if stack.padding is not None else None
        plane = replace_padding(plane, padding)
        if padding is not None and padding[1] > _HIGHEST and (plane >= max(padding[0], _HIGHEST + 1)).any():
            raise SourceError(
                f"{mark_path(file)} (slice {number + 1}) has padding values inside the body ({padding[0]:g} HU, "
                "more than any tissue): get the slices again with HU or air there, or exclude the series with "
                "`filter`"
            )
        yield to_hu(plane[np.newaxis], 1.0, 0.0, mark_path(file), number)[0]


def _values_of_files(files: Iterable[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield the HU of each single-slice file, with the file."""
    for number, file in enumerate(files):
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        try:
            with native_path(file) as path:
                reader.SetFileName(path)
                values = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError:
            frame = frame_for_pydicom(file)
            if frame is None:
                raise _decoding_error(file, number) from None
            for plane in _frames_of_file(file, (frame,), number):
                yield file, plane
            continue
        if values.shape[:1] != (1,) or values.ndim != 3:
            raise _decoding_error(file, number)
        yield file, values[0]


def _values_of_frames(files: Iterable[str], frames: Sequence[Frame]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield the HU of each frame, with its file; frames that follow each other in a file are read together."""
    start = 0
    for file, slices in groupby(zip(files, frames, strict=True), key=itemgetter(0)):
        selected = tuple(frame for _, frame in slices)
        for plane in _frames_of_file(file, selected, start):
            yield file, plane
        start += len(selected)


def _frames_of_file(file: str, frames: tuple[Frame, ...], first: int) -> Iterator[npt.NDArray[Any]]:
    number = first
    try:
        meta = pydicom.dcmread(file, specific_tags=[], stop_before_pixels=True).file_meta
        deflated = meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
        source = pydicom.dcmread(file) if deflated else file
        for frame, values in zip(
            frames, iter_pixels(source, indices=[selected.index for selected in frames]), strict=True
        ):
            yield values if (frame.slope, frame.intercept) == (1, 0) else values * frame.slope + frame.intercept
            number += 1
    except SourceError:
        raise
    except Exception:  # decoders raise any exception on corrupt files
        raise _decoding_error(file, number) from None


def _decoding_error(file: str, number: int) -> SourceError:
    return SourceError(f"{mark_path(file)} (slice {number + 1}) {explain_decoding_failure(file)}")
