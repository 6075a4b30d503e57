"""Two scans of one patient: lungs with structure, and the same lungs deformed by a known smooth field."""

import hashlib
from functools import cache

import numpy as np
from scipy import ndimage

import lungmix
from lungmix.geometry import Geometry
from lungmix.kernels.histogram import count_hu
from lungmix.mixture import PUBLISHED
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import CohortWriter
from support.labelled import label_record

FIRST = Geometry((104, 72, 84), (2.4, 2.4, 2.4), (-120.0, -85.0, -90.0))
LATER = Geometry((128, 84, 68), (2.0, 2.1, 3.0), (-110.0, -80.0, -95.0))
"""The later scan has another spacing and another field of view."""

_STEP = 2.0
_CORNER = np.array([-150.0, -120.0, -140.0])
_SIZE = (140, 120, 150)


@cache
def _texture(seed):
    """Return HU of lung on a fine grid: vessels of several widths, and two regions of ground-glass opacity."""
    random = np.random.default_rng(seed)
    fine, coarse, large = (
        ndimage.gaussian_filter(random.normal(size=_SIZE).astype(np.float32), sd) for sd in (1.5, 3.0, 9.0)
    )
    hu = -860 + 25 * large / large.std()
    hu[coarse > 1.6 * coarse.std()] = -300
    hu[fine > 2.2 * fine.std()] = -450
    hu[large > 1.3 * large.std()] += 250
    return hu.astype(np.float32)


def _inside(points):
    """Return where points lie in one of two lungs."""
    x, y, z = points
    return np.any([((x - side * 62) / 48) ** 2 + (y / 70) ** 2 + (z / 92) ** 2 < 1 for side in (-1, 1)], axis=0) & (
        z > -75 + 12 * np.cos(x / 30)
    )


def points_of(geometry):
    """Return the positions (x, y, z) of the voxels of a volume, mm in LPS: shape (3, z, y, x)."""
    columns = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    z, y, x = np.indices(geometry.shape)
    return np.einsum("ij,jzyx->izyx", columns, np.stack([x, y, z])) + np.reshape(geometry.origin, (3, 1, 1, 1))


def to_first(points, amount=1.0):
    """Return the point of the first scan at points of the later scan: the lung bases move most, as in breathing."""
    x, y, z = points
    down = np.clip((95 - z) / 190, -0.2, 1.3)
    moved_z = z + amount * (-22 * np.sign(down) * np.abs(down) ** 1.5 * (1 + 0.2 * y / 70) + 6) + 1.5 * np.sin(x / 25)
    moved_y = y * (1 + 0.06 * amount * down) + amount * 5 + 1.5 * np.sin(z / 22)
    moved_x = x * (1 + 0.03 * amount * down) - amount * 6 + 1.5 * np.sin(y / 20)
    return np.stack([moved_x, moved_y, moved_z])


def scan(geometry, amount=0.0, seed=0, noise=15):
    """Return HU and lungs of the patient `seed`; with `amount` above 0 those of the later scan."""
    points = points_of(geometry)
    if amount:
        points = to_first(points, amount)
    index = (points[::-1] - _CORNER.reshape(3, 1, 1, 1)) / _STEP
    hu = ndimage.map_coordinates(_texture(seed), index, order=1, mode="nearest")
    lung = _inside(points)
    hu = np.where(lung, hu, 40) + np.random.default_rng(seed + 7).normal(size=lung.shape) * noise
    return np.clip(np.rint(hu), -1024, 400).astype(np.int16), lung.astype(np.uint8)


def add(cohort, name, hu, lung, geometry, chunk_slices=None):
    """Add a labelled case."""
    case = CohortWriter(cohort).add(name, geometry, Acquisition(), chunk_slices=chunk_slices)
    tissue = lungmix.tissue_labels(hu, lung, PUBLISHED)
    images = {"ct": hu, "lung": lung, "tissue": tissue, "tissue_median": lungmix.median_labels(tissue)}
    for image, volume in images.items():
        case.create_image(image)
        for start, stop in case.layout.slabs():
            case.write(image, start, np.ascontiguousarray(volume[start:stop]))
    case.write_histogram("hu_counts", count_hu(hu, lung))
    digest = hashlib.sha256(np.ascontiguousarray(hu).data).hexdigest()
    case.record("convert", {"key": digest, "voxels_sha256": digest})
    case.record("mask", {"key": hashlib.sha256(lung.tobytes()).hexdigest(), "parameters": {"preset": "physical"}})
    label_record(case)
    return case
