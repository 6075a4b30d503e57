"""The method in memory, slow and obvious: scipy and SimpleITK on whole volumes."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

CROSS = ndimage.generate_binary_structure(3, 1)


def ball(radius: int) -> np.ndarray:
    """Return the offsets with i² + j² + k² <= (r + 0.5)², as a boolean cube."""
    i, j, k = np.ogrid[-radius : radius + 1, -radius : radius + 1, -radius : radius + 1]
    return i * i + j * j + k * k <= (radius + 0.5) ** 2


def ellipsoid(millimetres: float, spacing_zyx: tuple[float, float, float]) -> np.ndarray:
    """Return the offsets whose length in mm is at most ``millimetres`` + 1e-6, as a boolean array."""
    half = [int(np.floor((millimetres + 1e-6) / s)) for s in spacing_zyx]
    i, j, k = np.ogrid[tuple(slice(-h, h + 1) for h in half)]
    sz, sy, sx = spacing_zyx
    return np.sqrt((i * sz) ** 2 + (j * sy) ** 2 + (k * sx) ** 2) <= millimetres + 1e-6


def diamond(nz: int, ny: int, nx: int) -> np.ndarray:
    """Return the offsets with |i|/nz + |j|/ny + |k|/nx <= 1; flat on each axis whose n is 0."""
    i, j, k = np.ogrid[-nz : nz + 1, -ny : ny + 1, -nx : nx + 1]
    return sum(np.abs(o) / max(n, 1) for o, n in ((i, nz), (j, ny), (k, nx))) <= 1 + 1e-9


def opening(air: np.ndarray, element: np.ndarray) -> np.ndarray:
    """Return the binary opening by ``element``; voxels outside the volume count as background."""
    return ndimage.binary_dilation(ndimage.binary_erosion(air, element), element)


def islands(mask: np.ndarray, min_voxels: float) -> np.ndarray:
    """Return the components of at least `min_voxels` voxels that touch no first or last row or column."""
    labels, n = ndimage.label(mask, CROSS)
    keep = np.bincount(labels.ravel(), minlength=n + 1) >= min_voxels
    for face in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        keep[np.unique(face)] = False
    keep[0] = False
    return keep[labels]


def closing(mask: np.ndarray, element: np.ndarray) -> np.ndarray:
    """Return the binary closing as if infinite background surrounded the volume, by distances that ITK computes."""
    pad = [(n // 2, n // 2) for n in element.shape]
    padded = np.pad(mask, pad)
    if element.sum() < 400:
        out = ndimage.binary_erosion(ndimage.binary_dilation(padded, element), element)
    else:
        out = _closing_by_fft(padded, element)
    return out[tuple(slice(b, n - e if e else None) for (b, e), n in zip(pad, out.shape, strict=True))]


def _closing_by_fft(padded: np.ndarray, element: np.ndarray) -> np.ndarray:
    from scipy.signal import fftconvolve

    kernel = element.astype(np.float64)
    dilated = fftconvolve(padded.astype(np.float64), kernel, mode="same") > 0.5
    return (
        fftconvolve((~dilated).astype(np.float64), kernel, mode="full")[
            tuple(slice(n // 2, n // 2 + m) for n, m in zip(element.shape, padded.shape, strict=True))
        ]
        < 0.5
        if not dilated.all()
        else dilated
    )


def closing_itk(mask: np.ndarray, radius: int) -> np.ndarray:
    """Return the closing by ITK's ball as ITK computes it, with its option of a safe border."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    closed = sitk.BinaryMorphologicalClosing(image, [radius] * 3, sitk.sitkBall, 1, True)
    return sitk.GetArrayFromImage(closed).astype(bool)


def lung_mask(
    hu,
    preset="paper",
    spacing_zyx=(1.0, 1.0, 1.0),
    threshold=-155,
    n_open=3,
    min_voxels=500_000,
    radii=(30, 20),
):
    """Return the lung mask as ``docs/method.md`` describes it, for the presets ``paper`` and ``physical``."""
    air = np.maximum(hu, -1000) < threshold
    if preset == "paper":
        opened = ndimage.binary_opening(air, iterations=n_open) if n_open else air
        kept = islands(opened, min_voxels)
        for radius in radii:
            kept = closing_itk(kept, radius)
        return kept
    n = [int(np.floor(2.1 / s + 0.5)) for s in spacing_zyx]
    opened = opening(air, diamond(*n)) if any(n) else air
    voxel_ml = float(np.prod(spacing_zyx)) / 1000
    kept = islands(opened, np.ceil(100 / voxel_ml - 1e-9))
    return closing(kept, ellipsoid(10.0, spacing_zyx))
