"""Mixtures under a prior, compared with a plain EM for the posterior (MAP-EM) and with textbook densities."""

import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from scipy.stats import dirichlet, invwishart, multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from lungmix import GaussianMixture
from lungmix.errors import ModelError
from lungmix.mixture import TissueModel
from lungmix.mixture.parameters import COVARIANCE_TYPES, State
from lungmix.mixture.prior import Prior

MEANS = np.array([[0.0, 0.0], [4.0, 1.0], [9.0, -3.0]])
FULL = np.array([[[2.0, 0.3], [0.3, 1.0]], [[1.0, 0.0], [0.0, 3.0]], [[1.5, -0.4], [-0.4, 1.0]]])
WEIGHTS = np.array([0.5, 0.3, 0.2])
FORMS = {
    "full": FULL,
    "tied": FULL.mean(axis=0),
    "diag": np.diagonal(FULL, axis1=1, axis2=2),
    "spherical": np.array([1.5, 2.0, 1.0]),
}


def samples(n=900, seed=0):
    random = np.random.default_rng(seed)
    return np.concatenate([random.normal(m, 1.3, (n // 3, 2)) for m in ((0, 1), (3, 1), (7, -3))])


def fitted(x, sample_weight=None, **options):
    options = {"n_components": 3, "tol": 0, "reg_covar": 0, "max_iter": 12, "prior_strength": 0.2} | options
    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(**options).fit(x, sample_weight=sample_weight)


def as_full(covariances, form):
    """Return covariances of any form as three full matrices, one per component."""
    if form == "diag":
        return np.array([np.diag(row) for row in covariances])
    if form == "spherical":
        return np.array([value * np.eye(2) for value in covariances])
    return np.broadcast_to(covariances, (3, 2, 2))


def plain_map_em(x, sample_weight, form, strength, iterations):
    """Return the result of textbook EM for the posterior: every M-step adds the pseudo-samples of the prior.

    Covariances are averaged as far as their form requires.
    """
    weights, means, covariances = WEIGHTS, MEANS, as_full(FORMS[form], form)
    centre = covariances
    firm = strength * sample_weight.sum()
    for _ in range(iterations):
        density = np.stack([multivariate_normal(m, c).pdf(x) for m, c in zip(means, covariances, strict=True)])
        r = weights[:, None] * density
        r *= sample_weight / r.sum(axis=0)
        n = r.sum(axis=1) + firm
        means = (r @ x + firm * MEANS) / n[:, None]
        scatter = []
        for k in range(3):
            gap, shift = x - means[k], MEANS[k] - means[k]
            scatter.append((r[k, :, None] * gap).T @ gap + firm * (centre[k] + np.outer(shift, shift)))
        weights = (r.sum(axis=1) + firm * WEIGHTS) / (sample_weight.sum() + firm)
        covariances = np.array(scatter) / n[:, None, None]
        if form == "tied":
            covariances = np.broadcast_to(np.sum(scatter, axis=0) / n.sum(), (3, 2, 2))
        elif form == "diag":
            covariances = as_full(np.diagonal(covariances, axis1=1, axis2=2), form)
        elif form == "spherical":
            covariances = as_full(np.diagonal(covariances, axis1=1, axis2=2).mean(axis=1), form)
    return weights, means, covariances


@pytest.mark.parametrize("form", COVARIANCE_TYPES)
def test_iterations_are_those_of_a_plain_map_em_with_sample_weights(form):
    x = samples()
    weight = np.random.default_rng(1).integers(0, 4, len(x)).astype(float)
    mixture = fitted(x, weight, covariance_type=form, prior=(WEIGHTS, MEANS, FORMS[form]))
    weights, means, covariances = plain_map_em(x, weight, form, 0.2, 12)
    assert np.allclose(mixture.weights_, weights, rtol=1e-8, atol=0)
    assert np.allclose(mixture.means_, means, rtol=1e-8, atol=1e-8)
    assert np.allclose(as_full(mixture.covariances_, form), covariances, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("form", COVARIANCE_TYPES)
def test_chunks_of_dask_give_the_fit_of_rows_in_memory(form):
    x, weight = samples(), np.linspace(0, 2, 900)
    prior = (WEIGHTS, MEANS, FORMS[form])
    rows = fitted(x, weight, covariance_type=form, prior=prior)
    chunks = fitted(da.from_array(x, (100, 2)), da.from_array(weight, 100), covariance_type=form, prior=prior)
    assert np.allclose(chunks.means_, rows.means_, rtol=1e-10, atol=1e-10)
    assert np.allclose(chunks.covariances_, rows.covariances_, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", COVARIANCE_TYPES)
def test_lower_bound_is_the_posterior_and_never_falls(form):
    x, covariances = samples(), as_full(FORMS[form], form)
    mixture = fitted(x, covariance_type=form, prior=(WEIGHTS, MEANS, FORMS[form]), max_iter=60)
    assert np.diff(mixture.lower_bounds_).min() > -1e-12
    density = sum(w * multivariate_normal(m, c).pdf(x) for w, m, c in zip(WEIGHTS, MEANS, covariances, strict=True))
    of_prior = WEIGHTS @ np.log(WEIGHTS) - sum(multivariate_normal(cov=c).entropy() for c in covariances)
    assert mixture.lower_bounds_[0] == pytest.approx((np.log(density).mean() + 0.2 * of_prior) / 1.2, rel=1e-12)


def test_prior_is_dirichlet_and_normal_inverse_wishart():
    kappa = 400
    other = State(np.array([0.2, 0.5, 0.3]), MEANS + 0.3, FULL + 0.5 * np.eye(2))

    def textbook(state):
        value = dirichlet.logpdf(state.weights, 1 + kappa * WEIGHTS)
        for k, covariance in enumerate(state.covariances):
            value += multivariate_normal(MEANS[k], covariance / kappa).logpdf(state.means[k])
            value += invwishart.logpdf(covariance, kappa - 2 - 2, kappa * FULL[k])
        return value

    mode = State(WEIGHTS, MEANS, FULL)
    prior = Prior(mode, 0.1)
    ours = 400 * (prior.log_density(other, "full") - prior.log_density(mode, "full"))
    assert ours == pytest.approx(textbook(other) - textbook(mode), rel=1e-9)


def test_limits_of_the_strength_are_the_fit_without_a_prior_and_the_prior():
    x, prior = samples(), (WEIGHTS, MEANS, FULL)
    free = fitted(x, weights_init=WEIGHTS, means_init=MEANS, covariances_init=FULL)
    assert np.array_equal(fitted(x, prior=prior, prior_strength=0).means_, free.means_)
    firm = fitted(x, prior=prior, prior_strength=1e9)
    assert np.allclose(firm.means_, MEANS, atol=1e-7)
    assert np.allclose(firm.covariances_, FULL, atol=1e-7)


def test_tissue_model_is_a_prior_of_integers_with_one_feature():
    model = TissueModel((0.6, 0.4), (-900.0, -700.0), (900.0, 2500.0))
    hu = np.random.default_rng(0).normal(-850, 60, 5000).round().astype(np.int16)
    options = {"n_components": 2, "prior": model}
    for form in ("full", "diag", "spherical"):
        counted, rows = (
            fitted(hu, covariance_type=form, **options),
            fitted(hu.astype(float), covariance_type=form, **options),
        )
        assert np.allclose(counted.means_, rows.means_, rtol=1e-10)
        assert counted.means_[0] < -850 < counted.means_[1]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"prior": (WEIGHTS[:2], MEANS[:2], FULL[:2])}, "3 components and 2 features"),
        ({"prior": (WEIGHTS, MEANS, FULL[0])}, "shapes"),
        ({"prior": TissueModel((1.0,), (0.0,), (1.0,))}, "shapes"),
        ({"prior": "published"}, "no mixture"),
        ({"prior": (WEIGHTS * 2, MEANS, FULL)}, "add up to 1"),
        ({"prior": (WEIGHTS, MEANS, -FULL)}, "positive definite"),
        ({"batch_size": 10}, "minibatches"),
        ({"prior_strength": -1.0}, "prior_strength"),
    ],
)
def test_priors_that_do_not_suit_are_rejected(change, match):
    with pytest.raises(ModelError, match=match):
        fitted(samples(), **{"prior": (WEIGHTS, MEANS, FULL), **change})


def test_partial_fit_rejects_a_prior():
    with pytest.raises(ModelError, match="partial_fit"):
        GaussianMixture(3, prior=(WEIGHTS, MEANS, FULL)).partial_fit(samples())


def test_clone_keeps_the_prior():
    copy = clone(GaussianMixture(3, prior=(WEIGHTS, MEANS, FULL), prior_strength=0.5))
    assert np.array_equal(copy.prior[1], MEANS)
    assert copy.prior_strength == 0.5
