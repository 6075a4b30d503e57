"""Axes in NRRD and MetaImage headers: axes of one voxel after the third, and unknown or inconsistent orientations."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

from lungmix.errors import SourceError
from lungmix.formats import RejectedSource, Scan, find_scans
from lungmix.formats.nrrd import read_nrrd
from lungmix.geometry import Geometry

VOLUME = np.arange(-100, 110, dtype="<i2").reshape(7, 6, 5)
DIRECTIONS = "space directions: (0.7,0,0) (0,0.8,0) (0,0,1.25)\n"


def nrrd(folder, lines, sizes="5 6 7", name="x.nrrd"):
    head = f"NRRD0005\ntype: short\ndimension: {len(sizes.split())}\nsizes: {sizes}\nendian: little\nencoding: raw\n"
    (folder / name).write_bytes(head.encode() + lines.encode() + b"\n" + VOLUME.tobytes())
    return folder / name


def meta(folder, lines="", sizes="5 6 7", name="x.mha"):
    head = f"ObjectType = Image\nNDims = {len(sizes.split())}\nDimSize = {sizes}\nElementType = MET_SHORT\n{lines}"
    (folder / name).write_bytes(head.encode() + b"ElementDataFile = LOCAL\n" + VOLUME.tobytes())
    return folder / name


def only(path):
    (item,) = find_scans(path)
    return item


def voxels(scan):
    return np.concatenate(list(scan.slabs(3)))


@pytest.mark.parametrize("ones", [1, 2])
@pytest.mark.parametrize("extension", [".mha", ".mhd", ".nrrd", ".nhdr", ".nii", ".nii.gz"])
def test_axes_of_one_voxel_after_the_third_are_ignored(tmp_path, extension, ones):
    image = sitk.GetImageFromArray(VOLUME.reshape((1,) * ones + VOLUME.shape), isVector=False)
    image.SetSpacing((0.7, 0.8, 1.25, *[2.0] * ones))
    image.SetOrigin((1, 2, 3, *[4] * ones))
    direction = np.eye(3 + ones)
    if not extension.startswith(".nii"):
        direction[:3, :3] = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    image.SetDirection(direction.ravel().tolist())
    path = tmp_path / f"x{extension}"
    sitk.WriteImage(image, str(path))
    scan = only(path)
    assert isinstance(scan, Scan), scan.reason
    assert np.array_equal(voxels(scan), VOLUME)
    assert np.allclose(scan.geometry.spacing, (0.7, 0.8, 1.25))
    if not extension.startswith(".nii"):
        assert scan.geometry.origin == (1, 2, 3)
        assert np.allclose(np.reshape(scan.geometry.direction, (3, 3)), direction[:3, :3])


@pytest.mark.parametrize(
    ("sizes", "lines"),
    [
        ("5 6 7 1", "space: LPS\nspace directions: (0.7,0,0) (0,0.8,0) (0,0,1.25) none\n"),
        ("1 5 6 7", "space: LPS\nspace directions: none (0.7,0,0) (0,0.8,0) (0,0,1.25)\n"),
        ("5 6 7 1", "space: LPST\nspace directions: (0.7,0,0,0) (0,0.8,0,0) (0,0,1.25,0) (0,0,0,1)\n"),
        ("5 6 7 1", "space: RAS-time\nspace directions: (0.7,0,0,0) (0,0.8,0,0) (0,0,1.25,0) (0,0,0,1)\n"),
        ("1 5 6 7 1", "space: LPS\nspace directions: none (0.7,0,0) (0,0.8,0) (0,0,1.25) none\n"),
    ],
)  # fmt: skip
def test_axis_of_one_voxel_without_direction_is_ignored(tmp_path, sizes, lines):
    scan = only(nrrd(tmp_path, lines, sizes))
    assert isinstance(scan, Scan), scan.reason
    assert np.array_equal(voxels(scan), VOLUME)
    assert scan.geometry.spacing == (0.7, 0.8, 1.25)
    assert scan.geometry.orientation_known


@pytest.mark.parametrize("extension", [".mha", ".nrrd"])
def test_fourth_axis_of_two_voxels_is_rejected(tmp_path, extension):
    sitk.WriteImage(sitk.Image([5, 6, 7, 2], sitk.sitkInt16), str(tmp_path / f"x{extension}"))
    assert isinstance(only(tmp_path / f"x{extension}"), RejectedSource)


@pytest.mark.parametrize(
    ("lines", "is_known"),
    [
        ("spacings: 0.7 0.8 1.25\n", False),
        ("", False),
        ("space dimension: 3\n" + DIRECTIONS, False),
        ("space: scanner-xyz\n" + DIRECTIONS, False),
        ("space: 3D-right-handed\n" + DIRECTIONS, False),
        ("space: LPS\n", False),
        ("space: LPS\nspacings: 0.7 0.8 1.25\n", False),
        ("space: LPS\n" + DIRECTIONS, True),
        ("space: right-anterior-superior\n" + DIRECTIONS, True),
        ("space: Left-Anterior-Superior\n" + DIRECTIONS, True),
    ],
)
def test_nrrd_knows_its_orientation_by_directions_in_a_space_of_the_patient(tmp_path, lines, is_known):
    scan = only(nrrd(tmp_path, lines))
    assert isinstance(scan, Scan), scan.reason
    assert scan.geometry.orientation_known is is_known
    if "0.7" in lines:
        assert scan.geometry.spacing == (0.7, 0.8, 1.25)


@pytest.mark.parametrize(
    ("lines", "is_known"),
    [
        ("", False),
        ("ElementSpacing = 0.7 0.8 1.25\n", False),
        ("AnatomicalOrientation = ???\n", False),
        ("AnatomicalOrientation = LPS\n", False),
        ("AnatomicalOrientation = RAI\n", True),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", True),
        ("Orientation = 1 0 0 0 1 0 0 0 1\n", True),
        ("Rotation = 1 0 0 0 1 0 0 0 1\n", True),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1\nAnatomicalOrientation = ???\n", True),
    ],
)
def test_metaimage_knows_its_orientation_by_a_matrix_or_a_name(tmp_path, lines, is_known):
    scan = only(meta(tmp_path, lines))
    assert scan.geometry.orientation_known is is_known
    assert scan.geometry.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_names_of_axes_that_simpleitk_writes_contradict_no_matrix(tmp_path, order):
    for signs in itertools.product((1, -1), repeat=3):
        image = sitk.GetImageFromArray(VOLUME)
        image.SetDirection((np.eye(3)[list(order)] * signs).ravel().tolist())
        sitk.WriteImage(image, str(tmp_path / "x.mha"))
        scan = only(tmp_path / "x.mha")
        assert scan.geometry == Geometry.from_sitk(image)
        assert not scan.notes


def test_names_of_axes_that_are_inconsistent_with_the_matrix_are_noted(tmp_path):
    scan = only(meta(tmp_path, "TransformMatrix = -1 0 0 0 -1 0 0 0 1\nAnatomicalOrientation = RAI\n"))
    assert scan.geometry.direction == (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    assert "AnatomicalOrientation (RAI) and its TransformMatrix (LPI)" in scan.notes[0]


def test_element_size_that_is_inconsistent_with_the_spacing_is_noted(tmp_path):
    scan = only(meta(tmp_path, "ElementSpacing = 1 2 3\nElementSize = 1 2 5\n"))
    assert scan.geometry.spacing == (1, 2, 3)
    assert "ElementSpacing is used" in scan.notes[0]
    assert not only(meta(tmp_path, "ElementSpacing = 1 2 3\nElementSize = 1 2 3\n")).notes


def test_spacings_with_directions_are_rejected_unless_they_are_consistent(tmp_path):
    scan = only(nrrd(tmp_path, "spacings: 0.7 0.8 1.25\nspace: LPS\n" + DIRECTIONS))
    assert scan.geometry.spacing == (0.7, 0.8, 1.25)
    item = only(nrrd(tmp_path, "spacings: 0.7 0.8 2.5\nspace: LPS\n" + DIRECTIONS))
    assert "inconsistent" in item.reason


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("Segment{}_Name:=vessel\nSegment{}_Extent:=0 4 0 5 0 6\n", "export fewer segments"),
        ("# {}\n", "get the file again"),
    ],
)
def test_a_header_above_the_limit_is_said_to_be_too_large(tmp_path, line, remedy):
    lines = DIRECTIONS + "".join(line.replace("{}", str(number)) for number in range(200_000))
    with pytest.raises(SourceError, match="has a header of more than 1 MiB, which is not read") as caught:
        read_nrrd(nrrd(tmp_path, lines))
    assert caught.value.remedy == remedy
