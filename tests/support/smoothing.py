"""Labels under a Potts prior compared with MAP labels and their median, on scans whose tissue is known.

``python -m support.smoothing`` prints the rows of the table of docs/potts.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import lungmix
from lungmix.kernels.labels import look_up
from lungmix.kernels.potts import axis_weights, count_neighbours, estimate_beta, potts_posteriors, tables_of
from lungmix.mixture import TissueModel
from lungmix.phantom import Phantom
from support.lesions import CONSOLIDATION, GGO, Lesions, model_of

_PHANTOM = {"shape": (64, 224, 224), "spacing": (0.8, 0.8, 1.2), "seed": 1}
SCANS = {
    "lesions": Lesions(),
    "lesions, noise of 30 HU": Lesions(noise=30),
    "lesions, noise of 60 HU": Lesions(noise=60),
    "lesions, noise of 60 HU, slightly blurred": Lesions(noise=60, blur=0.5),
    "lesions, noise of 30 HU, slices of 5 mm": Lesions(shape=(20, 160, 160), spacing=(5.0, 0.8, 0.8), noise=30),
    "texture and vessels": Phantom(**_PHANTOM, traps=frozenset({"vessels"})),
    "texture, vessels and noise of 90 HU": Phantom(**_PHANTOM, traps=frozenset({"vessels", "noise"})),
    "lesions, noise of 60 HU, strongly blurred": Lesions(noise=60, blur=1.0),
}


@dataclass(frozen=True)
class Result:
    """Comparison of labels on one scan.

    Attributes
    ----------
    beta : float
        Strength of the prior.
    dice : dict of str to tuple of float
        Dice of GGO and consolidation for ``MAP``, ``median`` and ``Potts``.
    calibration_error : dict of str to float
        Expected calibration error of the posteriors by HU, ``MAP``, and under the prior, ``Potts``.
    """

    beta: float
    dice: dict[str, tuple[float, float]]
    calibration_error: dict[str, float]


def voxels_of(scan):
    """Return truth, HU and spacing along z, y, x."""
    if isinstance(scan, Lesions):
        truth = scan.truth()
        return truth, scan.hu(truth), scan.spacing
    return scan.truth(), scan.volume(), scan.spacing[::-1]


def compare(truth, hu, spacing, model: TissueModel | None = None, beta: float | None = None) -> Result:
    """Compare labels by a mixture, by default that of the true tissues, with the truth."""
    model = model or model_of(hu, truth)
    mask, weights = (truth > 0).astype(np.uint8), axis_weights(spacing)
    labels = look_up(hu, mask, model.lookup_table())
    if beta is None:
        counts = count_neighbours(labels)
        codes = np.flatnonzero(counts)
        beta = estimate_beta(codes, counts[codes], weights, model.n_components)
    tables = tables_of(model.weights, model.means, model.variances)
    inside = mask > 0
    posteriors = {
        "MAP": tables[0][:, hu[inside].astype(int) + 32768],
        "Potts": potts_posteriors(hu, mask, tables, weights, beta)[:, inside],
    }
    made = {name: values.argmax(axis=0) + 1 for name, values in posteriors.items()}
    made["median"] = lungmix.median_labels(labels)[inside]
    dice = {name: tuple(dice_of(made[name], truth[inside], k) for k in (GGO, CONSOLIDATION)) for name in made}
    errors = {name: calibration_error(values, truth[inside]) for name, values in posteriors.items()}
    return Result(beta, dice, errors)


def calibration_error(posteriors, truth, bins=10):
    """Return the expected calibration error: how far the highest posterior is from the share of right labels.

    Voxels are binned by their highest posterior; the mean difference of each bin is weighted by its voxels.
    """
    confidence, right = posteriors.max(axis=0), posteriors.argmax(axis=0) + 1 == truth
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    sums = [np.bincount(index, weights, bins) for weights in (confidence, right)]
    return float(np.abs(sums[0] - sums[1]).sum() / len(truth))


def dice_of(labels, truth, label):
    """Return the Dice coefficient of a label."""
    actual, expected = labels == label, truth == label
    return float(2 * (actual & expected).sum() / (actual.sum() + expected.sum()))


def row_of(name, result):
    """Return the row of a scan in the table of the page."""
    dice = [f"{result.dice[kind][k]:.3f}" for k in (0, 1) for kind in ("MAP", "median", "Potts")]
    errors = [f"{error:.3f}" for error in result.calibration_error.values()]
    return f"| {' | '.join([name, f'{result.beta:.2f}', *dice, *errors])} |"


if __name__ == "__main__":
    for title, scan in SCANS.items():
        print(row_of(title, compare(*voxels_of(scan))), flush=True)
