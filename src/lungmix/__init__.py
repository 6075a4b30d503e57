"""Lung masks, one pooled Gaussian mixture and tissue labels for cohorts of chest CT that no memory can hold."""

from lungmix._version import __version__
from lungmix.engine import connect
from lungmix.errors import LungmixError
from lungmix.geometry import Geometry
from lungmix.graphs import lung_mask, median_labels, tissue_labels
from lungmix.mixture import GaussianMixture, TissueModel, load_model
from lungmix.store import Case, Cohort, open_cohort
from lungmix.tissue import TISSUES, Tissue

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
