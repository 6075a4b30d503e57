"""Thumbnails of flagged cases: an axial slice that shows the reason of a flag, with regions of the mask in colour."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lungmix.quality_flags import RaisedFlag, slice_to_look_at
from lungmix.stages import quality
from lungmix.store import Case
from lungmix.store.schema import SIDE
from lungmix.tissue import LUNG_COLOR, SIDES
from lungmix.webpage.figures import LUNG_WINDOW
from lungmix.webpage.files import publish

FOLDER = "look"

WIDTH = 256
"""Width of a thumbnail, pixels."""

_LEVEL = 1
_OPACITY = 0.4
_SUFFIX = ".webp"


def slice_of(case: Case, flags: Sequence[RaisedFlag]) -> int | None:
    """Return the index of the axial slice that shows why a case is flagged, or else of the slice with the most mask.

    The index is 0 at the feet. It is None if quality control did not measure the case.
    """
    index = slice_to_look_at(flags)
    fullest: int | None = quality.numbers_of(case).get("slices", {}).get("lung")
    return fullest if index is None else index


def write_thumbnail(case: Case, index: int, folder: Path) -> None:
    """Write ``look/CASE.webp``, a picture of the axial slice `index` of a masked case."""
    stream = BytesIO()
    Image.fromarray(thumbnail_of(case, index)).save(stream, "WEBP", quality=80)
    publish(folder / FOLDER / f"{case.name}{_SUFFIX}", stream.getvalue())


def remove_thumbnails_of_other_cases(folder: Path, kept: Collection[str]) -> None:
    """Delete the thumbnails of cases that are not in `kept`."""
    for path in (folder / FOLDER).glob(f"*{_SUFFIX}"):
        if path.stem not in kept:
            path.unlink()


def thumbnail_of(case: Case, index: int) -> npt.NDArray[np.uint8]:
    """Return a picture of an axial slice of a masked case: RGB, uint8 ``[y, x, 3]``.

    The patient's right is on the left.
    """
    level = min(_LEVEL, len(case.layout.levels) - 1)
    has_regions = SIDE in case.stages and case.geometry.orientation_known
    hu = _axial_slice(case, "ct", level, index).astype(np.float64)
    labels = _axial_slice(case, "side" if has_regions else "lung", level, index)
    low, high = LUNG_WINDOW
    grey = np.clip((hu - low) / (high - low), 0, 1)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    colors = {region.label: region.color for region in SIDES} if has_regions else {1: LUNG_COLOR}
    for label, color in colors.items():
        inside = labels == label
        rgb[inside] = (1 - _OPACITY) * rgb[inside] + _OPACITY * _rgb(color)
    order, factors = case.geometry.axis_order, case.layout.levels[level].factors
    _, y, x = (s * f for s, f in zip(case.geometry.axial.spacing_zyx, order.by_patient(factors), strict=True))
    height = max(1, round(WIDTH * hu.shape[0] * y / (hu.shape[1] * x)))
    image = Image.fromarray(np.rint(255 * rgb).astype(np.uint8))
    return np.asarray(image.resize((WIDTH, height), Image.Resampling.LANCZOS))


def _axial_slice(case: Case, name: str, level: int, index: int) -> npt.NDArray[np.int16]:
    """Return an axial slice of an image, ``[y, x]``, on a coarser level; `index` counts slices of the finest level."""
    order, source = case.geometry.axis_order, case.zarr_array(name, level)
    axis = order.cranial_axis
    stored = case.geometry.shape[axis] - 1 - index if order.flipped[axis] else index
    position = min(stored // case.layout.levels[level].factors[axis], source.shape[axis] - 1)
    slab = source[tuple(slice(position, position + 1) if a == axis else slice(None) for a in range(3))]
    return np.asarray(order.to_axial(slab)[0], np.int16)


def _rgb(color: str) -> npt.NDArray[np.float64]:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
