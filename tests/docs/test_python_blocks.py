"""The Python blocks of a page run one after another, in a folder with the store and the data that the page names."""

import re
import warnings
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

import lungmix
from lungmix.pipeline import Pipeline
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
