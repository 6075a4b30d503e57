"""Gaussian mixtures of any data, and the model of lung tissues. Knows dask arrays, knows no stores."""

from lungmix.mixture.em import Progress
from lungmix.mixture.estimator import GaussianMixture
from lungmix.mixture.model import PUBLISHED, TissueModel, fit_tissue_model, load_model

__all__ = ["PUBLISHED", "GaussianMixture", "Progress", "TissueModel", "fit_tissue_model", "load_model"]
