"""Dask arrays in, dask arrays out: the method over slabs, without stores or files."""

from lungmix.graphs.labels import median_labels, tissue_labels
from lungmix.graphs.mask import lung_mask, mask_graph

__all__ = ["lung_mask", "mask_graph", "median_labels", "tissue_labels"]
