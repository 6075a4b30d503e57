"""DICOM segmentations of every type and order of frames, and segmentations whose frames form no grid."""

import pickle
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sr.codedict import codes
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from lungmix.errors import SourceError
from lungmix.formats.masks import is_mask_file, open_mask, seg_pixels
from lungmix.geometry import Geometry
from support.segmentations import FRAME, GRID, LEFT, RIGHT, SERIES, segment, segmentation

LABELS = np.random.default_rng(3).integers(0, 3, GRID.shape).astype(np.uint8)
LABELS[[0, 4, 8]] = 0
LABELS[0, 1, 1], LABELS[8, 2, 2] = 1, 2
LUNGS = [segment(1, "a", side=RIGHT), segment(2, "b", side=LEFT)]
PLANES = np.stack([LABELS == 1, LABELS == 2], axis=-1)


def read(mask, values, thickness=4):
    return np.concatenate(list(mask.label_slabs(values, mask.geometry, thickness)))


def is_close(first, second):
    return first.size == second.size and all(
        np.allclose(getattr(first, name), getattr(second, name), atol=1e-9)
        for name in ("spacing", "origin", "direction")
    )


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("empty", [True, False])
def test_every_type_is_read(tmp_path, kind, empty):
    pixels = PLANES.astype(np.float32) if kind == "FRACTIONAL" else LABELS
    options = {"fractional_type": "PROBABILITY"} if kind == "FRACTIONAL" else {}
    file = segmentation(tmp_path / "seg.dcm", pixels, LUNGS, kind, omit_empty_frames=empty, **options)
    assert is_mask_file(file)
    mask = pickle.loads(pickle.dumps(open_mask(file)))
    assert (mask.kind, mask.series_uid, mask.frame_uid, mask.made_by) == ("seg", SERIES, FRAME, "highdicom")
    assert is_close(mask.geometry, GRID)
    assert [(part.number, part.name, part.code, part.region) for part in mask.segments] == [
        (1, "a", ("SCT", "39607008"), "right"),
        (2, "b", ("SCT", "39607008"), "left"),
    ]
    expected = np.array([0, 7, 9], np.uint8)[LABELS]
    for thickness in (1, 4, 9, 20):
        assert np.array_equal(read(mask, {1: 7, 2: 9}, thickness), expected)
    assert np.array_equal(read(mask, {2: 1}), LABELS == 2)


def shuffle(dataset):
    """Put the frames of a binary segmentation into another order."""
    order = np.random.default_rng(5).permutation(int(dataset.NumberOfFrames))
    frames = dataset.pixel_array[order]
    dataset.PerFrameFunctionalGroupsSequence = [dataset.PerFrameFunctionalGroupsSequence[i] for i in order]
    bits = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    dataset.PixelData = bits + bytes(len(bits) % 2)


def test_frames_come_in_any_order(tmp_path):
    mask = open_mask(segmentation(tmp_path / "seg.dcm", LABELS, LUNGS, change=shuffle))
    assert np.array_equal(read(mask, {1: 1, 2: 2}), LABELS)


def test_slices_without_a_frame_are_empty_and_the_grid_begins_with_the_first_frame(tmp_path):
    labels = LABELS.copy()
    labels[:2] = labels[5:] = 0
    labels[3] = 0
    labels[4, 0, 0] = 2
    mask = open_mask(segmentation(tmp_path / "seg.dcm", labels, LUNGS))
    assert is_close(mask.geometry, Geometry((7, 5, 3), GRID.spacing, (-3, 4, -46)))
    assert np.array_equal(read(mask, {1: 1, 2: 2}), labels[2:5])


def test_every_second_slice_is_not_taken_for_a_wider_spacing(tmp_path):
    labels = LABELS.copy()
    labels[1::2] = 0
    labels[::2, 0, 0] = 1
    mask = open_mask(segmentation(tmp_path / "seg.dcm", labels, LUNGS))
    assert is_close(mask.geometry, GRID)
    assert np.array_equal(read(mask, {1: 1, 2: 2}), labels)


