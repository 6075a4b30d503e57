"""Registered scans on the page of a patient: change maps, and positions that are linked by displacements."""

import json
import shutil
from base64 import b64decode

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

import lungmix
from lungmix.callbacks import Callback
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED
from lungmix.publish.contents import contents_of
from lungmix.stages import change, register
from lungmix.stages.base import StageContext
from lungmix.stages.fit import publish
from lungmix.stages.measure import measure_cohort
from lungmix.store import CaseFiles
from lungmix.tissue import CHANGES
from lungmix.webpage.change_maps import STEP_MM, affine_of, stamp_of, write_change
from lungmix.webpage.page import write_page
from lungmix.webpage.scans import OPENING, remove_files_of_other_cases
from lungmix.webpage.volume import CLASSES, axes_of, labels_on_preview, preview_of
from support.breathing import FIRST, LATER, add, scan
from support.browser import running_browser
from support.followup import tie_patients
from support.generators import reoriented

FIRSTS = {"case-002": "case-001", "case-003": "case-001"}
# The third scan is the second one in another storage order.
SCANS = {"case-001": (FIRST, 0.0, None), "case-002": (LATER, 1.0, None), "case-003": (LATER, 0.5, "PSR")}
POSITIONS = "return lungmix.pair.views.map((view) => [...view.position])"
READY = "return lungmix.pair.views.every((view, i) => view.name === arguments[i])"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Measured store with three scans of a patient, of which the later ones are registered."""

    def here(client, values, watch=None):
        import dask

        with dask.config.set(scheduler="synchronous"):
            return list(dask.compute(*values))

    cohort = lungmix.open_cohort(tmp_path_factory.mktemp("registered") / "cohort.zarr", "a")
    for name, (geometry, amount, orientation) in SCANS.items():
        hu, lung = scan(geometry, amount)
        stored = geometry
        if orientation is not None:
            hu, stored = reoriented(hu, geometry, orientation)
            lung, _ = reoriented(lung, geometry, orientation)
        add(cohort, name, hu, lung, stored)
    publish(cohort, PUBLISHED, {"given": True})
    measure_cohort(cohort, list(cohort), PUBLISHED)
    with pytest.MonkeyPatch.context() as patch:
        for stage in (register, change):
            patch.setattr(stage, "compute_in_order", here)
        for name in FIRSTS:
            register.RegisterStage(FIRSTS, "affine").run(StageContext(None, cohort), name)
            change.ChangeStage(FIRSTS).run(StageContext(None, cohort), name)
    tie_patients(cohort, {"patient-001": [("case-001", 0), ("case-002", 20), ("case-003", 50)]})
    return cohort


@pytest.fixture(scope="module")
def page(cohort, tmp_path_factory):
    return write_page(cohort, tmp_path_factory.mktemp("page"))


def delivered(page, name):
    text = (page.parent / "changes" / f"{name}.js").read_text()
    assert text.startswith(OPENING)
    return json.loads(text[len(OPENING) : -3])


def displacement_at(cohort, name, points):
    """Return the stored displacements at points of the first scan, by linear interpolation: float64 ``[n, 3]``."""
    case = cohort[name]
    field = Geometry.from_dict(case.stages["register"]["field"])
    values = CaseFiles(case).read_displacement().astype(float)
    index = (np.reshape(field.direction, (3, 3)).T @ (points - field.origin).T) / np.reshape(field.spacing, (3, 1))
    return np.stack([map_coordinates(values[..., k], index[::-1], order=1, mode="nearest") for k in range(3)], axis=1)


@pytest.mark.parametrize("name", list(SCANS))
def test_affine_of_a_preview_leads_to_the_points_of_its_voxels(cohort, name):
    case, affine = cohort[name], affine_of(cohort[name])
    geometry, axes = case.geometry, axes_of(case)
    assert [axis.name for axis in axes] == [axis.name for axis in preview_of(case).axes]
    columns = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    for index in ((0, 0, 0), (3, 5, 7)):
        stored = {axis.name: axis.first + axis.step * k for axis, k in zip(axes, index, strict=True)}
        expected = columns @ [stored[letter] for letter in "xyz"] + geometry.origin
        np.testing.assert_allclose(affine @ [*index, 1], expected, atol=1e-9)
    # Axes run to the head, to the back and to the left.
    assert affine[2, 0] > 0
    assert affine[1, 1] > 0
    assert affine[0, 2] > 0


def test_change_map_has_the_voxels_of_the_preview_of_the_first_scan(cohort):
    first, later = cohort["case-001"], cohort["case-002"]
    change_map = labels_on_preview(first, later, "change")
    preview = preview_of(first)
    assert change_map.shape == preview.labels.shape
    # Previews of this size are cropped but not reduced.
    parts = tuple(
        slice(round(axis.first), round(axis.first) + n) for axis, n in zip(preview.axes, change_map.shape, strict=True)
    )
    np.testing.assert_array_equal(change_map, later.zarr_array("change")[parts])
    assert {1, 3} <= set(np.unique(change_map)) <= {0, *(entry.label for entry in CHANGES)}


def test_labels_on_a_preview_follow_its_axes(cohort):
    for name in SCANS:
        labels = labels_on_preview(cohort[name], cohort[name], "tissue_median", voxels=50_000)
        np.testing.assert_array_equal(labels, preview_of(cohort[name], 50_000).labels % CLASSES)


def test_file_has_displacements_of_the_store(cohort, page):
    for name in FIRSTS:
        content = delivered(page, name)
        assert (content["folder"], content["case"], content["first"]) == ("changes", name, "case-001")
        field = content["field"]
        values = np.frombuffer(b64decode(field["values"]), "<i2").reshape(*field["shape"], 3) * STEP_MM
        grid = Geometry(field["shape"][::-1], field["spacing"], field["origin"], field["direction"])
        assert max(grid.spacing) <= 12
        columns = np.reshape(grid.direction, (3, 3)) * grid.spacing
        z, y, x = np.indices(field["shape"]).reshape(3, -1)
        points = (columns @ np.stack([x, y, z])).T + grid.origin
        np.testing.assert_allclose(values.reshape(-1, 3), displacement_at(cohort, name, points), atol=STEP_MM)


def test_stamps_change_and_files_go_with_the_registration(cohort, page, tmp_path):
    assert stamp_of(cohort["case-001"], cohort["case-002"]) == cohort["case-002"].stages["change"]["key"][:12]
    text = (page.parent / "patients" / "patient-001.html").read_text()
    assert f'data-change="{stamp_of(cohort["case-001"], cohort["case-002"])}"' in text
    assert 'value="change"' in text
    assert "Persistent, denser" in text
    write_change(cohort["case-001"], cohort["case-002"], tmp_path)
    assert (tmp_path / "changes" / "case-002.js").stat().st_size < 400_000
    write_change(cohort["case-001"], cohort["case-003"], tmp_path)
    remove_files_of_other_cases(tmp_path / "changes", {"case-003"})
    assert [path.name for path in (tmp_path / "changes").iterdir()] == ["case-003.js"]


def test_damaged_displacements_leave_the_page_without_a_change_map(cohort, tmp_path):
    shutil.copytree(cohort.url, tmp_path / "cohort.zarr")
    for path in (tmp_path / "cohort.zarr" / "case-002" / "displacement" / "c").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    warnings = []

    class Warned(Callback):
        def on_warning(self, message):
            warnings.append(message)

    damaged = lungmix.open_cohort(tmp_path / "cohort.zarr")
    folder = write_page(damaged, tmp_path / "page", callback=Warned()).parent
    assert [message.split(":")[0] for message in warnings if "no change map" in message] == ["case-002"]
    assert [path.name for path in (folder / "changes").iterdir()] == ["case-003.js"]
    assert (folder / "patients" / "patient-001.html").read_text().count("data-change=") == 2


def expected_position(cohort, source, target, position):
    """Return the index of the preview of a scan that corresponds to one of another, by the stored displacements."""
    point = affine_of(cohort[source]) @ [*position, 1]
    if source in FIRSTS:
        inside = point.copy()
        for _ in range(200):
            inside = 0.5 * (inside + point - displacement_at(cohort, source, inside[None])[0])
        point = inside
    if target in FIRSTS:
        point = point + displacement_at(cohort, target, point[None])[0]
    affine = affine_of(cohort[target])
    return np.linalg.solve(affine[:, :3], point - affine[:, 3])


@pytest.mark.slow
@pytest.mark.parametrize("names", [("case-001", "case-003"), ("case-001", "case-002"), ("case-002", "case-003")])
@pytest.mark.parametrize("moved", [0, 1])
def test_registered_scans_are_linked_by_their_displacements(cohort, page, tmp_path, names, moved):
    with running_browser(tmp_path) as browser:
        browser.open(page.parent / "patients" / "patient-001.html")
        browser.wait(READY, "case-001", "case-003")
        for side, name in zip(("first", "second"), names, strict=True):
            script = "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
            browser.run(f"{script} s.dispatchEvent(new Event('change'))", side, name)
        browser.wait(READY, *names)
        browser.wait("return document.getElementById('link-rule').textContent.includes('by registration')")
        size = preview_of(cohort[names[moved]]).labels.shape
        other = np.array(preview_of(cohort[names[1 - moved]]).labels.shape) - 1
        for shares in ((0.5, 0.5, 0.3), (0.3, 0.6, 0.7), (0.7, 0.4, 0.3)):
            position = [int(share * n) for share, n in zip(shares, size, strict=True)]
            browser.run("lungmix.pair.views[arguments[0]].moveTo(arguments[1])", moved, position)
            expected = expected_position(cohort, names[moved], names[1 - moved], position)
            # Displacements of the page are rounded, and thinned out.
            np.testing.assert_allclose(browser.run(POSITIONS)[1 - moved], expected.clip(0, other), atol=0.7)
        assert browser.console() == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
def test_change_map_is_drawn_in_the_first_scan(cohort, page, tmp_path, width):
    with running_browser(tmp_path) as browser:
        browser.open(page.parent / "patients" / "patient-001.html", width=width)
        browser.wait(READY, "case-001", "case-003")
        assert not browser.find(".of-changes").is_displayed()
        browser.run("document.querySelector('input[value=change]').click()")
        assert browser.find(".of-changes").is_displayed()
        labels = browser.run("return lungmix.pair.views.map((view) => view.labelsText())")
        assert labels == ["change map", "median labels"]
        change_map = labels_on_preview(cohort["case-001"], cohort["case-003"], "change")
        drawn = browser.run("return [...lungmix.pair.views[0].overlay()[0]]")
        np.testing.assert_array_equal(np.reshape(drawn, change_map.shape), change_map)
        for entry in CHANGES:
            places = np.argwhere(change_map == entry.label)
            if len(places):
                text = browser.run("return lungmix.pair.views[0].valueText(arguments[0])", places[0].tolist())
                assert text.endswith(entry.name.lower())
        colors = browser.run("return [...lungmix.pair.views[0].overlay()[1]]")
        assert [color & 255 for color in colors] == [0, *(entry.rgba[0] for entry in CHANGES)]
        assert browser.run("const e = document.documentElement; return e.scrollWidth <= e.clientWidth")
        assert browser.console() == []


@pytest.mark.slow
def test_scans_without_the_file_of_changes_are_linked_by_their_lungs(cohort, tmp_path):
    folder = write_page(cohort, tmp_path / "page").parent
    for path in (folder / "changes").iterdir():
        path.unlink()
    with running_browser(tmp_path) as browser:
        browser.open(folder / "patients" / "patient-001.html")
        browser.wait(READY, "case-001", "case-003")
        assert "relative position" in browser.text("#link-rule")
        browser.console()


def test_data_card_of_a_published_page_describes_all_files(page):
    folder = page.parent
    paths = [f"report/{file.relative_to(folder).as_posix()}" for file in folder.rglob("*") if file.is_file()]
    assert any(path.startswith("report/changes/") for path in paths)
    assert all(contents_of(path) for path in paths)
