"""Measurements of lungs from their histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import fsum
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.data_dictionary import AERATED_BANDS, ALL, BOTH, EXPECTED, HAA_ABOVE, HAA_BANDS, LAA_THRESHOLDS
from lungmix.kernels.histogram import FIRST_HU, N_HU, weighted_sum
from lungmix.kernels.percentiles import percentiles
from lungmix.tissue import (
    AIRWAY,
    ELSEWHERE,
    INVOLVED,
    LOBES,
    LUNG_ZONES,
    LUNGS,
    SIDES,
    TISSUES,
    ZONE_DEPTHS,
    ZONE_HALVES,
    ZONE_THIRDS,
    Tissue,
)

Counts = npt.NDArray[np.uint64]
Table = npt.NDArray[np.uint8]
Posteriors = npt.NDArray[np.float64]
Values = dict[str, float | int]

_HU = np.arange(FIRST_HU, FIRST_HU + N_HU)


def measure_scan(
    counts: Counts,
    sides: Counts | None,
    table: Table,
    voxel_ml: float,
    touches: Mapping[str, bool] | None = None,
    exclude_regions: Sequence[Tissue] = (),
    rejected: Sequence[Mapping[str, Any]] | None = None,
    posteriors: Posteriors | None = None,
) -> Values:
    """Return the measurements of a scan: one row of ``measurements.csv`` without the name of the case.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Histogram of the lung voxels, from -32768 HU on.
    sides : ndarray of uint64, shape (4, 65536), or None
        Histograms of the regions in `lungmix.tissue.SIDES`; None if regions are unknown.
    table : ndarray of uint8, shape (65536,)
        Tissue label of each HU value, from -32768 HU on.
    voxel_ml : float
        Volume of a voxel, mL.
    touches : mapping of str to bool, optional
        By the key of each region, True if the region touches the border of the volume.
    exclude_regions : sequence of Tissue
        Regions excluded from the columns that name no region.
    rejected : sequence of mapping, optional
        ``ml`` and ``touches_edge`` of each component of lung that is not in the mask; None if these are unknown.
    posteriors : ndarray of float64, shape (65536, n), optional
        Posterior of each tissue by HU, from -32768 HU on. Without it there are no expected values.

    Returns
    -------
    dict
        Values by the keys of `lungmix.kernels.data_dictionary.MEASUREMENTS`. Values that need voxels or regions are NaN
        if there are none.
    """
    excluded = sum_of(sides, exclude_regions)
    rest = [side for side in SIDES if side not in exclude_regions]
    row = measure_counts(counts - excluded, table, voxel_ml) | _further(counts - excluded, voxel_ml, touches, rest)
    for side in LUNGS:
        of_side = sum_of(sides, [side])
        values: Values = {"ml": _ml(of_side, voxel_ml), **_shares(of_side, table), **_densities(of_side)}
        values |= _further(of_side, voxel_ml, touches, [side])
        row |= {f"{side.key}_{key}": float("nan") if sides is None else value for key, value in values.items()}
    for side in (AIRWAY, ELSEWHERE):
        row[f"{side.key}_ml"] = float("nan") if sides is None else _ml(sum_of(sides, [side]), voxel_ml)
    row["left_out_ml"] = _ml(excluded, voxel_ml)
    row["rejected_ml"] = float("nan") if rejected is None else sum((float(part["ml"]) for part in rejected), 0.0)
    if any(part["touches_edge"] for part in rejected or ()):
        row["touches_border"] = 1
    if posteriors is not None:
        row |= _expected_values(counts - excluded, sides, posteriors, voxel_ml)
    return row


def measure_counts(counts: Counts, table: Table, voxel_ml: float) -> Values:
    """Return volumes, tissue percentages and densities of the lungs of a scan.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Histogram of the lung voxels, from -32768 HU on.
    table : ndarray of uint8, shape (65536,)
        Tissue label of each HU value, from -32768 HU on.
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


