"""Notes on masks: voxels that overlapping segments or files assign to both lungs, and missing lobes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lungmix.errors import count_of
from lungmix.formats.masks import MaskFile
from lungmix.formats.masks.mask_file import Overlap
from lungmix.stages.mask_labels import LOBE_LABELS
from lungmix.store import Case, CaseWriter
from lungmix.tissue import LEFT, LOBES, RIGHT

_RIGHT, _LEFT = (
    (side.label, *(LOBE_LABELS[lobe.region] for lobe in LOBES if lobe.side == side)) for side in (RIGHT, LEFT)
)
"""Labels of the right lung and its lobes, and of the left lung and its lobes."""

_SHARED = 255

Slab = tuple[CaseWriter, int, npt.NDArray[np.uint8]]


@dataclass(eq=False)
class SharedVoxels:
    """Counter of the voxels that a mask assigns to both lungs; they become left lung, of no lobe.

    Attributes
    ----------
    count : int
        Number of these voxels in the slabs that were read.
    """

    count: int = 0

    @staticmethod
    def marked(mask: MaskFile) -> MaskFile:
        """Return the mask with a separate label for voxels that belong to both lungs."""
        return replace(mask, overlap=Overlap(_RIGHT, _LEFT, _SHARED)) if mask.may_overlap else mask

    def resolve(self, slabs: Iterable[Slab]) -> Iterator[Slab]:
        """Yield slabs in which voxels of both lungs have the label of the left lung, and count these voxels."""
        for case, start, labels in slabs:
            is_shared = labels == _SHARED
            count = int(is_shared.sum())
            if count:
                self.count += count
                labels = np.where(is_shared, np.uint8(LEFT.label), labels)
            yield case, start, labels


def lobes_of(mask: MaskFile) -> list[str]:
    """Return the names of the lobes among the segments of a mask."""
    regions = {segment.region for segment in mask.segments}
    return [lobe.region for lobe in LOBES if lobe.region in regions]


def note_on_shared(case: Case, count: int) -> str:
    """Return the note that `count` voxels belong to both lungs in the mask of a case."""
    volume_ml = count * float(np.prod(case.geometry.spacing)) / 1000
    return (
        f"right and left lung overlap in its mask: {volume_ml:.3g} mL ({count_of(count, 'voxel')}) belong to "
        "both, and count as left"
    )


def note_on_lobes(lobes: Iterable[str], regions: Iterable[str]) -> str | None:
    """Return a note on missing lobes, for a mask that names other lobes of the same lung; None if no lobe is missing.

    Parameters
    ----------
    lobes : iterable of str
        Lobes that the mask names.
    regions : iterable of str
        Regions that the labels of the mask were used as, such as ``right``.
    """
    named = {*lobes}
    used = {region.partition("_")[0] for region in regions}
    missing = [
        lobe.region.replace("_", " ")
        for lobe in LOBES
        if lobe.region not in named
        and lobe.side.key in used
        and any(other.partition("_")[0] == lobe.side.key for other in named)
    ]
    if not missing:
        return None
    return f"its mask names lobes, but not the {' and the '.join(missing)} lobe: that part of the lung is missing"
