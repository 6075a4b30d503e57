"""Agreement of a mask with a reference mask, computed on whole volumes by scipy."""

from __future__ import annotations

from math import nan

import numpy as np
from scipy import ndimage


def agreement(mask, reference, spacing):
    """Return every column of ``evaluation.csv`` for a mask and its reference, which are boolean volumes."""
    mask, reference = (np.pad(np.asarray(volume, bool), 1) for volume in (mask, reference))
    a, b, both = (int(volume.sum()) for volume in (mask, reference, mask & reference))
    distances = np.concatenate([_distances(mask, reference, spacing), _distances(reference, mask, spacing)])
    compared = a > 0 and b > 0
    ml = float(np.prod(spacing)) / 1000

    def ratio(part, total):
        return part / total if total else nan

    return {
        "dice": ratio(2 * both, a + b),
        "jaccard": ratio(both, int((mask | reference).sum())),
        "volume_ml": a * ml,
        "reference_ml": b * ml,
        "volume_difference_percent": 100 * ratio(a - b, b),
        "asd_mm": float(distances.mean()) if compared else nan,
        "hd95_mm": float(np.percentile(distances, 95)) if compared else nan,
        "hd_mm": float(distances.max()) if compared else nan,
        "surface_dice_1mm": ratio(int((distances <= 1 + 1e-6).sum()), len(distances)),
        "surface_dice_3mm": ratio(int((distances <= 3 + 1e-6).sum()), len(distances)),
        "sensitivity": ratio(both, b),
        "precision": ratio(both, a),
    }


def surface(mask):
    """Return the voxels of a mask that have a face neighbour outside the mask."""
    return mask & ~ndimage.binary_erosion(mask)


def _distances(mask, other, spacing):
    if not other.any():
        return np.full(int(surface(mask).sum()), np.inf)
    return ndimage.distance_transform_edt(~surface(other), sampling=spacing)[surface(mask)]
