"""The list of cases with masks from files that a store remembers."""

import numpy as np
import pytest

import lungmix
from lungmix.callbacks import Callback
from lungmix.errors import SourceError
from lungmix.formats import write_image
from lungmix.geometry import Geometry
from lungmix.parameters import MaskParameters
from lungmix.pipeline import Pipeline
from lungmix.pipeline.masks import plan_masks, remember_given
from lungmix.pipeline.result import RunResult
from lungmix.pipeline.runner import CaseRunner
from lungmix.stages.base import StageContext
from lungmix.store import CaseWriter
from lungmix.store import cohort as cohort_module
from support.generators import case_of
from support.masks import InProcess

pytestmark = pytest.mark.usefixtures("stages_here")

GRID = Geometry((20, 18, 16), (1.5, 1.5, 1.0))


@pytest.fixture
def cohort(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_of(cohort, "one", np.full(GRID.shape, -850, np.int16), GRID)
    return cohort


def plan(cohort, masks=None):
    return plan_masks(CaseRunner(InProcess(), cohort, Callback()), list(cohort), {}, RunResult(), masks=masks)


def kept(cohort):
    """Return the cases whose masks from files are kept by a run without mask files."""
    return getattr(plan(cohort), "kept", set())


def take(cohort, folder, value):
    """Give the case a mask from a file with one label value."""
    write_image(folder / "one.nrrd", [np.full(GRID.shape, value, np.uint8)], GRID, np.uint8)
    return plan(cohort, folder / "one.nrrd").run(StageContext(InProcess(), cohort), "one")


def test_the_metadata_of_cases_are_read_once_to_plan_the_masks_of_a_run(cohort, tmp_path, monkeypatch):
    take(cohort, tmp_path, 1)
    reads, read_cases = [], cohort_module.read_cases

    def read(group):
        reads.append(group)
        return read_cases(group)

    monkeypatch.setattr(cohort_module, "read_cases", read)
    runner = CaseRunner(InProcess(), cohort, Callback())
    assert plan_masks(runner, ["one"], {}, RunResult()).kept == {"one"}
    assert len(reads) == 1


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_file_that_could_not_be_taken_makes_no_mask_a_given_one(cohort, tmp_path, is_masked):
    if is_masked:
        CaseWriter(cohort["one"]).record("mask", {"key": "k", "parameters": MaskParameters().to_dict()})
    with pytest.raises(SourceError, match="is empty"):
        take(cohort, tmp_path, 0)
    assert kept(cohort) == set()


def test_a_computed_mask_is_no_given_one_whatever_the_settings_say(cohort, tmp_path):
    take(cohort, tmp_path, 1)
    remember_given(cohort)
    CaseWriter(cohort["one"]).record("mask", {"key": "k", "parameters": MaskParameters().to_dict()})
    assert kept(cohort) == set()


def test_a_given_mask_is_remembered_when_the_scan_changes(cohort, tmp_path):
    take(cohort, tmp_path, 1)
    assert kept(cohort) == {"one"}
    CaseWriter(cohort["one"]).start_stage("convert", "of another scan")
    assert "mask" not in cohort["one"].stages
    for _ in range(2):
        assert kept(cohort) == {"one"}


def test_a_removed_case_is_forgotten(cohort, tmp_path):
    take(cohort, tmp_path, 1)
    remember_given(cohort)
    Pipeline(None, cohort).remove(["one"])
    case_of(cohort, "one", np.full(GRID.shape, -850, np.int16), GRID)
    assert kept(cohort) == set()
