"""The report in a real browser: clicks, keys, mouse wheel and swipes, and the resulting pixels."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.keys import Keys

from lungmix.phantom import Phantom
from lungmix.stages import quality
from lungmix.store import CaseWriter
from lungmix.tissue import TISSUES
from lungmix.webpage.page import write_page
from lungmix.webpage.volume import POSTERIOR_STEPS, preview_of
from support.browser import running_browser
from support.labelled import SHAPE, SPACING, add_case, labelled_store, unlabelled

pytestmark = pytest.mark.slow

SHOWN = "return document.getElementById('state').textContent === arguments[0] + ' is shown'"
POSITION = "return [...lungmix.viewer.position]"
PIXELS = """
const plane = lungmix.viewer.planes.find((entry) => entry.name === arguments[0]);
const canvas = plane.canvas;
return [plane.box, canvas.toDataURL().split(',')[1]];
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    cohort, scores = labelled_store(folder / "cohort.zarr", 4)
    unlabelled(cohort, "empty", "no island of air is lung: <b>look</b>")
    return cohort, write_page(cohort, folder / "page", {"broken": "broken.nrrd is damaged"}, scores=scores)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with running_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def page(browser, made):
    _, path = made
    browser.open(path, "#scan=case-001")
    browser.wait(SHOWN, "case-001")
    yield browser
    assert browser.console() == []
    assert all(url.startswith(("file://", "data:", "blob:")) for url in browser.requests())


def pixels(page, plane="axial"):
    box, text = page.run(PIXELS, plane)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGBA")), box


def at_centres(image, box, shape):
    """Return the colours of the canvas at the centres of the voxels of a slice of the given shape."""
    rows = (box[1] + (np.arange(shape[0]) + 0.5) * box[3] / shape[0]).astype(int)
    columns = (box[0] + (np.arange(shape[1]) + 0.5) * box[2] / shape[1]).astype(int)
    return image[np.ix_(rows, columns)][..., :3].astype(int)


def choose(page, selector):
    page.run("document.querySelector(arguments[0]).click()", selector)


def order(page):
    return page.run("return [...document.querySelectorAll('#cases tbody tr')].map((row) => row.dataset.case)")


def visible(page):
    return page.run(
        "return [...document.querySelectorAll('#cases tbody tr')].filter((r) => !r.hidden).map((r) => r.dataset.case)"
    )


def test_heads_of_the_table_sort_both_ways_by_click_and_by_keyboard(page, made):
    cohort, _ = made
    from lungmix.stages.measure import read_measurements

    involvement = {row["case"]: row["lung_involvement"] for row in read_measurements(cohort)}
    ranked = sorted(involvement, key=involvement.get)
    page.click("#cases th[data-key=lung_involvement] button")
    assert order(page) == [*ranked, "empty"]
    assert page.find("#cases th[data-key=lung_involvement]").get_attribute("aria-sort") == "ascending"
    page.find("#cases th[data-key=lung_involvement] button").send_keys(Keys.ENTER)
    assert order(page) == [*ranked[::-1], "empty"]
    assert page.find("#cases th[data-key=lung_involvement]").get_attribute("aria-sort") == "descending"
    page.find("#cases thead th:first-child button").send_keys(Keys.SPACE)
    assert order(page) == sorted([*ranked, "empty"])
    assert page.find("#cases th[data-key=lung_involvement]").get_attribute("aria-sort") == "none"


def test_search_keeps_rows_with_all_words(page):
    search = page.find("#search")
    search.send_keys("002")
    assert visible(page) == ["case-002"]
    assert page.text("#found") == "1 of 5"
    search.clear()
    search.send_keys("no labels EMP")
    assert visible(page) == ["empty"]
    search.clear()
    search.send_keys("nothing like it")
    assert visible(page) == []
    search.send_keys(Keys.CONTROL, "a")
    search.send_keys(Keys.DELETE)
    assert len(visible(page)) == 5


def test_all_columns_are_shown_on_demand(page):
    assert not page.find("#cases th[data-key=air_ml]").is_displayed()
    page.click("#all-columns")
    assert page.find("#cases th[data-key=air_ml]").is_displayed()


def test_a_row_opens_its_scan_and_buttons_turn_to_the_next(page):
    page.click("tr[data-case='case-003'] button")
    page.wait(SHOWN, "case-003")
    assert page.run("return document.querySelector('#cases tr[aria-current]').dataset.case") == "case-003"
    page.click("#after")
    page.wait(SHOWN, "case-004")
    page.click("#after")
    page.wait(SHOWN, "case-001")
    page.click("#before")
    page.wait(SHOWN, "case-004")


