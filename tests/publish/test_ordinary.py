"""Words that texts and metadata contain anyway are not searched for, so that patients may have such names."""

from __future__ import annotations

import re

import pytest

from lungmix.publish import About, Creator, SplitRule, identifiers_of, publish
from lungmix.publish.ordinary import ordinary_words
from support.labelled import labelled_store

ABOUT = About("Qzxtitle", "1.0", "CC-BY-4.0", (Creator("Qzxdoe, Qzxjane", "Qzxhospital", "0000-0002-1825-0097"),))
OF_VALUES = re.compile(r"qzx\w+|case|\w*\d\w*|[0-9a-f]+")
"""Words of `ABOUT`, names of cases, numbers and sums."""
LETTERS = re.compile(r"\w{4,}")
BY_VALUES = {"siemens", "somatom", "toshiba", "aquilion", "lungmix"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("ordinary")
    cohort, scores = labelled_store(place / "s.zarr", 3)
    key = {"case-001": {"patient_name": "Qzxplant^Clear", "patient_id": "PAT-1"}}
    assert publish(cohort, place / "d", ABOUT, scores=scores, key=key, split=SplitRule(0.4)).is_complete
    return place / "d"


def test_all_words_of_texts_and_metadata_are_ordinary(folder):
    strange = {}
    for file in folder.iterdir():
        if file.is_file() and file.name not in ("SHA256SUMS", "dataset.json", "files.csv", "batch.csv"):
            words = {word.lower() for word in LETTERS.findall(file.read_text(encoding="utf-8"))}
            strange[file.name] = {w for w in words - ordinary_words() - BY_VALUES if not OF_VALUES.fullmatch(w)}
    assert {name: words for name, words in strange.items() if words} == {}


@pytest.mark.parametrize("name", ["Short", "Head", "Clear", "Weight", "Plain"])
def test_names_that_are_such_words_are_counted_not_searched(name):
    assert identifiers_of({"a": {"patient_name": f"Qzxplant^{name}", "path": "a"}})[0] == [
        f"Qzxplant^{name}",
        "Qzxplant",
    ]
