"""Order and spacing of slices: missing, duplicate and displaced slices are named by number, or handled correctly."""

import random
import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from lungmix.errors import reveal
from lungmix.formats import SeriesFilter, find_scans
from lungmix.formats.dicom.instance_numbers import _find_out_of_order, _longest_run
from lungmix.formats.dicom.resample import AIR, even_grid_sources, shift_plane
from lungmix.geometry import Geometry
from support.series import (
    ORIGIN,
    SHAPE,
    SPACING,
    by_simpleitk,
    change,
    copy,
    hu_of,
    only_scan,
    read,
    refused,
    scans,
    write_series,
)

GAPS = SeriesFilter(allow_gaps=True)


@pytest.fixture
def files(tmp_path):
    return write_series(tmp_path / "series", hu_of((12, 16, 18)))


def reason(files, series_filter=None):
    (source,) = refused(find_scans(files[0].parent, series_filter))
    return reveal(source.reason)


def notes(files, series_filter=None):
    return [reveal(note) for note in only_scan(files[0].parent, series_filter).notes]


def position(file):
    return [float(v) for v in pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient]


def move(file, x=0.0, y=0.0, z=0.0):
    change(file, ImagePositionPatient=[a + b for a, b in zip(position(file), (x, y, z), strict=True)])


def swap(first, second):
    positions = [position(file) for file in (first, second)]
    change(first, ImagePositionPatient=positions[1])
    change(second, ImagePositionPatient=positions[0])


def test_plain_series_has_no_notes(files):
    assert notes(files) == []


@pytest.mark.parametrize("at", range(1, 11))
def test_removed_slice_is_named_by_its_neighbours(files, at):
    files[at].unlink()
    text = reason(files)
    assert f"between slices {at} and {at + 1} of 11" in text
    assert "1 slice is missing" in text
    assert files[at - 1].name in text
    assert files[at + 1].name in text
    assert "`allow_gaps=True`" in text


def test_several_gaps_are_all_named(files):
    for at in (2, 3, 7):
        files[at].unlink()
    text = reason(files)
    assert "between slices 2 and 3 of 9" in text
    assert "2 slices are missing" in text
    assert "between slices 5 and 6 of 9" in text


def test_gaps_are_interpolated_where_that_is_allowed(files):
    hu = hu_of((12, 16, 18)).astype(float)
    for at in (2, 3, 7):
        files[at].unlink()
    scan = only_scan(files[0].parent, GAPS)
    expected = hu.copy()
    expected[2], expected[3] = hu[1] * 2 / 3 + hu[4] / 3, hu[1] / 3 + hu[4] * 2 / 3
    expected[7] = (hu[6] + hu[8]) / 2
    assert scan.geometry == Geometry((18, 16, 12), SPACING, ORIGIN)
    assert np.abs(read(scan) - expected).max() <= 0.5 + 1e-9
    untouched = [i for i in range(12) if i not in (2, 3, 7)]
    assert np.array_equal(read(scan)[untouched], hu[untouched])
    (note,) = map(reveal, scan.notes)
    assert "between slices 2 and 3 of 9" in note
    assert "interpolated" in note


def test_scan_with_interpolated_gaps_is_another_scan_than_the_complete_one(files):
    complete = only_scan(files[0].parent, GAPS)
    files[4].unlink()
    with_gap = only_scan(files[0].parent, GAPS)
    assert with_gap.fingerprint != complete.fingerprint
    assert with_gap.key == complete.key


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.floats(0.3, 9))
def test_even_grid_is_linear_interpolation_between_the_given_slices(steps, spacing):
    along = np.concatenate([[0], np.cumsum(steps)]) * spacing - 40
    values = np.random.default_rng(0).normal(size=len(along))
    sources = even_grid_sources(along, spacing)
    interpolated = [values[a] * (1 - w) + values[b] * w for a, b, w in sources]
    expected = along[0] + spacing * np.arange(round((along[-1] - along[0]) / spacing) + 1)
    assert np.allclose(interpolated, np.interp(expected, along, values))


def test_unevenly_spaced_slices_are_rejected_and_named(files):
    move(files[5], z=0.4)
    text = reason(files)
    assert "between slices 5 and 6 of 12" in text
    assert "between slices 6 and 7 of 12" in text
    assert "unevenly spaced" in text