def test_overlapping_segments_are_written_in_the_order_of_the_mapping(tmp_path):
    planes = np.random.default_rng(4).integers(0, 2, (*GRID.shape, 2)).astype(np.uint8)
    mask = open_mask(segmentation(tmp_path / "seg.dcm", planes, LUNGS))
    first, second = planes[..., 0] > 0, planes[..., 1] > 0
    assert np.array_equal(read(mask, {1: 1, 2: 2}), np.select([second, first], [2, 1], 0))
    assert np.array_equal(read(mask, {2: 2, 1: 1}), np.select([first, second], [1, 2], 0))


def test_fractions_of_half_and_more_are_inside(tmp_path):
    fractions = np.linspace(0, 1, LABELS.size, dtype=np.float32).reshape(GRID.shape)
    options = {"fractional_type": "OCCUPANCY", "max_fractional_value": 200}
    mask = open_mask(segmentation(tmp_path / "seg.dcm", fractions, LUNGS[:1], "FRACTIONAL", **options))
    expected = np.rint(fractions * 200) >= 100
    assert np.array_equal(read(mask, {1: 1}), expected)


def test_oblique_frames_keep_their_directions(tmp_path):
    tilt = np.radians(25)
    direction = [1, 0, 0, 0, np.cos(tilt), -np.sin(tilt), 0, np.sin(tilt), np.cos(tilt)]
    grid = Geometry(GRID.size, GRID.spacing, GRID.origin, direction)
    mask = open_mask(segmentation(tmp_path / "seg.dcm", LABELS, LUNGS, geometry=grid))
    assert is_close(mask.geometry, grid)
    assert np.array_equal(read(mask, {1: 1, 2: 2}), LABELS)


DEFLATED_FRAMES, UNCOMPRESSED_FRAMES = "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.1.98"


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, DEFLATED_FRAMES, UNCOMPRESSED_FRAMES])
@pytest.mark.parametrize("kind", ["LABELMAP", "FRACTIONAL"])
def test_compressed_frames_are_decoded_one_by_one(tmp_path, syntax, kind):
    pixels = PLANES.astype(np.float32) if kind == "FRACTIONAL" else LABELS
    options = {"fractional_type": "PROBABILITY"} if kind == "FRACTIONAL" else {}
    file = segmentation(tmp_path / "seg.dcm", pixels, LUNGS, kind, **options)
    dataset = pydicom.dcmread(file)
    if syntax in (RLELossless, JPEGLSLossless):
        plugin = "pydicom" if syntax == RLELossless else "pyjpegls"
        dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    else:
        encapsulate_frames(dataset, syntax)
    dataset.save_as(file, implicit_vr=False, little_endian=True)
    if syntax == DEFLATED_FRAMES:
        old, new = UNCOMPRESSED_FRAMES.encode(), syntax.encode() + b"\0"
        file.write_bytes(file.read_bytes().replace(old, new, 1))
    assert np.array_equal(read(open_mask(file), {1: 1, 2: 2}), LABELS)


def encapsulate_frames(dataset, syntax):
    frames = [frame.tobytes() for frame in dataset.pixel_array]
    if syntax == DEFLATED_FRAMES:
        frames = [zlib.compress(frame, wbits=-15) for frame in frames]
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True
    # pydicom does not write a syntax that it does not list.
    dataset.file_meta.TransferSyntaxUID = UNCOMPRESSED_FRAMES if syntax == DEFLATED_FRAMES else syntax


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.3", "1.2.840.10008.1.2.4.90"])
def test_pixels_in_other_syntaxes_are_rejected(tmp_path, syntax):
    file = segmentation(tmp_path / "seg.dcm", LABELS, LUNGS)
    dataset = pydicom.dcmread(file)
    encapsulate_frames(dataset, syntax)
    dataset.save_as(file, implicit_vr=False, little_endian=True)
    with pytest.raises(SourceError, match="unsupported transfer syntax"):
        open_mask(file)


