"""Lungs as anatomy has them: decisions on a reduced copy of a scan, voxels by slabs; see ``docs/anatomical.md``."""

from __future__ import annotations

from lungmix.kernels.anatomical.voxels import labels_of, lung_masks, reduced_indices
from lungmix.kernels.anatomical.zones import Zone, find_zones

__all__ = ["Zone", "find_zones", "labels_of", "lung_masks", "reduced_indices"]
