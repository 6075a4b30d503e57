"""Masks that consist of several files."""

from dataclasses import replace

import numpy as np
import pytest

from lungmix.errors import SourceError
from lungmix.formats.masks import EmptyMaskError, combined, offset_in_grid
from lungmix.formats.masks.combined import MaskPart, combine
from lungmix.formats.masks.mask_file import Overlap
from lungmix.geometry import Geometry
from support.masks import mask_of, segments_of

GRID = Geometry((9, 8, 7), (1.5, 2.0, 3.0), (-10.0, 3.0, -700.0))


def random_labels(seed, values=2, shape=GRID.shape):
    return np.random.default_rng(seed).integers(0, values, shape).astype(np.uint8)


def lobe(seed, name, path, grid=GRID, **facts):
    mask = mask_of(random_labels(seed, shape=grid.shape), grid, path, segments=segments_of(**{name: 1}), **facts)
    return MaskPart(mask)


def whole(mask, values, geometry=GRID, thickness=3):
    return np.concatenate(list(mask.label_slabs(values, geometry, thickness)))


@pytest.mark.parametrize("thickness", [1, 3, 50])
def test_files_are_written_one_over_the_other_in_the_order_of_the_labels(thickness):
    parts = [lobe(1, "RUL", "/b"), lobe(2, "LLL", "/a"), lobe(3, "RLL", "/c")]
    mask = combine(parts)
    number = {segment.region: segment.number for segment in mask.segments}
    values = {number["right_upper"]: 1, number["right_lower"]: 1, number["left_lower"]: 2}
    expected = np.where(random_labels(2), 2, np.where(random_labels(1) | random_labels(3), 1, 0))
    assert np.array_equal(whole(mask, values, thickness=thickness), expected)
    swapped = {number["left_lower"]: 2, number["right_upper"]: 1, number["right_lower"]: 1}
    expected = np.where(random_labels(1) | random_labels(3), 1, 2 * random_labels(2))
    assert np.array_equal(whole(mask, swapped, thickness=thickness), expected)


def test_the_order_of_the_files_does_not_matter():
    parts = [lobe(1, "RUL", "/b", fingerprint="x"), lobe(2, "LLL", "/a", fingerprint="y")]
    first, second = combine(parts), combine(parts[::-1])
    assert (first.segments, first.fingerprint, first.path) == (second.segments, second.fingerprint, second.path)
    values = {1: 1, 2: 2}
    assert np.array_equal(whole(first, values), whole(second, values))


def test_the_digest_changes_with_each_file_and_with_the_part_that_it_is():
    def digest(*facts):
        masks = [mask_of(random_labels(1), GRID, f"/{region}", fingerprint=state) for region, state in facts]
        by_name = [MaskPart(mask, region) for mask, (region, _) in zip(masks, facts, strict=True)]
        named = [MaskPart(replace(part.mask, segments=part.segments)) for part in by_name]
        assert combine(by_name).fingerprint == combine(named).fingerprint
        return combine(named).fingerprint

    digests = [
        digest(("left", "x"), ("right", "y")),
        digest(("left", "y"), ("right", "x")),
        digest(("left", "x"), ("right", "z")),
        digest(("left", "z"), ("right", "y")),
    ]
    assert len({*digests}) == 4
    assert digest(("right", "y"), ("left", "x")) == digests[0]


def test_voxels_of_both_labels_get_a_label_of_their_own_where_that_is_asked_for():
    mask = replace(
        combine([lobe(1, "RUL", "/a"), lobe(2, "LLL", "/b"), lobe(3, "RLL", "/c")]), overlap=Overlap((4,), (5,), 9)
    )
    right, left = random_labels(1) | random_labels(3), random_labels(2)
    expected = np.where(right & left, 9, np.where(right, 4, 5 * left))
    assert np.array_equal(whole(mask, {1: 4, 3: 4, 2: 5}), expected)


def test_a_part_by_its_name_is_its_only_value_whatever_it_is():
    masks = [mask_of(random_labels(1) * 7, GRID, "/l"), mask_of(random_labels(2) * 255, GRID, "/r")]
    mask = combine([MaskPart(masks[0], "left"), MaskPart(masks[1], "right")])
    assert [segment.region for segment in mask.segments] == ["left", "right"]
    expected = np.where(random_labels(1), 2, random_labels(2))
    assert np.array_equal(whole(mask, {2: 1, 1: 2}), expected)
    two = combine([MaskPart(mask_of(random_labels(1, 3), GRID, "/l"), "left"), MaskPart(masks[1], "right")])
    with pytest.raises(SourceError, match="has the labels 1, 2: give one file per part"):
        whole(two, {1: 1, 2: 2})


