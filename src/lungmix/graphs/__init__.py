"""The steps of the method as dask graphs over slabs, from dask arrays to dask arrays, without stores or files."""

import lazy_loader

# Starting a worker imports `process` from this folder before dask.array is needed.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
