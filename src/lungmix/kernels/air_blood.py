"""Linear map of HU by which air in the trachea becomes -1000 HU, and blood in the descending aorta a reference value.

Air has -1000 HU by definition, but the HU of the air in a trachea depend on the scanner, its tube, the kernel and the
patient, which changes measures of lung density. Densitometry of the lung corrects this by the HU of air, or of air and
blood, in the image: Stoel et al. 1999, doi 10.1097/00004424-199904000-00008; Parr et al. 2004, doi
10.1164/rccm.200403-326OC.

With air and blood, the map is the line through both points. With air alone, it is the line by which air becomes -1000
HU and water stays at 0 HU. The other fixed point of the HU scale is water, and the quality control of a scanner checks
that water has 0 HU within a few HU. A shift would make water and tissue wrong by as much as the air was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.airway import Mask
from lungmix.kernels.aorta import Aorta, NoBlood
from lungmix.kernels.histogram import N_HU

HU = npt.NDArray[np.int16]

AIR_HU = -1000.0
"""HU of air after harmonisation."""

BLOOD_HU = 45.0
"""HU of blood after harmonisation. In the descending aorta of 131 patients without anaemia, half of the values were
from 39 to 50 HU (doi 10.1038/s41598-022-24265-8)."""

LARGEST_AIR_ERROR_HU = 100.0
"""Largest difference of the air in the trachea from -1000 HU; a larger one is no error of calibration."""

SLOPES = (0.9, 1.1)
"""Smallest and largest slope."""

CLIPPED_HU = -1024
"""HU at which scanners clip. If half of the voxels of air have it, their median is not that of the air."""

FEWEST_VOXELS = 20
"""Smallest number of voxels of air."""

LARGEST_ERROR_HU = 5.0
"""Largest standard error of the median HU of air, if the noise of voxels is independent."""


class NotHarmonised(StrEnum):
    """Reason why the HU of a scan are left as they are."""

    NO_AIR = "no air in the trachea"
    CLIPPED = "HU of air are clipped"
    NOISE = "too few voxels of air for their noise"
    AIR = "air is more than 100 HU from -1000 HU"
    SLOPE = "slope outside 0.9 to 1.1"


@dataclass(frozen=True)
class AirBlood:
    """Harmonisation of a scan: ``slope * hu + offset``.

    Attributes
    ----------
    air_hu : float or None
        Median HU of the air in the trachea.
    blood_hu : float or None
        Median HU of the blood in the descending aorta; None if it was not used.
    blood_voxels : int
        Number of reduced voxels of this blood.
    slope, offset : float
        The map; 1 and 0 if the scan is not harmonised.
    problem : NotHarmonised or None
        Reason why the scan is not harmonised.
    blood_problem : NoBlood or None
        Reason why no blood was used.
    """

    air_hu: float | None
    blood_hu: float | None
    blood_voxels: int
    slope: float
    offset: float
    problem: NotHarmonised | None
    blood_problem: NoBlood | None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; numbers that were not measured are left out."""
        numbers = {"air_hu": self.air_hu, "blood_hu": self.blood_hu, "slope": self.slope, "offset": self.offset}
        values: dict[str, Any] = {key: round(value, 6) for key, value in numbers.items() if value is not None}
        return values if self.blood_problem is None else {**values, "no_blood": str(self.blood_problem)}

    @property
    def is_harmonised(self) -> bool:
        """True if the map changes HU so that air has -1000 HU."""
        return self.problem is None


def measure_air_blood(hu: HU, trachea: Mask, aorta: Aorta) -> AirBlood:
    """Return the harmonisation of a scan.

    Parameters
    ----------
    hu : ndarray of int16
        HU at full size around a part of the trachea.
    trachea : ndarray of bool, same shape
        Voxels inside the trachea, without its wall.
    aorta : Aorta
        Result of `lungmix.kernels.aorta.find_aorta`.
    """
    values = hu[trachea]
    blood, voxels = (aorta.hu, aorta.voxels) if aorta.problem is None else (None, 0)
    air = float(np.median(values)) if values.size >= FEWEST_VOXELS else None
    slope, offset, problem = 1.0, 0.0, None
    if air is None:
        problem = NotHarmonised.NO_AIR
    elif air <= CLIPPED_HU and air == values.min():
        problem = NotHarmonised.CLIPPED
    elif _error_of_median(values) > LARGEST_ERROR_HU:
        problem = NotHarmonised.NOISE
    elif abs(air - AIR_HU) > LARGEST_AIR_ERROR_HU:
        problem = NotHarmonised.AIR
    else:
        slope, offset = linear_map(air, blood)
        if not SLOPES[0] <= slope <= SLOPES[1]:
            slope, offset, problem = 1.0, 0.0, NotHarmonised.SLOPE
    return AirBlood(air, blood, voxels, slope, offset, problem, aorta.problem)


def _error_of_median(values: HU) -> float:
    """Return the standard error of the median of normal values, from their upper half, which is not clipped."""
    upper, median = np.percentile(values, [84.13, 50])
    return math.sqrt(math.pi / 2 / values.size) * float(upper - median)


def linear_map(air_hu: float, blood_hu: float | None = None, reference_hu: float = BLOOD_HU) -> tuple[float, float]:
    """Return slope and offset of the map by which air becomes -1000 HU.

    Parameters
    ----------
    air_hu : float
        HU of air in the scan.
    blood_hu : float, optional
        HU of blood in the scan, above `air_hu`. Without it, water stays at 0 HU.
    reference_hu : float
        HU of blood after harmonisation.
    """
    if blood_hu is None:
        return AIR_HU / air_hu, 0.0
    slope = (reference_hu - AIR_HU) / (blood_hu - air_hu)
    return slope, AIR_HU - slope * air_hu


def harmonise(hu: HU, slope: float, offset: float) -> HU:
    """Return harmonised HU, rounded to integers and limited to those of int16.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        HU, for example of a chunk. The result of a voxel depends on its HU alone.
    slope, offset : float
        The map ``slope * hu + offset``.
    """
    bits = np.arange(N_HU, dtype=np.uint16)
    limits = np.iinfo(np.int16)
    table = np.clip(np.rint(bits.view(np.int16) * slope + offset), limits.min, limits.max).astype(np.int16)
    out = np.empty(hu.shape, np.int16)
    # Slice by slice, because numpy converts indices to eight bytes each.
    for plane, result in zip(hu.view(np.uint16), out, strict=True):
        np.take(table, plane, out=result, mode="clip")
    return out
