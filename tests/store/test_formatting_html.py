"""HTML of cases and cohorts for notebooks, read by an HTML parser."""

import base64
from html.parser import HTMLParser
from io import BytesIO

import matplotlib.image
import numpy as np
import pytest

import lungmix
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import CohortWriter
from support.generators import labelled_case

HOSTILE = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Parsed HTML: its tags, table cells and images."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.images, self.open = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def cohort(tmp_path):
    return lungmix.open_cohort(tmp_path / "cohort.zarr", "a")


def test_case_shows_its_attributes_and_a_slice_with_true_aspect_ratio(cohort):
    case = labelled_case(cohort, "case-001", Geometry((40, 32, 20), (0.5, 1.0, 1.2)))
    page = Page(case._repr_html_())
    assert "40 x 32 x 20" in page.words
    assert "convert, mask, label" in page.words
    (image,) = page.images
    assert image["alt"] == "Middle slice of case-001"
    assert int(image["height"]) / int(image["width"]) == pytest.approx(32 * 1.0 / (40 * 0.5), rel=0.02)
    pixels = matplotlib.image.imread(BytesIO(base64.b64decode(image["src"].split(",")[1])))
    assert pixels.shape[:2] == case.layout.levels[-1].shape[1:]
    assert np.ptp(pixels[:, :, :3], axis=2).max() > 0.2  # labels are coloured


def test_attributes_of_a_scan_are_escaped(cohort):
    case = labelled_case(cohort, "case-001", Geometry((20, 20, 20)), acquisition=Acquisition("CT", HOSTILE, HOSTILE))
    case.record_failure("mask", HOSTILE)
    for text in (case._repr_html_(), cohort._repr_html_()):
        page = Page(text)
        assert "script" not in page.tags
        assert any(HOSTILE in word for word in page.words)


def test_case_without_a_scan_shows_no_picture(cohort):
    case = CohortWriter(cohort).add("case-001", Geometry((20, 20, 20)), Acquisition())
    page = Page(case._repr_html_())
    assert not page.images
    assert "nothing yet" in page.words


def test_large_cohort_shows_its_first_cases(cohort):
    for number in range(23):
        CohortWriter(cohort).add(f"case-{number:03d}", Geometry((20, 20, 20)), Acquisition())
    page = Page(cohort._repr_html_())
    assert page.tags.count("tr") == 21
    assert "and 3 more" in page.words
    assert any("23 cases" in word for word in page.words)
