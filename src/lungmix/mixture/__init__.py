"""Gaussian mixtures of any data, and the model of lung tissues. Knows dask arrays, knows no stores."""

from lungmix.mixture.estimator import GaussianMixture
from lungmix.mixture.fits import CONVERGED, PAPER, Fits, fit_converged, fit_paper
from lungmix.mixture.model import PUBLISHED, TissueModel, fit_tissue_model, load_model

__all__ = [
    "CONVERGED",
    "PAPER",
    "PUBLISHED",
    "Fits",
    "GaussianMixture",
    "TissueModel",
    "fit_converged",
    "fit_paper",
    "fit_tissue_model",
    "load_model",
]
