"""Images of a case as .nrrd, .nii.gz, .mha, with the scan's geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lungmix.errors import UsageError
from lungmix.formats import write_image
from lungmix.formats.images import extension_of
from lungmix.store import IMAGES, Case


def export_image(case: Case, path: str | Path, image: str = "ct") -> Path:
    """Write one image of a case, slab by slab.

    Parameters
    ----------
    case : Case
        From a cohort.
    path : str or Path
        A file whose extension chooses the format.
    image : {"ct", "lung", "tissue", "tissue_median"}
        Which image.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        If image or extension is unknown.
    StoreError
        If the case has no such image yet.
    """
    target = Path(path)
    if image not in IMAGES:
        raise UsageError(f"there is no image {image!r}: choose one of {', '.join(IMAGES)}")
    if extension_of(target) in (None, ".nhdr"):
        raise UsageError(f"{target.name} has no extension that is written: use .nrrd, .nii, .nii.gz, .mha or .mhd")
    array = case.zarr_array(image)
    slabs = (np.asarray(array[start:stop]) for start, stop in case.layout.slabs())
    write_image(target, slabs, case.geometry, array.dtype)
    return target


def image_in_name(path: str | Path) -> str:
    """The image that a file name asks for, such as ``case-001_tissue.nrrd``; else ``ct``."""
    name = Path(path).name.lower()
    return next((image for image in ("tissue_median", "tissue", "lung") if image in name), "ct")
