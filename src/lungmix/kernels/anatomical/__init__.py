"""Lung masks of the preset ``anatomical``.

A reduced copy of the scan, whose voxels are means of a few voxels, decides where lung, airway and dense lung are. The
voxels of the full scan are then labelled slab by slab. ``docs/anatomical.md`` describes the steps.
"""

from __future__ import annotations

from lungmix.kernels.anatomical.voxels import labels_of, lung_masks
from lungmix.kernels.anatomical.zones import Zone, find_zones

__all__ = ["Zone", "find_zones", "labels_of", "lung_masks"]