def test_unevenly_spaced_slices_are_interpolated_where_that_is_allowed(files):
    hu = hu_of((12, 16, 18)).astype(float)
    move(files[5], z=0.5)
    values = read(only_scan(files[0].parent, GAPS))
    along = np.arange(12) * SPACING[2] + np.eye(12)[5] * 0.5
    at_5 = (along[5] - SPACING[2] * 5) / (along[5] - along[4])
    assert np.abs(values[5] - (hu[4] * at_5 + hu[5] * (1 - at_5))).max() <= 0.5 + 1e-9
    assert np.array_equal(np.delete(values, 5, axis=0), np.delete(hu, 5, axis=0))


def test_positions_that_were_rounded_are_even(tmp_path):
    files = write_series(tmp_path / "s", hu_of((40, 8, 8)), spacing=(1, 1, 0.75), origin=(0, 0, 0))
    for i, file in enumerate(files):
        change(file, ImagePositionPatient=[0, 0, round(i * 0.75, 1)])
    assert notes(files) == []
    assert only_scan(tmp_path / "s").geometry == Geometry.from_sitk(by_simpleitk(tmp_path / "s"))


def test_slices_that_drift_apart_are_rejected(tmp_path):
    files = write_series(tmp_path / "s", hu_of((60, 8, 8)), spacing=(1, 1, 5), origin=(0, 0, 0))
    positions = np.cumsum([0, *[5.2] * 30, *[4.8] * 29])
    for position_z, file in zip(positions, files, strict=True):
        change(file, ImagePositionPatient=[0, 0, round(float(position_z), 3)])
    assert "slice 31" in reason(files)
    assert "unevenly spaced" in reason(files)


def test_duplicate_is_ignored_and_named(files, tmp_path):
    expected = read(only_scan(files[0].parent))
    shutil.copy(files[4], files[0].parent / "again.dcm")
    scan = only_scan(files[0].parent)
    assert np.array_equal(read(scan), expected)
    (note,) = map(reveal, scan.notes)
    assert note.startswith("slice 5 (")
    assert "again.dcm" in note
    assert "00005.dcm" in note


def test_duplicated_series_is_read_once(files, tmp_path):
    expected = read(only_scan(files[0].parent))
    shutil.copytree(files[0].parent, files[0].parent / "copy")
    scan = only_scan(files[0].parent)
    assert np.array_equal(read(scan), expected)
    assert "duplicates with the same pixels" in scan.notes[0]


def test_duplicate_object_with_other_pixels_is_rejected(files):
    dataset = pydicom.dcmread(files[4])
    dataset.PixelData = dataset.PixelData[::-1]
    dataset.save_as(files[0].parent / "other.dcm")
    assert "slice 5 has a duplicate with different pixels" in reason(files)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, DeflatedExplicitVRLittleEndian])
def test_duplicates_with_another_compression_are_ignored(files, syntax):
    expected = read(only_scan(files[0].parent))
    (files[0].parent / "copy").mkdir()
    for file in files:
        compressed(file, files[0].parent / "copy" / file.name, syntax)
    scan = only_scan(files[0].parent)
    assert np.array_equal(read(scan), expected)
    assert "duplicates with the same pixels" in scan.notes[0]


def test_compressed_duplicate_with_another_pixel_is_rejected(files):
    dataset = pydicom.dcmread(files[4])
    pixels = bytearray(dataset.PixelData)
    pixels[100] ^= 1
    dataset.PixelData = bytes(pixels)
    dataset.save_as(files[0].parent / "other.dcm")
    compressed(files[0].parent / "other.dcm", files[0].parent / "other.dcm", RLELossless)
    assert "slice 5 has a duplicate with different pixels" in reason(files)


def compressed(file, to, syntax):
    dataset = pydicom.dcmread(file)
    if syntax == DeflatedExplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(to)


def test_two_objects_at_one_position_are_rejected_and_named(files):
    copy(files[4], files[0].parent / "again.dcm")
    text = reason(files)
    assert "slices 5 and 6 lie at one position" in text
    assert "again.dcm" in text
    assert "00005.dcm" in text


