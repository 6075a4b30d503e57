"""Stores with all images that a case can have, for tests of publications."""

from __future__ import annotations

import numpy as np

from lungmix.kernels.histogram import N_HU, count_hu
from lungmix.mixture import PUBLISHED
from lungmix.stages import lung_zones
from lungmix.stages.measure import measure_cohort
from lungmix.store import ZONES_FILE, CaseWriter
from lungmix.tissue import LUNG_ZONES, segments_of
from support.labelled import labelled_store


def rich_store(url, scans=2):
    """Return a measured cohort whose cases have regions, lobes, lung zones and labels under a prior; and its scores."""
    cohort, scores = labelled_store(url, scans, beta=1.0)
    for name in cohort:
        case = CaseWriter(cohort[name])
        lung = case.zarr_array("lung")[:]
        place = np.indices(lung.shape).sum(axis=0)
        # All on the mask, so that no image has labels outside the lungs.
        images = {
            image: (lung * (place % len(segments_of(image)) + 1)).astype(np.uint8)
            for image in ("side", "region", "lobe", "zone")
        }
        for image, labels in images.items():
            case.create_image(image)
            for start, stop in case.layout.slabs():
                case.write(image, start, labels[start:stop])
        counts = np.zeros((len(LUNG_ZONES), N_HU), np.uint64)
        hu = case.zarr_array("ct")[:]
        for zone in LUNG_ZONES:
            counts[zone.label - 1] = count_hu(hu, (images["zone"] == zone.label).astype(np.uint8))
        case.write_histogram("zone_counts", counts)
        case.record("side", {"key": "s"})
        case.record("zone", {"key": lung_zones.key_for(case, "volume"), "by": "volume"})
    measure_cohort(cohort, list(cohort), PUBLISHED, file=ZONES_FILE)
    return cohort, scores
