"""Labels under a Potts prior in double precision on whole volumes, slow and obvious."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax


def weights_of(spacing):
    """Weights of a neighbour along z, y, x: inverse to the spacing, with the mean 1."""
    inverse = 1 / np.asarray(spacing, float)
    return inverse / inverse.mean()


def log_densities(hu, means, variances):
    """Log-density of each component at each voxel, without a constant: ``[z, y, x, component]``."""
    variances = np.asarray(variances, float)
    return -0.5 * (np.log(variances) + (np.asarray(hu, float)[..., None] - np.asarray(means)) ** 2 / variances)


def neighbour_sums(values, weights):
    """Weighted sum over the 6 neighbours of each voxel, for each component; nothing lies outside the volume."""
    total = np.zeros_like(values)
    for axis, weight in enumerate(weights):
        for shift in (-1, 1):
            moved = np.roll(values, shift, axis)
            edge = [slice(None)] * values.ndim
            edge[axis] = 0 if shift == 1 else -1
            moved[tuple(edge)] = 0
            total += weight * moved
    return total


def posteriors(hu, mask, model, spacing, beta, iterations):
    """Mean-field posteriors: ``[z, y, x, component]``, 0 outside the mask."""
    logs = log_densities(hu, model.means, model.variances)
    inside = (np.asarray(mask) > 0)[..., None]
    now = np.where(inside, softmax(logs + np.log(model.weights), axis=-1), 0)
    for _ in range(iterations):
        now = np.where(inside, softmax(logs + beta * neighbour_sums(now, weights_of(spacing)), axis=-1), 0)
    return now


def log_pseudo_likelihood(labels, spacing, n_labels, beta):
    """Sum of the log-probabilities of all labels given those of their neighbours; 0 is outside the mask."""
    one_hot = (labels[..., None] == np.arange(1, n_labels + 1)).astype(float)
    energies = beta * neighbour_sums(one_hot, weights_of(spacing))
    same = (energies * one_hot).sum(axis=-1)
    return float((same - np.log(np.exp(energies).sum(axis=-1)))[labels > 0].sum())


def estimate_beta(labels, spacing, n_labels, largest):
    """Beta from 0 to `largest` of the largest pseudo-likelihood."""
    if not (labels > 0).any():
        return 0.0
    best = minimize_scalar(
        lambda beta: -log_pseudo_likelihood(labels, spacing, n_labels, beta),
        bounds=(0, largest),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return float(best.x)


def arrangements(labels):
    """Number of voxels by their neighbours -z, +z, -y, +y, -x, +x: 0 the same label, 1 to 6 others, 7 outside."""
    padded = np.pad(labels, 1)
    counts = {}
    for z, y, x in product(*map(range, labels.shape)):
        label = labels[z, y, x]
        if not label:
            continue
        near = [padded[z, y + 1, x + 1], padded[z + 2, y + 1, x + 1], padded[z + 1, y, x + 1]]
        near += [padded[z + 1, y + 2, x + 1], padded[z + 1, y + 1, x], padded[z + 1, y + 1, x + 2]]
        numbers = {label: 0, 0: 7}
        for other in near:
            numbers.setdefault(other, len(numbers) - 1)
        code = tuple(numbers[other] for other in near)
        counts[code] = counts.get(code, 0) + 1
    return counts
