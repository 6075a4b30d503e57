"""If instance numbers and positions give different orders, the similarity of neighbouring slices decides."""

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungmix.errors import reveal
from lungmix.formats import SeriesFilter, find_scans
from lungmix.formats.dicom.header_reader import HeaderReader
from lungmix.formats.dicom.slice_similarity import _block_means, _competing_edges, looks_like_two_passes
from support.series import change, hu_of, only_scan, read, refused, write_series


def smooth(shape=(24, 48, 48), noise=0.0, step=0.15):
    """Return a volume with a ball and noise, whose slices change slowly."""
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    middle = [(n - 1) / 2 for n in shape]
    distance = np.hypot(np.hypot((z - middle[0]) * step, (y - middle[1]) / 10), (x - middle[2]) / 10)
    ball = 900 / (1 + np.exp(6 * (distance - 1.6))) - 850 + 12 * z
    return np.rint(ball + np.random.default_rng(0).normal(0, noise, shape)).astype("i2")


def reason(folder):
    (source,) = refused(find_scans(folder))
    return reveal(source.reason)


def blocks(count, first, up=False):
    """Return instance numbers of slices, from the lowest slice up: `first` to 1, then `count` to `first` + 1."""
    numbers = [*range(first, 0, -1), *range(count, first, -1)]
    return [*range(first + 1, count + 1), *range(1, first + 1)] if up else numbers


def exchange(files, first, second):
    positions = [pydicom.dcmread(files[i]).ImagePositionPatient for i in (first, second)]
    change(files[first], ImagePositionPatient=positions[1])
    change(files[second], ImagePositionPatient=positions[0])


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("first", [6, 12, 18])
@pytest.mark.parametrize("noise", [0, 40])
def test_numbers_in_blocks_over_even_positions_are_read_with_a_note(tmp_path, first, up, noise):
    numbers = blocks(24, first, up)
    write_series(tmp_path / "s", smooth(noise=noise), InstanceNumber=lambda i: numbers[i])
    scan = only_scan(tmp_path / "s")
    assert np.array_equal(read(scan), smooth(noise=noise))
    (note,) = scan.notes
    assert "neighbouring slices are more similar by position: positions decide" in note


@pytest.mark.parametrize("first", [6, 12])
def test_blocks_whose_positions_are_wrong_are_rejected(tmp_path, first):
    hu = smooth(step=0.05)
    write_series(tmp_path / "s", np.concatenate([hu[first:], hu[:first]]),
                 InstanceNumber=lambda i: [*range(first + 1, 25), *range(1, first + 1)][i])  # fmt: skip
    assert "positions may be swapped" in reason(tmp_path / "s")


@given(st.lists(st.integers(0, 23), min_size=2, max_size=2, unique=True), st.booleans(), st.sampled_from([0, 5, 30]))
@settings(max_examples=15, deadline=None)
def test_swapped_positions_in_a_smooth_volume_are_found(tmp_path_factory, pair, in_blocks, noise):
    folder = tmp_path_factory.mktemp("s")
    numbers = blocks(24, 12) if in_blocks else list(range(1, 25))
    files = write_series(folder, smooth(noise=noise, step=0.05), InstanceNumber=lambda i: numbers[i])
    exchange(files, *pair)
    assert "positions may be swapped" in reason(folder)
    assert len(read(only_scan(folder, SeriesFilter(trust_positions=True)))) == 24


@pytest.mark.parametrize("noise", [0, 5, 30, 90])
@pytest.mark.parametrize("pair", [(0, 1), (4, 5), (11, 12), (22, 23)])
def test_slices_swapped_next_to_blocks_of_numbers_are_named_at_any_noise(tmp_path, pair, noise):
    numbers = blocks(24, 12)
    files = write_series(tmp_path / "s", smooth(noise=noise, step=0.05), InstanceNumber=lambda i: numbers[i])
    exchange(files, *pair)
    low, high = (f"{i + 1} ({files[j].name})" for i, j in zip(pair, reversed(pair), strict=True))
    assert f"slices {low} and {high} lie at other positions than instance numbers or slice locations say" in reason(
        tmp_path / "s"
    )


