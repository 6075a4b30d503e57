"""neuroglancer draws a served store in a real browser, and the drawn pixels are those of the CT."""

import shutil

import neuroglancer
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

import lungmix
from lungmix.geometry import Geometry
from lungmix.serve import app_for
from lungmix.serve.links import neuroglancer_state
from lungmix.tissue import TISSUES
from support.generators import labelled_case
from support.serving import serving

pytestmark = pytest.mark.slow

ZOOM = 8  # pixels a voxel
SIZE = 40, 30, 20  # x, y, z
SPACING = 0.7, 0.7, 1.2
LOW, HIGH = -1350, 150


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("viewer") / "cohort.zarr"


@pytest.fixture(scope="module")
def case(store):
    cohort = lungmix.open_cohort(store, "a")
    return labelled_case(cohort, "case-001", Geometry(SIZE, SPACING))


@pytest.fixture(scope="module")
def browser():
    """Chromium of Debian, without a window and without a graphics card."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium is missing: run scripts/browser.sh"
    for word in (
        "--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        "--ignore-gpu-blocklist", "--window-size=800,600",
    ):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def draw(browser, state, z):
    """Return the pixels of one drawn axial slice, one pixel per voxel: uint8 ``[y, x, rgb]``."""
    neuroglancer.set_server_bind_address("127.0.0.1")
    viewer = neuroglancer.Viewer()
    viewer.set_state(
        {
            **state,
            "dimensions": {axis: [step * 1e-3, "m"] for axis, step in zip("xyz", SPACING, strict=True)},
            # OME-Zarr puts the centre of the first voxel at 0.
            "position": [SIZE[0] / 2 - 0.5, SIZE[1] / 2 - 0.5, z],
            "layout": "xy",
            "crossSectionScale": 1 / ZOOM,
            "showAxisLines": False,
            "showScaleBar": False,
            "showDefaultAnnotations": False,
        }
    )
    browser.get(viewer.get_viewer_url())
    picture = viewer.screenshot(size=(SIZE[0] * ZOOM, SIZE[1] * ZOOM)).screenshot.image_pixels
    middle = ZOOM // 2
    return picture[middle::ZOOM, middle::ZOOM, :3]


def test_neuroglancer_draws_the_voxels_of_the_ct(case, store, browser):
    with serving(app_for(store)) as address:
        state = neuroglancer_state(case, f"{address}/{case.name}")
        for z in (0, 7, 19):
            pixels = draw(browser, {"layers": state["layers"][:1]}, z)
            shown = np.clip((case.zarr_array("ct")[z] - LOW) / (HIGH - LOW), 0, 1) * 255
            assert pixels.shape == (*shown.shape, 3)
            assert np.abs(pixels - shown[:, :, None]).max() <= 1


def test_neuroglancer_draws_the_labels_in_the_colours_of_the_tissues(case, store, browser):
    with serving(app_for(store)) as address:
        state = neuroglancer_state(case, f"{address}/{case.name}")
        (tissue,) = (layer for layer in state["layers"] if layer["name"] == "tissue")
        # By default, neuroglancer draws labels half transparent.
        pixels = draw(browser, {"layers": [{**tissue, "selectedAlpha": 1, "notSelectedAlpha": 0}]}, 7)
        labels = case.zarr_array("tissue")[7]
        for segment_class in TISSUES:
            assert np.abs(pixels[labels == segment_class.label].astype(int) - segment_class.rgba[:3]).max() <= 2, (
                segment_class.name
            )


def test_page_of_an_unknown_site_cannot_read_the_store(case, store, browser):
    script = "const [url, done] = arguments; fetch(url).then(a => done(a.status), e => done(e.name))"
    with serving(app_for(store)) as address, serving(app_for(store)) as page:
        browser.get(f"{page}/zarr.json")  # a page of this machine
        assert browser.execute_async_script(script, f"{address}/{case.name}/zarr.json") == 200
        browser.get("data:text/html,<p>a page of nowhere</p>")
        assert browser.execute_async_script(script, f"{address}/{case.name}/zarr.json") == "TypeError"
