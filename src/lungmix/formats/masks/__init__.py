"""Reading of lung masks and label maps that other programs wrote."""

from lungmix.formats.masks.format_detection import is_mask_file, open_mask
from lungmix.formats.masks.mask_file import EmptyMaskError, MaskFile, Segment, is_same_grid, offset_in_grid
from lungmix.formats.masks.words import LOBES, REGION_BY_CODE, REGION_BY_WORD, REGIONS, region_of, region_of_name

__all__ = [
    "LOBES", "REGIONS", "REGION_BY_CODE", "REGION_BY_WORD", "EmptyMaskError", "MaskFile", "Segment", "is_mask_file",
    "is_same_grid", "offset_in_grid", "open_mask", "region_of", "region_of_name",
]  # fmt: skip