def test_large_slices_are_read_in_thinner_slabs(monkeypatch):
    asked = []

    def recorded(part):
        def read(mask, values, geometry, thickness):
            asked.append(thickness)
            return part.mask.reader(mask, values, geometry, thickness)

        return MaskPart(replace(part.mask, reader=read))

    monkeypatch.setattr(combined, "_SLAB_BYTES", 2 * 2 * GRID.size[0] * GRID.size[1])
    mask = combine([recorded(lobe(1, "RUL", "/a")), recorded(lobe(2, "LLL", "/b"))])
    expected = np.where(random_labels(2), 2, random_labels(1))
    slabs = list(mask.label_slabs({1: 1, 2: 2}, GRID, 5))
    assert np.array_equal(np.concatenate(slabs), expected)
    assert [len(slab) for slab in slabs] == [5, 2]
    assert asked == [2, 2]


def test_files_that_are_not_asked_for_are_not_read():
    mask = combine([lobe(1, "RUL", "/a"), MaskPart(mask_of(None, GRID, "/b", segments=segments_of(heart=1)))])
    assert np.array_equal(whole(mask, {1: 3}), 3 * random_labels(1))


def test_an_empty_file_is_no_error_unless_all_are_empty():
    empty = MaskPart(mask_of(np.zeros(GRID.shape, np.uint8), GRID, "/e", segments=segments_of(RML=1)))
    assert np.array_equal(whole(combine([empty, lobe(1, "RUL", "/z")]), {1: 1, 2: 1}), random_labels(1))
    with pytest.raises(EmptyMaskError):
        whole(combine([empty, empty]), {1: 1, 2: 1})


def test_files_cropped_to_their_segments_share_the_grid_around_both():
    def part(region, path, start, stop):
        labels = random_labels(5)[tuple(map(slice, start, stop))]
        origin = tuple(np.add(GRID.origin, np.multiply(start[::-1], GRID.spacing)))
        return MaskPart(mask_of(labels, Geometry(labels.shape[::-1], GRID.spacing, origin), path), region)

    parts = [part("left", "/a", (1, 2, 0), (4, 7, 3)), part("right", "/b", (2, 1, 5), (7, 5, 9))]
    mask = combine(parts)
    assert mask.geometry.size == (9, 6, 6)
    assert offset_in_grid(mask.geometry, GRID) == (1, 1, 0)
    expected = np.zeros(GRID.shape, np.uint8)
    expected[1:4, 2:7, 0:3] = random_labels(5)[1:4, 2:7, 0:3]
    expected[2:7, 1:5, 5:9] = 2 * random_labels(5)[2:7, 1:5, 5:9]
    assert np.array_equal(whole(mask, {1: 1, 2: 2}), expected)


@pytest.mark.parametrize(
    "other",
    [
        replace(GRID, spacing=(1.5, 2.0, 1.5)),
        replace(GRID, origin=(-10.4, 3.0, -700.0)),
        replace(GRID, origin=(-1e300, 3.0, -700.0)),
        replace(GRID, origin=(-10.0, 3.0 + 2.0 * 10**8, -700.0)),
    ],
)
def test_files_on_different_grids_are_rejected(other):
    with pytest.raises(SourceError, match=r"different grids|which no CT has|over 1 km"):
        combine([lobe(1, "RUL", "/a"), lobe(2, "LLL", "/b", other)])


@pytest.mark.parametrize("missing", [1, 3])
def test_files_of_different_numbers_of_slices_are_rejected(missing):
    short = mask_of(random_labels(2)[:-missing], GRID, "/b", segments=segments_of(LLL=1))
    with pytest.raises(SourceError, match="do not hold the slices"):
        whole(combine([lobe(1, "RUL", "/a"), MaskPart(short)]), {1: 1, 2: 2})


def test_a_mask_of_several_files_shows_no_names():
    mask = combine([MaskPart(mask_of(None, GRID, "/Rossi_left.nrrd"), "left"), lobe(2, "RUL", "/Rossi/rul.nrrd")])
    assert "Rossi" not in repr(mask) + repr(mask.reader) + repr(mask.reader.parts)
    assert mask.file_count == 2
    assert mask.may_overlap
