"""Functions that run in the separate process: reading by this package, by nibabel and by SimpleITK."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk

from hostile.outcome import digest
from lungmix.errors import SourceError, reveal
from lungmix.formats import RejectedSource, find_scans
from lungmix.formats.images import extension_of
from lungmix.formats.scan import SkippedSource
from lungmix.geometry import Geometry


def by_lungmix(source: str, keep: bool = False) -> list[dict[str, Any]]:
    """Return a dictionary for each scan of a source, with a digest of its voxels, and for each rejected source."""
    outcomes = []
    for item in find_scans(source):
        if isinstance(item, RejectedSource):
            outcomes.append({"reason": reveal(item.reason), "path": item.path})
            continue
        if isinstance(item, SkippedSource):
            outcomes.append({"skipped": reveal(item.reason), "path": item.path})
            continue
        try:
            slabs = list(item.slabs(16))
        except SourceError as error:
            outcomes.append({"reason": str(error), "path": item.path})
            continue
        voxels = np.concatenate(slabs)
        # SimpleITK has no field for an unknown orientation.
        geometry = replace(item.geometry, orientation_known=True).to_dict()
        outcome = {"geometry": geometry, "digest": digest(voxels), "files": list(item.files)}
        outcomes.append({**outcome, "voxels": voxels} if keep else outcome)
    return outcomes


def affine_by_nibabel(file: str) -> list[list[float]]:
    """Return the affine of a NIfTI file in LPS, as nibabel reads it: of the sform, or else of the qform."""
    affine = nibabel.load(file).affine
    return (np.diag([-1, -1, 1, 1]) @ affine).tolist()


def by_simpleitk(files: list[str]) -> dict[str, Any] | None:
    """Return the scan that SimpleITK reads from an image file or the slices of a series; None if it reads none."""
    try:
        if extension_of(Path(files[0])):
            image = sitk.ReadImage(files[0])
        else:
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(files)
            image = reader.Execute()
    except RuntimeError:
        return None
    values = sitk.GetArrayFromImage(image)
    rounded = np.rint(values) if values.dtype.kind == "f" else values
    geometry = Geometry.from_sitk(image).to_dict() if image.GetDimension() == 3 else None
    return {"geometry": geometry, "digest": digest(rounded.astype(np.int16)), "voxels": values}
