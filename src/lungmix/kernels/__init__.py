"""Numpy in, numpy out: the arithmetic of the method, independent of dask, zarr and files."""
