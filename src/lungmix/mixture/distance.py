"""Distance between mixtures."""

from __future__ import annotations

import numpy as np

from lungmix.mixture.model import TissueModel

_GRID = np.arange(-4000, 4001)


def total_variation(first: TissueModel, second: TissueModel) -> float:
    """Return the total variation distance of two mixtures: 0 if they are equal, 1 if they do not overlap.

    It is half the integral of the absolute difference of their densities.
    """
    return float(np.abs(first.density(_GRID) - second.density(_GRID)).sum() / 2)
