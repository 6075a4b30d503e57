"""Names of labels in headers: segmentations of 3D Slicer, also with overlaps, and maps of TotalSegmentator."""

import gzip

import nibabel
import numpy as np
import pytest
import slicerio

from lungmix.errors import SourceError
from lungmix.formats import write_image
from lungmix.formats.masks import open_mask
from lungmix.geometry import Geometry

GRID = Geometry((7, 6, 5), (0.5, 0.75, 2.0), (-3.0, 4.0, -50.0))
GENERATOR = np.random.default_rng(2)
LABELS = GENERATOR.integers(0, 3, GRID.shape).astype(np.uint8)
LAYERS = GENERATOR.integers(0, 2, (*GRID.shape, 3)).astype(np.uint8)
TERMS = {
    "lung": "SCT^39607008^Lung", "right": "SCT^24028007^Right", "tissue": "SCT^85756007^Tissue",
    "left lung": "SCT^44029006^Left lung",
}  # fmt: skip


def entry(kind="", side="", place=""):
    parts = ["list", "SCT^123037004^Anatomical Structure", *(TERMS.get(word, "^^") for word in (kind, side))]
    return "~".join([*parts, "regions", TERMS.get(place, "^^"), "^^"])


def segmentation(path, volume, segments, *, kinds="domain domain domain"):
    """Write a segmentation of 3D Slicer.

    Parameters
    ----------
    path : Path
        File to write.
    volume : ndarray
        Labels; if segments overlap, with a last axis of layers.
    segments : list of dict
        Fields of each segment.
    kinds : str
        Kinds of the axes.
    """
    layers = volume.ndim == 4
    directions = "none " * layers + "(0.5,0,0) (0,0.75,0) (0,0,2)"
    lines = [
        "NRRD0004", "type: unsigned char", f"dimension: {volume.ndim}", "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, volume.shape[::-1]))}", f"space directions: {directions}",
        f"kinds: {'list ' if layers else ''}{kinds}", "encoding: gzip", "space origin: (-3,4,-50)",
    ]  # fmt: skip
    for index, fields in enumerate(segments):
        lines += [f"Segment{index}_{key}:={value}" for key, value in {"ID": f"s{index}", **fields}.items()]
    path.write_bytes("\n".join([*lines, "", ""]).encode() + gzip.compress(volume.tobytes()))
    return path


def read(mask, values, thickness=2):
    return np.concatenate(list(mask.label_slabs(values, mask.geometry, thickness)))


def test_segments_have_names_codes_and_regions(tmp_path):
    segments = [
        {"Name": "Segment_1", "LabelValue": 2, "Layer": 0, "Tags": f"a:b|TerminologyEntry:{entry('lung', 'right')}|"},
        {"Name": "x", "LabelValue": 1, "Layer": 0, "TerminologyEntry": entry("tissue", place="left lung")},
        {"Name": "Lungs", "LabelValue": 7, "Layer": 0, "Tags": "|"},
    ]
    mask = open_mask(segmentation(tmp_path / "a.seg.nrrd", LABELS, segments))
    assert mask.geometry == GRID
    assert [(part.number, part.name, part.code, part.region) for part in mask.segments] == [
        (2, "Segment_1", ("SCT", "39607008"), "right"), (1, "x", ("SCT", "85756007"), "left"),
        (7, "Lungs", None, "lung"),
    ]  # fmt: skip
    assert np.array_equal(read(mask, {2: 1, 1: 2}), np.array([0, 2, 1])[LABELS])


def test_segments_in_layers_overlap(tmp_path):
    segments = [{"Name": f"s{index}", "LabelValue": 1, "Layer": index} for index in range(3)]
    mask = open_mask(segmentation(tmp_path / "a.seg.nrrd", LAYERS, segments))
    assert mask.geometry == GRID
    assert [part.number for part in mask.segments] == [1, 2, 3]
    first, _, third = np.moveaxis(LAYERS > 0, -1, 0)
    for thickness in (1, 5):
        assert np.array_equal(read(mask, {1: 4, 3: 9}, thickness), np.select([third, first], [9, 4], 0))
    assert np.array_equal(read(mask, {3: 9, 1: 4}), np.select([first, third], [4, 9], 0))


