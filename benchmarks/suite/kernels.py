"""Kernels of the mask and the labels on one slab with its halos, as a worker sees it."""

import numpy as np

import lungmix
from lungmix.kernels.components import label_runs, merge_tables, render_components, table_of
from lungmix.kernels.histogram import count_hu, count_hu_packed
from lungmix.kernels.labels import look_up
from lungmix.kernels.median import median_labels
from lungmix.kernels.morphology import closing, dilate, erode, opening
from lungmix.kernels.packed_masks import pack, pack_below, unpack
from lungmix.kernels.structuring_elements import ball, diamond, ellipsoid
from lungmix.phantom import Phantom


class Slab:
    """Benchmarks of 64 slices of 512 x 512 through the middle of a chest."""

    timeout = 300

    def setup_cache(self):
        phantom = Phantom((64, 512, 512), (0.7, 0.7, 4.7), 1)
        hu, lung = phantom.volume(), (phantom.truth() > 0).astype(np.uint8)
        table = lungmix.load_model("published").lookup_table()
        return hu, lung, pack_below(hu, -155), pack(lung), table, look_up(hu, lung, table)

    def setup(self, slab):
        # Kernels are compiled before they are timed.
        _, lung, air, bits, _, labels = slab
        for element in (diamond((3, 3, 3)), ball(30), ellipsoid(10, (5.0, 0.7, 0.7))):
            closing(bits[:2], 512, element)
            opening(air[:2], 512, element)
        runs = label_runs(air[:2], 512)
        render_components(runs, np.ones(runs.components, bool))
        count_hu(slab[0][:2], lung[:2])
        median_labels(labels[:5])


class Mask(Slab):
    def time_threshold(self, slab):
        pack_below(slab[0], -155)

    def time_opening(self, slab):
        opening(slab[2], 512, diamond((3, 3, 3)))

    def time_dilation_by_30(self, slab):
        dilate(slab[3], 512, ball(30))

    def time_erosion_by_30(self, slab):
        erode(slab[3], 512, ball(30))

    def time_closing_by_30(self, slab):
        closing(slab[3], 512, ball(30))

    def time_closing_by_10_mm(self, slab):
        closing(slab[3], 512, ellipsoid(10, (5.0, 0.7, 0.7)))

    def time_components(self, slab):
        merge_tables([table_of(label_runs(slab[2], 512), 500_000)])

    def time_packing(self, slab):
        unpack(pack(slab[1]), 512)


class Labels(Slab):
    def time_counts(self, slab):
        count_hu_packed(slab[0], slab[3])

    def time_look_up(self, slab):
        look_up(slab[0], slab[1], slab[4])

    def time_median(self, slab):
        median_labels(slab[5])
