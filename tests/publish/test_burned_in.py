"""A published scan with text in its slices keeps the version from completion until somebody has looked at it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from lungmix.errors import UsageError
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED
from lungmix.publish import About, Creator, check_dataset, publish
from lungmix.publish.burned_in import TextSearch, sentence_of
from lungmix.stages.measure import measure_cohort
from support.command import run_here
from support.labelled import add_case, labelled_store

ABOUT = About("T", "1.0", "CC0-1.0", (Creator("Doe, Jane"),))
NEXT = About("T", "2.0", "CC0-1.0", ABOUT.creators)
PATH = "images/case-text/case-text_ct.nrrd"


def volume(first, last):
    """Return a scan of noise, with a name in some of its slices."""
    ct = np.random.default_rng(0).normal(-1000, 15, (12, 64, 120)).astype(np.int16)
    letters = Image.new("1", (120, 64))
    ImageDraw.Draw(letters).text((3, 3), "DOE^JANE", fill=1, font=ImageFont.load_default(14))
    ct[first:last, np.asarray(letters)] = 3071
    return ct


@pytest.fixture
def cohort(tmp_path):
    cohort, _ = labelled_store(tmp_path / "s.zarr", 1)
    ct = volume(4, 7)
    add_case(cohort, "case-text", ct, np.ones(ct.shape, "uint8"), Geometry((120, 64, 12), (1.0, 1.0, 2.0)))
    measure_cohort(cohort, list(cohort), PUBLISHED)
    return cohort


def test_text_in_slices_keeps_the_version_from_completion_until_accepted(cohort, tmp_path):
    folder = tmp_path / "data"
    result = publish(cohort, folder, ABOUT)
    assert list(result.problems) == [PATH]
    assert "burned into 3 slices: 4 to 6" in result.problems[PATH][0]
    assert not (folder / "SHA256SUMS").exists()
    with pytest.raises(UsageError, match="`accept_burned_in` names cases that are not published: other"):
        publish(cohort, folder, ABOUT, accept_burned_in=["other"])
    assert publish(cohort, folder, ABOUT, accept_burned_in=["case-text"]).is_complete
    assert check_dataset(folder) == {}
    assert "burned-in text: case-text." in (folder / "README.md").read_text()
    # The next version keeps it.
    assert publish(cohort, folder, NEXT).is_complete
    assert check_dataset(folder) == {}


def test_acceptance_ends_when_the_voxels_change(cohort, tmp_path):
    folder = tmp_path / "data"
    assert publish(cohort, folder, ABOUT, accept_burned_in=["case-text"]).is_complete
    ct = volume(0, 12)
    case = add_case(cohort, "case-text", ct, np.ones(ct.shape, "uint8"), Geometry((120, 64, 12), (1.0, 1.0, 2.0)))
    case.record("convert", {"key": "other voxels"})
    measure_cohort(cohort, list(cohort), PUBLISHED)
    assert "burned into 12 slices: 0 to 11" in publish(cohort, folder, NEXT).problems[PATH][0]


def test_commands_name_the_slices_and_accept_the_case(cohort, tmp_path):
    (tmp_path / "people.csv").write_text('name\n"Doe, Jane"\n')
    words = [tmp_path / "s.zarr", tmp_path / "d", "--title", "T", "--license", "CC0-1.0", "--version", "1.0"]
    words += ["--creators", tmp_path / "people.csv", "--workers", 1]
    done = run_here("publish", *words)
    assert done.returncode == 1
    assert "4 to 6" in done.stdout
    assert "--accept-burned-in" in done.stdout
    assert "2 files" not in done.stdout
    assert run_here("publish", *words, "--accept-burned-in", "case-text, ").returncode == 0
    checked = run_here("publish", "--check", tmp_path / "d", "--json")
    assert json.loads(checked.stdout)["passed"]


def test_slices_are_cut_from_blocks_of_any_size():
    ct = volume(2, 5)
    data = ct.astype("<i2").tobytes()
    for size in (1, 4001, len(data) // 12, len(data)):
        search = TextSearch(64, 120)
        for start in range(0, len(data), size if size > 1 else 997):
            search.add(data[start : start + (size if size > 1 else 997)])
        assert search.slices == [2, 3, 4]


def test_ranges_of_slices_are_listed():
    assert ": 1, 3 to 5, counted" in sentence_of([1, 3, 4, 5])
    assert ": 0, 2, 4, 6, 8, ..., counted" in sentence_of(range(0, 20, 2))
