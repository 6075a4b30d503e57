"""Results of the preset ``anatomical`` for a simulated patient."""

from dataclasses import dataclass

import numpy as np

from lungmix.kernels.anatomical import find_zones, labels_of, lung_masks
from lungmix.kernels.packed_masks import pack_below
from lungmix.kernels.reduction import ReducedGrid, reduction_of
from lungmix.kernels.structuring_elements import ellipsoid
from support.patients.canvas import AERATED, DENSE, Part
from support.patients.scan import Scan

LUNG = (*AERATED, *DENSE)


def lung_parts(hu, spacing):
    """Return the labels that the preset gives to an axial array of HU: 0 to 4, as in `lungmix.tissue.DENSE`."""
    threshold = -400 if min(spacing[1:]) > 2 else -300
    reduction = reduction_of(spacing)
    codes = find_zones(reduction.apply(hu), threshold, reduction.spacing(spacing))
    indices = ReducedGrid(reduction).indices(codes.shape, [np.arange(n) for n in hu.shape])
    return labels_of(lung_masks(pack_below(hu, threshold), codes, indices, ellipsoid(3.0, spacing)), hu.shape[2])


@dataclass(frozen=True)
class Outcome:
    """Agreement of a mask with the truth of a patient.

    Attributes
    ----------
    right, left : float
        Dice of the aerated lungs, NaN without such a lung.
    volumes : dict
        Volume of each part in the patient, mL.
    inside : dict
        Volume of each part that is in the mask, mL.
    """

    right: float
    left: float
    volumes: dict
    inside: dict

    def dense_percent(self):
        """Return the percentage of the dense lung that is in the mask."""
        volume = sum(self.volumes[part] for part in DENSE)
        return 100 * sum(self.inside[part] for part in DENSE) / volume if volume else float("nan")

    def outside_percent(self):
        """Return the percentage of the mask that is not lung."""
        total = sum(self.inside.values())
        return 100 * (total - sum(self.inside[part] for part in LUNG)) / total


def outcome(chest: Scan) -> Outcome:
    """Compare the mask of a patient with the truth."""
    mask = lung_parts(chest.hu, chest.spacing)
    ml = np.prod(chest.spacing) / 1000
    n = len(Part)
    volumes = np.bincount(chest.part.reshape(-1), minlength=n) * ml
    inside = np.bincount(chest.part[mask > 0], minlength=n) * ml
    dice = []
    for part in AERATED:
        reference, result = chest.part == part, mask == part
        total = reference.sum() + result.sum()
        dice.append(2 * float((reference & result).sum()) / float(total) if reference.any() else float("nan"))
    return Outcome(*dice, dict(zip(Part, volumes.tolist(), strict=True)), dict(zip(Part, inside.tolist(), strict=True)))


def table_row(name: str, result: Outcome) -> str:
    """Return the row of a patient in ``docs/anatomical.md``."""
    dice = ", ".join("none" if np.isnan(value) else f"{value:.3f}".lstrip("0") for value in (result.right, result.left))
    dense = f"{result.dense_percent():.0f}" if sum(result.volumes[part] for part in DENSE) else ""
    effusion = f"{result.inside[Part.EFFUSION]:.0f}" if result.volumes[Part.EFFUSION] else ""
    return f"| {name} | {dice} | {dense} | {effusion} | {result.outside_percent():.1f} |"
