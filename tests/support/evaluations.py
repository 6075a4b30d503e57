"""Cases as after all stages, and references to compare them with."""

import numpy as np
import SimpleITK as sitk

from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.stages import regions
from lungmix.store import CohortWriter
from support.masks import InProcess

GRID = Geometry((24, 20, 40), (1.5, 1.25, 2.0), (-10.0, 3.0, -700.0))


class OneWorker(InProcess):
    """Client of a cluster with one worker, which computes in this process."""

    status = "closed"


def case_of_labels(cohort, name, side, geometry=GRID, tissue=None, hu=None, chunk_slices=8):
    """Return a case as after all stages, with the given regions."""
    case = CohortWriter(cohort).add(name, geometry, Acquisition(), chunk_slices=chunk_slices)
    hu = np.full(geometry.shape, -850, np.int16) if hu is None else hu
    volumes = {
        "ct": hu,
        "lung": (side > 0).astype(np.uint8),
        "side": side,
        "tissue": side if tissue is None else tissue,
    }
    for image, volume in volumes.items():
        case.create_image(image)
        for start, stop in case.layout.slabs():
            case.write(image, start, volume[start:stop])
    case.record("convert", {"key": name, "voxels_sha256": name})
    case.record("mask", {"key": f"{name} mask", "parameters": {"preset": "physical"}})
    case.record("side", {"key": regions.key_for(case)})
    case.record("label", {"key": f"{name} label"})
    return case


def lungs(shift=0, geometry=GRID):
    nz, _, nx = geometry.shape
    side = np.zeros(geometry.shape, np.uint8)
    side[4 + shift : nz - 6, 4:-4, 2 : nx // 2 - 1 - shift] = 1
    side[6 : nz - 4 - shift, 3:-5, nx // 2 + 1 : -2] = 2
    return side


def write(folder, name, labels, geometry=GRID):
    folder.mkdir(exist_ok=True)
    image = geometry.apply_to(sitk.GetImageFromArray(labels))
    sitk.WriteImage(image, str(folder / name))
    return folder / name