def test_frames_in_several_fragments_are_joined_by_the_table_of_offsets(tmp_path):
    file = segmentation(tmp_path / "seg.dcm", LABELS, LUNGS, "LABELMAP", transfer_syntax_uid=RLELossless)
    dataset = pydicom.dcmread(file)
    count = int(dataset.NumberOfFrames)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    for has_table in (True, False):
        dataset.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=has_table)
        dataset.save_as(file)
        if has_table:
            assert np.array_equal(read(open_mask(file), {1: 1, 2: 2}), LABELS)
        else:
            with pytest.raises(SourceError, match="compressed pixels end early"):
                open_mask(file)


def test_only_the_frames_of_a_slab_are_read(tmp_path, monkeypatch):
    mask = open_mask(segmentation(tmp_path / "seg.dcm", LABELS, LUNGS))
    frames, read_frame = [], seg_pixels.FramePixels.read
    monkeypatch.setattr(seg_pixels.FramePixels, "read", lambda *args: [frames.append(args[2]), read_frame(*args)][1])
    slabs = mask.label_slabs({2: 1}, mask.geometry, 1)
    for _ in range(3):
        next(slabs)
    assert len(frames) == len(set(frames)) <= 3


def remove(keyword):
    return lambda dataset: delattr(dataset, keyword)


def of_group(keyword, attribute, value, frames=slice(1)):
    def change(dataset):
        for group in dataset.PerFrameFunctionalGroupsSequence[frames]:
            setattr(getattr(group, keyword)[0], attribute, value)

    return change


def copy_frame(dataset):
    groups = dataset.PerFrameFunctionalGroupsSequence
    groups[1] = groups[0]


FAULTS = {
    "names no series": remove("ReferencedSeriesSequence"),
    "of an unsupported type": lambda dataset: setattr(dataset, "SegmentationType", "SURFACE"),
    "which no CT has": lambda dataset: dataset.update({"Rows": 65535, "Columns": 65535}),
    "describes": lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop(),
    "where its frames lie": of_group("PlanePositionSequence", "ImagePositionPatient", None),
    "two frames of one segment in one slice": copy_frame,
    "shifted against each other": of_group("PlanePositionSequence", "ImagePositionPatient", [0, 0, -50]),
    "even spacing": of_group("PlanePositionSequence", "ImagePositionPatient", [-3, 4, -50.77]),
    "cut short": lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:-2]),
    "two segments of one number": lambda dataset: setattr(dataset.SegmentSequence[1], "SegmentNumber", 1),
    "no pixels": remove("PixelData"),
}


@pytest.mark.parametrize("words", FAULTS)
def test_segmentations_that_form_no_mask_are_rejected(tmp_path, words):
    file = segmentation(tmp_path / "seg.dcm", LABELS, LUNGS, change=FAULTS[words])
    with pytest.raises(SourceError, match=words):
        open_mask(file)


def test_deflated_files_and_other_objects_are_rejected(tmp_path):
    file = segmentation(tmp_path / "seg.dcm", LABELS, LUNGS)
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "deflated.dcm")
    with pytest.raises(SourceError, match="is deflated"):
        open_mask(tmp_path / "deflated.dcm")
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.save_as(tmp_path / "other.dcm")
    assert not is_mask_file(tmp_path / "other.dcm")
    with pytest.raises(SourceError, match="no mask that can be read"):
        open_mask(tmp_path / "other.dcm")


def test_truncated_segmentations_are_rejected(tmp_path):
    for kind, options in (("BINARY", {}), ("LABELMAP", {"transfer_syntax_uid": RLELossless})):
        file = segmentation(tmp_path / "seg.dcm", LABELS, LUNGS, kind, **options)
        content = file.read_bytes()
        for size in range(100, len(content) - 30, 331):
            file.write_bytes(content[:size])
            with pytest.raises(SourceError):
                read(open_mask(file), {1: 1})


def test_regions_of_an_anatomical_place_count_for_general_types_alone(tmp_path):
    import highdicom

    lung = [highdicom.sr.CodedConcept("3341006", "SCT", "Right lung")]
    segments = [segment(1, "x", codes.SCT.Tissue), segment(2, "y", codes.SCT.BloodVessel)]
    for part in segments:
        part.AnatomicRegionSequence = lung
    mask = open_mask(segmentation(tmp_path / "seg.dcm", LABELS, segments))
    assert [part.region for part in mask.segments] == ["right", None]
