"""Numpy in, numpy out: the arithmetic of the method. Nothing here knows dask, zarr or files."""
