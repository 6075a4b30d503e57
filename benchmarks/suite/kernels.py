"""Kernels of the mask and the labels on one slab with its halos, as a worker sees it."""

import numpy as np

import lungmix
from lungmix.kernels.components import islands_of, label_runs
from lungmix.kernels.counts import count_hu
from lungmix.kernels.element import ball, diamond, ellipsoid
from lungmix.kernels.labels import look_up, median_labels
from lungmix.kernels.morphology import dilate, erode, opening
from lungmix.kernels.packing import pack, unpack
from lungmix.phantom import Phantom


class Slab:
    """64 slices of 512 x 512 through the middle of a chest."""

    timeout = 300

    def setup_cache(self):
        phantom = Phantom((64, 512, 512), (0.7, 0.7, 4.7), 1)
        hu, lung = phantom.volume(), (phantom.truth() > 0).astype(np.uint8)
        air = np.less(hu, -155).view(np.uint8)
        table = lungmix.load_model("published").table()
        labels = look_up(hu, lung, table)
        median_labels(labels)
        for element in (diamond((3, 3, 3)), ball(30)):
            erode(dilate(lung[:3], element), element)
        label_runs(lung)
        return hu, lung, air, table, labels


class Mask(Slab):
    def time_opening(self, slab):
        opening(slab[2], diamond((3, 3, 3)))

    def time_dilation_by_30(self, slab):
        dilate(slab[1], ball(30))

    def time_erosion_by_30(self, slab):
        erode(slab[1], ball(30))

    def time_dilation_by_10_mm(self, slab):
        dilate(slab[1], ellipsoid(10, (5.0, 0.7, 0.7)))

    def time_components(self, slab):
        islands_of(label_runs(slab[2]))

    def time_packing(self, slab):
        unpack(pack(slab[2]), 512)


class Labels(Slab):
    def time_counts(self, slab):
        count_hu(slab[0], slab[1])

    def time_look_up(self, slab):
        look_up(slab[0], slab[1], slab[3])

    def time_median(self, slab):
        median_labels(slab[4])
