"""Structure sets, filled on the grids of scans: slices, holes, storage orders, contours without a clear inside."""

import itertools
import pickle

import numpy as np
import pytest

from kernels.test_contours import slow_fill
from lungmix.errors import SourceError
from lungmix.formats.masks import EmptyMaskError, is_mask_file, open_mask
from lungmix.geometry import Geometry
from support.structure_sets import FRAME, SERIES, contour, item, structure_set

SPACING, ORIGIN = (0.5, 0.75, 2.0), (-3.0, 4.0, -50.0)
GRID = Geometry((16, 14, 6), SPACING, ORIGIN)
OUTER = [(2, 2), (2, 11), (11, 12.3), (9.5, 1)]
HOLE = [(4, 5), (8, 5), (8, 9), (4.2, 9)]


def outline(points, z, shift=0.0):
    """Return points given as row and column as points in the patient, in the slice at `z` mm."""
    return [
        (ORIGIN[0] + column * SPACING[0], ORIGIN[1] + row * SPACING[1], ORIGIN[2] + (z + shift) * SPACING[2])
        for row, column in points
    ]


def outlines(slices=(1, 2, 4), shift=0.0, points=OUTER):
    return [contour(outline(points, z, shift)) for z in slices]


def read(mask, values, geometry=GRID, thickness=2):
    return np.concatenate(list(mask.label_slabs(values, geometry, thickness)))


def filled(*contours):
    return slow_fill(contours, (0, 14), (0, 16))


def test_structures_are_filled_slice_by_slice(tmp_path):
    left = [*outlines(), contour(outline(HOLE, 2))]
    right = [contour(outline(HOLE, 5))]
    mask = open_mask(structure_set(tmp_path / "rs.dcm", {"Lung-Left": left, "Heart": [], "Lung-Right": right}))
    mask = pickle.loads(pickle.dumps(mask))
    assert is_mask_file(tmp_path / "rs.dcm")
    assert (mask.kind, mask.geometry, mask.series_uid, mask.frame_uid) == ("rtstruct", None, SERIES, FRAME)
    assert mask.made_by == "Varian"
    assert [(segment.number, segment.region) for segment in mask.segments] == [(1, "left"), (3, "right")]
    expected = np.zeros((6, 14, 16), np.uint8)
    expected[[1, 4]] = filled(OUTER)
    expected[2] = filled(OUTER, HOLE)
    expected *= 2
    expected[5] = filled(HOLE)
    for thickness in (1, 4, 6, 50):
        assert np.array_equal(read(mask, {1: 2, 3: 1}, thickness=thickness), expected)


def test_the_last_of_overlapping_structures_counts(tmp_path):
    file = structure_set(tmp_path / "rs.dcm", {"a": outlines([1]), "b": outlines([1], points=HOLE)})
    labels = read(open_mask(file), {1: 5, 2: 7})[1]
    assert np.array_equal(labels, np.where(filled(HOLE), 7, filled(OUTER) * 5))


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_all_storage_orders_of_a_scan_have_the_same_voxels(tmp_path, axes, flips):
    on_centres = [(2, 2), (2, 11), (9, 11), (9, 2)]
    mask = open_mask(structure_set(tmp_path / "rs.dcm", {"lung": outlines() + outlines([3], points=on_centres)}))
    expected = read(mask, {1: 1})
    assert expected[3].sum() == 7 * 9
    columns = [np.eye(3)[axis] * flip for axis, flip in zip(axes, flips, strict=True)]
    size, spacing = [GRID.size[axis] for axis in axes], [SPACING[axis] for axis in axes]
    corner = np.array(ORIGIN, float)
    for axis, flip in zip(axes, flips, strict=True):
        corner[axis] += (GRID.size[axis] - 1) * SPACING[axis] if flip < 0 else 0
    grid = Geometry(size, spacing, corner, np.column_stack(columns).ravel())
    for thickness in (1, 5):
        labels = read(mask, {1: 1}, grid, thickness)
        assert np.array_equal(grid.axis_order.to_axial(labels), expected)


def test_oblique_slices_are_filled_in_their_own_planes(tmp_path):
    tilt = np.radians(20)
    direction = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    grid = Geometry(GRID.size, SPACING, ORIGIN, direction.ravel())
    turned = [np.array(outline(OUTER, 3)) - ORIGIN]
    points = [ORIGIN + points @ direction.T for points in turned]
    mask = open_mask(structure_set(tmp_path / "rs.dcm", {"lung": [contour(points) for points in points]}))
    labels = read(mask, {1: 1}, grid)
    assert np.array_equal(labels[3], filled(OUTER))
    assert labels.sum() == labels[3].sum()
    with pytest.raises(SourceError, match="off the slices"):
        read(mask, {1: 1})


@pytest.mark.parametrize("shift", [0.3, -0.3])
def test_contours_near_a_slice_belong_to_it(tmp_path, shift):
    labels = read(open_mask(structure_set(tmp_path / "rs.dcm", {"lung": outlines([2], shift)})), {1: 1})
    assert np.array_equal(labels[2], filled(OUTER))


@pytest.mark.parametrize("shift", [0.4, -0.5, 0.5])
def test_contours_between_slices_are_rejected(tmp_path, shift):
    mask = open_mask(structure_set(tmp_path / "rs.dcm", {"lung": [*outlines(), *outlines([3], shift)]}))
    with pytest.raises(SourceError, match="1 of 4 contours of structure 1 off the slices of the scan: give the CT"):
        read(mask, {1: 1})


