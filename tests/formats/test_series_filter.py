"""Conditions on series, and the choice among reconstructions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix.errors import UsageError, reveal
from lungmix.formats import SeriesFilter, find_scans
from support.series import hu_of, read, scans, skipped, write_series


@pytest.fixture
def reconstructions(tmp_path):
    """Four series of one scan: soft of 5 mm, soft of 1 mm, sharp of 1 mm with more slices, coronal of 1 mm."""
    common = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}

    def write(number, hu, thickness, kernel, **tags):
        uid = f"1.2.5.{number}"
        write_series(
            tmp_path / str(number), hu, spacing=(1, 1, thickness), SliceThickness=thickness, ConvolutionKernel=kernel,
            SeriesNumber=number, SeriesInstanceUID=uid, SOPInstanceUID=lambda i: f"{uid}.{i}", **common, **tags,
        )  # fmt: skip

    write(2, hu_of((5, 20, 24), 2), 5, "B30f")
    write(3, hu_of((20, 20, 24), 3), 1, "B30f")
    write(4, hu_of((21, 20, 24), 4), 1, "B70f")
    write(5, hu_of((20, 20, 24), 5), 1, "B30f", ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
          ImagePositionPatient=lambda i: [-10, 3 + i, -80])  # fmt: skip
    return tmp_path


def numbers(folder, text):
    return sorted(scan.series.number for scan in scans(find_scans(folder, SeriesFilter(text))))


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("thinnest", [4]),
        ("", [4]),
        ("all", [2, 3, 4, 5]),
        ("kernel=b30*", [3]),
        ("kernel=B30f, all", [2, 3, 5]),
        ("kernel!=B30f", [4]),
        ("thickness>1", [2]),
        ("thickness<=1,orientation=axial,all", [3, 4]),
        ("orientation=coronal", [5]),
        ("slices>=20,slices<21,all", [3, 5]),
        ("number=2", [2]),
        ("number!=4,all", [2, 3, 5]),
        ("kvp=120,spacing<2", [4]),
        ("type=ORIGINAL*", [4]),
        ("manufacturer=siemens,model=sensation*", [4]),
    ],
)
def test_filter_selects_series(reconstructions, text, used):
    assert numbers(reconstructions, text) == used


def test_reasons_name_the_series_that_is_used_instead(reconstructions):
    reasons = {item.series.number: reveal(item.reason) for item in skipped(find_scans(reconstructions))}
    assert "a thicker reconstruction (5 mm) of the acquisition in series 4 (21 axial slices of 1 mm)" in reasons[2]
    assert "another reconstruction of the acquisition in series 4 (" in reasons[3]
    assert "a coronal reconstruction of the acquisition in series 4 (" in reasons[5]
    assert all("`filter='all'`" in reason for reason in reasons.values())


def test_unmet_condition_is_named(reconstructions):
    reasons = [reveal(item.reason) for item in skipped(find_scans(reconstructions, SeriesFilter("kernel=B99")))]
    assert len(reasons) == 4
    assert all("kernel=B99 does not hold (`filter`)" in reason for reason in reasons)


def test_without_a_study_no_series_is_excluded(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / str(number), seed=number, SeriesInstanceUID=f"1.2.{number}", StudyInstanceUID=None)
    assert len(scans(find_scans(tmp_path))) == 2


def test_rejected_series_does_not_hide_a_thicker_one(reconstructions):
    for number in ("3", "4"):
        sorted((reconstructions / number).iterdir())[7].unlink()
    items = find_scans(reconstructions)
    assert [scan.series.number for scan in scans(items)] == [2]
    (scan,) = scans(items)
    assert read(scan).shape == (5, 20, 24)


def test_two_slices_are_a_scan_only_with_the_filter_all(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", hu_of((2, 20, 24)), seed=8)
    assert len(scans(find_scans(tmp_path))) == 1
    assert "of 2 slices only" in skipped(find_scans(tmp_path))[0].reason
    assert len(scans(find_scans(tmp_path, SeriesFilter("all")))) == 2


@pytest.mark.parametrize(
    "text", ["kernel", "colour=red", "thickness=thin", "kernel<B30", "=3", "thickness<>1", "kernel=", "all;thinnest"]
)
def test_invalid_filter_is_rejected_with_an_example(text):
    with pytest.raises(UsageError, match="`filter="):
        SeriesFilter(text)


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_rejected(text):
    try:
        rules = SeriesFilter(text)
    except UsageError:
        return
    assert rules.unmet({}) in (None, *rules.conditions)


@given(st.sampled_from(["<", "<=", "=", ">=", ">", "!="]), st.integers(0, 500), st.integers(0, 500))
def test_numbers_are_compared_as_they_are_written(sign, value, is_selected):
    rules = SeriesFilter(f"thickness{sign}{is_selected / 100}")
    expected = {
        "<": value < is_selected, "<=": value <= is_selected, "=": value == is_selected,
        ">=": value >= is_selected, ">": value > is_selected, "!=": value != is_selected,
    }[sign]  # fmt: skip
    assert (rules.unmet({"thickness": value / 100}) is None) == expected
