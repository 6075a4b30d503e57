"""Timings of whole steps in memory, without a cluster: masks by graphs, writing and reading a store."""

import shutil
import tempfile
from pathlib import Path

import dask
import dask.array as da

import lungmix
from lungmix.phantom import Phantom
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import CohortWriter


class Volume:
    """Benchmarks of a volume of 128 slices of 256 x 256 in slabs of 32 slices."""

    timeout = 300

    def setup(self):
        self.hu = Phantom((128, 256, 256), (1.4, 1.4, 2.4), 1).volume()
        self.ct = da.from_array(self.hu, chunks=(32, -1, -1))
        self.folder = Path(tempfile.mkdtemp())

    def teardown(self):
        shutil.rmtree(self.folder)

    def time_mask_in_memory(self):
        lungmix.lung_mask(self.hu, "physical", (1.4, 1.4, 2.4))

    def time_mask_over_slabs(self):
        with dask.config.set(scheduler="synchronous"):
            lungmix.lung_mask(self.ct, "physical", (1.4, 1.4, 2.4)).compute()

    def time_write_ct(self):
        cohort = lungmix.open_cohort(self.folder / "s.zarr", "a")
        geometry = Phantom(self.hu.shape, (1.4, 1.4, 2.4)).geometry
        case = CohortWriter(cohort).add("case", geometry, Acquisition(modality="CT"))
        case.create_image("ct")
        for start, stop in case.layout.slabs():
            case.write("ct", start, self.hu[start:stop])
