"""Harmonised axial slices: each by itself, the kernel before air and blood, and what is recorded of them."""

import numpy as np
import pytest

from lungmix.kernels.air_blood import AirBlood, NotHarmonised, harmonise
from lungmix.kernels.frequency_bands import Gains, filled, normalise_bands, rounded
from lungmix.kernels.harmonisation import Harmonisation
from lungmix.kernels.trachea import part_of_trachea

SPACING = (0.7, 0.8)
GAINS = Gains((0.3, 0.9), (100.0, 60.0), (38.5, 43.6))
MAPPED = AirBlood(-960.0, 30.0, 100, 1.05, 8.0, None, None)
UNMAPPED = AirBlood(None, None, 0, 1.0, 0.0, NotHarmonised.NO_AIR, None)


def volume():
    hu = np.random.default_rng(0).normal(-800, 120, (5, 40, 50)).astype(np.int16)
    hu[:, :4] = -3024
    return hu


def test_kernel_is_normalised_before_air_and_blood_are_mapped():
    hu = volume()
    first = np.stack([rounded(normalise_bands(filled(plane), SPACING, GAINS.gains), plane) for plane in hu])
    expected = rounded(harmonise(first, MAPPED.slope, MAPPED.offset), hu)
    result = Harmonisation(GAINS, MAPPED).apply(hu, SPACING)
    assert np.array_equal(result, expected)
    assert (result[:, :4] == -3024).all()
    assert result.dtype == np.int16


def test_slices_do_not_depend_on_each_other():
    hu = volume()
    complete = Harmonisation(GAINS, MAPPED).apply(hu, SPACING)
    assert np.array_equal(Harmonisation(GAINS, MAPPED).apply(hu[2:4], SPACING), complete[2:4])
    assert Harmonisation(GAINS).apply(hu[:0], SPACING).shape == (0, 40, 50)


@pytest.mark.parametrize("nothing", [Harmonisation(), Harmonisation(air_blood=UNMAPPED), Harmonisation(problem="x")])
def test_hu_stay_where_nothing_can_be_harmonised(nothing):
    assert np.array_equal(nothing.apply(volume(), SPACING), volume())


def test_record_names_numbers_and_reasons():
    assert Harmonisation(GAINS, MAPPED).to_dict() == {
        "air-blood": {"air_hu": -960.0, "blood_hu": 30.0, "slope": 1.05, "offset": 8.0},
        "kernel": {"bands_mm": [1.0, 2.0], "gains": [0.3, 0.9], "sd_before": [100.0, 60.0], "sd_after": [38.5, 43.6]},
    }
    assert Harmonisation(air_blood=UNMAPPED, problem="pixels").to_dict()["not_applied"] == {
        "air-blood": "no air in the trachea", "kernel": "pixels",
    }  # fmt: skip


def test_part_of_the_trachea_is_a_box_of_its_reduced_voxels():
    core = np.zeros((30, 20, 20), np.bool_)
    core[5:25, 8:11, 9:12] = True
    # Reduced voxels begin one voxel before the volume.
    index = [(np.arange(4 * n - 1) + 1) // 4 for n in core.shape]
    (z, y, x), inside = part_of_trachea(core, index, 4.0)
    assert inside.all()
    assert (y, x) == (slice(31, 43), slice(35, 47))
    assert inside.shape == (20, 12, 12)
    assert 4 * 5 <= z.start < z.stop <= 4 * 25