def test_scans_are_loaded_when_they_scroll_into_view(browser, made):
    _, path = made
    browser.open(path, height=300)
    browser.wait("return document.readyState === 'complete'")
    assert not [url for url in browser.requests() if "/data/" in url]
    browser.run("document.getElementById('viewer').scrollIntoView()")
    browser.wait(SHOWN, "case-001")
    assert [url.split("/")[-1].split("?")[0] for url in browser.requests() if "/data/" in url] == ["case-001.js"]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_wheel_keys_and_slider_go_through_slices(page, plane):
    axis = ["axial", "coronal", "sagittal"].index(plane)
    canvas = page.find(f".{plane} canvas")
    page.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
    before, image = page.run(POSITION)[axis], pixels(page, plane)[0]
    ActionChains(page.driver).scroll_from_origin(ScrollOrigin.from_element(canvas), 0, 120).perform()
    page.wait("return lungmix.viewer.position[arguments[0]] < arguments[1]", axis, before)
    assert (pixels(page, plane)[0] != image).any()
    at = page.run(POSITION)[axis]
    canvas.send_keys(Keys.ARROW_UP)
    assert page.run(POSITION)[axis] == at + 1
    canvas.send_keys(Keys.ARROW_LEFT, Keys.ARROW_DOWN)
    assert page.run(POSITION)[axis] == at - 1
    canvas.send_keys(Keys.HOME)
    assert page.run(POSITION)[axis] == 0
    canvas.send_keys(Keys.PAGE_UP)
    assert page.run(POSITION)[axis] == 10
    canvas.send_keys(Keys.END)
    slider = page.find(f".{plane} input")
    assert slider.get_attribute("value") == slider.get_attribute("max") == str(page.run(POSITION)[axis])
    slider.send_keys(Keys.ARROW_LEFT)
    assert page.run(POSITION)[axis] == int(slider.get_attribute("max")) - 1
    assert f"slice {page.run(POSITION)[axis] + 1} of" in page.find(f".{plane} canvas").get_attribute("aria-label")


def test_beyond_the_last_slice_the_wheel_scrolls_the_page(page):
    canvas = page.find(".axial canvas")
    page.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
    canvas.send_keys(Keys.HOME)
    before = page.run("return scrollY")
    ActionChains(page.driver).scroll_from_origin(ScrollOrigin.from_element(canvas), 0, 200).perform()
    page.wait("return scrollY > arguments[0]", before)


def test_a_click_moves_the_other_planes(page):
    canvas = page.find(".axial canvas")
    page.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
    before = page.run(POSITION)
    ActionChains(page.driver).move_to_element_with_offset(canvas, 60, -40).click().perform()
    after = page.run(POSITION)
    assert after[0] == before[0]
    assert after[1:] != before[1:]
    assert "HU" in page.text(".axial .where")


