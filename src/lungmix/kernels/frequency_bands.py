"""Normalisation of reconstruction kernels: axial slices with the standard deviation of a reference in frequency bands.

After Gallardo-Estrella et al. 2016, doi 10.1007/s00330-015-3824-y. A slice ``I`` is the sum of frequency bands, which
are differences of Gaussian filters: ``I = (I - G1) + (G1 - G2) + G2``, where ``G1`` and ``G2`` are the slice filtered
with a standard deviation of 1 and 2 mm. The normalised slice multiplies each band by a gain, which is the same for all
slices of a scan: ``J = g1 (I - G1) + g2 (G1 - G2) + G2``. Gains are such that each band of ``J``, in the lungs, has the
standard deviation of the reference.

The publication finds gains by repeated filtering. Here they are found from the covariances of the bands, so that each
slice is filtered once. Bands coarser than 2 mm are left as they are: a reconstruction kernel changes them little, and
disease changes them much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

BANDS_MM = (1.0, 2.0)
"""Standard deviation of the Gaussian filter at the lower end of the frequencies of each band, finest band first."""

LOWEST_HU = -1024
"""Lower voxels, which scanners write outside their field of view, are filtered as if they were of this HU, and keep
their own."""

GREATEST_GAIN = 2.0
MAX_SLICES = 32
"""Number of axial slices, evenly spaced over the lungs, in which covariances are measured."""

_PADDING_SD = 4.0
_TOLERANCE = 1e-4
_MAX_STEPS = 500

Slice = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class BandSums:
    """Sums over lung voxels, of which the covariances of bands follow; sums of several slices can be added.

    Attributes
    ----------
    voxels : int
        Number of lung voxels.
    sums : ndarray of float64, shape (bands, bands + 1)
        Entry ``i, j`` is the sum of part ``j`` of the slice (its bands, then the rest), filtered to band ``i``.
    products : ndarray of float64, shape (bands, bands + 1, bands + 1)
        Entry ``i, j, k`` is the sum of the products of parts ``j`` and ``k``, both filtered to band ``i``.
    """

    voxels: int
    sums: npt.NDArray[np.float64]
    products: npt.NDArray[np.float64]

    @classmethod
    def empty(cls) -> BandSums:
        """Return the sums over no voxels."""
        n = len(BANDS_MM)
        return cls(0, np.zeros((n, n + 1)), np.zeros((n, n + 1, n + 1)))

    @classmethod
    def of(cls, hu: Slice, lung: npt.NDArray[np.bool_], spacing_yx: Sequence[float]) -> BandSums:
        """Return the sums over the lung voxels of an axial slice.

        Parameters
        ----------
        hu : ndarray of float32, shape (y, x)
            The slice.
        lung : ndarray of bool, shape (y, x)
            Its lung mask.
        spacing_yx : sequence of float
            Spacing along y and x, mm.
        """
        if not lung.any():
            return cls.empty()
        box = _box_around(lung, _padding(spacing_yx))
        hu, lung = hu[box], lung[box]
        padded, inner = _padded(hu, spacing_yx)
        parts = _parts(padded.shape, tuple(spacing_yx))
        spectrum = fft.rfft2(padded)
        sums, products = [], []
        for band in parts[:-1]:
            values = np.stack(
                [fft.irfft2(spectrum * (band * part), s=padded.shape)[inner][lung] for part in parts]
            ).astype(np.float64)
            sums.append(values.sum(axis=1))
            products.append(values @ values.T)
        return cls(int(lung.sum()), np.array(sums), np.array(products))

    def __add__(self, other: BandSums) -> BandSums:
        return BandSums(self.voxels + other.voxels, self.sums + other.sums, self.products + other.products)

    def covariances(self) -> npt.NDArray[np.float64]:
        """Return the covariances of the parts, filtered to each band: float64 of shape (bands, parts, parts), HU²."""
        means = self.sums / max(self.voxels, 1)
        return self.products / max(self.voxels, 1) - means[:, :, None] * means[:, None, :]


@dataclass(frozen=True)
class Gains:
    """Gains of the bands of a scan.

    Attributes
    ----------
    gains : tuple of float
        Factor of each band, 0 to `GREATEST_GAIN`; 1 for a band that the pixels of the scan are too coarse for.
    before, after : tuple of float
        Standard deviation of each band in the lungs, before and after normalisation, HU.
    """

    gains: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def is_identity(self) -> bool:
        """True if no band is changed."""
        return all(gain == 1 for gain in self.gains)


def has_bands(spacing_yx: Sequence[float]) -> list[bool]:
    """Return for each band whether pixels are small enough for it: at most two standard deviations of its filter."""
    return [max(spacing_yx) <= 2 * sd for sd in BANDS_MM]


def find_gains(sums: BandSums, spacing_yx: Sequence[float], reference: Sequence[float]) -> Gains:
    """Return the gains with which the bands of a scan have the standard deviations of the reference.

    Parameters
    ----------
    sums : BandSums
        Sums over lung voxels.
    spacing_yx : sequence of float
        Spacing of axial slices along y and x, mm.
    reference : sequence of float
        Standard deviation of each band, HU.
    """
    covariances, usable = sums.covariances(), np.array(has_bands(spacing_yx))
    gains = np.ones(len(BANDS_MM))
    before = _deviations(covariances, gains)
    usable &= before > 0
    for _ in range(_MAX_STEPS):
        present = _deviations(covariances, gains)
        ratio = np.divide(reference, present, out=np.ones(len(gains)), where=usable & (present > 0))
        changed = np.clip(gains * ratio, 0, GREATEST_GAIN)
        if np.all(np.abs(changed - gains) <= _TOLERANCE * gains):
            break
        gains = changed
    # Gains are recorded in the store, and must be the same there and here.
    gains = np.where(usable, np.round(gains, 6), 1.0)
    after = _deviations(covariances, gains)
    return Gains(*(tuple(float(value) for value in values) for values in (gains, before.round(2), after.round(2))))


def normalise_bands(hu: Slice, spacing_yx: Sequence[float], gains: Sequence[float]) -> Slice:
    """Return an axial slice whose bands are multiplied by gains.

    Parameters
    ----------
    hu : ndarray of float32, shape (y, x)
        The slice.
    spacing_yx : sequence of float
        Spacing along y and x, mm.
    gains : sequence of float
        Factor of each band.
    """
    padded, inner = _padded(hu, spacing_yx)
    transfer = _transfer(padded.shape, tuple(spacing_yx), tuple(gains))
    filtered: Slice = fft.irfft2(fft.rfft2(padded) * transfer, s=padded.shape)[inner]
    return filtered


def filled(hu: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Return HU in which voxels below `LOWEST_HU` have that value."""
    return np.maximum(hu, np.int16(LOWEST_HU)).astype(np.float32)


