"""A viewer that we did not write draws a served store in a real browser, and what it draws is the CT."""

import shutil

import neuroglancer
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

import lungmix
from generators import labelled_case
from lungmix.geometry import Geometry
from lungmix.serve import app_for
from lungmix.serve.links import neuroglancer_state
from lungmix.tissue import TISSUES
from serving import serving

pytestmark = pytest.mark.slow

ZOOM = 8  # pixels a voxel
SIZE = 40, 30, 20  # x, y, z
SPACING = 0.7, 0.7, 1.2
LOW, HIGH = -1350, 150


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    cohort = lungmix.open_cohort(tmp_path_factory.mktemp("viewer") / "cohort.zarr", "a")
    return labelled_case(cohort, "case-001", Geometry(SIZE, SPACING))


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium without a window; WebGL is drawn by the processor."""
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
    """Pixels of one axial slice, one pixel a voxel: uint8 ``[y, x, rgb]``."""
    neuroglancer.set_server_bind_address("127.0.0.1")
    viewer = neuroglancer.Viewer()
    viewer.set_state(
        {
            **state,
            "dimensions": {axis: [step * 1e-3, "m"] for axis, step in zip("xyz", SPACING, strict=True)},
            "position": [SIZE[0] / 2, SIZE[1] / 2, z + 0.5],
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


def test_neuroglancer_draws_the_voxels_of_the_ct(case, browser):
    with serving(app_for(case.folder)) as address:
        pass
