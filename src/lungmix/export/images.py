"""Export of images of a case to .nrrd, .nii.gz, .nii, .mha or .mhd, with the geometry of the scan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import StoreError, UsageError
from lungmix.formats import write_image
from lungmix.formats.header import PREFIX
from lungmix.formats.images import extension_of
from lungmix.formats.write import WRITTEN
from lungmix.store import IMAGES, Case
from lungmix.store.models import label_id, mask_text, sides_text
from lungmix.store.schema import ARRAYS, LABEL, LABEL_MAPS
from lungmix.tissue import Tissue, segments_of


def export_image(case: Case, path: str | Path, image: str = "ct") -> Path:
    """Write one image of a case, slab by slab.

    Parameters
    ----------
    case : Case
        Case of a cohort.
    path : str or Path
        File to write; its extension chooses the format.
    image : {"ct", "lung", "side", "region", "tissue", "tissue_median"}
        Image to write.

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
    if extension_of(target) not in WRITTEN:
        raise UsageError(f"{target.name} has none of the supported extensions: use one of {', '.join(WRITTEN)}")
    require(case, image)
    about = made_with(case, image)
    if len(segments_of(image)) > 1:
        # These formats store no names of labels, so the header names the image, from which readers know them.
        about = {f"{PREFIX}image": image, **about}
    write_image(target, slabs_of(case, image), case.geometry, case.zarr_array(image).dtype, made_with=about)
    return target


def made_with(case: Case, image: str) -> dict[str, str]:
    """Return what an image was made with, as texts by header key.

    The keys are ``lungmix_mask`` and ``lungmix_sides``, parameters of the mask and of its right and left lung, and
    ``lungmix_model``, the mixture. Those that do not apply to the image are left out, all of them for the CT.
    """
    models: dict[str, object | None] = {}
    if image != "ct":
        models["lungmix_mask"] = mask_text(case)
        models["lungmix_sides"] = sides_text(case)
    if ARRAYS[image].stage == LABEL:
        models["lungmix_model"] = label_id(case)
    return {key: str(value) for key, value in models.items() if value is not None}


def write_volume(case: Case, folder: Path, *, overwrite: bool) -> Path:
    """Write the CT of a case as ``CASE.nrrd``: voxels and geometry alone, as in the paper's data set.

    Parameters
    ----------
    case : Case
        Case of a cohort.
    folder : Path
        Folder of the file; created if it does not exist.
    overwrite : bool
        True to replace an existing file, False to keep it.
    """
    target = folder / f"{case.name}.nrrd"
    return export_image(case, target) if overwrite or not target.exists() else target


def slabs_of(case: Case, image: str) -> Iterator[npt.NDArray[Any]]:
    """Return an iterator over the slabs of an image, in the order of z, each of shape ``[slices, y, x]``."""
    array = case.zarr_array(image)
    return (np.asarray(array[start:stop]) for start, stop in case.layout.slabs())


def check_image(image: str) -> None:
    """Raise `UsageError` if there is no image of this name; the message lists all images."""
    if image not in IMAGES:
        raise UsageError(f"there is no image {image!r}: choose one of {', '.join(IMAGES)}")


def require(case: Case, image: str) -> None:
    """Raise `StoreError` if the stage that writes an image is not finished for a case."""
    if not case.is_started(image) or ARRAYS[image].stage not in case.stages:
        raise StoreError(
            f"case {case.name} has no finished image {image!r} yet: run `Pipeline.run(sources)` first",
            case=case.name,
        )


def segments_in(image: str) -> tuple[Tissue, ...]:
    """Return the segments that the labels of an image stand for.

    Raises
    ------
    UsageError
        If the image has no labels.
    """
    check_image(image)
    segments = segments_of(image)
    if not segments:
        raise UsageError(f"the image {image!r} has no labels: choose one of {', '.join(LABEL_MAPS)}")
    return segments


def image_in_name(path: str | Path, default: str = "ct") -> str:
    """Return the image that the name of a file contains as a word, such as ``tissue`` in ``case-001_tissue.nrrd``.

    If there are several such words, the last one counts; if there is none, `default` is returned.
    """
    words = re.split(r"[^a-z0-9]+", Path(path).name.lower())
    named = default
    for word, following in zip(words, [*words[1:], ""], strict=True):
        named = _named_by(word, following) or named
    return named


def _named_by(word: str, following: str) -> str | None:
    if (word, following) == ("tissue", "median"):
        return "tissue_median"
    image = word.removesuffix("s")
    return image if image in IMAGES else None
