"""Distance between mixtures."""

from __future__ import annotations

import numpy as np

from lungmix.mixture.model import TissueModel

_GRID = np.arange(-4000, 4001)


def total_variation(first: TissueModel, second: TissueModel) -> float:
    """Return half the integral of the absolute difference of two densities: 0 if equal, 1 if disjoint."""
    return float(np.abs(first.density(_GRID) - second.density(_GRID)).sum() / 2)
