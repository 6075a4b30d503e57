"""Choose the mask of a case among several files: one file, or several files that each hold other regions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lungmix.formats.masks import MaskFile
from lungmix.formats.masks.combined import MaskPart, combine


@dataclass(frozen=True, repr=False)
class NamedMask:
    """Mask file with the region that its file name states; `repr` shows no names of files.

    Attributes
    ----------
    mask : MaskFile
        The file.
    region : str or None
        Region that the file name states; None if the name states no region, as for a mask of both lungs.
    """

    mask: MaskFile
    region: str | None = None

    def __repr__(self) -> str:
        return f"<NamedMask: {self.region or 'whole'}>"

    @property
    def stated_regions(self) -> frozenset[str]:
        """Regions of the segments in the file, or else the region of its file name; empty if neither is known."""
        regions = {segment.region for segment in self.mask.segments if segment.region is not None}
        if not regions and self.region is not None and len(self.mask.segments) <= 1:
            regions.add(self.region)
        return frozenset(regions)

    @property
    def part(self) -> MaskPart:
        """Part of a mask that consists of this file."""
        names_regions = any(segment.region is not None for segment in self.mask.segments)
        return MaskPart(self.mask, None if names_regions or not self.stated_regions else self.region)


@dataclass(frozen=True, repr=False)
class ChosenMasks:
    """Files of one case that are its mask; `repr` shows no names of files.

    Attributes
    ----------
    masks : tuple of NamedMask
        One file, or several files that are parts of the mask; empty if the choice is ambiguous.
    ambiguous : tuple of MaskFile
        Files that could each be the mask; empty if the choice is clear.
    left_aside : tuple of MaskFile
        Files that are not used, because they show other structures.
    """

    masks: tuple[NamedMask, ...] = ()
    ambiguous: tuple[MaskFile, ...] = ()
    left_aside: tuple[MaskFile, ...] = ()

    def __repr__(self) -> str:
        return f"<ChosenMasks: {len(self.masks)}>"

    def combined(self) -> MaskFile:
        """Return the chosen files as one mask.

        Raises
        ------
        SourceError
            If the grids of the files do not fit together.
        """
        first, *more = self.masks
        return combine([named.part for named in self.masks]) if more or first.part.region else first.mask


def choose_masks(files: Sequence[NamedMask], regions: Collection[str]) -> ChosenMasks:
    """Return the files of one case that are its mask: the only file, or all files if they state different regions.

    Parameters
    ----------
    files : sequence of NamedMask
        Files of the case.
    regions : collection of str
        Regions that may be parts of the mask. Files that state only other regions are not used, unless the case has
        no other files.
    """
    used = [file for file in files if not file.stated_regions or not file.stated_regions.isdisjoint(regions)]
    if not used:
        used, others = list(files), []
    else:
        others = [file for file in files if file not in used]
    left_aside = tuple(file.mask for file in others)
    clashing = used if not all(file.stated_regions for file in used) else _with_shared_regions(used)
    if len(used) > 1 and clashing:
        return ChosenMasks(ambiguous=tuple(file.mask for file in clashing), left_aside=left_aside)
    return ChosenMasks(tuple(used), left_aside=left_aside)


def _with_shared_regions(files: Sequence[NamedMask]) -> list[NamedMask]:
    """Return the files that share a region with another file."""
    return [
        file
        for file in files
        if any(other is not file and not other.stated_regions.isdisjoint(file.stated_regions) for other in files)
    ]
