"""Sources of the calibration error of posteriors under a Potts prior, on scans whose tissue is known.

``python -m support.calibration`` in the folder of the tests prints the rows of two tables of docs/potts.md.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.optimize import minimize_scalar

from lungmix.kernels.labels import look_up
from lungmix.kernels.potts import axis_weights, count_neighbours, estimate_beta, potts_posteriors, tables_of
from lungmix.phantom.scene import TISSUE_MEANS
from oracle.potts import neighbour_sums, weights_of
from support.lesions import Lesions, model_of
from support.smoothing import SCANS, calibration_error, dice_of, voxels_of

BETAS = np.arange(0.2, 2.05, 0.1)


class Study:
    """Posteriors of a scan by the mixture of its true tissues, for any beta.

    Parameters
    ----------
    hu, truth, spacing : ndarray, ndarray, sequence of float
        HU, tissue of each voxel, and spacing along z, y, x.
    """

    def __init__(self, hu, truth, spacing):
        self.hu, self.truth, self.spacing = hu, truth, spacing
        self.mask, self.inside, self.model = (truth > 0).astype(np.uint8), truth > 0, model_of(hu, truth)
        self.tables = tables_of(self.model.weights, self.model.means, self.model.variances)

    def estimate(self):
        """Return the beta that a run estimates."""
        counts = count_neighbours(look_up(self.hu, self.mask, self.model.lookup_table()))
        codes = np.flatnonzero(counts)
        return estimate_beta(codes, counts[codes], axis_weights(self.spacing), self.model.n_components)

    def estimate_by_em(self, rounds=4):
        """Return the beta by mean-field EM (Celeux et al. 2003), whose first value is `estimate`."""
        beta = self.estimate()
        for _ in range(rounds):
            posteriors = np.moveaxis(self.volume(beta), 0, -1).astype(float)
            sums, shares = neighbour_sums(posteriors, weights_of(self.spacing))[self.inside], posteriors[self.inside]

            def loss(beta, sums=sums, shares=shares):
                energies = beta * sums
                largest = energies.max(axis=1)
                normalizers = largest + np.log(np.exp(energies - largest[:, None]).sum(axis=1))
                return float((normalizers - (shares * energies).sum(axis=1)).sum())

            beta = float(minimize_scalar(loss, bounds=(0, 4), method="bounded").x)
        return beta

    def volume(self, beta, iterations=5):
        """Return the posteriors of all voxels: ``[component, z, y, x]``."""
        return potts_posteriors(self.hu, self.mask, self.tables, axis_weights(self.spacing), beta, iterations)

    def error(self, beta, where=None, iterations=5):
        """Return the calibration error, of the voxels `where` only if it is given."""
        chosen = self.inside if where is None else self.inside & where
        return calibration_error(self.volume(beta, iterations)[:, chosen], self.truth[chosen])

    def excess(self, beta):
        """Return the mean of the highest posterior, less the fraction of right labels."""
        posteriors, truth = self.volume(beta)[:, self.inside], self.truth[self.inside]
        return float(posteriors.max(axis=0).mean() - (posteriors.argmax(axis=0) + 1 == truth).mean())

    def dice(self, beta, label):
        """Return the Dice coefficient of a tissue."""
        return dice_of(self.volume(beta).argmax(axis=0)[self.inside] + 1, self.truth[self.inside], label)


def shuffled(values, truth, seed=0):
    """Return values that are exchanged at random within each tissue, so that only tissues link neighbours."""
    random, out = np.random.default_rng(seed), values.copy()
    for tissue in range(1, 6):
        inside = truth == tissue
        out[inside] = random.permutation(values[inside])
    return out


def row_of(title, scan):
    """Return the row of a scan in the first table."""
    truth, hu, spacing = voxels_of(scan)
    study = Study(hu, truth, spacing)
    beta, mixed = study.estimate(), Study(shuffled(hu, truth), truth, spacing)
    border = ndimage.maximum_filter(truth, 3) != ndimage.minimum_filter(truth, 3)
    by_beta = {float(value): study.error(value) for value in BETAS}
    best = min(by_beta, key=by_beta.get)
    by_em = study.estimate_by_em()
    errors = [study.error(beta), study.error(beta, ~border), study.error(beta, border), mixed.error(mixed.estimate())]
    cells = [title, f"{beta:.2f}", f"{study.excess(beta):+.3f}", *(f"{error:.3f}" for error in errors)]
    cells += [f"{by_beta[best]:.3f} ({best:.1f})", f"{study.error(by_em):.3f} ({by_em:.1f})"]
    cells += [f"{study.dice(value, 4):.2f}" for value in (beta, by_em)]
    return f"| {' | '.join(cells)} |"


def row_of_blur(title, scan):
    """Return the row of a blurred scan in the second table: its error with one of the two effects of the blur alone."""
    truth, hu, spacing = voxels_of(scan)
    sharp = TISSUE_MEANS[np.maximum(truth, 1).astype(int) - 1]
    blurred = ndimage.gaussian_filter(sharp, (0, scan.blur, scan.blur))
    noise = hu - blurred
    versions = [hu, blurred + shuffled(noise, truth), sharp + noise, sharp + shuffled(noise, truth)]
    studies = [Study(np.rint(version).astype(np.int16), truth, spacing) for version in versions]
    cells = [f"{study.error(beta):.3f} ({beta:.2f})" for study in studies for beta in [study.estimate()]]
    return f"| {' | '.join([title, *cells])} |"


if __name__ == "__main__":
    for title, scan in SCANS.items():
        print(row_of(title, scan), flush=True)
    for title, scan in SCANS.items():
        if isinstance(scan, Lesions) and scan.blur:
            print(row_of_blur(title, scan), flush=True)
