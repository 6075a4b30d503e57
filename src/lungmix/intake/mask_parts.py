"""Several mask files of one case: which of them are its mask, each for other parts of the lungs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lungmix.formats.masks import MaskFile
from lungmix.formats.masks.combined import MaskPart, combine


@dataclass(frozen=True, repr=False)
class NamedMask:
    """Mask file with the region that its name states; `repr` shows no names.

    Attributes
    ----------
    mask : MaskFile
        The file.
    region : str or None
        Region by the name of the file; None for a file that is named as the mask of the whole scan.
    """

    mask: MaskFile
    region: str | None = None

    def __repr__(self) -> str:
        return f"<NamedMask: {self.region or 'whole'}>"

    @property
    def stated_regions(self) -> frozenset[str]:
        """Regions that the file names, or else its name; empty where only its voxels can tell."""
        regions = {segment.region for segment in self.mask.segments if segment.region is not None}
        if not regions and self.region is not None and len(self.mask.segments) <= 1:
            regions.add(self.region)
        return frozenset(regions)

    @property
    def part(self) -> MaskPart:
        """The file as a part of a mask."""
        names_regions = any(segment.region is not None for segment in self.mask.segments)
        return MaskPart(self.mask, None if names_regions or not self.stated_regions else self.region)


@dataclass(frozen=True, repr=False)
class ChosenMasks:
    """Files of one case that are its mask; `repr` shows no names.

    Attributes
    ----------
    masks : tuple of NamedMask
        A mask, or the parts of one.
    ambiguous : tuple of MaskFile
        Files of which each can be the mask, where none is chosen.
    left_aside : tuple of MaskFile
        Files of other structures.
    """

    masks: tuple[NamedMask, ...] = ()
    ambiguous: tuple[MaskFile, ...] = ()
    left_aside: tuple[MaskFile, ...] = ()

    def __repr__(self) -> str:
        return f"<ChosenMasks: {len(self.masks)}>"

    def combined(self) -> MaskFile:
        """Return the mask.

        Raises
        ------
        SourceError
            If the grids of its parts do not fit together.
        """
        first, *more = self.masks
        return combine([named.part for named in self.masks]) if more or first.part.region else first.mask


def choose_masks(files: Sequence[NamedMask], regions: Collection[str]) -> ChosenMasks:
    """Return which files of one case are its mask: the only one, or all that state different regions.

    Parameters
    ----------
    files : sequence of NamedMask
        Files of the case.
    regions : collection of str
        Regions that count; files that state others alone are left aside, unless the case has no other file.
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
    """Return the files that state a region which another file states too."""
    return [
        file
        for file in files
        if any(other is not file and not other.stated_regions.isdisjoint(file.stated_regions) for other in files)
    ]
