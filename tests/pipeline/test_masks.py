"""Masks from files through whole runs."""

import json

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
    """Two scans, of which the first has a mask."""
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
    """Keeps what users are told beside results."""

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
    assert "holds no mask of it" in outcome["failed"]["case-002"]
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
    assert [text for text in notices.messages if "came from files and are kept" in text]
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