@pytest.mark.parametrize(
    ("noise", "words"), [(90, "more similar by position: positions decide"), (2000, "pixels cannot tell")]
)
def test_blocks_of_numbers_are_read_with_a_note_at_any_noise(tmp_path, noise, words):
    numbers = blocks(24, 12)
    hu = smooth(noise=noise).clip(-1024, 3071)
    write_series(tmp_path / "s", hu, InstanceNumber=lambda i: numbers[i])
    scan = only_scan(tmp_path / "s")
    assert np.array_equal(read(scan), hu)
    (note,) = scan.notes
    assert words in note


def test_order_of_numbers_that_pixels_cannot_judge_is_noted(tmp_path):
    numbers = [i + 2 if i % 2 == 0 else i for i in range(24)]
    write_series(tmp_path / "s", np.zeros((24, 16, 16), "i2"), InstanceNumber=lambda i: numbers[i])
    (note,) = only_scan(tmp_path / "s").notes
    assert "pixels cannot tell" in note


def two_passes(folder, hu, displaced, **tags):
    """Write a series in which every second slice is displaced; return its slices in the order of positions."""
    order = [j for i in range(8, 40, 2) for j in (i, i + 1 + displaced)]
    write_series(folder, hu[order], **({"InstanceNumber": None} | tags))
    return hu[order]


@pytest.mark.parametrize("noise", [0, 30])
@pytest.mark.parametrize("displaced", [-6, -2, 2, 6])
def test_passes_on_one_even_grid_that_only_pixels_separate_are_rejected(tmp_path, displaced, noise):
    hu = two_passes(tmp_path / "s", smooth((60, 48, 48), noise, 0.05), displaced)
    text = reason(tmp_path / "s")
    assert "slices 1 to 32 are evenly spaced, but every second one differs" in text
    assert "slices of 2 passes may be mixed" in text
    assert "`trust_positions=True`" in text
    assert np.array_equal(read(only_scan(tmp_path / "s", SeriesFilter(trust_positions=True))), hu)


@pytest.mark.parametrize("name", ["AcquisitionNumber", "AcquisitionTime", "SeriesNumber"])
def test_passes_on_one_even_grid_are_separated_by_an_alternating_attribute(tmp_path, name):
    hu = two_passes(tmp_path / "s", smooth((60, 48, 48), 5, 0.05), 6, **{name: lambda i: str(101010 + i % 2)})
    sources = find_scans(tmp_path / "s", SeriesFilter("all"))
    assert not refused(sources)
    assert sorted(read(scan).tobytes() for scan in sources) == sorted(hu[i::2].tobytes() for i in (0, 1))


@pytest.mark.parametrize("noise", [0, 5, 30, 90])
@pytest.mark.parametrize("count", [12, 24, 60])
def test_volume_without_numbers_is_read_without_a_note(tmp_path, count, noise):
    hu = smooth((60, 48, 48), noise, 0.05)[:count]
    write_series(tmp_path / "s", hu, InstanceNumber=None, AcquisitionNumber=lambda i: i % 2)
    scan = only_scan(tmp_path / "s")
    assert np.array_equal(read(scan), hu)
    assert not scan.notes


@pytest.mark.parametrize("displaced", [-6, 2])
def test_numbers_that_follow_positions_indicate_a_single_pass(tmp_path, displaced):
    hu = two_passes(tmp_path / "s", smooth((60, 48, 48), 0, 0.05), displaced, InstanceNumber=lambda i: i + 1)
    assert np.array_equal(read(only_scan(tmp_path / "s")), hu)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("name", ["cmb-crc-lung", "dx-a0001-soft", "dx-a0002-soft"])
