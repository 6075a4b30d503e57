"""Harmonised HU of axial slices: first the normalisation of the reconstruction kernel, then the map of air and blood.

The kernel comes first because it changes the HU of air in the trachea: a smooth kernel mixes air with the wall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.air_blood import AirBlood, harmonise
from lungmix.kernels.frequency_bands import BANDS_MM, Gains, filled, normalise_bands, rounded
from lungmix.parameters import AIR_BLOOD, KERNEL

HU = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Harmonisation:
    """Numbers by which the HU of a scan are harmonised.

    Attributes
    ----------
    gains : Gains or None
        Gains of frequency bands; None without kernel normalisation.
    air_blood : AirBlood or None
        Linear map of HU by air and blood; None if it was not asked for.
    problem : str or None
        Reason why kernel normalisation was asked for and not applied.
    """

    gains: Gains | None = None
    air_blood: AirBlood | None = None
    problem: str | None = None

    def apply(self, hu: HU, spacing_yx: Sequence[float]) -> HU:
        """Return harmonised HU.

        Parameters
        ----------
        hu : ndarray of int16, shape (z, y, x)
            Complete axial slices. The result of a slice does not depend on the other slices.
        spacing_yx : sequence of float
            Spacing along y and x, mm.
        """
        gains = None if self.gains is None or self.gains.is_identity else self.gains.gains
        line = self.air_blood if self.air_blood is not None and self.air_blood.is_harmonised else None
        if gains is None and line is None:
            return hu
        out = np.empty_like(hu)
        for plane, target in zip(hu, out, strict=True):
            values = plane if gains is None else rounded(normalise_bands(filled(plane), spacing_yx, gains), plane)
            target[:] = values
            if line is not None:
                target[:] = rounded(harmonise(values[None], line.slope, line.offset)[0], plane)
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; ``not_applied`` has a reason for each method that was not applied."""
        record: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        if self.air_blood is not None:
            record[AIR_BLOOD] = self.air_blood.to_dict()
            if self.air_blood.problem is not None:
                reasons[AIR_BLOOD] = str(self.air_blood.problem)
        if self.gains is not None:
            record[KERNEL] = {
                "bands_mm": list(BANDS_MM), "gains": list(self.gains.gains), "sd_before": list(self.gains.before),
                "sd_after": list(self.gains.after),
            }  # fmt: skip
        if self.problem is not None:
            reasons[KERNEL] = self.problem
        return {**record, **({"not_applied": reasons} if reasons else {})}
