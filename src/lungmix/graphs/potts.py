"""Labels under a Potts prior, of arrays in memory or as dask graphs over blocks."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt

from lungmix.arrays import volume
from lungmix.errors import UsageError
from lungmix.graphs.labels import tissue_labels
from lungmix.graphs.overlap import map_with_halo
from lungmix.kernels import potts
from lungmix.parameters import POTTS_ITERATIONS, PottsParameters

if TYPE_CHECKING:
    from lungmix.mixture import TissueModel

Labels = npt.NDArray[np.uint8]
Weights = tuple[int, int, int]

_HALOS = ((POTTS_ITERATIONS, POTTS_ITERATIONS),) * 3
_OUTSIDE = np.int32(1 << 16)
"""Value of voxels outside the mask in an array of HU, which is no HU."""


def potts_labels(
    ct: npt.NDArray[Any] | da.Array,
    mask: npt.NDArray[Any] | da.Array,
    model: TissueModel,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    beta: float | None = None,
) -> Labels | da.Array:
    """Return tissue labels under a Potts prior, which depend on HU and on the labels of neighbours.

    They are those of ``case.tissue_potts`` after a run with ``smooth="potts"``.

    Parameters
    ----------
    ct : numpy or dask array of int16, shape (z, y, x)
        HU.
    mask : numpy or dask array, same shape
        Lung mask; voxels other than 0 are lung.
    model : TissueModel
        The mixture.
    spacing : sequence of 3 floats
        Voxel spacing in mm in ITK's order x, y, z, as in ``case.geometry.spacing``. Neighbours at a larger distance
        count less. By default all distances are equal.
    beta : float, optional
        Strength of the prior, 0 to 10. By default it is estimated from all voxels; the blocks of dask arrays are then
        computed twice.

    Returns
    -------
    numpy or dask array of uint8, shape (z, y, x)
        0 outside the lung; inside, 1 to the number of components. Ties go to the lower label. The array is a dask array
        with the chunks of `ct` if `ct` or `mask` is one. Labels do not depend on chunks.

    Raises
    ------
    UsageError
        If the shapes differ, or a number is out of range.
    """
    if isinstance(ct, da.Array) and isinstance(mask, da.Array) and ct.shape == mask.shape:
        # Delayed tasks of single slabs cannot depend on a rechunk of all workers at once.
        mask = mask.rechunk(ct.chunks, method="tasks")
    tissue = tissue_labels(ct, mask, model)
    ct, mask = volume(ct, "the CT"), volume(mask, "the mask")
    weights, beta = _weights_of(spacing), PottsParameters(beta).beta
    components = model.weights, model.means, model.variances
    if not isinstance(tissue, da.Array):
        if beta is None:
            beta = _beta_of([potts.count_neighbours(tissue)], weights, model.n_components)
        voxels = _join(np.asarray(ct), np.asarray(mask))
        return _label_core(voxels, (slice(None),) * 3, potts.tables_of(*components), weights, beta)
    if beta is None:
        beta = dask.delayed(_beta_of)(_lazy_counts(tissue), weights, model.n_components)
    lazy = da.asarray(ct)
    voxels = da.map_blocks(_join, lazy, da.asarray(mask).rechunk(lazy.chunks, method="tasks"), dtype=np.int32)
    tables = dask.delayed(potts.tables_of, pure=True)(*components)
    labels = map_with_halo(_label_core, voxels, _HALOS, np.uint8, tables=tables, weights=weights, beta=beta)
    return labels.rechunk(lazy.chunks)


def _weights_of(spacing: Sequence[float]) -> Weights:
    steps = [float(step) for step in spacing]
    if len(steps) != 3 or not all(isfinite(step) and step > 0 for step in steps):
        raise UsageError("spacing needs 3 positive numbers, in mm: give geometry.spacing")
    return potts.axis_weights(steps[::-1])


def _join(hu: npt.NDArray[Any], mask: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return HU in the range of int16, and `_OUTSIDE` where the mask is 0."""
    limits = np.iinfo(np.int16)
    return np.where(mask != 0, np.clip(hu, limits.min, limits.max).astype(np.int32), _OUTSIDE)


def _label_core(
    voxels: npt.NDArray[np.int32], core: tuple[slice, ...], tables: potts.Tables, weights: Weights, beta: float
) -> Labels:
    mask = voxels != _OUTSIDE
    hu = np.where(mask, voxels, 0).astype(np.int16)
    labels = potts.potts_labels(hu, mask.view(np.uint8), tables, weights, beta, core=core[0])
    # Copy the core, since a view of it would keep the labels of the halo in memory.
    return np.ascontiguousarray(labels[:, core[1], core[2]])


def _lazy_counts(tissue: da.Array) -> list[Any]:
    """Return the delayed counts of neighbours of whole slices, see `count_neighbours`."""
    slabs = tissue.rechunk({0: "auto", 1: -1, 2: -1}, method="tasks")
    edges = np.cumsum([0, *slabs.chunks[0]]).tolist()
    counts = []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        first = max(0, start - 1)
        window = dask.delayed(np.asarray)(slabs[first : stop + 1])
        counts.append(dask.delayed(potts.count_neighbours)(window, slice(start - first, stop - first)))
    return counts


def _beta_of(counts: Sequence[npt.NDArray[np.int64]], weights: Weights, n_labels: int) -> float:
    total = np.sum(counts, axis=0)
    codes = np.flatnonzero(total)
    return potts.estimate_beta(codes, total[codes], weights, n_labels)
