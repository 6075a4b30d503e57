"""Registration of the lungs of two scans of one patient: an affine transform, and a displacement field if wanted.

Both scans are given as isotropic copies of their lungs. What the registration compares is not HU, which change with
inspiration, but structure: HU minus their local mean, divided by their local standard deviation. Everything outside
the lungs has one value, so that the lungs may slide along the chest wall. SimpleITK does the search, in one thread, so
that the result does not depend on the number of processors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from lungmix.geometry import Geometry
from lungmix.parameters import AFFINE, DEFORMABLE

Floats = npt.NDArray[np.float32]

GRID_MM = 2.5
"""Width of the voxels on which lungs are registered, mm."""

MARGIN_MM, LATER_MARGIN_MM = 10.0, 40.0
"""Widths of the border around the lungs of the first and of the later scan that the registration includes, mm."""

LEAST_LUNG_ML = 50.0
"""Smallest volume of lung that is registered, mL."""

LEAST_OVERLAP = 0.3
"""Smallest part of the first scan's lungs that must lie in the field of view of the later scan."""

LEAST_DICE = {AFFINE: 0.80, DEFORMABLE: 0.90}
"""Smallest Dice coefficient of both lungs after the registration, by its kind."""

LEAST_SIMILARITY = 0.2
"""Smallest correlation of the structure of both lungs after a deformable registration."""

_HU_RANGE = (-1000.0, 0.0)
_WINDOW_MM = 6.0
"""Standard deviation of the Gaussian window of local means and standard deviations, mm."""

_LEAST_SD_HU = 20.0
_STRUCTURE_RANGE = (-2.0, 2.5)
_OUTSIDE = 4.0
"""Value outside the lungs, above all values of the structure inside them."""

_LEVELS = ((4, 6.0, 80), (2, 3.0, 60), (1, 0.0, 30))
"""Levels of the deformable registration: step in voxels, smoothing in mm, and number of iterations."""

_FIELD_SD, _UPDATE_SD = 1.5, 1.0
"""Standard deviations, in voxels of a level, by which the field and each of its updates are smoothed."""

_LONGEST_STEP = 2.0
"""Longest update of a displacement in one iteration, in voxels of a level."""


@dataclass(frozen=True, eq=False)
class LungImage:
    """Lungs of a scan on an isotropic grid.

    Attributes
    ----------
    hu : ndarray of float32, shape (z, y, x)
        HU.
    lung : ndarray of float32, shape (z, y, x)
        Part of each voxel that is lung, 0 to 1.
    geometry : Geometry
        Position of the voxels in the patient.
    """

    hu: Floats
    lung: Floats
    geometry: Geometry

    @property
    def lung_ml(self) -> float:
        """Volume of the lungs, mL."""
        return float(self.lung.sum(dtype=np.float64)) * self.geometry.voxel_ml


@dataclass(frozen=True, eq=False)
class Alignment:
    """Result of a registration: for each point of the first scan, the same point of the lungs in the later scan.

    Attributes
    ----------
    affine : ndarray of float64, shape (3, 4)
        Matrix and translation that map points (x, y, z) of the first scan, mm in LPS, to points of the later scan.
    displacement : ndarray of float32, shape (z, y, x, 3)
        Vectors (x, y, z) in mm and LPS from voxels of the grid to their points in the later scan.
    geometry : Geometry
        Grid of the displacements, in the space of the first scan.
    dice : float
        Dice coefficient of the lungs of both scans, where both were scanned.
    overlap : float
        Part of the first scan's lungs that lies in the field of view of the later scan.
    similarity : float
        Correlation of the structure of both lungs.
    volume_ratio : float
        Mean of the Jacobian determinant over the lungs: volume of lung in the later scan per volume in the first.
    folded : float
        Part of the lungs in which the Jacobian determinant is not positive.
    """

    affine: npt.NDArray[np.float64]
    displacement: Floats
    geometry: Geometry
    dice: float
    overlap: float
    similarity: float
    volume_ratio: float
    folded: float


