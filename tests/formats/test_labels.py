"""Label maps are detected, and a CT is never mistaken for a label map."""

import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from lungmix.errors import reveal
from lungmix.formats import RejectedSource, Scan, SkippedSource, find_scans
from lungmix.formats.labels import labels_of
from lungmix.formats.voxel_streams import VoxelData
from lungmix.phantom import Phantom

SHAPE = (20, 24, 28)


def labels(values=(1, 2)):
    """Return a label map with a box of each value in a background of 0."""
    volume = np.zeros(SHAPE, np.int16)
    for number, value in enumerate(values):
        volume[5:15, 6:18, 2 + 5 * number : 6 + 5 * number] = value
    return volume


def save(path, volume):
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(path))
    return path


def only(path):
    (item,) = find_scans(path)
    return item


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz", ".mha"])
def test_label_map_as_source_is_rejected_as_a_label_map(tmp_path, extension, dtype):
    item = only(save(tmp_path / f"lungs{extension}", labels().astype(dtype)))
    assert isinstance(item, RejectedSource)
    assert "is a label map, not CT (it holds the values 0, 1 and 2)" in item.reason


@pytest.mark.parametrize("source", ["folder", "archive"])
def test_label_maps_in_a_folder_are_skipped_and_the_ct_is_used(tmp_path, source):
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "lungs.nrrd", labels())
    save(folder / "many.nii.gz", labels((9, 512, 14)).astype(np.int16))
    save(folder / "empty.mha", np.zeros(SHAPE, np.uint8))
    save(folder / "ct.nrrd", Phantom(SHAPE).volume())
    if source == "archive":
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for file in folder.iterdir():
                archive.write(file, file.name)
        folder = tmp_path / "all.zip"
    items = find_scans(folder)
    assert [type(item) for item in items if "ct" in Path(item.path).name] == [Scan]
    skipped = [item for item in items if isinstance(item, SkippedSource)]
    assert len(skipped) == 3
    assert all("is a label map, not CT" in item.reason for item in skipped)


def test_segmentation_of_slicer_is_detected_by_its_header(tmp_path):
    head = (
        "NRRD0004\ntype: unsigned char\ndimension: 4\nspace: left-posterior-superior\nsizes: 2 5 6 7\n"
        "space directions: none (1,0,0) (0,1,0) (0,0,1)\nkinds: list domain domain domain\nendian: little\n"
        "encoding: raw\nspace origin: (0,0,0)\nSegment0_ID:=Segment_1\nSegment0_LabelValue:=1\n\n"
    )
    (tmp_path / "x.seg.nrrd").write_bytes(head.encode() + bytes(420))
    item = only(tmp_path / "x.seg.nrrd")
    assert "x.seg.nrrd is a segmentation by its header, not CT" in reveal(item.reason)


def test_nifti_that_calls_itself_labels_is_a_segmentation(tmp_path):
    image = nibabel.Nifti1Image(np.arange(210, dtype=np.int16).reshape(5, 6, 7), np.eye(4))
    image.header.set_intent("label")
    nibabel.save(image, tmp_path / "x.nii")
    assert "segmentation" in only(tmp_path / "x.nii").reason


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["<i2", ">i2", "<u2", "<i4", "<f4", "<f8"]),
    noise=st.floats(0, 40),
    lowest=st.sampled_from([-1024, -1000, -3024, -500]),
    padding=st.integers(0, 12),
)
@settings(max_examples=60, deadline=None)
def test_no_ct_is_called_a_label_map(tmp_path_factory, seed, dtype, noise, lowest, padding):
    # Volumes have air, lung and tissue, smooth or noisy, after empty slices of 0; unsigned types store shifted values.
    random = np.random.default_rng(seed)
    volume = np.full(SHAPE, lowest, float)
    volume[:, 4:20, 4:24] = 40
    volume[:, 8:16, 8:20] = -800
    volume = np.rint(np.clip(volume + random.normal(scale=noise, size=SHAPE), lowest, 3000))
    volume[:padding] = 0
    intercept = -4096.0 if dtype[1] == "u" else 0.0
    path = tmp_path_factory.mktemp("ct") / "raw"
    path.write_bytes((volume - intercept).astype(dtype).tobytes())
    assert labels_of(VoxelData(str(path), 0, "raw", np.dtype(dtype), 1.0, intercept), SHAPE) is None


@pytest.mark.parametrize("shape", [(2, 2, 2), (7, 6, 5), SHAPE])
def test_volumes_without_structure_are_no_label_maps(tmp_path, shape):
    size = int(np.prod(shape))
    for number, volume in enumerate([
        np.zeros(shape, np.int16), np.arange(size, dtype=np.int16).reshape(shape), np.full(shape, 40, np.int16),
        np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8),
        np.random.default_rng(0).random(shape).astype(np.float32),
    ]):  # fmt: skip
        save(tmp_path / f"{number}.mha", volume)
    assert all(isinstance(item, Scan) for item in find_scans(tmp_path))


def test_ct_is_detected_by_its_first_slices(tmp_path, monkeypatch):
    from lungmix.formats import labels as module

    pieces = []
    monkeypatch.setattr(module, "_SLAB_BYTES", 1)
    monkeypatch.setattr(
        module, "_labels_in", lambda slab, labels_in=module._labels_in: pieces.append(slab) or labels_in(slab)
    )
    (tmp_path / "raw").write_bytes(Phantom(SHAPE).volume().astype("<i2").tobytes())
    assert labels_of(VoxelData(str(tmp_path / "raw"), 0, "raw", np.dtype("<i2")), SHAPE) is None
    assert len(pieces) == 1
