"""Measures of lungs from their counts per HU alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.data_dictionary import AERATED_BANDS, HAA_ABOVE, HAA_BANDS, LAA_THRESHOLDS
from lungmix.kernels.histogram import FIRST_HU, N_HU, weighted_sum
from lungmix.kernels.percentiles import percentiles
from lungmix.tissue import AIRWAY, ELSEWHERE, INVOLVED, LUNGS, SIDES, TISSUES, Tissue

Counts = npt.NDArray[np.uint64]
Table = npt.NDArray[np.uint8]
Values = dict[str, float | int]

_HU = np.arange(FIRST_HU, FIRST_HU + N_HU)


def measure_scan(
    counts: Counts,
    sides: Counts | None,
    table: Table,
    voxel_ml: float,
    touches: Mapping[str, bool] | None = None,
    leave_out: Sequence[Tissue] = (),
    rejected: Sequence[Mapping[str, Any]] | None = None,
) -> Values:
    """One row of the table of measurements but for its case.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Lung voxels of each HU value from -32768 on.
    sides : ndarray of uint64, shape (4, 65536), or None
        The same by `lungmix.tissue.SIDES`; None where sides are not known.
    table : ndarray of uint8, shape (65536,)
        Tissue of each HU value.
    voxel_ml : float
        Volume of a voxel, mL.
    touches : mapping of str to bool, optional
        Whether a side reaches the border of the volume, by the key of the side.
    leave_out : sequence of Tissue
        Parts that do not count as lung in the columns without a side.
    rejected : sequence of mapping, optional
        ``ml`` and ``touches_edge`` of pieces of lung that the mask does not hold; None where they are not known.

    Returns
    -------
    dict
        By the keys of `lungmix.kernels.data_dictionary.MEASUREMENTS`; NaN where there are no voxels or no sides.
    """
    out = sum_of(sides, leave_out)
    rest = [side for side in SIDES if side not in leave_out]
    row = measure_counts(counts - out, table, voxel_ml) | _further(counts - out, voxel_ml, touches, rest)
    for side in LUNGS:
        own = sum_of(sides, [side])
        values: Values = {"ml": _ml(own, voxel_ml), **_shares(own, table), **_densities(own)}
        values |= _further(own, voxel_ml, touches, [side])
        row |= {f"{side.key}_{key}": float("nan") if sides is None else value for key, value in values.items()}
    for side in (AIRWAY, ELSEWHERE):
        row[f"{side.key}_ml"] = float("nan") if sides is None else _ml(sum_of(sides, [side]), voxel_ml)
    row["left_out_ml"] = _ml(out, voxel_ml)
    row["rejected_ml"] = float("nan") if rejected is None else sum((float(one["ml"]) for one in rejected), 0.0)
    if any(one["touches_edge"] for one in rejected or ()):
        row["touches_border"] = 1
    return row


def measure_counts(counts: Counts, table: Table, voxel_ml: float) -> Values:
    """Volumes, tissue percentages and densities of the lungs of one scan.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Voxels of each HU value from -32768 on.
    table : ndarray of uint8, shape (65536,)
        Tissue of each HU value.
    voxel_ml : float
        Volume of a voxel, mL.

    Returns
    -------
    dict
        ``lung_ml``; percentages of the tissues; ``lung_involvement`` (percent); ``mean_hu``; ``laa950``,
        ``laa910``, ``laa856`` (percent strictly below -950, -910, -856 HU); ``perc15`` (HU); ``*_ml`` of the
        tissues; ``voxels``. Percentages and densities are NaN where there are no voxels.
    """
    keys, voxels = _by_label(counts, table)
    return {
        "lung_ml": _ml(counts, voxel_ml),
        **_shares(counts, table),
        **_densities(counts),
        **{f"{key}_ml": n * voxel_ml for key, n in zip(keys, voxels, strict=True)},
        "voxels": int(counts.sum()),
    }


def sum_of(sides: Counts | None, parts: Sequence[Tissue]) -> Counts:
    """Counts of some parts of the mask together: uint64, shape (65536,); zeros where sides are not known."""
    if sides is None:
        return np.zeros(N_HU, np.uint64)
    return np.asarray(sides[[side.label - 1 for side in parts]].sum(axis=0, dtype=np.uint64))


def component_keys(n_components: int) -> list[str]:
    """Column names of the components: the tissues' where there are five."""
    if n_components == len(TISSUES):
        return [tissue.key for tissue in TISSUES]
    return [f"component_{i}" for i in range(1, n_components + 1)]


def _by_label(counts: Counts, table: Table) -> tuple[list[str], list[float]]:
    """Keys and voxels of the labels. A model of any number of components has labels that the tissues do not name."""
    n_labels = max(int(table.max()), 1)
    voxels = np.bincount(table, weights=counts.astype(np.float64), minlength=n_labels + 1)
    return component_keys(n_labels), [float(n) for n in voxels[1:]]


def _shares(counts: Counts, table: Table) -> Values:
    keys, voxels = _by_label(counts, table)
    total = int(counts.sum())
    row: Values = {key: _percent(n, total) for key, n in zip(keys, voxels, strict=True)}
    if len(keys) == len(TISSUES):
        involved = (n for key, n in zip(keys, voxels, strict=True) if key in INVOLVED)
        row["lung_involvement"] = _percent(sum(involved), total)
    return row


def _densities(counts: Counts) -> Values:
    total = int(counts.sum())
    row: Values = {"mean_hu": _mean(counts)}
    row |= {f"laa{t}": _percent(float(counts[-t > _HU].sum()), total) for t in LAA_THRESHOLDS}
    row["perc15"] = percentiles(counts, (15,))[0]
    return row


def _further(counts: Counts, voxel_ml: float, touches: Mapping[str, bool] | None, parts: Sequence[Tissue]) -> Values:
    total = int(counts.sum())
    mean = _mean(counts)

    def percent_of(these: npt.NDArray[np.bool_]) -> float:
        return _percent(float(counts[these].sum()), total)

    row: Values = {"sd_hu": (weighted_sum(counts, (_HU - mean) ** 2) / total) ** 0.5 if total else float("nan")}
    row |= {f"haa_above_{t}": percent_of(-t < _HU) for t in HAA_ABOVE}
    row |= {f"haa_{a}_{b}": percent_of((-a < _HU) & (-b > _HU)) for a, b in HAA_BANDS}
    row |= {f"aerated_{a}_{b}": percent_of((-a <= _HU) & (-b >= _HU)) for a, b in AERATED_BANDS}
    row["mass_g"] = weighted_sum(counts, np.maximum(1 + _HU / 1000, 0)) * voxel_ml
    row["touches_border"] = int(any(touches[side.key] for side in parts)) if touches is not None else float("nan")
    return row


def _mean(counts: Counts) -> float:
    total = int(counts.sum())
    return weighted_sum(counts, _HU) / total if total else float("nan")


def _ml(counts: Counts, voxel_ml: float) -> float:
    return int(counts.sum()) * voxel_ml


def _percent(part: float, total: int) -> float:
    return 100.0 * part / total if total else float("nan")
