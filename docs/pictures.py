"""Make the pictures of the docs that show phantoms anew: STORE PAGE PATIENT, of phantom cohorts; see the Makefile.

Pictures of a page or a viewer are screenshots in Chromium. Those of `docs/fitting.md` are figures that the commands
named there write; that of `docs/performance.md` is made by `make bench`; those of ITK-SNAP and napari were taken
by hand.
"""

import argparse
import base64
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

OUT = HERE / "pictures"
WIDE = 1400, 900
FOUR_PANELS = 900, 640


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures of the documentation anew.")
    parser.add_argument("store", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("patient", type=Path, help="page of a patient with registered scans")
    chosen = parser.parse_args()
    import lungmix

    cohort = lungmix.open_cohort(chosen.store)
    name = middle_case(cohort)
    draw_slice(cohort[name])
    with tempfile.TemporaryDirectory() as profile:
        shoot_page(chosen.page / "index.html", name, Path(profile))
    with tempfile.TemporaryDirectory() as profile:
        shoot_patient(chosen.patient, Path(profile))
    shoot_neuroglancer(chosen.store, cohort[name])


def middle_case(cohort) -> str:
    """The case whose lung involvement is the median."""
    from lungmix.stages.measure import read_measurements

    rows = sorted(read_measurements(cohort), key=lambda row: row["lung_involvement"])
    return str(rows[len(rows) // 2]["case"])


def draw_slice(case) -> None:
    from lungmix.webpage.figures import png_of, slices_figure

    (OUT / "slice.png").write_bytes(png_of(slices_figure([(case, case.name)])))


def shoot_page(page: Path, name: str, profile: Path) -> None:
    from support.browser import running_browser

    with running_browser(profile) as browser:
        browser.open(page, f"#scan={name}", *WIDE)
        browser.wait("return !document.querySelector('.view[aria-busy]') && document.querySelector('#histogram svg')")
        browser.click("th[data-key=lung_involvement] button")
        browser.click("th[data-key=lung_involvement] button")
        browser.run("document.activeElement.blur()")
        for part, file in (("cohort", "cohort.png"), ("viewer", "viewer.png")):
            save_section(browser, part, OUT / file)


def shoot_patient(page: Path, profile: Path) -> None:
    from support.browser import running_browser

    with running_browser(profile) as browser:
        browser.open(page, "", *WIDE)
        browser.wait("return lungmix.pair.views.every((view) => view.volume)")
        browser.click("input[value=change]")
        browser.run("const o = document.getElementById('opacity'); o.value = 70; o.dispatchEvent(new Event('input'))")
        browser.run("document.activeElement.blur()")
        save_section(browser, "scans", OUT / "patient.png")


def save_section(browser, section: str, file: Path) -> None:
    box = browser.run(
        "const r = document.getElementById(arguments[0]).getBoundingClientRect();"
        "return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height, scale: 1}", section
    )  # fmt: skip
    shot = browser.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=box)
    save_small(base64.b64decode(shot["data"]), file)


def shoot_neuroglancer(store: Path, case) -> None:
    import shutil

    import neuroglancer
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    from lungmix.serve import app_for
    from lungmix.serve.links import neuroglancer_state
    from support.serving import serving

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for word in (
        "--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        "--ignore-gpu-blocklist", "--window-size={},{}".format(*FOUR_PANELS),
    ):  # fmt: skip
        options.add_argument(word)
    z, y, x = (round(float(at)) for at in np.argwhere(case.side.compute() == 1).mean(axis=0))
    extent = max(n * step for n, step in zip(case.geometry.size, case.geometry.spacing, strict=True))
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        with serving(app_for(store)) as address:
            neuroglancer.set_server_bind_address("127.0.0.1")
            viewer = neuroglancer.Viewer()
            viewer.set_state(
                {
                    **neuroglancer_state(case, f"{address}/{case.name}"),
                    "dimensions": {a: [s * 1e-3, "m"] for a, s in zip("xyz", case.geometry.spacing, strict=True)},
                    "position": [x, y, z],
                    "crossSectionScale": extent / min(case.geometry.spacing) / (0.46 * FOUR_PANELS[1]),
                    "projectionScale": 1.4 * extent / min(case.geometry.spacing),
                    "layout": "4panel",
                    "showAxisLines": False,
                }
            )
            driver.get(viewer.get_viewer_url())
            time.sleep(2)
            save_small(viewer.screenshot(size=FOUR_PANELS).screenshot.image, OUT / "neuroglancer.png")
    finally:
        driver.quit()


def save_small(png: bytes, file: Path) -> None:
    """At 1200 pixels at most, compressed well."""
    from io import BytesIO

    from PIL import Image

    picture = Image.open(BytesIO(png)).convert("RGB")
    picture.thumbnail((1200, 2400), Image.Resampling.LANCZOS)
    picture.save(file, optimize=True)


if __name__ == "__main__":
    main()
