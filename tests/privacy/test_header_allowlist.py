"""Texts of headers: known makers, models and kernels are kept, anything that could be a name is removed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix.privacy import header_allowlist
from lungmix.privacy.acquisition import Acquisition


@pytest.mark.parametrize(
    "text",
    [
        "SIEMENS", "Siemens Healthineers", "GE MEDICAL SYSTEMS", "Philips", "TOSHIBA", "Canon Medical Systems", "UIH",
        "Philips Medical Systems, Inc.", "Hitachi Medical Corporation", "lungmix phantom", "other",
    ],
)  # fmt: skip
def test_makers_stay_as_they_are_written(text):
    assert header_allowlist.maker(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "LightSpeed VCT", "Brilliance16", "Sensation 10", "Somatom Go.now", "SOMATOM Definition AS+", "Aquilion ONE",
        "Discovery CT750 HD", "iCT 256", "uCT 760", "Biograph64_mCT", "NeuViz 128", "Revolution EVO", "NAEOTOM Alpha",
        "SOMATOM Definition Flash", "Optima CT660", "Ingenuity Core 128", "Emotion 16 (2007)"[:10],
    ],
)  # fmt: skip
def test_scanners_stay_as_they_are_written(text):
    assert header_allowlist.model(text) == text


@pytest.mark.parametrize(
    "text", ["B70f", "LUNG", "FC51", "STANDARD", "Br40d\\3", "I30f\\3", "B", "YA", "Bl57d\\1", "B_SOFT_B", "BONEPLUS"]
)
def test_kernels_stay_as_they_are_written(text):
    assert header_allowlist.kernel(text) == text


def test_name_next_to_known_words_is_removed():
    assert header_allowlist.maker("SIEMENS (Rossi Maria)") == "SIEMENS"
    assert header_allowlist.model("SOMATOM Force of Dr. Bianchi 4711") == "SOMATOM Force"
    assert header_allowlist.maker("Rossi^Maria") == "other"
    assert header_allowlist.model("Rossi^Maria") is None
    for text in ("Rossi", "B70f Rossi", "B70f\\Rossi", "LUNG\\4711", "Rossi\\3", "19530102"):
        assert header_allowlist.kernel(text) is None


@given(st.text(max_size=80))
def test_nothing_but_listed_words_and_numbers_comes_out(text):
    words = (
        header_allowlist._MAKER_WORDS
        | header_allowlist._MODEL_WORDS
        | header_allowlist._MODEL_NUMBERS
        | {header_allowlist.OTHER}
    )
    for hidden in (text, f"siemens somatom {text}", f"{text}\\{text}"):
        for out in (header_allowlist.maker(hidden), header_allowlist.model(hidden)):
            words_kept = re.findall(r"[^\W\d_]+|\d+", out or "")
            assert {word.lower() for word in words_kept} <= words
            assert re.fullmatch(r"[A-Za-z0-9 ._+\-/()&,]*", out or "")


@given(st.text(min_size=5, max_size=40))
def test_a_kernel_is_of_listed_words_or_a_short_code(text):
    kept = header_allowlist.kernel(text)
    for part in re.split(r"[\\ _+\-/]+", kept or ""):
        code = re.fullmatch(r"[A-Za-z]{0,4}\d{0,3}[a-z]{0,2}", part, re.IGNORECASE)
        assert code or part.strip().lower() in header_allowlist._KERNEL_WORDS


def test_an_acquisition_holds_what_is_plausible_and_nothing_else():
    cleaned = Acquisition("CT", "Rossi", "Rossi", "Rossi", 19530102.0, -1.0, float("nan"), sex="Rossi", age=93)
    assert cleaned.to_dict() == {"modality": "CT", "manufacturer": "other", "age": 90}
    assert Acquisition(modality="Rossi", study_date="Rossi", kvp="120").to_dict() == {}  # type: ignore[arg-type]
    assert Acquisition(study_date="20200231").study_date is None
    complete = Acquisition("CT", "GE", "Revolution CT", "LUNG", 120.0, 0.625, 4.0, 132.0, 500.0, 0.984, 3.1, "F", 58)
    assert Acquisition.from_dict(complete.to_dict() | {"patient_name": "Rossi"}) == complete
    assert set(complete.technical().to_dict()) == set(complete.to_dict()) - {"sex", "age"}
