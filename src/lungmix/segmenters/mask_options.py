"""Options that say where masks come from, checked before a run creates a store or reads a source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lungmix.errors import UsageError, mark_path
from lungmix.parameters import NO_MASKS, MaskLabels
from lungmix.s3 import is_remote
from lungmix.segmenters.plugins import SegmenterSpec, find_segmenter


def check_mask_options(
    masks: str | Path | None = None,
    mask_labels: str | Mapping[str, Any] | MaskLabels | None = None,
    mask_with: str | None = None,
    mask_weights: str | Path | None = None,
    mask_device: str | None = None,
) -> SegmenterSpec | None:
    """Return the segmenter that the user named, or None, after a check of all options that say where masks come from.

    Parameters
    ----------
    masks : str or Path, optional
        Path or address of mask files, or `lungmix.parameters.NO_MASKS`.
    mask_labels : str, mapping or MaskLabels, optional
        Which labels of the mask files are the lungs.
    mask_with, mask_weights, mask_device
        Name, weights and device of a segmenter; see `find_segmenter`.

    Raises
    ------
    UsageError
        If there is no such path or segmenter, the segmenter cannot be used or the labels are not understood; if both
        mask files and a segmenter are given; if labels are given without mask files, or weights or a device without
        a segmenter.
    """
    if mask_with is not None and masks is not None:
        raise UsageError("`masks` and `mask_with` both say where masks come from: give only one of the two")
    if MaskLabels.parse(mask_labels) is not None and masks in (None, NO_MASKS):
        raise UsageError("`mask_labels` says what the labels of mask files are: give the files, `masks=PLACE`")
    if masks is not None and masks != NO_MASKS:
        check_mask_place(masks)
    if mask_with is not None:
        return find_segmenter(mask_with, mask_weights, mask_device or "cpu")
    for parameter, value in (("mask_weights", mask_weights), ("mask_device", mask_device)):
        if value is not None:
            raise UsageError(f"`{parameter}` belongs to a segmenter: give its name, `mask_with='lungmask'`")
    return None


def check_mask_place(place: str | Path) -> None:
    """Raise `UsageError` if a path does not exist; an address is checked later, when its objects are listed."""
    if not is_remote(str(place)) and not Path(place).exists():
        raise UsageError(f"{mark_path(place)} does not exist: check the path of the masks")
