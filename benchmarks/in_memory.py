"""The method in memory with numpy, scipy and SimpleITK, as a good programmer would write it, to compare lungmix with.

Each step calls a compiled routine of one of these libraries on the whole volume. Only the bounding box of the lungs is
closed, and the lungs are selected from all components by one look-up.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

# Zaffino et al. 2021, sorted by mean.
WEIGHTS = np.array([0.33915991, 0.36163895, 0.13880557, 0.05467644, 0.10571913])
MEANS = np.array([-950.35445, -828.9766504, -652.26530371, -337.03481411, -12.53896037])
VARIANCES = np.array([1936.65952913, 3413.06554292, 8927.18035462, 24547.22394621, 37633.9743736])


def read(path):
    """Return HU as int16, and the image, which has the geometry."""
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), image


def islands(opened):
    """Return a mask of the connected components that are lung."""
    return lungs_among(ndimage.label(opened)[0])


def lungs_among(labels, min_voxels=500_000):
    """Return a mask of the labelled components that are lung."""
    voxels = np.bincount(labels.ravel())
    keep = voxels >= min_voxels
    keep[0] = False
    for face in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        keep[np.unique(face)] = False
    return keep[labels]


def close(lung, radii=(30, 20)):
    """Return the closing of the lungs by ITK's balls, computed in their bounding box."""
    (box,) = ndimage.find_objects(lung.astype(np.uint8))
    image = sitk.GetImageFromArray(lung[box].astype(np.uint8))
    for radius in radii:
        image = sitk.BinaryMorphologicalClosing(image, [radius] * 3, sitk.sitkBall, 1.0, True)
    out = np.zeros(lung.shape, np.uint8)
    out[box] = sitk.GetArrayFromImage(image)
    return out


def lung_mask(hu):
    """Return the lung mask by the steps of the preset ``paper``."""
    return close(islands(ndimage.binary_opening(hu < -155, iterations=3)))


def label_table():
    """Return the label of every int16 HU."""
    hu = np.arange(-32768, 32768)[:, None]
    posterior = np.log(WEIGHTS) - np.log(VARIANCES) / 2 - (hu - MEANS) ** 2 / (2 * VARIANCES)
    return (posterior.argmax(axis=1) + 1).astype(np.uint8)


def run(path, out, seconds):
    """Process one scan from file to files; add wall-clock and processor seconds of each step to `seconds`."""

    def clock(name, function, *values):
        start, cpu = time.perf_counter(), time.process_time()
        result = function(*values)
        spent = {"s": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        seconds.setdefault(name, {})[path.name] = spent
        return result

    def write():
        for name, array in (("lung", lung), ("tissue", tissue), ("median", median)):
            written = sitk.GetImageFromArray(array)
            written.CopyInformation(image)
            sitk.WriteImage(written, str(out / f"{path.stem}-{name}.nrrd"), True)

    hu, image = clock("read", read, path)
    lung = clock("mask", lung_mask, hu)
    clock("counts", lambda: np.bincount(hu[lung > 0].astype(np.intp) + 32768, minlength=65536))
    tissue = clock("labels", lambda: label_table()[hu.astype(np.intp) + 32768] * lung)
    median = clock("median", lambda: ndimage.median_filter(tissue, size=4))
    clock("write", write)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("scans", type=Path, nargs="+")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, dict[str, dict[str, float]]] = {}
    for path in chosen.scans:
        run(path, chosen.out, seconds)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
