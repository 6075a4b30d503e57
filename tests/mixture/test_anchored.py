"""The fit under a prior ends where EM for the posterior (MAP-EM) ends, and has the right derivatives and limits."""

import numpy as np
import pytest
from scipy.stats import dirichlet, invgamma, norm

from lungmix.errors import ModelError
from lungmix.mixture import PUBLISHED, TissueModel, fit_anchored, fit_converged, fit_paper
from lungmix.mixture.binned_likelihood import Gaussians, bins_of
from lungmix.mixture.binned_posterior import PseudoVoxels, log_posterior, posterior_derivatives
from lungmix.mixture.fits import to_gaussians
from lungmix.mixture.newton import maximize_likelihood
from support.generators import HU, expected_counts

PRIOR = TissueModel((0.5, 0.3, 0.2), (-900.0, -650.0, -100.0), (2500.0, 14000.0, 40000.0))
TRUTH = TissueModel((0.35, 0.45, 0.2), (-960.0, -700.0, -60.0), (2000.0, 9000.0, 30000.0))
COUNTS = np.rint(expected_counts(TRUTH.weights, TRUTH.means, np.sqrt(TRUTH.variances), 3e5))


def plain_map_em(counts, clip, prior, strength, iterations):
    """Return the result of EM for the posterior without acceleration.

    The probability of each HU is an integral by Gauss-Legendre quadrature; that of clipped values is a sum of these.
    """
    points, shares = np.polynomial.legendre.leggauss(6)
    used = (HU >= -2500) & (HU <= 1200)
    x = (HU[used, None] + points / 2).reshape(-1)
    group = np.repeat(np.maximum(HU[used], -1e9 if clip is None else clip), len(points)).astype(int)
    group = np.unique(group, return_inverse=True)[1]
    voxels = np.bincount(group.reshape(-1, len(points))[:, 0], counts[used])
    share = np.tile(shares / 2, used.sum())
    total = voxels.sum()
    weights, means, variances = (np.array(c) for c in (prior.weights, prior.means, prior.variances))
    firm = strength * total
    pseudo = firm * weights
    centre, spread = means, variances
    for _ in range(iterations):
        mass = weights[:, None] * norm.pdf(x, means[:, None], np.sqrt(variances)[:, None]) * share
        chance = np.bincount(group, mass.sum(axis=0))
        with np.errstate(invalid="ignore", divide="ignore"):
            r = np.nan_to_num(mass * (voxels / chance)[group])
        weights = (r.sum(axis=1) + pseudo) / (total + firm)
        n = r.sum(axis=1) + firm
        means = (r @ x + firm * centre) / n
        gaps = [(r[k] * (x - mean) ** 2).sum() for k, mean in enumerate(means)]
        variances = (np.array(gaps) + firm * (spread + (centre - means) ** 2)) / n
    return weights, means, variances


@pytest.mark.parametrize(("clip", "strength", "iterations"), [(-1000, 0.2, 250), (None, 1.0, 60)])
def test_anchored_fit_is_the_end_of_a_plain_map_em(clip, strength, iterations):
    model = fit_anchored(HU, COUNTS, prior=PRIOR, strength=strength, clip=clip)
    weights, means, variances = plain_map_em(COUNTS, clip, PRIOR, strength, iterations)
    assert np.allclose(model.weights, weights, rtol=1e-8, atol=0)
    assert np.allclose(model.means, means, rtol=1e-8, atol=0)
    assert np.allclose(model.variances, variances, rtol=1e-8, atol=0)
    assert model.fit_info["converged"]


def test_prior_is_dirichlet_and_normal_inverse_gamma():
    voxels, strength = 2000.0, 0.1
    centre = to_gaussians(PRIOR)
    kappa = voxels * strength

    def textbook(mixture):
        weights, variances = np.exp(mixture.log_weights), np.exp(2 * mixture.log_sds)
        shape, rate = (kappa - 3) / 2, kappa * np.array(PRIOR.variances) / 2
        return (
            dirichlet.logpdf(weights / weights.sum(), 1 + kappa * np.exp(centre.log_weights))
            + norm.logpdf(mixture.means, PRIOR.means, np.sqrt(variances / kappa)).sum()
            + invgamma.logpdf(variances, shape, scale=rate).sum()
        )

    prior = PseudoVoxels(centre, strength)
    first, second = to_gaussians(TRUTH), to_gaussians(PRIOR)
    ours = voxels * strength * (prior.log_density(first) - prior.log_density(second))
    assert ours == pytest.approx(textbook(first) - textbook(second), rel=1e-9)


