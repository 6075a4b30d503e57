"""Dask arrays in, dask arrays out: the method as graphs over slabs, without stores or files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lungmix._lazy import loader

if TYPE_CHECKING:
    from lungmix.graphs.labels import median_labels, tissue_labels
    from lungmix.graphs.mask import lung_mask, mask_graph

__all__ = ["lung_mask", "mask_graph", "median_labels", "tissue_labels"]

# Load names lazily: starting a worker imports `process` from this folder before dask.array is needed.
__getattr__ = loader(
    __name__, {"lung_mask": "mask", "mask_graph": "mask", "median_labels": "labels", "tissue_labels": "labels"}
)