def expected_shares(counts: npt.NDArray[Any], posteriors: Posteriors) -> Values:
    """Return the expected percentage of each tissue and, for five components, the expected lung involvement.

    An expected value is a sum over voxels of posteriors, here from the counts of each HU; the sum is not rounded.

    Parameters
    ----------
    counts : ndarray, shape (m,)
        Number of voxels of each HU.
    posteriors : ndarray of float64, shape (m, n)
        Posterior of each component at the same HU.

    Returns
    -------
    dict
        Percent by the keys of `component_keys` and ``lung_involvement``; NaN where there are no voxels.
    """
    total = int(counts.sum())
    voxels = _expected_voxels(counts, posteriors)
    row: Values = {key: _percent(n, total) for key, n in voxels.items()}
    if len(voxels) == len(TISSUES):
        row["lung_involvement"] = _percent(fsum(voxels[key] for key in INVOLVED), total)
    return row


def _expected_values(counts: Counts, sides: Counts | None, posteriors: Posteriors, voxel_ml: float) -> Values:
    """Return the columns whose names end with ``_expected``."""
    values = expected_shares(counts, posteriors)
    values |= {f"{key}_ml": n * voxel_ml for key, n in _expected_voxels(counts, posteriors).items()}
    for side in LUNGS:
        shares = expected_shares(sum_of(sides, [side]), posteriors)
        values |= {f"{side.key}_{key}": share for key, share in shares.items()}
    return {f"{key}{EXPECTED}": value for key, value in values.items()}


def _expected_voxels(counts: npt.NDArray[Any], posteriors: Posteriors) -> dict[str, float]:
    keys = component_keys(posteriors.shape[1])
    return {key: weighted_sum(counts, posteriors[:, k]) for k, key in enumerate(keys)}


def measure_dense(parts: Counts, table: Table, voxel_ml: float, posteriors: Posteriors) -> Values:
    """Return the volume of dense lung, and the lung involvement of the aerated lungs alone, with its expected value.

    Parameters
    ----------
    parts : ndarray of uint64, shape (4, 65536)
        Histograms in the order of `lungmix.tissue.DENSE`.
    table, voxel_ml, posteriors : ndarray, float, ndarray
        See `measure_scan`.

    Returns
    -------
    dict
        Values by the keys of `lungmix.kernels.data_dictionary.DENSE_COLUMNS`.
    """
    aerated = np.asarray(parts[:2].sum(axis=0, dtype=np.uint64))
    by_label, expected = (
        shares.get("lung_involvement", float("nan"))
        for shares in (_shares(aerated, table), expected_shares(aerated, posteriors))
    )
    return {
        "dense_lung_ml": _ml(parts[2:].sum(axis=0, dtype=np.uint64), voxel_ml),
        "aerated_involvement": by_label,
        f"aerated_involvement{EXPECTED}": expected,
    }


def measure_zones(zones: Counts, table: Table, voxel_ml: float, posteriors: Posteriors) -> list[dict[str, Any]]:
    """Return the measurements of lung zones and of their sums: the rows of ``zones.csv`` of a scan.

    Parameters
    ----------
    zones : ndarray of uint64, shape (24, 65536)
        Histograms in the order of `lungmix.tissue.LUNG_ZONES`.
    table, voxel_ml, posteriors : ndarray, float, ndarray
        See `measure_scan`.

    Returns
    -------
    list of dict
        One row for each zone; and for the right lung, the left lung and both together one row for the whole, each
        third, each half, core and peel, and each half of each third. Values are NaN where there are no voxels.
    """
    rows: list[dict[str, Any]] = []
    for side in (*LUNGS, None):
        for third, half, depth in product((None, *ZONE_THIRDS), (None, *ZONE_HALVES), (None, *ZONE_DEPTHS)):
            is_zone = None not in (side, third, half, depth)
            if not is_zone and depth is not None and (third, half) != (None, None):
                continue
            selected = [
                zone
                for zone in LUNG_ZONES
                if (side is None or zone.side == side)
                and (third is None or zone.third == third)
                and (half is None or zone.half == half)
                and (depth is None or zone.depth == depth)
            ]
            parts = {"side": side, "third": third, "half": half, "depth": depth}
            names = {key: BOTH if part is None and key == "side" else "" if part is None else part.key
                     for key, part in parts.items()}  # fmt: skip
            rows.append(
                {
                    "zone": "_".join(name for name in names.values() if name),
                    **{key: name or ALL for key, name in names.items()},
                    **_measure_part(sum_of(zones, selected), table, voxel_ml, posteriors),
                }
            )
    return rows