def test_contours_beyond_the_scan_are_rejected(tmp_path):
    mask = open_mask(structure_set(tmp_path / "rs.dcm", {"lung": outlines([4, 5, 6, 7])}))
    with pytest.raises(SourceError, match="2 of 4 contours"):
        read(mask, {1: 1})


def test_contours_of_thinner_slices_are_rejected(tmp_path):
    mask = open_mask(structure_set(tmp_path / "rs.dcm", {"lung": [*outlines([2], 0.3), *outlines([2], 0.0)]}))
    with pytest.raises(SourceError, match="several planes of one slice"):
        read(mask, {1: 1})


def test_scans_of_unknown_orientation_are_rejected(tmp_path):
    mask = open_mask(structure_set(tmp_path / "rs.dcm", {"lung": outlines()}))
    with pytest.raises(SourceError, match="does not say how its axes lie"):
        read(mask, {1: 1}, Geometry(GRID.size, SPACING, ORIGIN, orientation_known=False))


def test_contours_outside_the_scan_are_an_empty_mask(tmp_path):
    mask = open_mask(structure_set(tmp_path / "rs.dcm", {"lung": outlines(points=[(90, 0), (90, 9), (99, 9)])}))
    with pytest.raises(EmptyMaskError):
        read(mask, {1: 1})
    with pytest.raises(EmptyMaskError):
        read(mask, {9: 1})


BOW = [(2, 2), (12, 12), (12, 2), (2, 12)]
FAULTS = {
    "an open contour": [contour(outline(OUTER, 1), "OPEN_PLANAR")],
    "a point": [contour(outline(OUTER[:1], 1), "POINT")],
    "an unknown type": [contour(outline(OUTER, 1), "PATIENT NAME")],
    "fewer than 3 points": [contour(outline(OUTER[:2], 1))],
    "crosses itself": outlines(points=BOW),
    "a corrupt contour": [item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=4, ContourData=["1"] * 9)],
    "corrupt contour": [item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=3, ContourData=["1"] * 8)],
}  # fmt: skip


@pytest.mark.parametrize("words", FAULTS)
def test_contours_without_a_clear_inside_are_rejected(tmp_path, words):
    with pytest.raises(SourceError, match=f"{words}.* structure 2") as error:
        open_mask(structure_set(tmp_path / "rs.dcm", {"heart": outlines(), "Lung-Left": FAULTS[words]}))
    assert "PATIENT" not in str(error.value)
    # A corrupt structure that is no lung does not prevent the use of the others.
    mask = open_mask(structure_set(tmp_path / "rs.dcm", {"Lung-Left": outlines(), "heart": FAULTS[words]}))
    assert read(mask, {1: 1}).any()
    with pytest.raises(SourceError, match=words):
        read(mask, {2: 1})


def test_structures_without_contours_or_of_two_frames_are_rejected(tmp_path):
    with pytest.raises(SourceError, match="without contours"):
        open_mask(structure_set(tmp_path / "rs.dcm", {"lung": []}))
    twice = [item(ReferencedROINumber=1, ContourSequence=outlines())] * 2
    rois = [item(ROINumber=n, ROIName="a", ReferencedFrameOfReferenceUID=f"1.{n}") for n in (1, 2)]
    for attributes, words in (
        ({"ROIContourSequence": twice}, "structure 1 twice"),
        ({"StructureSetROISequence": rois}, "several frames of reference"),
    ):
        file = structure_set(tmp_path / "rs.dcm", {"a": outlines(), "b": outlines()})
        change(file, **attributes)
        with pytest.raises(SourceError, match=words):
            open_mask(file)


def change(file, **attributes):
    import pydicom

    dataset = pydicom.dcmread(file)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file)


def test_codes_of_structures_are_read(tmp_path):
    code = item(CodingSchemeDesignator="SCT", CodeValue="44029006", CodeMeaning="x")
    (segment,) = open_mask(structure_set(tmp_path / "rs.dcm", {"x": outlines()}, codes={1: code})).segments
    assert (segment.code, segment.region) == (("SCT", "44029006"), "left")


def test_structure_sets_above_the_limits_are_rejected_in_one_sentence(tmp_path, monkeypatch):
    from lungmix.formats.masks import rtstruct

    file = structure_set(tmp_path / "rs.dcm", {"lung": outlines()})
    for name, value, words in (
        ("_MAX_BYTES", 1 << 9, "MiB"), ("_MAX_STRUCTURES", 0, "0 structures"), ("_MAX_CONTOURS", 2, "2 contours"),
        ("_MAX_POINTS", 7, "7 points"), ("_MAX_LENGTH_MM", 20, "km"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(rtstruct, name, value)
            with pytest.raises(SourceError, match=words):
                open_mask(file)


def test_truncated_files_are_rejected_or_lack_whole_structures(tmp_path):
    file = structure_set(tmp_path / "rs.dcm", {"lung": outlines(), "heart": outlines()})
    content = file.read_bytes()
    for size in range(0, len(content), 61):
        file.write_bytes(content[:size])
        try:
            mask = open_mask(file)
        except SourceError:
            continue
        labels = read(mask, {1: 1})
        assert np.array_equal(labels[1], filled(OUTER))
