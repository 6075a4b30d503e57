"""Lung zones in the report: the heat map of the cohort, and the sketch of a case."""

import csv
import io
import json
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb

import lungmix
from lungmix.geometry import Geometry
from lungmix.kernels.histogram import count_hu
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.stages import regions
from lungmix.stages.fit import publish
from lungmix.stages.lung_zones import ZoneStage
from lungmix.stages.measure import measure_cohort, rows_of_case
from lungmix.store import ZONES_FILE
from lungmix.webpage.page import write_page
from lungmix.webpage.scans import OPENING, script_of
from lungmix.webpage.zones import (
    COLUMNS,
    LOBE_COLUMNS,
    involvement_by_lobe,
    involvement_by_zone,
    stored_involvement,
    zones_figure,
)
from support.browser import running_browser
from support.labelled import add_case

GEOMETRY = Geometry((44, 36, 40), (6.0, 6.0, 6.0))


def add_zoned_case(cohort, name, seed, *, right_only=False):
    """Add a labelled case whose lungs are two boxes of random HU, with regions."""
    random = np.random.default_rng(seed)
    sides = np.zeros(GEOMETRY.shape, np.uint8)
    sides[4:36, 6:32, 4:20] = 1
    if not right_only:
        sides[4:36, 6:32, 24:40] = 2
    hu = random.normal(-860 + 10 * np.arange(40)[:, None, None], 90, GEOMETRY.shape).clip(-1024, 300).astype(np.int16)
    case = add_case(cohort, name, hu, (sides > 0).astype(np.uint8), GEOMETRY)
    case.create_image("side")
    for start, stop in case.layout.slabs():
        case.write("side", start, sides[start:stop])
    counts = np.stack([count_hu(hu, (sides == region).astype(np.uint8)) for region in range(1, 5)])
    case.write_histogram("side_counts", counts)
    touches = {key: [] for key in ("right", "left", "airway", "elsewhere")}
    case.record("side", {"key": regions.key_for(case), "touches": touches, "rejected": []})
    return case


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Measured store with two cases that have lung zones, one of them in one lung only, and a case without any."""
    from _pytest.monkeypatch import MonkeyPatch

    from lungmix.stages import lung_zones
    from lungmix.stages.base import StageContext

    def gather(client, values, watch=None):
        import dask

        with dask.config.set(scheduler="synchronous"):
            return list(dask.compute(*values))

    made = lungmix.open_cohort(tmp_path_factory.mktemp("zones") / "cohort.zarr", "a")
    with MonkeyPatch.context() as patch:
        patch.setattr(lung_zones, "compute_in_order", gather)
        for name, right_only in (("case-001", False), ("case-002", True), ("case-003", False)):
            add_zoned_case(made, name, int(name[-1]), right_only=right_only)
            if name != "case-003":
                ZoneStage("volume").run(StageContext(None, made), name)
    publish(made, PUBLISHED, {"given": True})
    names = list(made)
    measure_cohort(made, names, PUBLISHED)
    measure_cohort(made, names, PUBLISHED, (), ZONES_FILE)
    return made


@pytest.fixture(scope="module")
def page(cohort, tmp_path_factory):
    return write_page(cohort, tmp_path_factory.mktemp("page"))


def zones_of_case(cohort, name):
    return {
        row["zone"]: row["lung_involvement"]
        for row in rows_of_case(cohort[name], ZONES_FILE, PUBLISHED)
        if row["zone"] in COLUMNS
    }


def test_figure_and_its_table_have_the_lung_involvement_of_each_zone(cohort, page):
    text = page.read_text()
    assert 'id="figure-zones"' in text
    alternative = re.search(r'figures/zones.svg" alt="([^"]+)"', text)[1]
    assert "equal volume" in alternative
    assert "Medians of 2 cases: right upper ventral:" in alternative
    rows = list(csv.DictReader(io.StringIO((page.parent / "figures" / "zones.csv").read_text())))
    assert [row["case"] for row in rows] == ["case-001", "case-002"]
    for row in rows:
        expected = zones_of_case(cohort, row["case"])
        assert [*row] == ["case", *COLUMNS]
        np.testing.assert_allclose([float(row[zone]) for zone in COLUMNS], [expected[zone] for zone in COLUMNS])
    assert row["left_upper_ventral"] == "nan"


def test_file_of_a_scan_has_zones_that_have_voxels(cohort):
    payload = {}
    for name in cohort:
        text = script_of(cohort[name], PUBLISHED).decode()
        payload[name] = json.loads(text[len(OPENING) : -3])
    expected = zones_of_case(cohort, "case-001")
    assert payload["case-001"]["zones"] == pytest.approx(expected, abs=0.0001)
    assert sorted(payload["case-002"]["zones"]) == sorted(COLUMNS[:6])
    assert "zones" not in payload["case-003"]
    two = TissueModel((0.5, 0.5), (-900.0, -100.0), (1e4, 1e4))
    assert involvement_by_zone(cohort["case-001"], two) == involvement_by_zone(cohort["case-001"], None) == {}


def test_cases_that_cannot_be_compared_have_no_figure(cohort, tmp_path):
    rows, by = stored_involvement(cohort, ["case-002", "case-001", "case-003"])
    assert [row["case"] for row in rows] == ["case-002", "case-001"]
    assert by == "volume"
    assert stored_involvement(cohort, ["case-003"]) == ([], "")
    text = cohort.read_text(ZONES_FILE)
    lines = text.splitlines()
    other = [line.replace(",volume,", ",height,") if line.startswith("case-002") else line for line in lines]

    class Other:
        def read_text(self, file):
            return "\n".join(other)

    assert stored_involvement(Other(), ["case-001", "case-002"]) == ([], "")


@pytest.mark.parametrize("cases", [1, 80, 300])
def test_heat_map_of_many_cases_has_no_names(cases):
    rows = [{"case": f"case-{i:03d}", **dict.fromkeys(COLUMNS, float(i % 70))} for i in range(cases)]
    figure = zones_figure(rows)
    axes = figure.axes[0]
    assert len(axes.get_yticks()) == (cases if cases <= 80 else 0)
    assert figure.get_figheight() < 22
    assert axes.images[0].get_array().shape == (cases, 12)


def luminance(color):
    """Return the relative luminance of a colour as defined by WCAG 2."""
    shares = np.array(to_rgb(color))
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_numbers_of_the_heat_map_are_legible_on_each_colour():
    rows = [{"case": f"case-{i:03d}", **dict.fromkeys(COLUMNS, float(i))} for i in range(66)]
    axes = zones_figure(rows).axes[0]
    shades = axes.images[0]
    # Annotations, such as the name of a lung, are texts of the axes too.
    numbers = [text for text in axes.texts if text.get_text().isdecimal()]
    assert len(numbers) == 66 * len(COLUMNS)
    for text in numbers:
        pair = sorted([luminance(text.get_color()), luminance(shades.to_rgba(float(text.get_text()))[:3])])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 3.8


def test_stamp_of_a_scan_changes_with_its_zones(cohort, page, tmp_path):
    stamps = re.findall(r'value="(case-00\d)" data-stamp="([^"]+)"', page.read_text())
    assert ["zones" in stamp for _, stamp in stamps] == [True, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
def test_sketch_shows_the_numbers_of_the_case_that_is_viewed(cohort, page, tmp_path, width):
    with running_browser(tmp_path) as browser:
        browser.open(page, "#scan=case-001", width=width)
        shown = "return document.getElementById('state').textContent === arguments[0] + ' is shown'"
        browser.wait(shown, "case-001")
        numbers = "return [...document.querySelectorAll('#zones .value')].map((node) => node.textContent)"
        expected = zones_of_case(cohort, "case-001")
        assert browser.run(numbers) == [f"{v:.1f}" if v < 10 else f"{v:.0f}" for v in expected.values()]
        # The right lung is on the left, as seen from the front.
        place = "[node.textContent, node.getBoundingClientRect().left]"
        lefts = browser.run(f"return [...document.querySelectorAll('#zones .side')].map((node) => {place})")
        assert [name for name, _ in sorted(lefts, key=lambda pair: pair[1])] == ["Right", "Left"]
        assert browser.run("const e = document.documentElement; return e.scrollWidth <= e.clientWidth")
        browser.run("lungmix.viewer.open('case-002')")
        browser.wait(shown, "case-002")
        assert [text == "" for text in browser.run(numbers)] == [False] * 6 + [True] * 6
        browser.run("lungmix.viewer.open('case-003')")
        browser.wait(shown, "case-003")
        assert browser.run("return document.getElementById('zones').hidden")
        assert browser.console() == []


def test_page_without_zones_has_no_figure(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "cohort.zarr", "a")
    add_zoned_case(cohort, "case-001", 1)
    publish(cohort, PUBLISHED, {"given": True})
    measure_cohort(cohort, ["case-001"], PUBLISHED)
    text = write_page(cohort, tmp_path / "page").read_text()
    assert "figure-zones" not in text


@pytest.fixture
def lobed(tmp_path):
    """Measured store of two cases with lobes, and without lung zones."""
    cohort = lungmix.open_cohort(tmp_path / "cohort.zarr", "a")
    random = np.random.default_rng(5)
    for name in ("case-001", "case-002"):
        case = add_zoned_case(cohort, name, int(name[-1]))
        case.write_histogram("lobe_counts", random.integers(0, 3, (5, 65536)).astype(np.uint64))
        record = dict(case.stages["mask"])
        case.record("mask", {**record, "files": {"lobe_counts/zarr.json": [1, 1]}})
    publish(cohort, PUBLISHED, {"given": True})
    measure_cohort(cohort, list(cohort), PUBLISHED)
    measure_cohort(cohort, list(cohort), PUBLISHED, (), ZONES_FILE)
    return cohort


def test_lobes_have_a_figure_of_their_own(lobed, tmp_path):
    cohort = lobed
    text = write_page(cohort, tmp_path / "page").read_text()
    assert "figure-zones" not in text
    assert "by lobe, as the given masks distinguish them. Medians of 2 cases: right upper lobe:" in text
    rows, by = stored_involvement(cohort, ["case-001", "case-002"], LOBE_COLUMNS)
    assert by == "lobes"
    for row in rows:
        measured = {r["zone"]: r["lung_involvement"] for r in rows_of_case(cohort[row["case"]], ZONES_FILE, PUBLISHED)}
        assert {lobe: row[lobe] for lobe in LOBE_COLUMNS} == pytest.approx(measured)
    figure = zones_figure(rows)
    assert figure.axes[0].images[0].get_array().shape == (2, 5)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()][2] == "lower\nlobe"
    stored = list(csv.DictReader(io.StringIO((tmp_path / "page" / "figures" / "lobes.csv").read_text())))
    assert [*stored[0]] == ["case", *LOBE_COLUMNS]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
def test_sketch_of_lobes_shows_their_numbers(lobed, tmp_path, width):
    page = write_page(lobed, tmp_path / "page")
    expected = involvement_by_lobe(lobed["case-001"], PUBLISHED)
    assert [*expected] == [*LOBE_COLUMNS]
    with running_browser(tmp_path) as browser:
        browser.open(page, "#scan=case-001", width=width)
        browser.wait("return document.getElementById('state').textContent === 'case-001 is shown'")
        assert browser.run("return document.getElementById('zones').hidden")
        numbers = "return [...document.querySelectorAll('#zones-lobes .value')].map((node) => node.textContent)"
        assert browser.run(numbers) == [f"{v:.1f}" if v < 10 else f"{v:.0f}" for v in expected.values()]
        titles = "return [...document.querySelectorAll('#zones-lobes .cut title')].map((node) => node.textContent)"
        box = "return [...document.querySelectorAll('#zones-lobes .cut')].every((node) => node.getBBox().width > 50)"
        assert browser.run(box)
        assert browser.run(titles)[1] == f"right middle lobe: {expected['right_middle_lobe']:.0f} %"
        assert browser.run("const e = document.documentElement; return e.scrollWidth <= e.clientWidth")
        assert browser.console() == []
