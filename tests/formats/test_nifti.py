"""Geometry of NIfTI files: as nibabel reads it, within the tolerances of the docs, and unknown orientations."""

import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from lungmix.formats import RejectedSource, Scan, find_scans
from lungmix.geometry import Geometry

SIZE = (5, 6, 7)
SPACING = (0.7, 0.8, 1.25)


def affine_of(degrees=0.0, flip=False, scale=1.0, shift=(10.0, 20.0, -30.0)):
    """Return an affine whose second axis is `degrees` off a right angle to the first axis."""
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    turn = np.radians(degrees)
    affine[:2, 1] = SPACING[1] * np.sin(turn), -SPACING[1] * np.cos(turn)
    affine[:3, :3] *= scale
    affine[0] *= -1 if flip else 1
    affine[:3, 3] = shift
    return affine


def write(folder, sform=None, qform=None, codes=(0, 0), qfac=None, name="x.nii"):
    image = nibabel.Nifti1Image(np.zeros(SIZE, np.int16), np.eye(4))
    image.set_sform(sform, codes[0])
    image.set_qform(qform, codes[1])
    image.header.set_zooms(SPACING)
    nibabel.save(image, folder / name)
    if qfac is not None:  # nibabel always writes its own value
        content = bytearray((folder / name).read_bytes())
        content[76:80] = struct.pack("<f", qfac)
        (folder / name).write_bytes(content)
    return folder / name


def only(path):
    (item,) = find_scans(path)
    return item


def affine_in_ras(geometry):
    columns = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    return np.diag([-1, -1, 1]) @ np.column_stack([columns, geometry.origin])


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
@pytest.mark.parametrize("degrees", [0, 0.003, 0.01, 0.1, 0.3, 0.5])
def test_sform_off_the_right_angle_within_the_docs_tolerance_is_read(tmp_path, degrees, extension):
    path = write(tmp_path, affine_of(degrees), codes=(2, 0), name=f"x{extension}")
    scan = only(path)
    assert isinstance(scan, Scan), scan.reason
    affine = nibabel.load(path).affine
    assert scan.geometry.voxel_ml == pytest.approx(abs(np.linalg.det(affine)) / 1000, rel=1e-4)
    assert np.allclose(affine_in_ras(scan.geometry), affine[:3], rtol=0, atol=1e-5)
    assert scan.geometry.orientation_known


def test_sform_beyond_the_docs_tolerance_is_rejected_for_its_angles(tmp_path):
    item = only(write(tmp_path, affine_of(0.7), codes=(2, 0)))
    assert isinstance(item, RejectedSource)
    assert "right angles" in item.reason


@pytest.mark.parametrize("scale", [1.00001, 1.001, 1.009, 0.995])
def test_volume_is_that_of_the_sform_where_it_is_scaled(tmp_path, scale):
    path = write(tmp_path, affine_of(scale=scale), codes=(1, 0))
    determinant = abs(np.linalg.det(nibabel.load(path).affine))
    assert only(path).geometry.voxel_ml == pytest.approx(determinant / 1000, rel=1e-4)


@given(
    seed=st.integers(0, 2**32 - 1),
    codes=st.sampled_from([(0, 1), (0, 2), (1, 0), (2, 0), (4, 0), (1, 1), (2, 1), (1, 2)]),
    mirrored=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_geometry_is_nibabels_for_any_rotation_and_codes(tmp_path_factory, seed, codes, mirrored):
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    rotation[:, 2] *= np.linalg.det(rotation) * (-1 if mirrored else 1)
    affine = np.eye(4)
    affine[:3, :3] = rotation * SPACING
    affine[:3, 3] = random.uniform(-400, 400, 3)
    path = write(tmp_path_factory.mktemp("nifti"), affine, affine, codes)
    scan = only(path)
    assert np.allclose(affine_in_ras(scan.geometry), nibabel.load(path).affine[:3], rtol=0, atol=1e-3)
    assert not scan.notes


@pytest.mark.parametrize("codes", [(2, 1), (2, 2), (4, 1), (1, 2), (1, 1)])
def test_sform_is_used_and_noted_where_the_qform_swaps_right_and_left(tmp_path, codes):
    path = write(tmp_path, affine_of(), affine_of(flip=True), codes)
    scan = only(path)
    assert np.allclose(affine_in_ras(scan.geometry), nibabel.load(path).affine[:3], atol=1e-5)
    (note,) = scan.notes
    assert "L P S by the sform and to R P S by the qform" in note


def test_sform_and_qform_that_differ_are_noted_with_their_distance(tmp_path):
    scan = only(write(tmp_path, affine_of(), affine_of(shift=(10, 20, -20)), (2, 1)))
    assert "14.3 voxels apart" in scan.notes[0]
    assert scan.geometry.origin == (-10, -20, -30)


def test_sform_and_qform_that_differ_by_rounding_have_no_note(tmp_path):
    scan = only(write(tmp_path, affine_of(), affine_of(shift=(10.1, 20, -30)), (2, 1)))
    assert not scan.notes


@pytest.mark.parametrize("qfac", [-1, 0, 1])
def test_qform_alone_is_read_with_its_sign(tmp_path, qfac):
    path = write(tmp_path, qform=affine_of(), codes=(0, 1), qfac=qfac)
    scan = only(path)
    assert scan.geometry == Geometry.from_sitk(sitk.ReadImage(str(path)))
    assert scan.geometry.direction[8] == (-1 if qfac < 0 else 1)
    assert scan.geometry.orientation_known


def test_orientation_is_not_known_where_both_codes_are_0(tmp_path):
    path = write(tmp_path, affine_of(), affine_of(), (0, 0))
    geometry = only(path).geometry
    assert not geometry.orientation_known
    assert geometry.spacing == pytest.approx(SPACING)
    assert geometry.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)


@pytest.mark.parametrize("sform", [True, False])
def test_one_form_is_enough_to_know_the_orientation(tmp_path, sform):
    scan = only(write(tmp_path, affine_of(), affine_of(), (1, 0) if sform else (0, 1)))
    assert scan.geometry.orientation_known
