"""Masks from files that replace others or fail: what they leave, and what verification says of them."""

import numpy as np
import pytest

from lungmix.errors import SourceError
from lungmix.geometry import Geometry
from lungmix.kernels.packed_masks import unpack
from lungmix.stages.base import StageContext
from lungmix.stages.convert import AIR_THRESHOLD
from lungmix.stages.flags import flags_of
from lungmix.stages.given_mask import import_labels
from lungmix.stages.mask import pack_air
from lungmix.stages.quality import QualityStage
from lungmix.store import CaseFiles, CaseRef, CaseWriter
from lungmix.store.schema import IMPORTED, PACKED, TEMPORARY
from stages.test_given_mask import GRID, give, label, problems_of, store_of_one, two_lungs
from support.generators import reoriented
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


def test_a_file_without_lung_in_the_scan_leaves_an_earlier_mask(cohort):
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=2")
    label(cohort)
    before = cohort["one"].stages
    x, y, z = GRID.origin
    beside = Geometry(GRID.size, GRID.spacing, (x + 18 * GRID.spacing[0], y, z))
    with pytest.raises(SourceError, match="has no lung where the scan lies"):
        give(cohort, mask_of(two_lungs(), beside, fingerprint="f2"), "right=1,left=2")
    assert cohort["one"].stages == before
    assert temporary_arrays(cohort) == []


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_file_on_another_grid_that_cannot_be_used_leaves_no_array(cohort, is_masked):
    if is_masked:
        give(cohort, mask_of(two_lungs(), GRID), "right=1,left=2")
    labels, grid = reoriented(two_lungs(), GRID, "SAR")
    for broken in (labels[:-1], np.zeros_like(labels)):
        with pytest.raises(SourceError):
            give(cohort, mask_of(broken, grid, fingerprint="f2"), "right=1,left=2")
        assert temporary_arrays(cohort) == []


def test_verification_passes_over_arrays_that_a_killed_command_left(cohort):
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=2")
    import_labels(InProcess(), cohort, "one", mask_of(two_lungs(), GRID), {1: 1})
    CaseWriter(cohort["one"]).create_temporary(IMPORTED)
    assert len(temporary_arrays(cohort)) == 2
    assert problems_of(cohort) == []


def test_air_for_the_regions_of_a_given_mask_is_that_of_the_usual_threshold(cohort):
    pack_air(None, CaseWriter(cohort["one"]), CaseRef.of(cohort, "one"), -900)
    give(cohort, mask_of(two_lungs(), GRID), "lung=1,lung=2")
    case = CaseFiles(cohort["one"])
    assert case.packed_threshold == AIR_THRESHOLD
    nz, _, nx = GRID.shape
    assert np.array_equal(unpack(case.read_packed(PACKED, 0, nz), nx) > 0, case.ct.compute() < AIR_THRESHOLD)


def test_labels_that_no_voxel_has_are_noted_with_their_numbers(cohort):
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=3,left=4")
    assert [text for text in flags_of(cohort["one"]) if "labels 3, 4, which `mask_labels` takes as left" in text]
    assert problems_of(cohort) == []
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=2")
    assert not [text for text in flags_of(cohort["one"]) if "no voxel of its mask" in text]
