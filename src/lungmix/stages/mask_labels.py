"""Choice of the labels of a mask file that are lung, right or left: by the user, by names in the file, or by values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.masks import LOBES, EmptyMaskError, MaskFile, Segment
from lungmix.formats.masks.words import normalize_name
from lungmix.parameters import MaskLabels
from lungmix.tissue import PRIVATE_SCHEME, SIDES, TISSUES

LUNG = len(SIDES) + 1
"""Label of lung in a file that does not separate right from left; other labels are those of `lungmix.tissue.SIDES`."""

DENSE_LUNGS = {"right_dense": LUNG + 1, "left_dense": LUNG + 2}
"""Labels of dense lung, see `lungmix.tissue.DENSE`; next to them, the labels right and left are aerated lung."""

LOBE_LABELS = {lobe: LUNG + 3 + k for k, lobe in enumerate(LOBES)}
"""Labels of lobes, by their regions; next to them, the labels right and left are lung of no lobe."""

LABELS = {**{side.key: side.label for side in SIDES}, "lung": LUNG, **DENSE_LUNGS, **LOBE_LABELS}

LUNGMASK = "lungmask"
"""Name of the convention by which label 1 is the right lung and label 2 the left lung."""

LUNGMASK_LOBES = "lungmask LTRCLobes"
"""Name of the convention by which the labels 1 to 5 are the lobes in the order of `_LTRC_LOBES`."""

_LTRC_LOBES = ("left_upper", "left_lower", "right_upper", "right_middle", "right_lower")

SMALLER_LUNG = 0.1
"""Two labels without names count as both lungs only if the smaller has this share of the larger's voxels or more."""

_LARGEST_VALUE = 255
_PLACED_VALUES = {*range(1, 6)}
_MAX_LISTED = 30


