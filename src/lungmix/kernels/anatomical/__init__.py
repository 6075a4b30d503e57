"""Lungs as anatomy has them: decisions on a reduced copy of a scan, voxels by slabs; see ``docs/anatomical.md``."""

from __future__ import annotations

from lungmix.kernels.anatomical.voxels import DENSE_LEFT, DENSE_RIGHT, LEFT, RIGHT, lung_voxels, spread
from lungmix.kernels.anatomical.zones import Zone, find_zones

__all__ = ["DENSE_LEFT", "DENSE_RIGHT", "LEFT", "RIGHT", "Zone", "find_zones", "lung_voxels", "spread"]