def rounded(values: npt.NDArray[Any], hu: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Return values as int16 HU; voxels that were below `LOWEST_HU` keep the HU that they had."""
    limits = np.iinfo(np.int16)
    return np.where(hu < LOWEST_HU, hu, np.clip(np.rint(values), limits.min, limits.max).astype(np.int16))


def chosen_slices(has_lung: Iterable[bool]) -> list[int]:
    """Return the indices of at most `MAX_SLICES` axial slices, evenly spaced among those with lung."""
    with_lung = np.flatnonzero(np.fromiter(has_lung, np.bool_))
    steps = np.linspace(0, len(with_lung) - 1, min(MAX_SLICES, len(with_lung)))
    return [int(index) for index in with_lung[np.rint(steps).astype(np.int64)]]


def _deviations(covariances: npt.NDArray[np.float64], gains: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the standard deviation of each band of a scan whose bands are multiplied by gains."""
    factors = np.append(gains, 1.0)
    variances = np.einsum("j,ijk,k->i", factors, covariances, factors)
    deviations: npt.NDArray[np.float64] = np.sqrt(np.maximum(variances, 0))
    return deviations


def _padding(spacing_yx: Sequence[float]) -> tuple[int, int]:
    y, x = (ceil(_PADDING_SD * BANDS_MM[-1] / spacing) for spacing in spacing_yx)
    return y, x


def _padded(hu: Slice, spacing_yx: Sequence[float]) -> tuple[Slice, tuple[slice, slice]]:
    """Return a slice continued beyond its edges to a size that is fast to transform, and where the slice is in it."""
    before = _padding(spacing_yx)
    sizes = [fft.next_fast_len(n + 2 * pad, real=True) for n, pad in zip(hu.shape, before, strict=True)]
    widths = [(pad, size - n - pad) for n, pad, size in zip(hu.shape, before, sizes, strict=True)]
    y, x = (slice(pad, pad + n) for n, pad in zip(hu.shape, before, strict=True))
    return np.pad(hu, widths, mode="edge"), (y, x)


def _box_around(lung: npt.NDArray[np.bool_], padding: tuple[int, int]) -> tuple[slice, slice]:
    indices = [np.flatnonzero(lung.any(axis=axis)) for axis in (1, 0)]
    y, x = (slice(max(int(i[0]) - pad, 0), int(i[-1]) + pad + 1) for i, pad in zip(indices, padding, strict=True))
    return y, x


@lru_cache(maxsize=8)
def _parts(shape: tuple[int, int], spacing_yx: tuple[float, float]) -> list[npt.NDArray[np.float32]]:
    """Return the factors, by frequency, that filter a slice to each band, and to the rest."""
    y, x = fft.fftfreq(shape[0], spacing_yx[0]), fft.rfftfreq(shape[1], spacing_yx[1])
    squares = y[:, None] ** 2 + x[None, :] ** 2
    filters = [np.ones_like(squares), *(np.exp(-2 * np.pi**2 * sd**2 * squares) for sd in BANDS_MM)]
    bands = [finer - coarser for finer, coarser in zip(filters[:-1], filters[1:], strict=True)]
    return [part.astype(np.float32) for part in (*bands, filters[-1])]


@lru_cache(maxsize=4)
def _transfer(
    shape: tuple[int, int], spacing_yx: tuple[float, float], gains: tuple[float, ...]
) -> npt.NDArray[np.float32]:
    parts = _parts(shape, spacing_yx)
    total = parts[-1].astype(np.float64)
    for gain, part in zip(gains, parts[:-1], strict=True):
        total = total + gain * part
    return total.astype(np.float32)