def reason_against(alignment: Alignment | None, kind: str) -> str | None:
    """Return why an alignment must not be used; None if it is good.

    Parameters
    ----------
    alignment : Alignment or None
        Result of `register_lungs`.
    kind : {"affine", "deformable"}
        Kind of the registration.
    """
    if alignment is None or alignment.overlap < LEAST_OVERLAP:
        part = 0.0 if alignment is None else alignment.overlap
        return (
            f"only {100 * part:.0f} % of the lungs of the first scan lie in the later scan; "
            f"at least {100 * LEAST_OVERLAP:.0f} % are needed"
        )
    if alignment.dice < LEAST_DICE[kind]:
        return (
            f"after the registration, the lungs of both scans overlap with a Dice coefficient of {alignment.dice:.2f}, "
            f"less than {LEAST_DICE[kind]:.2f}"
        )
    if kind == DEFORMABLE and alignment.similarity < LEAST_SIMILARITY:
        return (
            f"after the registration, the structure of both lungs has a correlation of {alignment.similarity:.2f}, "
            f"less than {LEAST_SIMILARITY:.2f}: the scans may be of different patients"
        )
    return None


def register_lungs(first: LungImage, later: LungImage, kind: str) -> Alignment | None:
    """Find the points of a later scan's lungs that belong to the points of the first scan's lungs.

    Parameters
    ----------
    first, later : LungImage
        Both scans on isotropic grids of the same spacing.
    kind : {"affine", "deformable"}
        Kind of the registration.

    Returns
    -------
    Alignment or None
        None if no position was found in which the lungs overlap.
    """
    scans = _images(first), _images(later)
    affine = _best_affine(scans[0][1], scans[1][1])
    if affine is None:
        return None
    field = _affine_field(affine, scans[0][0])
    if kind == DEFORMABLE:
        field = _deformed(scans[0][0], scans[1][0], affine, field)
    return _assess(first, scans, affine, sitk.GetArrayFromImage(field).astype(np.float32))


def lung_image(hu: npt.NDArray[Any], lung: npt.NDArray[Any], geometry: Geometry, margin_mm: float) -> LungImage | None:
    """Return the lungs of a scan on the isotropic grid of the registration; None if there is too little lung.

    Parameters
    ----------
    hu : ndarray, shape (z, y, x)
        HU of a reduced copy of the scan.
    lung : ndarray, shape (z, y, x)
        Part of each voxel that is lung, 0 to 1.
    geometry : Geometry
        Position of the voxels of the reduced copy.
    margin_mm : float
        Width of the border around the lungs, mm; the grid ends where the scan ends.
    """
    if float(lung.sum(dtype=np.float64)) * geometry.voxel_ml < LEAST_LUNG_ML:
        return None
    size: list[int] = []
    start: list[float] = []
    for axis in (2, 1, 0):
        spacing, n = geometry.spacing_zyx[axis], lung.shape[axis]
        inside = np.flatnonzero((lung > 0).any(axis=tuple(other for other in range(3) if other != axis)))
        low = max(float(inside[0]) * spacing - margin_mm, 0.0)
        high = min(float(inside[-1]) * spacing + margin_mm, (n - 1) * spacing)
        start.append(low)
        size.append(int((high - low) / GRID_MM) + 1)
    direction = np.reshape(geometry.direction, (3, 3))
    origin = tuple(np.asarray(geometry.origin) + direction @ np.array(start))
    grid = Geometry((size[0], size[1], size[2]), (GRID_MM,) * 3, origin, geometry.direction)
    target = grid.apply_to(sitk.Image(grid.size, sitk.sitkFloat32))
    images = (geometry.apply_to(sitk.GetImageFromArray(a.astype(np.float32))) for a in (np.clip(hu, *_HU_RANGE), lung))
    values = [sitk.GetArrayFromImage(_resample(image, target, sitk.Transform(), 0.0)) for image in images]
    return LungImage(values[0], values[1], grid)


def structure_of(image: LungImage) -> Floats:
    """Return the structure of the lungs: HU by which a voxel differs from its surroundings, in standard deviations.

    The surroundings are those in the lung, weighted by a Gaussian window. Outside the lung there is one higher value.
    """
    lung = np.clip(image.lung, 0, 1)
    hu = np.clip(image.hu, *_HU_RANGE)
    window = _WINDOW_MM / image.geometry.spacing[0]
    weight = ndimage.gaussian_filter(lung, window) + np.float32(1e-3)
    mean = ndimage.gaussian_filter(lung * hu, window) / weight
    variance = ndimage.gaussian_filter(lung * hu * hu, window) / weight - mean**2
    values = np.clip((hu - mean) / np.sqrt(np.maximum(variance, _LEAST_SD_HU**2)), *_STRUCTURE_RANGE)
    return (values * lung + _OUTSIDE * (1 - lung)).astype(np.float32)


