"""Label maps in image files of each format, type of numbers and value, and files that are no label maps."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from lungmix.errors import SourceError, reveal
from lungmix.formats.masks import EmptyMaskError, is_mask_file, offset_in_grid, open_mask
from lungmix.geometry import Geometry

LABELS = np.random.default_rng(1).integers(0, 4, (7, 5, 6)).astype(np.uint8)
SPACING = (0.7, 0.8, 1.25)


def image_file(folder, name="mask.nrrd", labels=LABELS):
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(SPACING)
    image.SetOrigin((-10.0, 20.0, 30.5))
    sitk.WriteImage(image, str(folder / name), True)
    return folder / name


def read(mask, values, thickness=3, geometry=None):
    return np.concatenate(list(mask.label_slabs(values, geometry or mask.geometry, thickness)))


@pytest.mark.parametrize("name", ["mask.nrrd", "mask.nii", "mask.nii.gz", "mask.mha", "mask.mhd", "mask.nhdr"])
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_labels_of_every_format_and_type_are_read(tmp_path, name, kind):
    file = image_file(tmp_path, name, LABELS.astype(kind))
    assert is_mask_file(file)
    mask = pickle.loads(pickle.dumps(open_mask(file)))
    assert mask.kind == "image"
    assert mask.geometry.size == (6, 5, 7)
    assert np.allclose(mask.geometry.origin, (-10, 20, 30.5))
    expected = np.select([LABELS == 1, LABELS == 3], [2, 7], 0)
    assert np.array_equal(read(mask, {1: 2, 3: 7, 9: 1}), expected)


@pytest.mark.parametrize("thickness", [1, 2, 7, 100])
def test_slabs_have_the_requested_thickness(tmp_path, thickness):
    mask = open_mask(image_file(tmp_path))
    slabs = list(mask.label_slabs({1: 1}, mask.geometry, thickness))
    assert [len(slab) for slab in slabs[:-1]] == [thickness] * (len(slabs) - 1)
    assert all(slab.dtype == np.uint8 for slab in slabs)
    assert np.array_equal(np.concatenate(slabs), LABELS == 1)


def test_large_values_are_labels_too(tmp_path):
    mask = open_mask(image_file(tmp_path, labels=np.where(LABELS == 2, 70_000, 0).astype(np.int32)))
    assert np.array_equal(read(mask, {70_000: 255}), np.where(LABELS == 2, 255, 0))


def test_values_between_integers_are_rejected(tmp_path):
    probability = LABELS.astype(np.float32)
    probability[4, 3, 2] = 0.25
    with pytest.raises(SourceError, match=r"0\.25 at slice 4, row 3, column 2: labels are integers"):
        read(open_mask(image_file(tmp_path, labels=probability)), {1: 1})


def test_mask_without_the_labels_is_rejected_after_its_last_slab(tmp_path):
    mask = open_mask(image_file(tmp_path))
    slabs = []
    with pytest.raises(EmptyMaskError, match="no voxel of the labels 8, 9"):
        slabs += list(mask.label_slabs({9: 1, 8: 2}, mask.geometry, 3))
    many = dict.fromkeys(range(10, 18), 1)
    with pytest.raises(EmptyMaskError, match="10, 11, 12, 13, 14 and 3 more"):
        read(mask, many)


def test_colour_and_time_are_rejected(tmp_path):
    colour = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "colour.nrrd"))
    series = sitk.GetImageFromArray(np.zeros((2, 3, 4, 5), np.uint8), isVector=False)
    sitk.WriteImage(series, str(tmp_path / "series.nii"))
    with pytest.raises(SourceError, match="3 values per voxel"):
        open_mask(tmp_path / "colour.nrrd")
    with pytest.raises(SourceError, match="4-D image"):
        open_mask(tmp_path / "series.nii")


def test_another_grid_is_rejected(tmp_path):
    mask = open_mask(image_file(tmp_path))
    size, spacing, origin = mask.geometry.size, mask.geometry.spacing, mask.geometry.origin
    nearly = Geometry(size, spacing, (origin[0] + 1e-4, *origin[1:]))
    assert np.array_equal(read(mask, {1: 1}, geometry=nearly), LABELS == 1)
    for other in (Geometry(size, spacing, (origin[0] + 0.01, *origin[1:])), Geometry((6, 5, 6), spacing, origin)):
        with pytest.raises(SourceError, match="another grid than the scan: resample it"):
            read(mask, {1: 1}, geometry=other)


@pytest.mark.parametrize("thickness", [1, 4, 50])
def test_part_of_the_grid_is_surrounded_by_zeros(tmp_path, thickness):
    mask = open_mask(image_file(tmp_path))
    x, y, z = np.subtract(mask.geometry.origin, np.multiply(SPACING, (2, 1, 9)))
    grid = Geometry((8, 8, 17), SPACING, (x, y, z))
    expected = np.zeros(grid.shape, np.uint8)
    expected[9:16, 1:6, 2:8] = LABELS == 1
    slabs = list(mask.label_slabs({1: 1}, grid, thickness))
    assert np.array_equal(np.concatenate(slabs), expected)
    assert {len(slab) for slab in slabs[:-1]} <= {thickness}
    assert offset_in_grid(mask.geometry, grid) == (9, 1, 2)
    for other in (
        replace(grid, size=(7, 8, 17)),
        replace(grid, origin=(x, y, z + 0.01)),
        replace(grid, size=(8, 8, 15)),
    ):
        assert offset_in_grid(mask.geometry, other) is None
        with pytest.raises(SourceError, match="another grid"):
            read(mask, {1: 1}, geometry=other)
    assert offset_in_grid(mask.geometry, replace(grid, orientation_known=False)) is None


@pytest.mark.parametrize("name", ["mask.nrrd", "mask.nii.gz", "mask.mha"])
def test_truncated_and_empty_files_are_rejected(tmp_path, name):
    file = image_file(tmp_path, name)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(SourceError, match=r"cut short|corrupt") as error:
        read(open_mask(file), {1: 1})
    assert error.value.path == str(file)
    file.write_bytes(b"")
    with pytest.raises(SourceError, match="is empty"):
        open_mask(file)


def test_corrupt_checksum_is_found(tmp_path):
    file = image_file(tmp_path)
    content = bytearray(file.read_bytes())
    content[-6] ^= 1
    file.write_bytes(content)
    with pytest.raises(SourceError, match="corrupt"):
        read(open_mask(file), {1: 1})


def test_more_voxels_than_declared_are_rejected(tmp_path):
    file = image_file(tmp_path)
    content = file.read_bytes()
    assert b"sizes: 6 5 7" in content
    file.write_bytes(content.replace(b"sizes: 6 5 7", b"sizes: 6 5 6"))
    with pytest.raises(SourceError, match="more voxels than its header declares"):
        read(open_mask(file), {1: 1})


def test_files_that_are_no_masks_are_rejected(tmp_path):
    (tmp_path / "mask.txt").write_text("1")
    for path in (tmp_path / "mask.txt", tmp_path / "missing.nrrd", tmp_path):
        assert not is_mask_file(path)
        with pytest.raises(SourceError) as error:
            open_mask(path)
        assert reveal(error.value.raw_message).startswith(path.name)


def test_lobes_of_total_segmentator_are_known_by_the_names_of_files(tmp_path):
    (segment,) = open_mask(image_file(tmp_path, "lung_upper_lobe_left.nii.gz")).segments
    assert (segment.number, segment.region) == (1, "left_upper")
    assert open_mask(image_file(tmp_path, "lung.nii.gz")).segments == ()


def test_repr_shows_no_names(tmp_path):
    mask = open_mask(image_file(tmp_path, "lung_upper_lobe_left.nii.gz"))
    assert "lung_upper" not in repr(mask) + repr(mask.segments)