@pytest.mark.parametrize(("name", "low", "high"), [("lung", -1350, 150), ("mediastinum", -135, 215)])
def test_windows_show_their_hu(page, made, name, low, high):
    cohort, _ = made
    choose(page, f"input[value={name}]")
    choose(page, "#overlay")
    choose(page, "#cross")
    preview = preview_of(cohort["case-001"])
    z = page.run(POSITION)[0]
    image, box = pixels(page)
    shown = at_centres(image, box, preview.grey.shape[1:])
    assert np.ptp(shown, axis=2).max() == 0
    hu = -1150 + 6 * preview.grey[z].astype(float)
    expected = np.clip((hu - low) / (high - low), 0, 1) * 255
    # The images in the report are compressed with a loss of about 20 HU.
    assert np.sqrt(((shown[..., 0] - expected) ** 2).mean()) < 30 * 255 / (high - low) + 6
    assert np.corrcoef(shown[..., 0].ravel(), expected.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("labels", ["voxel", "median"])
def test_overlay_shows_exactly_the_labels_of_the_store(page, made, labels):
    cohort, _ = made
    choose(page, f"input[value={labels}]")
    choose(page, "#cross")
    page.run("const o = document.getElementById('opacity'); o.value = 100; o.dispatchEvent(new Event('input'))")
    case = cohort["case-001"]
    axes = preview_of(case).axes
    assert [axis.step for axis in axes] == [1, 1, 1], "a phantom this small is cropped but not reduced"
    z, rows = page.run(POSITION)[0], int(axes[1].first)
    stored = case.zarr_array("tissue" if labels == "voxel" else "tissue_median")[z]
    stored = stored[rows : rows + preview_of(case).labels.shape[1]]
    image, box = pixels(page)
    shown = at_centres(image, box, stored.shape)
    for tissue in TISSUES:
        assert (shown[stored == tissue.label] == tissue.rgba[:3]).all()
    colors = np.array([tissue.rgba[:3] for tissue in TISSUES])
    outside = shown[stored == 0]
    assert not (outside[:, None] == colors).all(axis=2).any()


def test_opacity_of_the_overlay_is_the_posterior_on_request(browser, made, tmp_path):
    cohort, _ = made
    browser.open(write_page(cohort, tmp_path, posterior="ggo"), "#scan=case-001")
    browser.wait(SHOWN, "case-001")
    choose(browser, "#cross")
    browser.run("const o = document.getElementById('opacity'); o.value = 100; o.dispatchEvent(new Event('input'))")
    preview = preview_of(cohort["case-001"], posterior="ggo")
    shape = preview.grey.shape[1:]
    choose(browser, "#overlay")
    grey = at_centres(*pixels(browser), shape)
    choose(browser, "#overlay")
    choose(browser, "input[value=posterior]")
    shown = at_centres(*pixels(browser), shape)
    z = browser.run(POSITION)[0]
    share = (preview.posterior[z] / POSTERIOR_STEPS)[..., None]
    expected = share * np.array(TISSUES[2].rgba[:3]) + (1 - share) * grey
    assert np.abs(shown - expected).max() <= 3
    assert (share > 0.5).any()
    assert "posterior of ground-glass opacity" in browser.find(".axial canvas").get_attribute("aria-label")
    z, y, x = (int(i) for i in np.unravel_index(preview.posterior.argmax(), preview.posterior.shape))
    percent = round(100 * int(preview.posterior.max()) / POSTERIOR_STEPS)
    assert browser.run("return lungmix.viewer.valueText(arguments[0])", [z, y, x]).endswith(
        f"HU, ground-glass opacity {percent} %"
    )
    choose(browser, "input[value=median]")
    assert "median labels" in browser.find(".axial canvas").get_attribute("aria-label")
    assert browser.console() == []


def test_labels_under_a_potts_prior_are_shown_where_the_scan_has_them(browser, tmp_path):
    cohort, _ = labelled_store(tmp_path / "s.zarr", scans=1, beta=0.7)
    phantom = Phantom(SHAPE, SPACING, 5)
    lung = (phantom.truth() > 0).astype("uint8")
    add_case(cohort, "other", phantom.volume(), lung, phantom.geometry)
    browser.open(write_page(cohort, tmp_path / "page"), "#scan=case-001")
    browser.wait(SHOWN, "case-001")
    choose(browser, "#cross")
    browser.run("const o = document.getElementById('opacity'); o.value = 100; o.dispatchEvent(new Event('input'))")
    choose(browser, "input[value=potts]")
    assert "labels under a Potts prior" in browser.find(".axial canvas").get_attribute("aria-label")
    preview = preview_of(cohort["case-001"])
    stored = preview.potts[browser.run(POSITION)[0]]
    assert (preview.potts != preview.labels % 6).any()
    shown = at_centres(*pixels(browser), stored.shape)
    for tissue in TISSUES:
        assert (shown[stored == tissue.label] == tissue.rgba[:3]).all()
    # A scan without these labels shows its median labels, and says so.
    choose(browser, "#after")
    browser.wait(SHOWN, "other")
    assert "median labels" in browser.find(".axial canvas").get_attribute("aria-label")
    assert browser.console() == []


def test_overlay_has_a_switch_and_an_opacity(page):
    def saturation():
        return int(np.ptp(pixels(page)[0][..., :3].astype(int), axis=2).sum())

    choose(page, "#cross")
    middle = saturation()
    page.run("const o = document.getElementById('opacity'); o.value = 90; o.dispatchEvent(new Event('input'))")
    assert saturation() > 1.3 * middle
    page.click("#overlay")
    assert saturation() == 0
    assert not page.find("#opacity").is_enabled()
    assert "no labels" in page.find(".axial canvas").get_attribute("aria-label")


def test_planes_have_letters_and_the_aspect_of_the_patient(page, made):
    cohort, _ = made
    preview = preview_of(cohort["case-001"])
    mm = {axis.name: n * axis.spacing for axis, n in zip(preview.axes, preview.labels.shape, strict=True)}
    for plane, sides, axes in (("axial", "RLAP", "xy"), ("coronal", "RLSI", "xz"), ("sagittal", "APSI", "yz")):
        shown = [page.text(f".{plane} .end.{side}") for side in ("left", "right", "top", "bottom")]
        assert "".join(shown) == sides
        _, box = pixels(page, plane)
        assert box[2] / box[3] == pytest.approx(mm[axes[0]] / mm[axes[1]], rel=1e-3)


def test_histogram_has_bars_five_gaussians_and_a_description(page):
    assert page.run("return document.querySelectorAll('#histogram svg .part').length") == 5
    assert page.run("return document.querySelectorAll('#histogram svg .bin').length") > 100
    assert "Highest near" in page.text("#histogram svg desc")
    strokes = page.run("return [...document.querySelectorAll('#histogram .part')].map((p) => p.getAttribute('stroke'))")
    assert strokes == [tissue.color for tissue in TISSUES]
    shown = page.run("return [...document.querySelectorAll('#tissues output')].map((o) => o.textContent)")
    assert sum(float(text.rstrip(" %")) for text in shown) == pytest.approx(100, abs=0.05)


def test_narrow_screens_need_no_sideways_scrolling_and_a_finger_turns_slices(browser, made):
    _, path = made
    browser.open(path, "#scan=case-002", width=400, height=800)
    browser.wait(SHOWN, "case-002")
    assert browser.run("return document.documentElement.scrollWidth") <= 400
    canvas = browser.find(".axial canvas")
    browser.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
    bounds = browser.run("const b = arguments[0].getBoundingClientRect(); return [b.x, b.y, b.width, b.height]", canvas)
    before, y = browser.run(POSITION)[0], bounds[1] + bounds[3] / 2
    x = bounds[0] + bounds[2] / 2
    browser.tell("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    for step in range(1, 6):
        browser.tell("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": x + 12 * step, "y": y}])
    browser.tell("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    browser.wait("return lungmix.viewer.position[0] > arguments[0]", before)
    assert browser.console() == []


def test_dark_and_light_follow_the_system(browser, made):
    _, path = made
    grounds = []
    for dark in (False, True):
        browser.open(path, dark=dark)
        grounds.append(browser.run("return getComputedStyle(document.body).backgroundColor"))
    light, dim = ([int(v) for v in text.strip("rgb()").split(",")] for text in grounds)
    assert min(light) > 200 > 60 > max(dim)


def test_every_control_has_a_name_and_every_image_a_text(page):
    unnamed = page.run("""
        return [...document.querySelectorAll('button, input, select, canvas, [role=region]')].filter((node) => {
          const label = node.labels && [...node.labels].map((label) => label.textContent.trim()).join('');
          return !(node.getAttribute('aria-label') || label || node.textContent.trim());
        }).map((node) => node.outerHTML)
    """)
    assert unnamed == []
    assert page.run("return [...document.images].every((image) => image.alt.length > 20)")
    assert page.run("return new Set([...document.querySelectorAll('[id]')].map((n) => n.id)).size") == page.run(
        "return document.querySelectorAll('[id]').length"
    )


def test_figures_are_drawn(page):
    page.run("for (const image of document.images) image.loading = 'eager'")
    page.wait("return [...document.images].every((image) => image.complete)")
    assert page.run("return [...document.images].every((image) => image.naturalWidth > 100)")
    names = page.run("return [...document.images].map((image) => image.src.split('/').pop())")
    assert names == ["mixture.svg", "pipeline.svg", "slices.svg", "scores.svg", "score_agreement.svg"]


def test_missing_data_file_of_a_scan_is_reported(browser, made, tmp_path):
    cohort, _ = made
    path = write_page(cohort, tmp_path)
    (tmp_path / "data" / "case-002.js").unlink()
    browser.open(path, "#scan=case-002")
    browser.wait("return document.getElementById('state').textContent.includes('cannot be shown')")
    assert not browser.run("return document.getElementById('view').hasAttribute('aria-busy')")
    browser.click("#after")
    browser.wait(SHOWN, "case-003")
    browser.console()


def test_click_on_a_flagged_case_shows_the_slice_of_its_reason(browser, made, tmp_path):
    cohort, _ = made
    quality.record(CaseWriter(cohort["case-002"]), {"lung_ml": 200.0, "slices": {"lung": 7}})
    path = write_page(cohort, tmp_path / "page")
    browser.open(path)
    button = ".flagged button[data-case=case-002]"
    assert browser.find(button).get_attribute("data-slice") == "7"
    for chosen in (3, 20):
        browser.run("document.querySelector(arguments[0]).dataset.slice = arguments[1]", button, chosen)
        browser.click(button)
        browser.wait(SHOWN, "case-002")
        step = browser.run("return lungmix.viewer.volume.axes[0].step")
        browser.wait(
            f"return Math.abs(lungmix.viewer.volume.stored(0, lungmix.viewer.position[0]) - {chosen}) <= {step}"
        )
    assert "To look atsmall_volume" in browser.run("return document.getElementById('facts').textContent")
