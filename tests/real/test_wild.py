"""Real series in the state in which hospitals hand them over: mixed, renamed, broken; and each fault named."""

import random
import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage, generate_uid

from conftest import REAL
from lungmix.errors import reveal
from lungmix.formats import SeriesFilter, find_scans
from lungmix.geometry import Geometry
from support.series import change, copy, read, refused, scans, skipped

pytestmark = [pytest.mark.slow, pytest.mark.real]

GAPS = SeriesFilter(allow_gaps=True)


def by_simpleitk(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def in_order(folder):
    """Files of a real series in the order of z."""
    return sorted(folder.iterdir(), key=lambda file: float(header(file).ImagePositionPatient[2]))


def header(file):
    return pydicom.dcmread(file, stop_before_pixels=True)


@pytest.fixture
def mixed(real_ct, tmp_path):
    """All three series in one folder, with other things and five broken files, under new names."""
    files = [file for name in REAL for file in sorted((real_ct / name).iterdir())]
    aside = tmp_path / "aside"
    aside.mkdir()
    axial = in_order(real_ct / REAL[0])
    others = [
        copy(axial[0], aside / "localizer", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesNumber=1),
        copy(
            axial[0], aside / "capture", SOPClassUID=SecondaryCaptureImageStorage, Modality="OT", SeriesNumber=99,
            SeriesInstanceUID=generate_uid(), ImageType=["DERIVED", "SECONDARY"],
        ),
        copy(axial[0], aside / "mr", SOPClassUID=MRImageStorage, Modality="MR", SeriesInstanceUID=generate_uid()),
    ]  # fmt: skip
    x, y, z = (float(v) for v in header(axial[-1]).ImagePositionPatient)
    uid = generate_uid()
    others += [
        copy(
            axial[i], aside / f"reformat{i}", ImageOrientationPatient=[1, 0, 0, 0, 0, -1], SeriesInstanceUID=uid,
            ImagePositionPatient=[x, y + 5 * i, z], ImageType=["DERIVED", "SECONDARY", "REFORMATTED"], SeriesNumber=9,
        )
        for i in range(4)
    ]  # fmt: skip
    slice_bytes = axial[7].read_bytes()
    broken = {
        "empty": b"",
        "half": slice_bytes[: len(slice_bytes) // 2],
        "head": slice_bytes[:900],
        "mark": b"\0" * 128 + b"DICM" + np.random.default_rng(0).bytes(3000),
        "noise": np.random.default_rng(1).bytes(100_000),
    }
    for name, content in broken.items():
        (aside / name).write_bytes(content)
    everything = [*files, *others, *(aside / name for name in broken)]
    random.Random(3).shuffle(everything)
    folder = tmp_path / "mixed"
    folder.mkdir()
    names = {}
    for number, file in enumerate(everything):
        names[file.name if file.parent == aside else str(file)] = f"{number:06d}.dcm"
        shutil.copy(file, folder / f"{number:06d}.dcm")
    return folder, names, sorted(broken)


def test_three_series_in_a_heap_are_three_volumes_and_all_else_has_a_verdict(mixed, real_ct):
    folder, names, broken = mixed
    items = find_scans(folder)
    volumes = {scan.geometry.size[2]: scan for scan in scans(items)}
    assert len(scans(items)) == len(volumes) == 3
    for name in REAL:
        image = by_simpleitk(real_ct / name)
        scan = volumes[image.GetSize()[2]]
        assert scan.geometry == Geometry.from_sitk(image)
        assert np.array_equal(read(scan, 16), sitk.GetArrayFromImage(image))
    reasons = " | ".join(reveal(item.reason) for item in skipped(items))
    for words in ("localizer", "secondary capture", "modality MR", "coronal reformat"):
        assert words in reasons
    failures = [reveal(item.reason) for item in refused(items)]
    assert len(failures) == len(broken)
    for name in broken:
        assert sum(names[name] in reason for reason in failures) == 1
    assert len(skipped(items)) == 4


@pytest.fixture(params=REAL)
def series(real_ct, tmp_path, request):
    folder = tmp_path / "series"
    shutil.copytree(real_ct / request.param, folder)
    return in_order(folder)


def reason(files, rules=None):
    (item,) = refused(find_scans(files[0].parent, rules))
    return reveal(item.reason)


def test_real_series_has_no_notes(series):
    (scan,) = find_scans(series[0].parent)
    assert scan.notes == ()


def test_removed_slice_is_named(series):
    at = len(series) // 2
    series[at].unlink()
    text = reason(series)
    assert (
        f"between slices {at} and {at + 1} of {len(series) - 1} ({series[at - 1].name}, {series[at + 1].name})" in text
    )
    assert "1 slice is missing" in text
    (scan,) = find_scans(series[0].parent, GAPS)
    assert scan.geometry.size[2] == len(series)
    assert f"between slices {at} and {at + 1}" in scan.notes[0]


def test_removed_end_is_hinted_at_by_the_numbers(series):
    first = next(file for file in series if int(header(file).InstanceNumber) == 1)
    first.unlink()
    (scan,) = find_scans(series[0].parent)
    assert "instance numbers begin with 2" in scan.notes[0]


def test_doubled_slice_is_named(series):
    at = len(series) // 3
    shutil.copy(series[at], series[at].with_name("again.dcm"))
    (scan,) = find_scans(series[0].parent)
    assert reveal(scan.notes[0]).startswith(f"slice {at + 1} (")
    assert "again.dcm" in scan.notes[0]
    copy(series[at], series[at].with_name("again.dcm"))
    assert f"slices {at + 1} and {at + 2} lie at one position" in reason(series)


def test_swapped_positions_are_named(series):
    first, second = len(series) // 4, len(series) // 2
    places = [header(series[i]).ImagePositionPatient for i in (first, second)]
    change(series[first], ImagePositionPatient=places[1])
    change(series[second], ImagePositionPatient=places[0])
    text = reason(series)
    assert f"slices {first + 1} (" in text
    assert f"{second + 1} (" in text
    assert "swapped" in text


def test_tilted_gantry_is_named_and_straightened(series):
    last = len(series) - 1
    places = [header(file).ImagePositionPatient for file in series]
    for file, (x, y, z) in zip(series, places, strict=True):
        rise = (float(z) - float(places[0][2])) * np.tan(np.radians(12))
        change(file, ImagePositionPatient=[x, f"{float(y) + rise:.6f}", z], GantryDetectorTilt=12)
    (scan,) = find_scans(series[0].parent)
    assert f"slices 1 to {last + 1} are sheared by 12.0 degrees (tilted gantry): resampled" in scan.notes[0]
    pixel = float(header(series[0]).PixelSpacing[0])
    rise = (float(places[-1][2]) - float(places[0][2])) * np.tan(np.radians(12))
    assert scan.geometry.size[1] == 512 + int(np.ceil(rise / pixel - 1e-6))
    planes = [slab[0] for slab in scan.slabs(1)]
    # The first slice keeps its place, the last one is moved by the fraction of a pixel, here looked up in between.
    first = sitk.GetArrayFromImage(sitk.ReadImage(str(series[0])))[0]
    assert np.array_equal(planes[0][:512], np.maximum(first, -1024))
    plane = np.maximum(sitk.GetArrayFromImage(sitk.ReadImage(str(series[-1])))[0].astype(float), -1024)
    at = np.arange(scan.geometry.size[1]) - rise / pixel
    columns = [100, 256, 400]
    inside = (at >= 0) & (at <= 511)
    for column in columns:
        expected = np.interp(at, np.arange(512), plane[:, column])
        assert np.abs(planes[-1][inside, column] - expected[inside]).max() < 0.5 + 1e-3


def test_tilt_that_positions_do_not_show_is_named(series):
    for file in series:
        change(file, GantryDetectorTilt=12)
    assert f"slices 1 to {len(series)} were taken with a gantry tilted by 12.0 degrees" in reason(series)
