"""Export of images of a case to .nrrd, .nii.gz, .nii, .mha or .mhd, with the geometry of the scan."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import StoreError, UsageError, mark_untrusted
from lungmix.formats import write_image
from lungmix.formats.header import POSTERIOR, PREFIX
from lungmix.formats.images import extension_of
from lungmix.formats.write import WRITTEN
from lungmix.kernels.labels import look_up
from lungmix.store import IMAGES, Case
from lungmix.store.case import posterior_table, remedy_without
from lungmix.store.models import harmonised_text, label_id, mask_text, sides_text
from lungmix.store.schema import ARRAYS, CHANGE, LABEL, LABEL_MAPS, REGISTERED_MAPS
from lungmix.tissue import TISSUES, Tissue, segments_of

_POSTERIORS = {"posterior": "float32", "posterior8": "uint8"}
"""Data types of images of posteriors by the first word of their names."""

_STEPS = 255
"""Value of a posterior of 1 in an 8-bit image."""

_TISSUE_KEYS = tuple(tissue.key for tissue in TISSUES)


def export_image(case: Case, path: str | Path, image: str = "ct") -> Path:
    """Write one image of a case, slab by slab.

    Parameters
    ----------
    case : Case
        Case of a cohort.
    path : str or Path
        File to write; its extension chooses the format.
    image : str
        Image to write: ``ct``, ``lung``, ``side``, ``region``, ``lobe``, ``tissue``, ``tissue_median``,
        ``tissue_potts``, ``zone``, ``registered_tissue``, ``change``, or ``posterior_TISSUE`` and
        ``posterior8_TISSUE``, such as ``posterior_ggo``, for the posteriors of a tissue as float32 and as 8-bit
        integers from 0 to 255.

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
    if (posterior := _posterior_in(image)) is not None:
        return _export_posterior(case, target, *posterior)
    require(case, image)
    about = made_with(case, image)
    if len(segments_of(image)) > 1:
        # These formats store no names of labels, so the header names the image, from which readers know them.
        about = {f"{PREFIX}image": image, **about}
    write_image(target, slabs_of(case, image), case.grid_of(image), case.zarr_array(image).dtype, made_with=about)
    return target


def _export_posterior(case: Case, target: Path, tissue: str, dtype: str) -> Path:
    """Write the posteriors of a tissue; they are a function of HU, so a slab of them needs no other slab."""
    for image in ("lung", "tissue"):
        require(case, image)
    table: npt.NDArray[Any] = posterior_table(case, tissue)
    if dtype == "uint8":
        table = np.rint(_STEPS * table)
    table = table.astype(dtype)
    pairs = zip(slabs_of(case, case.measured_image), slabs_of(case, "lung"), strict=True)
    slabs = (look_up(hu, lung, table) for hu, lung in pairs)
    about = {f"{PREFIX}{POSTERIOR}": tissue, **made_with(case, "tissue")}
    write_image(target, slabs, case.geometry, dtype, made_with=about, scale=1 / _STEPS if dtype == "uint8" else 1.0)
    return target


def _posterior_in(image: str) -> tuple[str, str] | None:
    """Return the tissue and the data type of an image of posteriors; None for other images."""
    name, _, tissue = image.partition("_")
    is_known = tissue in _TISSUE_KEYS or re.fullmatch(r"component_\d+", tissue) is not None
    return (tissue, _POSTERIORS[name]) if name in _POSTERIORS and is_known else None


def made_with(case: Case, image: str) -> dict[str, str]:
    """Return what an image was made with, as texts by header key.

    The keys are ``lungmix_mask`` and ``lungmix_sides``, parameters of the mask and of its right and left lung,
    ``lungmix_harmonised``, the methods of harmonisation of its HU, and ``lungmix_model``, the mixture. Those that do
    not apply to the image are left out, all of them for the CT.
    """
    models: dict[str, object | None] = {}
    if image != "ct":
        models["lungmix_mask"] = mask_text(case)
        models["lungmix_sides"] = sides_text(case)
        models["lungmix_harmonised"] = harmonised_text(case)
    if _posterior_in(image) is not None or ARRAYS[image].stage in (LABEL, CHANGE):
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
    return (np.asarray(array[start:stop]) for start, stop in case.layout_of(image).slabs())


def check_image(image: str) -> None:
    """Raise `UsageError` if there is no image of this name; the message lists all images."""
    if image not in IMAGES and _posterior_in(image) is None:
        posteriors = (f"{name}_TISSUE" for name in _POSTERIORS)
        tissues = f"where TISSUE is {', '.join(_TISSUE_KEYS[:-1])} or {_TISSUE_KEYS[-1]}"
        raise UsageError(f"there is no image {image!r}: choose one of {', '.join([*IMAGES, *posteriors])}, {tissues}")


def require(case: Case, image: str) -> None:
    """Raise `StoreError` if the stage that writes an image is not finished for a case."""
    if not case.is_started(image) or ARRAYS[image].stage not in case.stages:
        raise StoreError(
            f"case {case.name} has no finished image {image!r} yet: {remedy_without(image)}",
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
        raise UsageError(
            f"the image {image!r} has no labels: choose one of {', '.join([*LABEL_MAPS, *REGISTERED_MAPS])}"
        )
    return segments


def check_grid(image: str) -> None:
    """Raise `UsageError` if an image is on the grid of another scan, so that it cannot be written with this one."""
    if image in REGISTERED_MAPS:
        raise UsageError(
            f"the image {image!r} is on the grid of another scan, the first one of the patient: write it as an image "
            'of its own, such as `format="seg.nrrd"`'
        )


def image_in_name(path: str | Path, default: str = "ct") -> str:
    """Return the image that the name of a file contains as a word, such as ``tissue`` in ``case-001_tissue.nrrd``.

    If there are several such words, the last one counts; if there is none, `default` is returned.
    """
    words = re.split(r"[^a-z0-9]+", Path(path).name.lower())
    named = default
    for index, (before, word) in enumerate(pairwise(["", *words])):
        # The second word of `registered_tissue` is no image of its own.
        if f"{before}_{word}" not in REGISTERED_MAPS:
            named = _named_by(word, words[index + 1 : index + 3]) or named
    if named == default and (posterior := next((word for word in words if word in _POSTERIORS), None)) is not None:
        # Nothing else would tell that the file holds another image than its name says.
        raise UsageError(
            f"the name {mark_untrusted(Path(path).name)} does not say of which tissue {posterior} is: write "
            f"{posterior}_TISSUE, where TISSUE is {' or '.join(_TISSUE_KEYS)}, or give `image`"
        )
    return named


def _named_by(word: str, following: Sequence[str]) -> str | None:
    if (two_words := "_".join([word, *following[:1]])) in IMAGES:
        return two_words
    for n in (1, 2):
        if _posterior_in(image := "_".join([word, *following[:n]])) is not None:
            return image
    image = word.removesuffix("s")
    return image if image in IMAGES else None
