"""Transforms of registered scans, as SimpleITK has them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from lungmix.geometry import Geometry


def transform_of(
    affine: npt.NDArray[np.float64], displacement: npt.NDArray[np.float32], grid: Geometry
) -> sitk.CompositeTransform:
    """Return the transform from points of a first scan to points of a later scan.

    Within the grid, it is the linear interpolation of the displacements; elsewhere it is affine.

    Parameters
    ----------
    affine : ndarray of float64, shape (3, 4)
        Matrix and translation, mm in LPS.
    displacement : ndarray of float32, shape (z, y, x, 3)
        Vectors (x, y, z) in mm and LPS from voxels of the grid to their points in the later scan.
    grid : Geometry
        Grid of the displacements in the first scan.
    """
    z, y, x = np.indices(displacement.shape[:3], np.float64)
    columns = np.reshape(grid.direction, (3, 3)) * grid.spacing
    points = np.stack([x, y, z], axis=-1) @ columns.T + grid.origin
    # The affine transform is applied after the displacements, which are therefore those before it.
    before = np.linalg.solve(affine[:, :3], (points + displacement - affine[:, 3]).reshape(-1, 3).T).T
    field = sitk.GetImageFromArray(before.reshape(points.shape) - points, isVector=True)
    outer = sitk.AffineTransform(affine[:, :3].ravel().tolist(), affine[:, 3].tolist())
    # The transform that was added last is applied first.
    return sitk.CompositeTransform([outer, sitk.DisplacementFieldTransform(grid.apply_to(field))])
