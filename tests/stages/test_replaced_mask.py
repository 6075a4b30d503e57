"""Masks from files that replace others or fail: what they leave, and what verification says of them."""

import numpy as np
import pytest

from lungmix.stages.base import StageContext
from lungmix.stages.quality import QualityStage
from lungmix.store import CaseWriter
from lungmix.store.schema import TEMPORARY
from stages.test_given_mask import GRID, give, label, problems_of, store_of_one, two_lungs
from support.masks import InProcess, mask_of

pytestmark = pytest.mark.usefixtures("stages_here")


@pytest.fixture
def cohort(tmp_path):
    return store_of_one(tmp_path)


def temporary_arrays(cohort):
    return [array for array in TEMPORARY if array in cohort["one"]._group]


def test_verification_measures_the_quality_of_a_mask_whose_sides_came_from_a_file(cohort):
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=2")
    label(cohort)
    assert QualityStage().run(StageContext(InProcess(), cohort), "one") == "done"
    assert problems_of(cohort) == []
    case = CaseWriter(cohort["one"])
    case.record_quality({**case.quality, "lung_ml": 1.0})
    assert [text for text in problems_of(cohort) if "numbers of quality control differ" in text]