def jacobian_of(displacement: Floats, geometry: Geometry) -> Floats:
    """Return the Jacobian determinant of a transform: volume in the later scan per volume in the first scan.

    Parameters
    ----------
    displacement : ndarray of float32, shape (z, y, x, 3)
        Displacements in mm.
    geometry : Geometry
        Their grid.

    Returns
    -------
    ndarray of float32, shape (z, y, x)
    """
    direction = np.reshape(geometry.direction, (3, 3))
    gradients = np.empty((*displacement.shape[:3], 3, 3), np.float32)
    for component in range(3):
        along = list(np.gradient(displacement[..., component], *geometry.spacing_zyx))
        # Columns are derivatives along the axes x, y, z of the grid.
        gradients[..., component, :] = np.stack(along[::-1], axis=-1)
    # Derivatives along the axes of the patient.
    matrices = gradients @ direction.T.astype(np.float32) + np.eye(3, dtype=np.float32)
    return np.linalg.det(matrices).astype(np.float32)


def _images(image: LungImage) -> tuple[sitk.Image, sitk.Image]:
    """Return the structure and the lungs as images of SimpleITK."""
    structure, lung = (sitk.GetImageFromArray(np.ascontiguousarray(a)) for a in (structure_of(image), image.lung))
    return image.geometry.apply_to(structure), image.geometry.apply_to(lung)


def _best_affine(fixed: sitk.Image, moving: sitk.Image) -> sitk.AffineTransform | None:
    """Return the affine transform that aligns two lungs best, of those found from several starts."""
    best, best_score = None, 0.0
    for start in _starts(fixed, moving):
        try:
            with _no_warnings():
                transform = _affine(fixed, moving, start)
        except RuntimeError:
            # SimpleITK found no voxel of one scan in the other, of which it also warns.
            continue
        dice, overlap = _dice(fixed, moving, transform)
        score = dice * min(1.0, overlap / LEAST_OVERLAP)
        if score > best_score + 0.01:
            best, best_score = transform, score
    return best


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Let SimpleITK print no warnings in a block."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _starts(fixed: sitk.Image, moving: sitk.Image) -> Iterator[sitk.AffineTransform]:
    """Yield translations: between the centres of mass, between the tops of the lungs, and none."""
    boxes = [_lung_points(image) for image in (fixed, moving)]
    centres = [points.mean(axis=0) for points in boxes]
    tops = [np.append(centre[:2], points[:, 2].max()) for centre, points in zip(centres, boxes, strict=True)]
    for shift in (centres[1] - centres[0], tops[1] - tops[0], np.zeros(3)):
        transform = sitk.AffineTransform(3)
        transform.SetCenter(centres[0].tolist())
        transform.SetTranslation(shift.tolist())
        yield transform


def _lung_points(image: sitk.Image) -> npt.NDArray[np.float64]:
    """Return the positions of lung voxels in mm, one in four along each axis."""
    step = 4
    indices = np.argwhere(sitk.GetArrayViewFromImage(image)[::step, ::step, ::step] > 0.5)[:, ::-1] * step
    columns = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    return np.asarray(image.GetOrigin() + indices @ columns.T, np.float64)


def _affine(fixed: sitk.Image, moving: sitk.Image, start: sitk.AffineTransform) -> sitk.AffineTransform:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.2, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([8, 4])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    transform = sitk.AffineTransform(start)
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return transform


