"""Registration of lungs: a scan and the same lungs, deformed by a known field."""

import numpy as np
import pytest
import SimpleITK as sitk

from lungmix.geometry import Geometry
from lungmix.kernels.registration import (
    LATER_MARGIN_MM,
    MARGIN_MM,
    jacobian_of,
    lung_image,
    reason_against,
    register_lungs,
    structure_of,
)
from support.breathing import FIRST, LATER, points_of, scan, to_first


def lungs(geometry, amount=0.0, seed=0, later=False):
    hu, lung = scan(geometry, amount, seed)
    return lung_image(hu, lung.astype(np.float32), geometry, LATER_MARGIN_MM if later else MARGIN_MM)


def transform_of(alignment):
    field = sitk.GetImageFromArray(alignment.displacement.astype(np.float64), isVector=True)
    return sitk.DisplacementFieldTransform(alignment.geometry.apply_to(field))


def landmark_errors(alignment, amount=1.0, geometry=LATER, n=2000):
    """Return distances in mm between known points of the later scan and those that the registration finds."""
    _, lung = scan(geometry, amount)
    points = points_of(geometry)[:, lung > 0].T
    points = points[np.random.default_rng(3).integers(0, len(points), n)]
    transform = transform_of(alignment)
    predicted = np.array([transform.TransformPoint(point) for point in to_first(points.T, amount).T.tolist()])
    return np.linalg.norm(predicted - points, axis=1)


@pytest.fixture(scope="module")
def first():
    return lungs(FIRST)


@pytest.fixture(scope="module")
def alignment(first):
    return register_lungs(first, lungs(LATER, 1.0, later=True), "deformable")


def test_landmarks_are_found_within_two_millimetres(alignment):
    errors = landmark_errors(alignment)
    assert errors.mean() < 1.2
    assert np.percentile(errors, 95) < 3
    assert alignment.dice > 0.97
    assert alignment.similarity > 0.8
    assert alignment.folded == 0
    assert alignment.overlap == pytest.approx(1, abs=0.02)
    assert reason_against(alignment, "deformable") is None


def test_volume_ratio_is_that_of_the_lungs(alignment):
    before, after = (
        scan(geometry, amount)[1].sum() * geometry.voxel_ml for geometry, amount in ((FIRST, 0), (LATER, 1))
    )
    assert alignment.volume_ratio == pytest.approx(after / before, rel=0.02)


def test_affine_registration_halves_the_distances_and_has_an_affine_field(first):
    alignment = register_lungs(first, lungs(LATER, 1.0, later=True), "affine")
    errors = landmark_errors(alignment)
    assert errors.mean() < 5
    points = points_of(alignment.geometry)
    matrix, offset = alignment.affine[:, :3], alignment.affine[:, 3]
    expected = np.einsum("ij,jzyx->izyx", matrix, points) + offset.reshape(3, 1, 1, 1) - points
    assert np.abs(np.moveaxis(alignment.displacement, -1, 0) - expected).max() < 0.01
    assert reason_against(alignment, "affine") is None


def test_result_is_the_same_each_time(first, alignment):
    again = register_lungs(first, lungs(LATER, 1.0, later=True), "deformable")
    assert np.array_equal(again.displacement, alignment.displacement)


def test_later_scan_may_be_cut(first):
    """A third of the lungs is missing at the feet: what is left is found, and the rest does not pull it away."""
    geometry = Geometry((128, 84, 46), LATER.spacing, (-110.0, -80.0, -29.0))
    alignment = register_lungs(first, lungs(geometry, 1.0, later=True), "deformable")
    assert landmark_errors(alignment, geometry=geometry).mean() < 1.5
    assert 0.5 < alignment.overlap < 0.85
    assert alignment.dice > 0.95


def test_another_patient_is_less_similar(first, alignment):
    other = register_lungs(first, lungs(LATER, 1.0, seed=5, later=True), "deformable")
    assert other.similarity < alignment.similarity - 0.3


def test_lungs_that_do_not_overlap_have_a_reason(first):
    assert reason_against(None, "affine").startswith("only 0 % of the lungs")
    thin = Geometry((128, 84, 8), LATER.spacing, (-110.0, -80.0, 60.0))
    reason = reason_against(register_lungs(first, lungs(thin, 1.0, later=True), "deformable"), "deformable")
    assert "lungs of the first scan lie in the later scan" in reason


def test_too_little_lung_is_no_image():
    hu, lung = scan(FIRST)
    lung[:] = 0
    lung[10, 10, 10] = 1
    assert lung_image(hu, lung.astype(np.float32), FIRST, 10) is None


def test_structure_does_not_depend_on_the_density_of_the_lung(first):
    hu, lung = scan(FIRST, noise=0)
    lung = lung.astype(np.float32)
    denser = np.where(lung > 0, -1000 + (hu + 1000.0) * 1.3, hu)
    before, after = (structure_of(lung_image(values, lung, FIRST, 10)) for values in (hu, denser))
    inside = first.lung > 0.99
    assert np.corrcoef(before[inside], after[inside])[0, 1] > 0.99
    outside = first.lung == 0
    assert (before[outside] == 4).all()


def test_jacobian_of_a_known_field():
    geometry = Geometry((9, 8, 7), (2, 2, 2), (3, 4, 5), (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    points = np.moveaxis(points_of(geometry), 0, -1)
    matrix = np.array([[0.1, 0.2, 0], [0, -0.2, 0.1], [0.05, 0, 0.3]])
    jacobian = jacobian_of((points @ matrix.T).astype(np.float32), geometry)
    assert np.allclose(jacobian, np.linalg.det(np.eye(3) + matrix), atol=1e-4)