def test_no_real_volume_looks_like_two_passes(real_ct, name, step):
    headers = sorted((HeaderReader().read(file)[0] for file in (real_ct / name).iterdir()), key=lambda h: h.position[2])
    assert len(headers) >= 30
    planes = {id(header): _block_means(header) for header in headers}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lungmix.formats.dicom.slice_similarity._block_means", lambda header: planes[id(header)])
        windows = [headers[at::step][:count] for at in range(len(headers) - 12 * step + 1) for count in (12, 24, 200)]
        assert windows
        assert not any(map(looks_like_two_passes, windows))
        # The same slices do, if every second slice is displaced by a slice or more, like a second pass.
        for displaced in (-4, -2, 2, 4):
            order = [j for i in range(4, len(headers) - 6, 2) for j in (i, i + 1 + displaced)]
            if len(order) >= 12:
                assert looks_like_two_passes([headers[j] for j in order])


@pytest.mark.parametrize("pair", [(4, 5), (2, 17), (0, 1)])
def test_swapped_numbers_over_correct_positions_are_read(tmp_path, pair):
    numbers = list(range(1, 25))
    numbers[pair[0]], numbers[pair[1]] = numbers[pair[1]], numbers[pair[0]]
    write_series(tmp_path / "s", smooth(), InstanceNumber=lambda i: numbers[i])
    assert np.array_equal(read(only_scan(tmp_path / "s")), smooth())


def test_positions_in_no_order_of_a_smooth_volume_are_rejected(tmp_path):
    order = np.random.default_rng(0).permutation(24)
    write_series(tmp_path / "s", smooth()[order], InstanceNumber=lambda i: int(order[i]) + 1)
    assert "positions may be swapped" in reason(tmp_path / "s")


def test_slice_locations_inconsistent_with_similar_slices_are_ignored(tmp_path):
    positions = [1.25 * i for i in range(24)]
    positions[5], positions[15] = positions[15], positions[5]
    write_series(tmp_path / "s", smooth(), SliceLocation=lambda i: positions[i], InstanceNumber=None)
    assert np.array_equal(read(only_scan(tmp_path / "s")), smooth())


def test_slice_location_that_is_off_but_in_order_swaps_nothing(tmp_path):
    write_series(tmp_path / "s", hu_of((12, 8, 8)), SliceLocation=lambda i: 1.25 * i + 0.9 * (i == 5))
    scan = only_scan(tmp_path / "s")
    assert "slice locations are inconsistent with the position of slice 6 (00006.dcm)" in reveal(scan.notes[0])


def test_swapped_numbers_are_rejected_where_pixels_are_uninformative(tmp_path):
    numbers = [1, 2, 3, 9, 5, 6, 7, 8, 4, 10]
    write_series(tmp_path / "s", np.zeros((10, 16, 16), "i2"), InstanceNumber=lambda i: numbers[i])
    assert "positions may be swapped" in reason(tmp_path / "s")


def test_neighbours_of_two_orders_are_compared_where_they_share_slices():
    far = {(0, 2): 2.0, (1, 3): 3.0, (0, 1): 1.0, (2, 3): 1.5, (5, 7): 4.0, (4, 9): 90.0, (9, 8): 1.0, (9, 7): 5.0}
    assert _competing_edges([(0, 2), (1, 3)], [(0, 1), (2, 3)], far) == [([3.0, 2.0], [1.0, 1.5])]
    assert _competing_edges([(5, 7)], [(4, 9)], far) == [([4.0], [90.0])]
    # A swapped slice next to the end of a block is still detected.
    assert _competing_edges([(5, 7), (9, 7)], [(9, 8), (4, 9)], far) == [([5.0, 4.0], [1.0, 90.0])]
    assert _competing_edges([(9, 7), (0, 2)], [(9, 8), (4, 9)], far) == [([5.0], [1.0]), ([2.0], [90.0])]