def test_layers_with_several_values_keep_their_label_values(tmp_path):
    layers = LAYERS[..., :2] * np.array([1, 5], np.uint8)
    layers[..., 0] *= 2
    segments = [{"Name": "a", "LabelValue": 2, "Layer": 0}, {"Name": "b", "LabelValue": 5, "Layer": 1}]
    mask = open_mask(segmentation(tmp_path / "a.seg.nrrd", layers, segments))
    assert [part.number for part in mask.segments] == [2, 5]
    assert np.array_equal(read(mask, {5: 1}), LAYERS[..., 1])


def test_old_segmentations_have_a_layer_for_each_segment(tmp_path):
    mask = open_mask(segmentation(tmp_path / "a.seg.nrrd", LAYERS, [{"Name": name} for name in "abc"]))
    assert np.array_equal(read(mask, {3: 1}), LAYERS[..., 2])


@pytest.mark.parametrize(
    "fields", [{"LabelValue": "x"}, {"LabelValue": 0}, {"Layer": 3}, {"Layer": -1}, {"LabelValue": 1 << 40}]
)
def test_segments_with_invalid_values_are_rejected(tmp_path, fields):
    file = segmentation(tmp_path / "a.seg.nrrd", LAYERS, [{"Name": "a", "LabelValue": 1, "Layer": 0, **fields}])
    with pytest.raises(SourceError, match="invalid label value or layer"):
        open_mask(file)


def test_two_segments_of_one_value_and_too_many_layers_are_rejected(tmp_path, monkeypatch):
    from lungmix.formats.masks import images

    file = segmentation(tmp_path / "a.seg.nrrd", LABELS, [{"Name": "a", "LabelValue": 1}] * 2)
    with pytest.raises(SourceError, match="two segments of one label value"):
        open_mask(file)
    monkeypatch.setattr(images, "MAX_SLICE_PIXELS", 42 * 3 - 1)
    with pytest.raises(SourceError, match="3 layers, which are too many"):
        open_mask(segmentation(tmp_path / "a.seg.nrrd", LAYERS, [{"Name": "a", "LabelValue": 1, "Layer": 0}]))


def test_lists_that_are_no_segmentations_are_rejected(tmp_path):
    file = segmentation(tmp_path / "a.nrrd", LAYERS, [])
    with pytest.raises(SourceError, match=r"4-D image|3 values per voxel"):
        open_mask(file)


def test_segmentations_of_slicerio_are_read(tmp_path):
    affine = np.diag([0.5, 0.75, 2.0, 1.0])
    affine[:3, 3] = GRID.origin
    segmentation_of = {
        "voxels": np.ascontiguousarray(LABELS.T), "ijkToLPS": affine, "encoding": "gzip",
        "containedRepresentationNames": ["Binary labelmap"],
        "segments": [
            {"id": "a", "name": "Left lung", "color": [1, 0, 0], "labelValue": 1, "layer": 0},
            {"id": "b", "name": "Heart", "color": [1, 0, 0], "labelValue": 2, "layer": 0},
        ],
    }  # fmt: skip
    slicerio.write_segmentation(str(tmp_path / "a.seg.nrrd"), segmentation_of)
    mask = open_mask(tmp_path / "a.seg.nrrd")
    assert [(part.number, part.region) for part in mask.segments] == [(1, "left"), (2, None)]
    assert np.array_equal(read(mask, {1: 1}), LABELS == 1)


def test_provenance_of_this_package_is_recognized(tmp_path):
    slabs = [LABELS]
    write_image(tmp_path / "a.nrrd", slabs, GRID, np.uint8, None, {"lungmix_version": "1"})
    assert open_mask(tmp_path / "a.nrrd").made_by == "lungmix"


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_label_maps_of_total_segmentator_list_their_labels(tmp_path, name):
    labels = {1: "spleen", 10: "lung_upper_lobe_left", 14: "lung_lower_lobe_right"}
    text = "".join(
        f'<Label Key="{key}" Red="0.5" Alpha="1"><![CDATA[{word}]]></Label>\n' for key, word in labels.items()
    )
    image = nibabel.Nifti1Image(LABELS.T * np.uint8(10), np.diag([-0.5, -0.75, 2, 1]))
    extension = f"<CaretExtension><LabelTable>{text}</LabelTable></CaretExtension>"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, extension.encode()))
    nibabel.save(image, tmp_path / name)
    mask = open_mask(tmp_path / name)
    regions = [(part.number, part.region) for part in mask.segments]
    assert regions == [(1, None), (10, "left_upper"), (14, "right_lower")]
    assert np.array_equal(read(mask, {10: 3}), (LABELS == 1) * 3)
