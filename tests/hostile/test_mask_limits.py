"""Masks that are too large or impossible are rejected in one sentence, within limits of time and memory."""

import gzip
import zlib

import nibabel
import numpy as np
import pytest

from hostile.masks import GRID, LABELS, masks_by_lungmix
from hostile.outcome import faults_of_reason
from support.segmentations import LEFT, RIGHT, segment, segmentation
from support.structure_sets import contour, long_contour, structure_set


def nrrd(folder, *, sizes="7 5 9", content=None, lines=(), encoding="gzip", name="mask.nrrd", dimension=3):
    vectors = "none " * (dimension - 3) + "(0.5,0,0) (0,0.75,0) (0,0,2)"
    header = [
        "NRRD0004", "type: unsigned char", f"dimension: {dimension}", "space: left-posterior-superior",
        f"sizes: {sizes}", f"space directions: {vectors}", f"encoding: {encoding}", "space origin: (-3,4,-50)",
        *lines, "", "",
    ]  # fmt: skip
    content = gzip.compress(LABELS.tobytes()) if content is None else content
    (folder / name).write_bytes("\n".join(header).encode() + content)
    return folder / name


def bomb(first, gigabytes=10):
    """Return a gzip stream of the given bytes followed by gigabytes of zeros, without the end of the stream."""
    packer = zlib.compressobj(9, wbits=31)
    begin = packer.compress(first) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return begin + zeros * (gigabytes << 6)


def nifti(folder, labels, name="mask.nii", change=None, extension=None):
    image = nibabel.Nifti1Image(labels, np.diag([-0.5, -0.75, 2, 1]))
    if extension is not None:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, extension))
    nibabel.save(image, folder / name)
    if change is not None:
        content = bytearray((folder / name).read_bytes())
        change(content)
        (folder / name).write_bytes(content)
    return folder / name


def packed_nifti(folder):
    content = nifti(folder, LABELS.T).read_bytes()
    (folder / "mask.nii.gz").write_bytes(bomb(content))
    return folder / "mask.nii.gz"


def far_voxels(content):
    content[108:112] = np.float32(2e9).tobytes()


def huge_nifti(content):
    content[40:56] = np.array([3, 32000, 32000, 32000, 1, 1, 1, 1], "<i2").tobytes()


def slicer(folder, count):
    keys = [
        f"Segment{index}_{key}:={value}"
        for index in range(count)
        for key, value in (("Name", f"s {index}"), ("LabelValue", index + 1), ("Layer", 0))
    ]
    return nrrd(folder, lines=keys, name="mask.seg.nrrd")


def box(z=-46.0, x=-1.0):
    return [(-2.6, 4.4, z), (x, 4.4, z), (x, 6.2, z), (-2.6, 6.2, z)]


def circle(count, z=-46.0):
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.column_stack([-1.5 + np.cos(angles), 5.5 + np.sin(angles), np.full(count, z)])


def structures(folder, *contours):
    return structure_set(folder / "mask.dcm", {"Lung-Left": list(contours)})


def nan_contour():
    part = contour(box())
    part.ContourData = ["-2.6", "4.4", "nan", *part.ContourData[3:]]
    return part


def seg(folder, change):
    segments = [segment(1, "a", side=RIGHT), segment(2, "b", side=LEFT)]
    return segmentation(folder / "mask.dcm", LABELS, segments, geometry=GRID, change=change)


def without_a_frame(dataset):
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:-1]


def two_frames_in_one_slice(dataset):
    first, second = dataset.PerFrameFunctionalGroupsSequence[:2]
    second.PlanePositionSequence = first.PlanePositionSequence


def many_frames(dataset):
    dataset.NumberOfFrames = 1 << 30


def uneven_frames(dataset):
    position = dataset.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0]
    position.ImagePositionPatient = [*position.ImagePositionPatient[:2], position.ImagePositionPatient[2] + 0.7]


