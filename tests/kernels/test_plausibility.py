"""Scans whose values are not HU of a chest are rejected or flagged, and plausible scans are not."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix.kernels.plausibility import LIMITS, HuSummary, SummaryError, add_all, judge, summarize
from lungmix.phantom import Phantom
from lungmix.phantom.scene import TRAPS

CHEST = Phantom((60, 96, 90), (3.6, 3.7, 5.0)).volume().astype(np.int32)


def counts_of(hu):
    counts = np.zeros(65536, np.uint64)
    add_all(hu.astype(np.int16), counts)
    return counts


def judged(hu):
    return [(finding.code, finding.severity) for finding in judge(summarize(counts_of(hu)))]


def eight_bit(hu, low, high):
    return (np.clip(hu, low, high) - low) * 255 // (high - low)


def test_every_threshold_has_a_reason():
    assert all(limit.reason for limit in LIMITS.values())


@pytest.mark.parametrize("traps", [(), *((trap,) for trap in TRAPS), tuple(TRAPS)])
def test_phantoms_are_plausible(traps):
    assert judged(Phantom((60, 96, 90), (3.6, 3.7, 5.0), traps=frozenset(traps)).volume()) == []


@pytest.mark.parametrize("padding", [-1024, -2000, -2048, -3024, 0])
def test_padding_outside_the_field_of_view_is_plausible(padding):
    hu = CHEST.copy()
    hu[:, :, :12] = hu[:, :, -12:] = padding
    assert judged(hu) == []


@pytest.mark.parametrize("low", [-1000, -1024])
def test_air_that_is_clipped_where_the_method_clips_is_plausible(low):
    assert judged(np.maximum(CHEST, low)) == []


def test_metal_at_the_end_of_twelve_bits_is_plausible():
    hu = CHEST.copy()
    hu[:, 40:44, 40:44] = 3071
    assert judged(hu) == []


def test_chest_without_air_around_it_is_plausible():
    assert judged(CHEST[15:, 35:60, 18:70]) == []


@pytest.mark.parametrize(
    ("code", "values"),
    [
        ("clipped", np.clip(CHEST, -160, 240)),
        ("clipped", np.clip(CHEST, -500, 500)),
        ("clipped", np.clip(CHEST, -800, 3000)),
        ("clipped", np.clip(CHEST, -2000, 0)),
        ("shifted", CHEST + 1024),
        ("shifted", CHEST + 1000),
        ("shifted", CHEST - 1024),
        ("shifted", np.maximum(CHEST - 1024, -2048)),
        ("shifted", np.where(CHEST < -500, -2024, CHEST - 1024)),
        ("rescaled", CHEST * 2),
        ("eight-bit", eight_bit(CHEST, -160, 240)),
        ("eight-bit", eight_bit(CHEST, -1000, 400)),
        ("labels", (CHEST < -500) * 2),
        ("labels", (np.clip(CHEST, -1000, 400) + 1000) // 1400),
        ("constant", CHEST * 0 + 40),
        ("no-air", np.abs(CHEST) // 2),
        ("no-soft-tissue", np.where(CHEST > -300, -1000, CHEST)),
    ],
)
def test_values_that_are_no_hu_of_a_chest_are_rejected(code, values):
    assert judged(values) == [(code, "rejected")]


@pytest.mark.parametrize(
    ("code", "values"),
    [
        ("clipped", np.clip(CHEST, -1000, 150)),
        ("clipped", np.clip(CHEST, -1350, 200)),
        ("clipped", np.clip(CHEST, -950, 3000)),
        ("steps", CHEST // 10 * 10),
        ("steps", CHEST // 2 * 2),
        ("steps", np.round(eight_bit(CHEST, -1000, 1000) * 2000 / 255 - 1000)),
        ("few-values", np.where(CHEST < -900, -1000, np.where(CHEST < -300, -850, 40))),
        ("little-air", np.where((CHEST < -300) & (np.arange(90) != 45), 40, CHEST)),
    ],
)
def test_values_that_can_be_used_with_doubt_are_flagged(code, values):
    findings = judged(values)
    assert (code, "flagged") in findings
    assert {severity for _, severity in findings} == {"flagged"}


def test_reason_states_the_values_of_the_scan():
    (finding,) = judge(summarize(counts_of(np.clip(CHEST, -160, 240))))
    share = 100 * (CHEST <= -160).mean()
    assert "no voxel lies between -1,150 and -600 HU" in finding.reason
    assert f"{share:.0f} % of all voxels are exactly -160 HU, and none is lower" in finding.reason
    assert "exactly 240 HU, and none is higher" in finding.reason


@dataclass(frozen=True)
class LaterSummary(HuSummary):
    """Summary of a later version, which has one more field."""

    median: float = -1.0


SUMMARY = summarize(np.ones(65536, np.uint64)).to_dict()


def test_summary_of_an_earlier_version_takes_defaults_of_later_fields():
    assert LaterSummary.from_dict(SUMMARY) == LaterSummary(**SUMMARY, median=-1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({name: value for name, value in SUMMARY.items() if name not in ("soft", "gaps")}, "lacks soft, gaps"),
        (SUMMARY | {"patient": 1}, "has fields that this version of lungmix does not know"),
        (SUMMARY | {"soft": "much"}, "has no number as soft"),
        ({}, "lacks voxels, distinct"),
    ],
)
def test_summary_that_is_not_understood_is_an_error(values, message):
    with pytest.raises(SummaryError, match=f"^{message}"):
        HuSummary.from_dict(values)


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=300), st.integers(1, 300))
def test_summary_does_not_depend_on_the_slabs(values, size):
    counts = np.zeros(65536, np.uint64)
    for start in range(0, len(values), size):
        add_all(np.asarray(values[start : start + size], np.int16), counts)
    assert np.array_equal(counts, np.bincount(np.asarray(values) + 32768, minlength=65536))
    summary = summarize(counts)
    assert (summary.voxels, summary.distinct) == (len(values), len(set(values)))
    assert (summary.minimum, summary.maximum) == (min(values), max(values))
    assert summary.aerated == pytest.approx(np.mean([-1150 <= value <= -600 for value in values]))
    assert HuSummary.from_dict(summary.to_dict()) == summary
    judge(summary)
