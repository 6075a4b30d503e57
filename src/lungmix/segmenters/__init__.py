"""Segmenters: plug-ins that make lung masks from axial slices, and the base class of these plug-ins."""

from lungmix.segmenters.base import AxialSlices, Segmenter
from lungmix.segmenters.mask_options import check_mask_options
from lungmix.segmenters.plugins import GROUP, SegmenterSpec, find_segmenter, installed_segmenters

__all__ = [
    "GROUP", "AxialSlices", "Segmenter", "SegmenterSpec", "check_mask_options", "find_segmenter",
    "installed_segmenters",
]  # fmt: skip
