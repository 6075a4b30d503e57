"""Lung masks, one pooled Gaussian mixture and tissue labels for cohorts of chest CT that no memory can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lungmix._lazy import loader
from lungmix._version import __version__

if TYPE_CHECKING:
    from lungmix.callbacks import Callback
    from lungmix.cluster import connect
    from lungmix.errors import LungmixError
    from lungmix.export import export_case
    from lungmix.formats import SeriesFilter, find_scans
    from lungmix.geometry import Geometry
    from lungmix.graphs import lung_mask, median_labels, tissue_labels
    from lungmix.mixture import GaussianMixture, TissueModel, load_model
    from lungmix.parameters import FitParameters, IntakeParameters, MaskParameters
    from lungmix.pipeline import Pipeline, RunResult, run
    from lungmix.store import Case, Cohort, open_cohort
    from lungmix.tissue import TISSUES, Tissue

_HOMES = {
    "Callback": "callbacks",
    "connect": "cluster",
    "LungmixError": "errors",
    "export_case": "export",
    "SeriesFilter": "formats",
    "find_scans": "formats",
    "Geometry": "geometry",
    "lung_mask": "graphs",
    "median_labels": "graphs",
    "tissue_labels": "graphs",
    "GaussianMixture": "mixture",
    "TissueModel": "mixture",
    "load_model": "mixture",
    "FitParameters": "parameters",
    "IntakeParameters": "parameters",
    "MaskParameters": "parameters",
    "Pipeline": "pipeline",
    "RunResult": "pipeline",
    "run": "pipeline",
    "Case": "store",
    "Cohort": "store",
    "open_cohort": "store",
    "TISSUES": "tissue",
    "Tissue": "tissue",
}

__all__ = [
    "TISSUES",
    "Callback",
    "Case",
    "Cohort",
    "FitParameters",
    "GaussianMixture",
    "Geometry",
    "IntakeParameters",
    "LungmixError",
    "MaskParameters",
    "Pipeline",
    "RunResult",
    "SeriesFilter",
    "Tissue",
    "TissueModel",
    "__version__",
    "connect",
    "export_case",
    "find_scans",
    "load_model",
    "lung_mask",
    "median_labels",
    "open_cohort",
    "run",
    "tissue_labels",
]


__getattr__ = loader(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