def test_derivatives_of_the_posterior_are_those_of_differences():
    bins, prior = bins_of(HU, COUNTS, -1000), PseudoVoxels(to_gaussians(PRIOR), 0.3)
    mixture = to_gaussians(TRUTH)
    _, gradient, hessian = posterior_derivatives(bins, mixture, prior)
    for i, unit in enumerate(np.eye(9)):
        step = (1e-5 * unit * np.repeat([1.0, 100.0, 1.0], 3)).reshape(3, 3)
        up, down = mixture.moved(step), mixture.moved(-step)
        size = 2 * step.sum()
        slope = (log_posterior(bins, up, prior) - log_posterior(bins, down, prior)) / size
        assert slope == pytest.approx(gradient[i], abs=1e-7)
        change = (posterior_derivatives(bins, up, prior)[1] - posterior_derivatives(bins, down, prior)[1]) / size
        assert np.allclose(change, hessian[i], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("strength", [0.01, 0.3, 50])
def test_posterior_never_falls(strength):
    prior = PseudoVoxels(to_gaussians(PRIOR), strength)
    far = Gaussians(np.log([0.1, 0.1, 0.8]), np.array([-600.0, -300.0, 200.0]), np.log([300.0, 20.0, 80.0]))
    result = maximize_likelihood(bins_of(HU, COUNTS, -1000), far, prior=prior)
    assert np.diff(result.log_likelihoods).min() > -1e-12
    assert result.converged


def test_anchored_fit_without_strength_is_the_converged_fit():
    converged = fit_converged(HU, COUNTS, [fit_paper(HU, COUNTS, clip=-1000, n_components=3)], clip=-1000)
    bare = fit_anchored(HU, COUNTS, [converged], prior=PRIOR, strength=0, clip=-1000)
    assert np.allclose(bare.means, converged.means, atol=1e-4)
    # The smaller the strength of the prior, the smaller is the distance from the converged fit.
    gaps = [
        np.abs(np.subtract(fit_anchored(HU, COUNTS, prior=PRIOR, strength=s, clip=-1000).means, converged.means)).max()
        for s in (1e-2, 1e-4, 1e-6)
    ]
    assert gaps[0] > 20 * gaps[1] > 400 * gaps[2]


def test_anchored_fit_of_great_strength_is_the_prior():
    model = fit_anchored(HU, COUNTS, prior=PRIOR, strength=1e9, clip=-1000)
    assert np.allclose(model.weights, PRIOR.weights, atol=1e-8)
    assert np.allclose(model.means, PRIOR.means, atol=1e-5)
    assert np.allclose(model.variances, PRIOR.variances, rtol=1e-6)


def test_counts_of_the_prior_leave_it_where_it_is():
    counts = expected_counts(
        np.array(PUBLISHED.weights) / sum(PUBLISHED.weights), PUBLISHED.means, np.sqrt(PUBLISHED.variances), 1e7
    )
    model = fit_anchored(HU, counts, strength=0.05, clip=-1000)
    assert np.allclose(model.means, PUBLISHED.means, atol=1e-3)
    assert np.allclose(model.variances, PUBLISHED.variances, rtol=1e-5)


def test_highest_of_several_maxima_is_taken_and_the_ends_are_recorded():
    random = np.random.default_rng(1)
    voxels = np.rint(np.concatenate([random.normal(m, 30, 5000) for m in (-900, -700, -300)])).astype(int)
    hu, counts = np.unique(voxels, return_counts=True)
    low = TissueModel((0.4, 0.6), (-900.0, -500.0), (900.0, 40000.0))
    high = TissueModel((0.7, 0.3), (-800.0, -300.0), (10000.0, 900.0), {"name": "high"})
    model = fit_anchored(hu, counts, [high], prior=low, strength=1e-4, clip=None)
    ends = {end["start"]: end for end in model.fit_info["starts"]}
    assert list(ends) == ["prior", "high"]
    assert model.fit_info["log_posterior"] == ends["high"]["value"] > ends["prior"]["value"]
    assert ends["high"]["distance"] == 0
    assert ends["prior"]["distance"] > 0.05
    alone = fit_anchored(hu, counts, prior=low, strength=1e-4, clip=None)
    assert alone.fit_info["log_posterior"] == ends["prior"]["value"]


def test_components_that_change_places_are_recorded():
    prior = TissueModel((0.5, 0.5), (-700.0, -690.0), (100.0, 90000.0))
    counts = expected_counts((0.5, 0.5), (-700.0, -800.0), (10.0, 300.0), 1e5)
    model = fit_anchored(HU, counts, prior=prior, strength=1e-3, clip=None)
    assert model.fit_info["prior_components"] == [1, 0]


@pytest.mark.parametrize("strength", [-0.1, np.inf, np.nan])
def test_strength_that_is_no_share_is_rejected(strength):
    with pytest.raises(ModelError, match="strength"):
        fit_anchored(HU, COUNTS, prior=PRIOR, strength=strength, clip=None)
