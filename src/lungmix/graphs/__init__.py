"""Dask arrays in, dask arrays out: the method over slabs, without stores or files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lungmix._lazy import loader

if TYPE_CHECKING:
    from lungmix.graphs.labels import median_labels, tissue_labels
    from lungmix.graphs.mask import lung_mask, mask_graph

__all__ = ["lung_mask", "mask_graph", "median_labels", "tissue_labels"]

# What a worker is started with is in this folder too, and asked for before dask's arrays are loaded.
__getattr__ = loader(
    __name__, {"lung_mask": "mask", "mask_graph": "mask", "median_labels": "labels", "tissue_labels": "labels"}
)
