"""Gaussian mixtures of any data, and models of lung tissues; independent of stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lungmix._lazy import loader

if TYPE_CHECKING:
    from lungmix.mixture.em import Progress
    from lungmix.mixture.estimator import GaussianMixture
    from lungmix.mixture.fits import CONVERGED, PAPER, Fits, fit_converged, fit_paper
    from lungmix.mixture.model import PUBLISHED, TissueModel, load_model

_HOMES = {
    "Progress": "em",
    "GaussianMixture": "estimator",
    "CONVERGED": "fits",
    "PAPER": "fits",
    "Fits": "fits",
    "fit_converged": "fits",
    "fit_paper": "fits",
    "PUBLISHED": "model",
    "TissueModel": "model",
    "load_model": "model",
}

__all__ = [
    "CONVERGED",
    "PAPER",
    "PUBLISHED",
    "Fits",
    "GaussianMixture",
    "Progress",
    "TissueModel",
    "fit_converged",
    "fit_paper",
    "load_model",
]

__getattr__ = loader(__name__, _HOMES)