@pytest.mark.parametrize("pair", [(0, 11), (4, 5), (2, 9), (0, 1), (10, 11)])
def test_swapped_positions_are_named(files, pair):
    swap(files[pair[0]], files[pair[1]])
    text = reason(files)
    assert f"{pair[0] + 1} (" in text
    assert f"{pair[1] + 1} (" in text
    assert "swapped" in text
    assert "`trust_positions=True`" in text


def test_swapped_positions_are_named_by_slice_locations_too(tmp_path):
    files = write_series(tmp_path / "s", SliceLocation=lambda i: 7 - 1.25 * i, InstanceNumber=None)
    swap(files[2], files[6])
    text = reason(files)
    assert "slices 3 (" in text
    assert "7 (" in text


def scramble(files, order):
    positions = [position(file) for file in files]
    for file, at in zip(files, order, strict=True):
        change(file, ImagePositionPatient=positions[at])


def test_several_swapped_pairs_are_named(tmp_path):
    files = write_series(tmp_path / "s", hu_of((20, 8, 8)))
    order = list(range(20))
    for first, second in ((2, 9), (4, 12), (6, 15)):
        order[first], order[second] = order[second], order[first]
    scramble(files, order)
    assert "positions may be swapped" in reason(files)


def test_positions_in_no_order_at_all_are_used_with_a_note(tmp_path):
    files = write_series(tmp_path / "s", hu_of((30, 8, 8)))
    scramble(files, random.Random(0).sample(range(30), 30))
    assert notes(files) == ["its instance numbers follow no order of positions: positions decide"]


def test_thinned_out_slices_are_detected_by_their_thickness_too(tmp_path):
    positions = {"ImagePositionPatient": lambda i: [0, 0, 2 * i], "InstanceNumber": lambda i: 2 * i + 1}
    files = write_series(tmp_path / "s", SliceThickness=1, SpacingBetweenSlices=None, **positions)
    assert "only every 2. instance number is present" in reason(files)


def test_positions_can_be_trusted_against_numbers(files):
    swap(files[4], files[5])
    scan = only_scan(files[0].parent, SeriesFilter(trust_positions=True))
    assert np.array_equal(read(scan)[4], hu_of((12, 16, 18))[5])
    assert "trusted" in scan.notes[0]


@pytest.mark.parametrize("numbers", [lambda i: 12 - i, lambda i: 7, lambda i: None, lambda i: 3 * i])
def test_descending_or_uninformative_numbers_are_consistent_with_positions(tmp_path, numbers):
    files = write_series(tmp_path / "s", hu_of((12, 8, 8)), InstanceNumber=numbers)
    assert scans(find_scans(files[0].parent))


@given(st.permutations(range(1, 9)))
def test_longest_run_is_the_longest_ascending_subsequence(numbers):
    best = max(
        (
            len(picked)
            for bits in range(1 << len(numbers))
            if (picked := [n for i, n in enumerate(numbers) if bits >> i & 1]) == sorted(picked)
        ),
        default=0,
    )
    run = _longest_run(numbers)
    kept = [numbers[i] for i in sorted(run)]
    assert len(run) == best
    assert kept == sorted(kept)


@given(st.integers(6, 60), st.data(), st.booleans())
def test_any_two_swapped_numbers_are_found(n, data, down):
    numbers = list(range(1, n + 1))
    first, second = sorted(data.draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=2, unique=True)))
    numbers[first], numbers[second] = numbers[second], numbers[first]
    assert _find_out_of_order([-v for v in numbers] if down else numbers) == [first, second]


def test_evenly_thinned_out_slices_are_detected(tmp_path):
    files = write_series(tmp_path / "s", hu_of((12, 8, 8)), SpacingBetweenSlices=SPACING[2])
    for file in files[1::2]:
        file.unlink()
    assert "every 2. instance number" in reason(files)
    assert "slices 1 to 6" in reason(files)
    scan = only_scan(tmp_path / "s", GAPS)
    assert scan.geometry.spacing[2] == pytest.approx(2 * SPACING[2])


def test_spacing_between_slices_that_differs_from_positions_is_noted_and_ignored(tmp_path):
    files = write_series(tmp_path / "s", SpacingBetweenSlices=5.0)
    scan = only_scan(files[0].parent)
    assert scan.geometry.spacing[2] == SPACING[2]
    assert "5.000 mm: positions decide" in scan.notes[0]