def measure_lobes(lobes: Counts, table: Table, voxel_ml: float, posteriors: Posteriors) -> list[dict[str, Any]]:
    """Return the measurements of lobes, as rows of ``zones.csv``; the values of a lobe without voxels are NaN.

    Parameters
    ----------
    lobes : ndarray of uint64, shape (5, 65536)
        Histograms in the order of `lungmix.tissue.LOBES`.
    table, voxel_ml, posteriors : ndarray, float, ndarray
        See `measure_scan`.
    """
    parts = dict.fromkeys(("third", "half", "depth"), ALL)
    return [
        {
            "zone": lobe.key,
            "side": lobe.side.key,
            **parts,
            **_measure_part(lobes[lobe.label - 1], table, voxel_ml, posteriors),
        }
        for lobe in LOBES
    ]


def _measure_part(counts: Counts, table: Table, voxel_ml: float, posteriors: Posteriors) -> dict[str, Any]:
    """Return the measurements of a part of the lungs, by the columns of ``zones.csv``."""
    present = np.flatnonzero(counts)
    expected = expected_shares(counts[present], posteriors[present])
    return {
        **measure_counts(counts, table, voxel_ml),
        "mass_g": _mass(counts, voxel_ml),
        **{f"{key}{EXPECTED}": share for key, share in expected.items()},
    }


def sum_of(sides: Counts | None, parts: Sequence[Tissue]) -> Counts:
    """Return the sum of the histograms of some regions: uint64, shape (65536,); zeros if regions are unknown."""
    if sides is None:
        return np.zeros(N_HU, np.uint64)
    return np.asarray(sides[[side.label - 1 for side in parts]].sum(axis=0, dtype=np.uint64))


def component_keys(n_components: int) -> list[str]:
    """Return the column names of components: those of the tissues if there are five, otherwise ``component_1`` ..."""
    if n_components == len(TISSUES):
        return [tissue.key for tissue in TISSUES]
    return [f"component_{i}" for i in range(1, n_components + 1)]


def _by_label(counts: Counts, table: Table) -> tuple[list[str], list[float]]:
    """Return the column name and the number of voxels of each label, for models of any number of components."""
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

    def percent_of(selected: npt.NDArray[np.bool_]) -> float:
        return _percent(float(counts[selected].sum()), total)

    row: Values = {"sd_hu": (weighted_sum(counts, (_HU - mean) ** 2) / total) ** 0.5 if total else float("nan")}
    row |= {f"haa_above_{t}": percent_of(-t < _HU) for t in HAA_ABOVE}
    row |= {f"haa_{a}_{b}": percent_of((-a < _HU) & (-b > _HU)) for a, b in HAA_BANDS}
    row |= {f"aerated_{a}_{b}": percent_of((-a <= _HU) & (-b >= _HU)) for a, b in AERATED_BANDS}
    row["mass_g"] = _mass(counts, voxel_ml)
    row["touches_border"] = int(any(touches[side.key] for side in parts)) if touches is not None else float("nan")
    return row


def _mean(counts: Counts) -> float:
    total = int(counts.sum())
    return weighted_sum(counts, _HU) / total if total else float("nan")


def _mass(counts: Counts, voxel_ml: float) -> float:
    return weighted_sum(counts, np.maximum(1 + _HU / 1000, 0)) * voxel_ml


def _ml(counts: Counts, voxel_ml: float) -> float:
    return int(counts.sum()) * voxel_ml


def _percent(part: float, total: int) -> float:
    return 100.0 * part / total if total else float("nan")
