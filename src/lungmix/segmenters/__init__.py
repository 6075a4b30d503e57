"""Segmenters: plug-ins that make lung masks from axial slices, and what they derive from."""

from lungmix.segmenters.base import AxialSlices, Segmenter
from lungmix.segmenters.plugins import GROUP, SegmenterSpec, find_segmenter, installed_segmenters

__all__ = ["GROUP", "AxialSlices", "Segmenter", "SegmenterSpec", "find_segmenter", "installed_segmenters"]
