"""The page of a patient in a real browser: two scans side by side, whose positions are linked."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.keys import Keys

import lungmix
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED
from lungmix.stages.fit import publish
from lungmix.stages.measure import measure_cohort
from lungmix.webpage.page import write_page
from lungmix.webpage.volume import CLASSES, preview_of
from support.browser import running_browser
from support.followup import tie_patients
from support.labelled import add_case

pytestmark = pytest.mark.slow

POSITIONS = "return lungmix.pair.views.map((view) => [...view.position])"
READY = "return lungmix.pair.views.every((view, i) => view.name === arguments[i])"
# Size, spacing and first and last lung voxel along z, y, x of each scan: another field of view and inspiration each.
SCANS = {
    "case-001": ((60, 50, 40), (6.0, 6.0, 6.0), ((5, 34), (10, 39), (8, 51))),
    "case-002": ((60, 50, 30), (6.0, 6.0, 8.0), ((6, 20), (15, 44), (4, 41))),
    "case-003": ((48, 48, 50), (7.0, 7.0, 5.0), ((10, 47), (8, 31), (6, 40))),
}


def add_boxes(cohort, name, size, spacing, ends):
    """Add a labelled case with two lungs that are boxes, and a thin trachea above them in the mask."""
    shape = size[::-1]
    (z0, z1), (y0, y1), (x0, x1) = ends
    lung = np.zeros(shape, np.uint8)
    middle = (x0 + x1) // 2
    lung[z0 : z1 + 1, y0 : y1 + 1, x0 : middle - 1] = 1
    lung[z0 : z1 + 1, y0 : y1 + 1, middle + 2 : x1 + 1] = 1
    lung[z1 + 1 :, (y0 + y1) // 2, middle] = 1
    random = np.random.default_rng(len(name) + size[2])
    hu = np.where(lung, random.normal(-820, 100, shape), 30).clip(-1024, 300).astype(np.int16)
    add_case(cohort, name, hu, lung, Geometry(size, spacing))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patient")
    cohort = lungmix.open_cohort(folder / "cohort.zarr", "a")
    for name, scan in SCANS.items():
        add_boxes(cohort, name, *scan)
    publish(cohort, PUBLISHED, {"given": True})
    measure_cohort(cohort, list(cohort), PUBLISHED)
    tie_patients(
        cohort, {"patient-001": [("case-001", 0), ("case-002", 30), ("case-003", 95)]}, remarks="kernel differs"
    )
    page = write_page(cohort, folder / "page")
    return cohort, page.parent / "patients" / "patient-001.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with running_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def page(browser, made):
    browser.open(made[1])
    browser.wait(READY, "case-001", "case-003")
    yield browser
    assert browser.console() == []
    assert all(url.startswith(("file://", "data:", "blob:")) for url in browser.requests())


def lungs(cohort, name):
    """Ends of the lungs of a preview along z, y, x, without slices that have next to no lung."""
    mask = preview_of(cohort[name]).labels // CLASSES > 0
    ends = []
    for axis in range(3):
        profile = mask.sum(axis=tuple({0, 1, 2} - {axis}))
        inside = np.flatnonzero(profile > 0.02 * profile.max())
        ends.append((inside[0], inside[-1]))
    return np.array(ends)


def corresponding(cohort, source, target, position):
    begin, end = lungs(cohort, source), lungs(cohort, target)
    share = (np.array(position) - begin[:, 0]) / (begin[:, 1] - begin[:, 0])
    return end[:, 0] + share * (end[:, 1] - end[:, 0])


def assert_linked(page, cohort, names, moved):
    positions = page.run(POSITIONS)
    expected = corresponding(cohort, names[moved], names[1 - moved], positions[moved])
    shape = preview_of(cohort[names[1 - moved]]).labels.shape
    expected = np.clip(expected, 0, np.array(shape) - 1)
    np.testing.assert_allclose(positions[1 - moved], expected, atol=0.51)


def test_ends_of_the_lungs_leave_out_a_trachea(page, made):
    shown = page.run("return lungmix.pair.views.map((view) => view.volume.lungs)")
    for name, ends in zip(("case-001", "case-003"), shown, strict=True):
        np.testing.assert_array_equal(ends, lungs(made[0], name))
        assert ends[0][1] - ends[0][0] == SCANS[name][2][0][1] - SCANS[name][2][0][0]


@pytest.mark.parametrize("moved", [0, 1])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_keys_wheel_slider_and_click_in_one_scan_move_the_other(page, made, moved, plane):
    cohort, names, side = made[0], ("case-001", "case-003"), ("first", "second")[moved]
    canvas = page.find(f".{side} .{plane} canvas")
    page.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
    assert_linked(page, cohort, names, 0)
    axis = ["axial", "coronal", "sagittal"].index(plane)
    seen = [page.run(POSITIONS)]

    def changed():
        page.wait(
            "return String(lungmix.pair.views[arguments[0]].position) !== arguments[1]",
            moved,
            ",".join(map(str, seen[-1][moved])),
        )
        seen.append(page.run(POSITIONS))
        assert_linked(page, cohort, names, moved)

    canvas.send_keys(Keys.PAGE_UP)
    changed()
    assert seen[-1][1 - moved][axis] != seen[-2][1 - moved][axis]
    canvas.send_keys(Keys.ARROW_DOWN)
    changed()
    ActionChains(page.driver).scroll_from_origin(ScrollOrigin.from_element(canvas), 0, 120).perform()
    changed()
    page.find(f".{side} .{plane} input").send_keys(Keys.ARROW_LEFT)
    changed()
    ActionChains(page.driver).move_to_element_with_offset(canvas, 25, -18).click().perform()
    changed()
    assert "HU" in page.text(f".{side} .{plane} .where")


def test_both_scans_tell_hu_and_label_at_the_cross_hair(page, made):
    page.find(".first .axial canvas").send_keys(Keys.ARROW_UP)
    for index, side in enumerate(("first", "second")):
        shown = page.text(f".{side} .at")
        assert shown == page.run("const v = lungmix.pair.views[arguments[0]]; return v.valueText(v.position)", index)
        z, y, x = page.run(POSITIONS)[index]
        preview = preview_of(made[0]["case-001" if index == 0 else "case-003"])
        assert abs(int(shown.split()[1].replace("−", "-")) - (-1150 + 6 * int(preview.grey[z, y, x]))) < 80


def test_unlinked_scans_move_alone_until_they_are_linked_again(page, made):
    before = page.run(POSITIONS)
    page.click("#linked")
    page.find(".first .axial canvas").send_keys(Keys.PAGE_UP)
    after = page.run(POSITIONS)
    assert after[0] != before[0]
    assert after[1] == before[1]
    page.click("#linked")
    assert page.run(POSITIONS)[1] != before[1]
    assert_linked(page, made[0], ("case-001", "case-003"), 0)


def test_scans_are_chosen_and_keep_the_position(page, made):
    page.find(".first .axial canvas").send_keys(Keys.PAGE_DOWN)
    held = page.run(POSITIONS)[0]
    page.run("const s = document.getElementById('second'); s.value = 'case-002'; s.dispatchEvent(new Event('change'))")
    page.wait(READY, "case-001", "case-002")
    assert page.run(POSITIONS)[0] == held
    assert_linked(page, made[0], ("case-001", "case-002"), 0)
    options = page.run("return [...document.querySelectorAll('#first option')].map((o) => o.textContent)")
    assert options == ["scan 1, day 0: case-001", "scan 2, day 30: case-002", "scan 3, day 95: case-003"]
    # One scan on both sides is the same position twice.
    page.run("const s = document.getElementById('first'); s.value = 'case-002'; s.dispatchEvent(new Event('change'))")
    page.wait(READY, "case-002", "case-002")
    first, second = page.run(POSITIONS)
    assert first == second


def saturation(page):
    """Return the sum of differences between the colours of the axial plane of each scan; 0 for grey images."""
    script = "return lungmix.pair.views.map((view) => view.planes[0].canvas.toDataURL().split(',')[1])"
    images = (Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB") for text in page.run(script))
    return [int(np.ptp(np.asarray(image).astype(int), axis=2).sum()) for image in images]


def test_controls_are_those_of_both_scans(page):
    page.click("#cross")
    assert min(saturation(page)) > 0
    page.click("#overlay")
    assert saturation(page) == [0, 0]
    page.run("document.querySelector('input[value=mediastinum]').click()")
    labels = page.run("return [...document.querySelectorAll('.axial canvas')].map((c) => c.getAttribute('aria-label'))")
    assert all("mediastinum window, no labels" in label for label in labels)


@pytest.mark.parametrize("width", [1400, 820, 400])
def test_pages_fit_the_window(browser, made, width):
    for path in (made[1], made[1].parents[1] / "index.html"):
        browser.open(path, width=width)
        browser.wait("return document.readyState === 'complete'")
        if path == made[1]:
            browser.wait(READY, "case-001", "case-003")
        assert browser.run("const e = document.documentElement; return e.scrollWidth <= e.clientWidth"), path
    browser.open(made[1], width=width)
    browser.wait(READY, "case-001", "case-003")
    tops = browser.run("return [...document.querySelectorAll('.axial')].map((n) => n.getBoundingClientRect().top)")
    lefts = browser.run("return [...document.querySelectorAll('.axial')].map((n) => n.getBoundingClientRect().left)")
    if width > 820:
        assert tops[0] == tops[1]
        assert lefts[0] < lefts[1]
    else:
        assert lefts[0] == lefts[1]
        heights = browser.run(
            "return [...document.querySelectorAll('.axial')].map((n) => n.getBoundingClientRect().bottom)"
        )
        # Both axial planes are in sight at once, one below the other.
        assert tops[1] >= heights[0]
        assert heights[1] - tops[0] < 900
    assert browser.console() == []


def test_a_swipe_in_one_scan_moves_the_other(browser, made):
    browser.open(made[1], width=400, height=800)
    browser.wait(READY, "case-001", "case-003")
    canvas = browser.find(".second .axial canvas")
    browser.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
    x, y = browser.run(
        "const b = arguments[0].getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]", canvas
    )
    before = browser.run(POSITIONS)
    browser.tell("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    for step in range(1, 6):
        browser.tell("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": x + 12 * step, "y": y}])
    browser.tell("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    browser.wait("return lungmix.pair.views[1].position[0] > arguments[0]", before[1][0])
    assert browser.run(POSITIONS)[0][0] > before[0][0]
    assert_linked(browser, made[0], ("case-001", "case-003"), 1)
    assert browser.console() == []


def test_missing_data_file_is_reported(browser, made, tmp_path):
    path = write_page(made[0], tmp_path).parent
    (path / "data" / "case-003.js").unlink()
    browser.open(path / "patients" / "patient-001.html")
    browser.wait("return document.querySelector('.second .state').textContent.includes('cannot be shown')")
    assert "data/case-003.js is missing" in browser.text(".second .state")
    assert browser.find(".second .state").size["width"] > 100
    assert browser.find(".first .state").size["width"] <= 1
    browser.wait("return lungmix.pair.views[0].name === 'case-001'")
    browser.console()


def test_controls_have_names_and_identifiers_are_unique(page):
    unnamed = page.run("""
        return [...document.querySelectorAll('button, input, select, canvas, [role=region]')].filter((node) => {
          const label = node.labels && [...node.labels].map((label) => label.textContent.trim()).join('');
          return !(node.getAttribute('aria-label') || label || node.textContent.trim());
        }).map((node) => node.outerHTML)
    """)
    assert unnamed == []
    ids = page.run("return [...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(set(ids)) == len(ids)
