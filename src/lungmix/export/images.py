"""Images of a case as .nrrd, .nii.gz, .mha, with the scan's geometry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import StoreError, UsageError
from lungmix.formats import write_image
from lungmix.formats.images import extension_of
from lungmix.stages import convert, label, mask, regions
from lungmix.store import IMAGES, Case
from lungmix.store.models import label_id, mask_text
from lungmix.tissue import Tissue, segments_of

_STAGE_OF = {
    "ct": convert.STAGE,
    "lung": mask.STAGE,
    "side": regions.STAGE,
    "tissue": label.STAGE,
    "tissue_median": label.STAGE,
}


def export_image(case: Case, path: str | Path, image: str = "ct") -> Path:
    """Write one image of a case, slab by slab.

    Parameters
    ----------
    case : Case
        From a cohort.
    path : str or Path
        A file whose extension chooses the format.
    image : {"ct", "lung", "side", "tissue", "tissue_median"}
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
    check_image(image)
    if extension_of(target) in (None, ".nhdr"):
        raise UsageError(f"{target.name} has no extension that is written: use .nrrd, .nii, .nii.gz, .mha or .mhd")
    require(case, image)
    about = made_with(case, image)
    write_image(target, slabs_of(case, image), case.geometry, case.zarr_array(image).dtype, made_with=about)
    return target


def made_with(case: Case, image: str) -> dict[str, str]:
    """Return the preset of the mask and the mixture of the labels, as far as an image depends on them."""
    known: dict[str, object | None] = {}
    if image != "ct":
        known["lungmix_mask"] = mask_text(case)
    if _STAGE_OF.get(image) == label.STAGE:
        known["lungmix_model"] = label_id(case)
    return {key: str(value) for key, value in known.items() if value is not None}


def write_volume(case: Case, folder: Path, *, anew: bool) -> Path:
    """Write the CT of a case as ``CASE.nrrd``: voxels and geometry, and nothing else, as the paper's data set has it.

    Parameters
    ----------
    case : Case
        From a cohort.
    folder : Path
        Made if need be.
    anew : bool
        Whether to replace a file that is there.
    """
    target = folder / f"{case.name}.nrrd"
    return export_image(case, target) if anew or not target.exists() else target


def slabs_of(case: Case, image: str) -> Iterator[npt.NDArray[Any]]:
    """An image from its first slice to its last, one slab of the store at a time: ``[slices, y, x]``."""
    array = case.zarr_array(image)
    return (np.asarray(array[start:stop]) for start, stop in case.layout.slabs())


def check_image(image: str) -> None:
    """Refuse a name that is no image.

    Raises
    ------
    UsageError
        Which lists the images that there are.
    """
    if image not in IMAGES:
        raise UsageError(f"there is no image {image!r}: choose one of {', '.join(IMAGES)}")


def require(case: Case, image: str) -> None:
    """Refuse an image that is not whole yet.

    Raises
    ------
    StoreError
        If the stage that writes it is not done.
    """
    stage = _STAGE_OF.get(image)
    if not case.is_started(image) or (stage is not None and stage not in case.stages):
        raise StoreError(f"case {case.name} has no finished image {image!r} yet: run `lungmix run` on its store first")


def segments_in(image: str) -> tuple[Tissue, ...]:
    """What the labels of an image mean.

    Raises
    ------
    UsageError
        If the image has no labels.
    """
    check_image(image)
    segments = segments_of(image)
    if not segments:
        raise UsageError(f"the image {image!r} has no labels: choose one of lung, side, tissue or tissue_median")
    return segments


def image_in_name(path: str | Path, default: str = "ct") -> str:
    """The image that a file name asks for, such as ``case-001_tissue.nrrd``; else the default."""
    name = Path(path).name.lower()
    return next((image for image in ("tissue_median", "tissue", "lung") if image in name), default)