def test_positions_in_another_unit_than_thickness_and_locations_are_noted(files):
    for i, file in enumerate(files):
        change(file, SliceThickness=10 * SPACING[2], SliceLocation=10 * SPACING[2] * i)
    messages = notes(files)
    assert "slices of 12.5 mm lie only 1.250 mm apart" in messages[0]
    assert "1.250 mm apart, their locations 12.500 mm: positions decide" in messages[1]


def test_thin_slices_far_apart_are_noted(tmp_path):
    files = write_series(tmp_path / "s", SliceThickness=0.5)
    assert "tissue between them is not imaged" in notes(files)[0]


@pytest.mark.parametrize("first", [2, 3])
def test_numbers_that_do_not_begin_with_one_are_noted(files, first):
    for file in files[: first - 1]:
        file.unlink()
    assert f"begin with {first}" in notes(files)[0]


def test_localizer_accounts_for_the_first_number(files):
    change(files[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert notes(files) == []


def test_series_that_lacks_announced_images_is_rejected(tmp_path):
    files = write_series(tmp_path / "s", NumberOfSeriesRelatedInstances=9)
    shutil.copy(files[3], tmp_path / "s" / "copy.dcm")
    assert "announces 9 images, 8 were found: slices at an end may be missing" in reason(files)
    assert "`allow_gaps=True`" in reason(files)
    assert "announces 9 images" in notes(files, GAPS)[1]


def test_announced_images_may_be_other_images(tmp_path):
    files = write_series(tmp_path / "s", NumberOfSeriesRelatedInstances=9)
    copy(files[0], tmp_path / "s" / "localizer.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert not notes(files)


def by_resampling(hu, spacing, tilt_y, tilt_x=0.0):
    """Return a sheared stack straightened by one affine resampling, on a grid that covers it; and its origin."""
    nz = len(hu)
    image = sitk.GetImageFromArray(np.maximum(hu, AIR).astype(np.float64))
    image.SetSpacing(spacing)
    # Map points of the straight grid to the sheared stack.
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((1, 0, -tilt_x / spacing[2], 0, 1, -tilt_y / spacing[2], 0, 0, 1))
    low = [min(0, np.floor((nz - 1) * t / s)) for t, s in ((tilt_x, spacing[0]), (tilt_y, spacing[1]))]
    high = [max(0, np.ceil((nz - 1) * t / s)) for t, s in ((tilt_x, spacing[0]), (tilt_y, spacing[1]))]
    size = [hu.shape[2] + int(high[0] - low[0]), hu.shape[1] + int(high[1] - low[1]), nz]
    origin = (low[0] * spacing[0], low[1] * spacing[1], 0)
    out = sitk.Resample(image, size, transform, sitk.sitkLinear, origin, spacing, image.GetDirection(), AIR)
    return sitk.GetArrayFromImage(out), origin


@given(st.integers(0, 2**32 - 1), st.integers(200, 900), st.booleans(), st.sampled_from([0.0, 0.3001]))
@settings(max_examples=12)
def test_tilted_gantry_is_straightened_as_by_one_resampling_of_the_volume(tmp_path_factory, seed, tilt, up, sideways):
    # Shifts by half a pixel are avoided, as rounding would decide which pixels are inside.
    tilt = (tilt / 1000 + 0.00013) * (1 if up else -1)
    hu = hu_of((9, 14, 11), seed)
    files = write_series(tmp_path_factory.mktemp("tilted") / "s", hu, GantryDetectorTilt=12)
    for i, file in enumerate(files):
        move(file, x=round(sideways * i, 6), y=round(tilt * i, 6))
    scan = only_scan(files[0].parent)
    expected, origin = by_resampling(hu, SPACING, tilt, sideways)
    assert scan.geometry.shape == expected.shape
    assert np.allclose(scan.geometry.spacing, SPACING)
    assert np.allclose(scan.geometry.origin, np.array(ORIGIN) + origin)
    assert np.abs(read(scan) - expected).max() < 0.5 + 1e-6
    angle = np.degrees(np.arctan(np.hypot(tilt, sideways) / SPACING[2]))
    (note,) = scan.notes
    assert f"slices 1 to 9 are sheared by {angle:.1f} degrees (tilted gantry): resampled" in note


def test_gap_in_a_tilted_series_is_interpolated_in_the_straight_grid(tmp_path):
    hu = hu_of((9, 14, 11), 3)
    files = write_series(tmp_path / "s", hu)
    for i, file in enumerate(files):
        move(file, y=0.5 * i)
    files[4].unlink()
    scan = only_scan(tmp_path / "s", GAPS)
    expected = np.full((9, 14 + 8, 11), float(AIR))
    for i in range(9):
        expected[i, i : i + 14] = np.maximum(hu[i], AIR)
    expected[4] = (expected[3] + expected[5]) / 2
    assert np.abs(read(scan) - expected).max() <= 0.5 + 1e-9


@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 500), st.integers(0, 1))
def test_shift_is_linear_interpolation(n, m, offset, axis):
    offset /= 100
    plane = np.random.default_rng(n).normal(size=(n, m))
    size = plane.shape[axis] + 6
    shifted = shift_plane(plane, offset, size, axis)
    at = np.arange(size) - offset
    lines = np.moveaxis(plane, axis, 0)
    expected = np.stack([np.interp(at, np.arange(len(lines)), line) for line in lines.reshape(len(lines), -1).T])
    expected[:, (at < -0.5) | (at >= len(lines) - 0.5)] = AIR
    assert np.allclose(np.moveaxis(shifted, axis, 0).reshape(size, -1).T, expected)


def test_part_of_a_series_that_is_displaced_sideways_is_rejected_and_named(files):
    for file in files[7:]:
        move(file, x=3.0)
    assert "slices 7 and 8" in reason(files)
    assert "displaced sideways by 3.0 mm" in reason(files)


@pytest.mark.parametrize("at", [0, 5, 11])
def test_slice_displaced_by_less_than_a_pixel_is_used_and_named(files, at):
    move(files[at], x=0.3, y=-0.25)
    scan = only_scan(files[0].parent)
    assert np.array_equal(read(scan), hu_of((12, 16, 18)))
    (note,) = map(reveal, scan.notes)
    assert note.startswith(f"slice {at + 1} (000{at + 1:02d}.dcm) lies up to 0.39 mm beside the others")


def test_rounded_positions_are_not_reported_as_displaced(files):
    for i, file in enumerate(files):
        move(file, x=0.05 * (-1) ** i, y=0.05)
    assert not notes(files)


def test_tilt_that_positions_do_not_show_is_rejected_and_named(files):
    for file in files[2:]:
        change(file, GantryDetectorTilt=-12.5)
    assert "slices 3 to 12 were taken with a gantry tilted by -12.5 degrees" in reason(files)
    trusted = only_scan(files[0].parent, SeriesFilter(trust_positions=True))
    assert np.array_equal(read(trusted), hu_of((12, 16, 18)))
    assert "positions trusted" in trusted.notes[0]


def test_straightened_series_may_keep_its_tilt_attribute(files):
    for file in files:
        change(file, GantryDetectorTilt=12.5, ImageType=["DERIVED", "SECONDARY", "AXIAL"])
    assert "positions trusted" in notes(files)[0]


def test_slice_of_another_orientation_leaves_a_gap_that_is_named(files):
    change(files[5], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    assert "between slices 5 and 6 of 11" in " ".join(
        reveal(source.reason) for source in refused(find_scans(files[0].parent))
    )


@pytest.mark.parametrize(
    "direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, 1, 0, 0, 0, -1), (1, 0, 0, 0, -1, 0, 0, 0, -1)]
)
@pytest.mark.parametrize("numbers", [lambda i: i + 1, lambda i: 8 - i])
def test_head_first_and_feet_first_are_read_as_by_simpleitk(tmp_path, direction, numbers):
    files = write_series(tmp_path / "s", direction=direction, InstanceNumber=numbers, PatientPosition="FFS")
    random.Random(0).shuffle(files)
    scan, image = only_scan(tmp_path / "s"), by_simpleitk(tmp_path / "s")
    assert scan.geometry == Geometry.from_sitk(image)
    assert np.array_equal(read(scan), sitk.GetArrayFromImage(image))
    assert scan.geometry.shape == SHAPE
