"""Masks from files through whole runs."""

import json
import shutil

import numpy as np
import pytest

import lungmix
from cli.test_cli import SMALL, run
from lungmix.callbacks import Callback
from lungmix.formats import write_image
from lungmix.parameters import MaskParameters
from lungmix.phantom import Phantom, write_phantom
from lungmix.pipeline import Pipeline
from lungmix.store.choices import choose

pytestmark = pytest.mark.slow

PHANTOM = Phantom((40, 64, 64), (5.5, 5.625, 7.5), 4, name="case-001")


@pytest.fixture
def folder(tmp_path):
    """Folder with two scans and a mask file of the first."""
    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("first", "second"):
        write_phantom(tmp_path / "in" / f"{name}.nrrd", PHANTOM)
    write_mask(tmp_path, "first_lung.nrrd")
    return tmp_path


def write_mask(folder, name, first=0):
    lungs = np.array(PHANTOM.side_truth(), np.uint8)
    lungs[:first] = 0
    write_image(folder / "masks" / name, [np.where(lungs < 3, lungs, 0)], PHANTOM.geometry, np.uint8)
    return lungs


class Notices(Callback):
    """Callback that stores messages."""

    def __init__(self):
        self.messages = []

    def on_info(self, message):
        self.messages.append(message)


def test_a_run_takes_masks_from_files_and_later_ones_keep_them(folder, client):
    url, notices = folder / "s.zarr", Notices()
    done = run(
        "run", url, folder / "in", *SMALL, "--model", "published", "--workers", "1", "--json", "--masks",
        folder / "masks",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["done"] == ["case-001"]
    assert "has no mask for this case" in outcome["failed"]["case-002"]
    assert "as by lungmask" in str(outcome["notes"]["case-001"])
    assert "first_lung" not in done.stdout
    case = lungmix.open_cohort(url)["case-001"]
    lungs = np.array(PHANTOM.side_truth(), np.uint8)
    assert np.array_equal(case.side.compute(), np.where(lungs < 3, lungs, 0))
    before = case.stages
    assert lungmix.open_cohort(url).settings["given_masks"] == ["case-001"]

    pipeline = Pipeline(client, lungmix.open_cohort(url, "r+"), notices)
    options = {"mask": MaskParameters(opening=1, min_voxels=1000, radii=(3,)), "model": "published"}
    kept = pipeline.run(folder / "in", **options)
    assert kept.done == ["case-001", "case-002"]
    assert [text for text in notices.messages if "came from files or a segmenter and are kept" in text]
    assert pipeline.cohort["case-001"].stages == before
    assert "from_file" not in pipeline.cohort["case-002"].stages["mask"]
    assert kept.rows[0]["mask"] == "given"

    changed = write_mask(folder, "case-001.nrrd", 20)
    result = pipeline.mask(options["mask"], masks=folder / "masks" / "case-001.nrrd", mask_labels={"right": 1})
    assert result.done == ["case-001"]
    assert np.array_equal(pipeline.cohort["case-001"].lung.compute(), changed == 1)

    assert choose(str(url), masks="none").changes[0].startswith("masks of 1 case will be recomputed")
    computed = pipeline.mask(options["mask"], masks="none")
    assert computed.done == ["case-001", "case-002"]
    assert "from_file" not in pipeline.cohort["case-001"].stages["mask"]


def test_files_of_lobes_through_a_run_a_changed_one_and_an_evaluation(folder, client):
    shutil.rmtree(folder / "masks")
    lungs = np.array(PHANTOM.side_truth(), np.uint8)
    upper = np.arange(len(lungs))[:, None, None] >= 20

    def write(scan, name, labels):
        path = folder / "masks" / scan / "segmentations" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, [labels.astype(np.uint8)], PHANTOM.geometry, np.uint8)

    for scan in ("first", "second"):
        for label, side in ((1, "right"), (2, "left")):
            write(scan, f"lung_upper_lobe_{side}", upper & (lungs == label))
            write(scan, f"lung_lower_lobe_{side}", ~upper & (lungs == label))
        write(scan, "lung_middle_lobe_right", np.zeros_like(lungs))
        write(scan, "heart", lungs == 0)
    pipeline = Pipeline(client, lungmix.open_cohort(folder / "s.zarr", "a"))
    options = {"mask": MaskParameters(opening=1, min_voxels=1000, radii=(3,)), "model": "published"}
    result = pipeline.run(folder / "in", **options, masks=folder / "masks")
    assert result.done == ["case-001", "case-002"]
    assert [reason.split(",")[0] for reason in result.skipped.values()] == ["2 files"]
    expected = np.where(lungs < 3, lungs, 0)
    assert np.array_equal(pipeline.cohort["case-001"].side.compute(), expected)
    before = {name: case.stages["mask"]["key"] for name, case in pipeline.cohort.items()}

    write("second", "lung_lower_lobe_left", ~upper & (lungs == 2) & (np.arange(len(lungs)) > 9)[:, None, None])
    pipeline.run(folder / "in", **options, masks=folder / "masks")
    after = {name: case.stages["mask"]["key"] for name, case in pipeline.cohort.items()}
    assert [name for name in after if after[name] != before[name]] == ["case-002"]
    assert not (pipeline.cohort["case-002"].side.compute()[:9] == 2).any()

    shutil.move(folder / "masks" / "first", folder / "masks" / "case-001")
    agreement = lungmix.evaluate(pipeline.cohort, folder / "masks", client=client)
    assert {row["region"]: row["dice"] for row in agreement.rows} == {"lungs": 1.0, "right": 1.0, "left": 1.0}
    assert agreement.done == ["case-001"]
