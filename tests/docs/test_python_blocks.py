"""The Python blocks of a page run one after another, in a folder with the store and the data that the page names."""

import re
import warnings
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import SimpleITK as sitk

import lungmix
from lungmix.pipeline import Pipeline
from lungmix.stages.base import StageContext
from lungmix.stages.change import ChangeStage
from lungmix.stages.register import RegisterStage
from support.breathing import FIRST, LATER, add, scan
from support.labelled import labelled_store

DOCS = Path(__file__).parents[2] / "docs"


def python_blocks(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Current folder with a labelled store, and with features of 2,000 samples as a zarr array."""
    cohort, _ = labelled_store(tmp_path / "cohort.zarr", 1)
    Pipeline(None, cohort).fit()
    features = np.random.default_rng(0).normal(size=(2_000, 3))
    da.from_array(features, chunks=(1_000, 3)).to_zarr(str(tmp_path / "features.zarr"))
    monkeypatch.chdir(tmp_path)
    # Blocks need no cluster of eight workers to run.
    monkeypatch.setattr(lungmix, "connect", lambda **_: None)
    return tmp_path


@pytest.mark.parametrize(
    ("page", "minimum"),
    [("fitting.md", 2), ("diagnosis.md", 1), pytest.param("mixture.md", 5, marks=pytest.mark.slow)],
)
def test_python_blocks_of_a_page_run_in_order(folder, page, minimum):
    blocks, names = python_blocks(page), {}
    assert len(blocks) >= minimum
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in blocks:
            exec(compile(block, page, "exec"), names)


@pytest.mark.usefixtures("stages_here")
def test_python_block_on_registered_scans_runs(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    for name, geometry, amount in (("case-001", FIRST, 0), ("case-004", LATER, 1)):
        add(cohort, name, *scan(geometry, amount), geometry)
    firsts = {"case-004": "case-001"}
    for stage in (RegisterStage(firsts, "affine"), ChangeStage(firsts)):
        stage.run(StageContext(None, cohort), "case-004")
    (block,), names = python_blocks("registration.md"), {"cohort": cohort}
    *steps, last = block.splitlines()
    exec(compile("\n".join([*steps, f"resampled = {last}"]), "registration.md", "exec"), names)
    assert names["resampled"].GetSize() == FIRST.size
    moved = sitk.GetArrayFromImage(names["resampled"])
    inside = cohort["case-004"].change.compute() > 0
    assert np.mean(moved[inside]) < -600
