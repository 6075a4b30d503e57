"""The segmenter of the page for contributors, installed as it says, makes masks."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import lungmix
from lungmix.parameters import MaskParameters
from lungmix.segmenters import find_segmenter
from lungmix.stages.base import StageContext
from lungmix.stages.segmented_mask import SegmentedMaskStage
from stages.test_segmented_mask import GRID, add_case, chest
from support import segmenters
from support.masks import InProcess

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.mark.usefixtures("stages_here")
def test_segmenter_of_the_page_makes_masks_under_its_entry_point(tmp_path, monkeypatch):
    section = PAGE.read_text(encoding="utf-8").split("## A segmenter\n")[1].split("\n## ")[0]
    code, project_file = (re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL)[1] for kind in ("python", "toml"))
    project = tomllib.loads(project_file)["project"]
    (group, points), name, version = next(iter(project["entry-points"].items())), project["name"], project["version"]
    ((point, target),) = points.items()
    (tmp_path / f"{target.partition(':')[0]}.py").write_text(code)
    info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{point} = {target}\n")
    monkeypatch.syspath_prepend(tmp_path)
    segmenters.forget()
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    add_case(cohort, chest(), GRID)
    stage = SegmentedMaskStage(find_segmenter(point), MaskParameters("physical"))
    stage.run(StageContext(InProcess(), cohort), "one")
    segmenters.forget()
    side, lung = cohort["one"].side.compute(), (chest() < -500) & (chest() > -960)
    # Besides the holes that the clean-up fills and the pieces that it removes, it is the threshold.
    assert (side > 0).sum() == pytest.approx(lung.sum(), rel=0.2)
    assert {*np.unique(side[..., :10])} == {0, 1}
    assert {*np.unique(side[..., 10:])} == {0, 2}