REJECTED = {
    "a size that no CT has": (lambda f: nrrd(f, sizes="100000 100000 100000"), "which no CT has"),
    "a size beyond its bytes": (lambda f: nrrd(f, sizes="512 512 60000", encoding="raw"), ""),
    "a size beyond its packed bytes": (lambda f: nrrd(f, sizes="512 512 60000"), ""),
    "a packed stream longer than its voxels": (lambda f: nrrd(f, content=bomb(LABELS.tobytes())), ""),
    "a NIfTI stream longer than its voxels": (packed_nifti, ""),
    "a NIfTI size that no CT has": (lambda f: nifti(f, LABELS.T, change=huge_nifti), ""),
    "voxels far behind the header": (lambda f: nifti(f, LABELS.T, change=far_voxels), ""),
    "four dimensions": (lambda f: nifti(f, np.stack([LABELS.T] * 2, -1)), ""),
    "a layer for each of too many segments": (lambda f: nrrd(f, dimension=4, sizes="99999999 7 5 9"), ""),
    "labels between integers": (lambda f: nifti(f, LABELS.T + np.float32(0.5)), "labels are integers"),
    "labels that are no numbers": (lambda f: nifti(f, LABELS.T + np.float32(np.nan)), "labels are integers"),
    "infinite labels": (lambda f: nifti(f, LABELS.T * np.float64(np.inf)), "labels are integers"),
    "an open contour": (lambda f: structures(f, contour(box(), "OPEN_PLANAR")), "an open contour"),
    "a contour that crosses itself": (
        lambda f: structures(f, contour([box()[index] for index in (0, 2, 1, 3)])), "crosses itself",
    ),
    "a contour between slices": (lambda f: structures(f, contour(box(z=-45.0))), "slice"),
    "a contour above the scan": (lambda f: structures(f, contour(box(z=400.0))), "slice"),
    "a contour that is no number": (lambda f: structures(f, nan_contour()), "corrupt contour"),
    "endless contours": (lambda f: structures(f, *[contour(box(x=9e5))] * 60), "contours of more than 100 km"),
    "more segments than a header has": (lambda f: slicer(f, 50_000), "header"),
    "a frame that is not described": (lambda f: seg(f, without_a_frame), "describes 17 of its 18 frames"),
    "two frames in one slice": (lambda f: seg(f, two_frames_in_one_slice), "two frames of one segment in one slice"),
    "more frames than fit": (lambda f: seg(f, many_frames), "which no CT has"),
    "frames at uneven distances": (lambda f: seg(f, uneven_frames), ""),
}  # fmt: skip
"""By description of a mask: function that writes it into a folder, and words of the reason of its rejection."""

READ = {
    "a million points": lambda f: structures(f, long_contour(circle(1_000_000))),
    "ten thousand contours": lambda f: structures(
        f, *(long_contour(box(z=-50.0 + 2 * (n % 9), x=-1.0 - 1e-5 * n)) for n in range(10_000))
    ),
    "thousands of segments": lambda f: slicer(f, 5000),
    "names that never end": lambda f: nifti(f, LABELS.T, extension=b'<Label Key="1" ' * 60_000),
}
"""Functions that write a large mask into a folder, by description of the mask. These masks must be read."""


@pytest.mark.parametrize("case", REJECTED)
def test_masks_that_cannot_be_used_are_rejected_in_one_sentence(case, tmp_path, apart):
    write, words = REJECTED[case]
    path = write(tmp_path)
    ended = apart(masks_by_lungmix, str(path))
    assert not ended.fault, ended.fault
    reason = ended.value["reason"]
    assert words in reason
    assert not faults_of_reason(reason, (path.name,)), reason


@pytest.mark.parametrize("case", READ)
def test_large_masks_are_read_within_limits_of_time_and_memory(case, tmp_path, apart):
    path = READ[case](tmp_path)
    ended = apart(masks_by_lungmix, str(path))
    assert not ended.fault, ended.fault
    assert ended.value.get("slices") == GRID.size[2], ended.value