@dataclass(frozen=True)
class LabelChoice:
    """Labels of a mask file that are used for the mask.

    Attributes
    ----------
    values : dict of int to int
        Label to write, one of `LABELS`, by number of a segment in the file. Other segments are not used.
    convention : str or None
        Name of the convention that determined right and left, if neither the user nor the file names them.
    omitted : tuple of str
        Regions that the file names and that are not used as lung.
    """

    values: dict[int, int]
    convention: str | None = None
    omitted: tuple[str, ...] = ()

    @property
    def has_regions(self) -> bool:
        """True if every label has a region, so that right and left need not be computed."""
        return LUNG not in self.values.values()

    @property
    def has_dense(self) -> bool:
        """True if all labels are right or left lung, and at least one of them is dense lung."""
        labels = {*self.values.values()}
        parts = {LABELS["right"], LABELS["left"], *DENSE_LUNGS.values()}
        return labels <= parts and not labels.isdisjoint(DENSE_LUNGS.values())

    @property
    def has_lobes(self) -> bool:
        """True if a label is a lobe."""
        return not {*LOBE_LABELS.values()}.isdisjoint(self.values.values())

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary without names of segments in the file."""
        numbers = {
            region: sorted(number for number, value in self.values.items() if value == label)
            for region, label in LABELS.items()
        }
        return {
            "labels": {region: listed for region, listed in numbers.items() if listed},
            "regions": self.has_regions,
            **({"convention": self.convention} if self.convention else {}),
            **({"omitted": list(self.omitted)} if self.omitted else {}),
        }


def choose_labels(mask: MaskFile, labels: MaskLabels | None = None) -> LabelChoice | None:
    """Return the labels of a mask file to use, as the user or the names in the file determine them.

    Parameters
    ----------
    mask : MaskFile
        The mask file.
    labels : MaskLabels, optional
        Labels that the user gave.

    Returns
    -------
    LabelChoice or None
        None for an image without names, whose voxels must be read; see `labels_by_values`.

    Raises
    ------
    SourceError
        If the file names no lung, or lacks a segment that the user names.
    """
    if labels is not None:
        return LabelChoice(dict(_numbers_of(mask, labels)))
    if not mask.segments and mask.geometry is not None:
        return None
    by_region: dict[str, list[int]] = {}
    for segment in mask.segments:
        if segment.region is not None:
            by_region.setdefault(segment.region, []).append(segment.number)
    if {tissue.key for tissue in TISSUES} == by_region.keys():
        # The file is an export of our tissue labels, which together are the lungs.
        return LabelChoice({segment.number: LUNG for segment in mask.segments})
    # Lobes follow their lung, because the last of overlapping segments counts.
    sides = [
        {region: by_region[region] for region in (side, *_lobes_of(side)) if region in by_region}
        for side in ("right", "left")
    ]
    both = all(sides)
    if both or (any(sides) and "lung" not in by_region):
        chosen = sides[0] | sides[1]
        if _is_export(mask):
            # An export of our masks has separate segments for airway, dense lung, and parts outside the lungs.
            parts = ("airway", "elsewhere", *DENSE_LUNGS)
            chosen |= {region: by_region[region] for region in parts if region in by_region}
    elif "lung" in by_region:
        chosen = {"lung": by_region["lung"]}
    else:
        raise SourceError(
            f"{mark_path(mask.path)} names no lung among its {_count(mask.segments)}: give those of the lungs, such as "
            '`mask_labels="right=1,left=2"`'
        )
    values = {number: LABELS[region] for region, numbers in chosen.items() for number in numbers}
    omitted = tuple(region for region in ("airway",) if region in by_region and region not in chosen)
    return LabelChoice(values, omitted=omitted)


def labels_by_values(mask: MaskFile, grid_thickness: int = 16) -> LabelChoice:
    """Return the labels of an image without names to use, by the values of its voxels, which are all read.

    A single value, 1 or 255, is lung. The values 1 and 2 are right and left lung, as lungmask writes them, if the
    voxels of 1 are on average to the right of those of 2, and neither lung is much smaller than the other. The values
    1 to 5 are lobes, as the model LTRCLobes of lungmask writes them, if the voxels of 1 and 2 are on average to the
    left of those of all others, and upper lobes above lower lobes.

    Raises
    ------
    SourceError
        If the values are others, or not so distributed.
    """
    seen = count_values(mask, grid_thickness)
    lobes = ",".join(f"{lobe.replace('_', '-')}={number}" for number, lobe in enumerate(LOBES, start=1))
    remedy = (
        'give all those of the lungs, such as `mask_labels="right=1,left=2"` or `mask_labels="lung=1"`, or those of '
        f'lobes, such as `mask_labels="{lobes}"`'
    )
    if seen.values in ([1], [_LARGEST_VALUE]):
        return LabelChoice({seen.values[0]: LUNG})
    if seen.values == [1, 2, 3, 4, 5] and _lie_like_lobes(seen, mask):
        return LabelChoice({k + 1: LABELS[lobe] for k, lobe in enumerate(_LTRC_LOBES)}, LUNGMASK_LOBES)
    if seen.values != [1, 2]:
        text = ", ".join(map(str, seen.values[:_MAX_LISTED]))
        more = f" and {len(seen.values) - _MAX_LISTED} more" if len(seen.values) > _MAX_LISTED else ""
        raise SourceError(f"{mark_path(mask.path)} has the labels {text}{more} without names: {remedy}")
    assert mask.geometry is not None
    right, left = (seen.centre(value, mask)[0] for value in (1, 2))
    sizes = sorted((seen.counts[1], seen.counts[2]))
    if not mask.geometry.orientation_known or right >= left or sizes[0] < SMALLER_LUNG * sizes[1]:
        raise SourceError(
            f"{mark_path(mask.path)} has the labels 1 and 2, which do not lie like right and left lung: {remedy}"
        )
    return LabelChoice({1: LABELS["right"], 2: LABELS["left"]}, LUNGMASK)


@dataclass(eq=False)
class SeenValues:
    """Values of the voxels of a label map.

    Attributes
    ----------
    counts : dict of int to int
        Voxels by value, without 0.
    sums : dict of int to ndarray
        For the values 1 to 5, the sums of the indices of their voxels along z, y, x.
    """

    counts: dict[int, int] = field(default_factory=dict)
    sums: dict[int, npt.NDArray[np.float64]] = field(default_factory=dict)

    @property
    def values(self) -> list[int]:
        """Values in ascending order."""
        return sorted(self.counts)

    def centre(self, value: int, mask: MaskFile) -> tuple[float, float, float]:
        """Return the mean position of the voxels of a value, mm from the first voxel, to the left, back and head."""
        assert mask.geometry is not None
        z, y, x = self.sums[value] / self.counts[value]
        steps = np.reshape(mask.geometry.direction, (3, 3)) * mask.geometry.spacing
        left, back, head = (float(step @ (x, y, z)) for step in steps)
        return left, back, head


def count_values(mask: MaskFile, thickness: int) -> SeenValues:
    """Return the values from 1 to 255 of the voxels of a label map.

    Raises
    ------
    SourceError
        If no voxel has such a value.
    """
    assert mask.geometry is not None
    seen, start = SeenValues(), 0
    values = {value: value for value in range(1, _LARGEST_VALUE + 1)}
    try:
        for labels in mask.label_slabs(values, mask.geometry, thickness):
            counts = np.bincount(labels.reshape(-1), minlength=256)
            for value in (np.flatnonzero(counts[1:]) + 1).tolist():
                seen.counts[value] = seen.counts.get(value, 0) + int(counts[value])
            for value in _PLACED_VALUES & seen.counts.keys():
                sums = _index_sums(labels == value, start)
                seen.sums[value] = seen.sums.get(value, np.zeros(3)) + sums
            start += len(labels)
    except EmptyMaskError:
        seen.counts.clear()
    if not seen.counts:
        raise SourceError(
            f"{mark_path(mask.path)} is empty: no voxel has a label from 1 to {_LARGEST_VALUE}; give another mask"
        ) from None
    return seen


def _lie_like_lobes(seen: SeenValues, mask: MaskFile) -> bool:
    """Return True if the labels 1 to 5 lie like the lobes of `_LTRC_LOBES`."""
    assert mask.geometry is not None
    if not mask.geometry.orientation_known:
        return False
    left, _, head = zip(*(seen.centre(k + 1, mask) for k in range(len(_LTRC_LOBES))), strict=True)
    return min(left[:2]) > max(left[2:]) and head[0] > head[1] and head[2] > head[4]


def _index_sums(selected: npt.NDArray[np.bool_], start: int) -> npt.NDArray[np.float64]:
    sums = []
    for axis, first in enumerate((start, 0, 0)):
        others = tuple(other for other in range(3) if other != axis)
        sums.append(selected.sum(axis=others) @ (np.arange(selected.shape[axis]) + float(first)))
    return np.array(sums)


def _numbers_of(mask: MaskFile, labels: MaskLabels) -> Iterable[tuple[int, int]]:
    for region, segment in labels.segments:
        if isinstance(segment, int) and mask.file_count > 1:
            raise SourceError(
                f"{mark_path(mask.path)} is one of {mask.file_count} files of a mask, whose numbers are not those of "
                "`mask_labels`: give names of segments, or leave `mask_labels` out"
            )
        numbers = [segment] if isinstance(segment, int) else _numbers_by_name(mask, segment)
        listed = {item.number for item in mask.segments}
        if not numbers or (listed and not listed.issuperset(numbers)):
            shown = segment if isinstance(segment, int) else "of this name"
            raise SourceError(
                f"{mark_path(mask.path)} has no segment {shown} among its {_count(mask.segments)}: check `mask_labels`"
            )
        for number in numbers:
            yield number, LABELS[region]


def _numbers_by_name(mask: MaskFile, name: str) -> list[int]:
    return [segment.number for segment in mask.segments if normalize_name(segment.name) == normalize_name(name)]


def _lobes_of(side: str) -> list[str]:
    return [lobe for lobe in LOBES if lobe.startswith(f"{side}_")]


def _is_export(mask: MaskFile) -> bool:
    """Return True for a file that this package wrote."""
    codes = {segment.code[0] for segment in mask.segments if segment.code is not None}
    return PRIVATE_SCHEME in codes or mask.made_by == "lungmix"


def _count(segments: tuple[Segment, ...]) -> str:
    return f"{len(segments)} segment" if len(segments) == 1 else f"{len(segments)} segments"