def _dice(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> tuple[float, float]:
    """Return the Dice coefficient where both were scanned, and the part of the fixed lungs that was scanned twice."""
    lung = sitk.GetArrayViewFromImage(fixed) > 0.5
    values, scanned = _resampled(moving, fixed, transform)
    other = (values > 0.5) & scanned
    both, twice = int(np.count_nonzero(lung & other)), int(np.count_nonzero(lung & scanned))
    total, moved = int(np.count_nonzero(lung)), int(np.count_nonzero(other))
    return 2 * both / max(twice + moved, 1), twice / max(total, 1)


def _resampled(
    moving: sitk.Image, fixed: sitk.Image, transform: sitk.Transform
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return an image on the grid of another, and where that grid lies in it."""
    outside = -1000.0
    values = sitk.GetArrayFromImage(_resample(moving, fixed, transform, outside))
    return values, values > outside / 2


def _resample(moving: sitk.Image, grid: sitk.Image, transform: sitk.Transform, outside: float) -> sitk.Image:
    resample = sitk.ResampleImageFilter()
    resample.SetNumberOfThreads(1)
    resample.SetReferenceImage(grid)
    resample.SetTransform(transform)
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetDefaultPixelValue(outside)
    return resample.Execute(moving)


def _affine_field(transform: sitk.AffineTransform, grid: sitk.Image) -> sitk.Image:
    """Return an affine transform as displacements on a grid."""
    to_field = sitk.TransformToDisplacementFieldFilter()
    to_field.SetNumberOfThreads(1)
    to_field.SetReferenceImage(grid)
    to_field.SetOutputPixelType(sitk.sitkVectorFloat64)
    return to_field.Execute(transform)


def _deformed(
    fixed: sitk.Image, moving: sitk.Image, affine: sitk.AffineTransform, affine_field: sitk.Image
) -> sitk.Image:
    """Return the displacements of an affine transform after a deformable registration, from coarse to fine."""
    field: sitk.Image | None = None
    for step, smoothing, iterations in _LEVELS:
        target, source = (_smoothed(image, smoothing) for image in (fixed, moving))
        if step > 1:
            target = sitk.Shrink(target, [step] * 3)
        values, scanned = _resampled(source, target, affine)
        # What the later scan does not show must not pull.
        values = np.where(scanned, values, sitk.GetArrayViewFromImage(target))
        aligned = sitk.GetImageFromArray(values.astype(np.float32))
        aligned.CopyInformation(target)
        if field is None:
            field = sitk.Image(target.GetSize(), sitk.sitkVectorFloat64)
            field.CopyInformation(target)
        else:
            field = _resample(field, target, sitk.Transform(), 0.0)
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfThreads(1)
        demons.SetNumberOfIterations(iterations)
        demons.SetMaximumUpdateStepLength(_LONGEST_STEP)
        demons.SetStandardDeviations(_FIELD_SD)
        demons.SetSmoothUpdateField(True)
        demons.SetUpdateFieldStandardDeviations(_UPDATE_SD)
        field = demons.Execute(target, aligned, field)
    # The demons move points before the affine transform does.
    matrix = np.reshape(affine.GetMatrix(), (3, 3))
    moved = sitk.GetArrayFromImage(field) @ matrix.T + sitk.GetArrayViewFromImage(affine_field)
    total = sitk.GetImageFromArray(moved, isVector=True)
    total.CopyInformation(fixed)
    return total


def _smoothed(image: sitk.Image, sd_mm: float) -> sitk.Image:
    if not sd_mm:
        return image
    smooth = sitk.SmoothingRecursiveGaussianImageFilter()
    smooth.SetNumberOfThreads(1)
    smooth.SetSigma(sd_mm)
    return smooth.Execute(image)


def _assess(
    first: LungImage,
    scans: tuple[tuple[sitk.Image, sitk.Image], tuple[sitk.Image, sitk.Image]],
    affine: sitk.AffineTransform,
    displacement: Floats,
) -> Alignment:
    (structure, lung), (later_structure, later_lung) = scans
    field = first.geometry.apply_to(sitk.GetImageFromArray(displacement.astype(np.float64), isVector=True))
    transform = sitk.DisplacementFieldTransform(field)
    dice, overlap = _dice(lung, later_lung, transform)
    mask = first.lung > 0.5
    aligned, scanned = _resampled(later_structure, structure, transform)
    # Structure inside both lungs, away from their borders, which agree anyway.
    inside = mask & scanned & (aligned < _STRUCTURE_RANGE[1])
    pairs = sitk.GetArrayViewFromImage(structure)[inside], aligned[inside]
    similarity = float(np.corrcoef(*pairs)[0, 1]) if np.count_nonzero(inside) > 1 else 0.0
    jacobian = jacobian_of(displacement, first.geometry)[mask]
    offset = np.asarray(affine.TransformPoint((0.0, 0.0, 0.0)), np.float64)
    return Alignment(
        np.column_stack([np.reshape(affine.GetMatrix(), (3, 3)), offset]),
        displacement,
        first.geometry,
        dice,
        overlap,
        0.0 if np.isnan(similarity) else similarity,
        float(jacobian.mean(dtype=np.float64)),
        float(np.count_nonzero(jacobian <= 0) / max(len(jacobian), 1)),
    )
