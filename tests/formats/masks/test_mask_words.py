"""Regions by names and codes of other programs."""

import pytest

from lungmix.formats.masks.words import REGIONS, maker_of, region_of, region_of_code, region_of_name
from lungmix.tissue import SIDES, TISSUES

NAMES = {
    "Lung-Left": "left", "left lung": "left", "Lung_L": "left", "LUNG_RT": "right", "R Lung": "right", "Lungs": "lung",
    "both lungs": "lung", "lung_upper_lobe_left": "left_upper", "lung_middle_lobe_right": "right_middle",
    "Lower lobe of right lung": "right_lower", "RUL": "right_upper", "GGO": "ggo", "Consolidation": "consolidation",
    "lung_trachea_bronchia": "airway", "GTV-1": "tumor", "heart": None, "Left": None, "": None, "lung " * 100: None,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_are_known_or_not(name):
    assert region_of_name(name) == NAMES[name]


def test_names_of_this_package_are_known():
    for tissue in (*SIDES, *TISSUES):
        assert region_of(tissue.name, (tissue.code.scheme, tissue.code.value)) == tissue.key


def test_codes_take_their_side_from_modifiers():
    right, left = ("SCT", "24028007"), ("SRT", "G-A101")
    assert region_of_code(("SCT", "39607008")) == "lung"
    assert region_of_code(("SCT", "39607008"), [right]) == "right"
    assert region_of_code(("SRT", "T-28000"), [left]) == "left"
    assert region_of_code(("SCT", "39607008"), [right, left]) == "lung"
    assert region_of_code(("SCT", "45653009"), [left]) == "left_upper"
    assert region_of_code(("SCT", "45653009")) is None
    assert region_of_code(("SCT", "3341006")) == "right"
    assert region_of_code(("SNM3", "T-28000")) == "lung"
    assert region_of_code(("SCT", "1")) is None


def test_name_and_code_complete_each_other_and_contradictions_are_unknown():
    assert region_of("Segment_1", ("SCT", "44029006")) == "left"
    assert region_of("Right lung", ("SCT", "39607008")) == "right"
    assert region_of("Lung", ("SCT", "3341006")) == "right"
    assert region_of("right lung", ("SCT", "42400003")) == "right_upper"
    assert region_of("Right lung", ("SCT", "44029006")) is None


def test_only_canonical_words_leave_the_module():
    assert {"right", "left", "lung", "airway", "ggo", "consolidation", "lesion"} <= REGIONS
    assert maker_of("Dr. Who's PACS", None) is None
    assert maker_of("https://github.com/QIICR/dcmqi.git") == "dcmqi"
    assert maker_of(None, "Varian Medical Systems") == "Varian"
