"""Lung masks, one pooled Gaussian mixture and tissue labels for cohorts of chest CT that no memory can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lungmix._lazy import loader
from lungmix._version import __version__

if TYPE_CHECKING:
    from lungmix.cluster import connect
    from lungmix.errors import LungmixError
    from lungmix.geometry import Geometry
    from lungmix.graphs import lung_mask, median_labels, tissue_labels
    from lungmix.mixture import GaussianMixture, TissueModel, load_model
    from lungmix.store import Case, Cohort, open_cohort
    from lungmix.tissue import TISSUES, Tissue

_HOMES = {
    "connect": "cluster",
    "LungmixError": "errors",
    "Geometry": "geometry",
    "lung_mask": "graphs",
    "median_labels": "graphs",
    "tissue_labels": "graphs",
    "GaussianMixture": "mixture",
    "TissueModel": "mixture",
    "load_model": "mixture",
    "Case": "store",
    "Cohort": "store",
    "open_cohort": "store",
    "TISSUES": "tissue",
    "Tissue": "tissue",
}

__all__ = [
    "TISSUES",
    "Case",
    "Cohort",
    "GaussianMixture",
    "Geometry",
    "LungmixError",
    "Tissue",
    "TissueModel",
    "__version__",
    "connect",
    "load_model",
    "lung_mask",
    "median_labels",
    "open_cohort",
    "tissue_labels",
]


__getattr__ = loader(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
