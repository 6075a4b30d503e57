"""Masks from files in place of computed ones."""

import numpy as np
import pytest

import lungmix
from lungmix.errors import SourceError
from lungmix.geometry import Geometry
from lungmix.stages.given_mask import import_labels
from lungmix.store import CaseFiles, invalidate_corrupt_stages
from support.generators import case_of, reoriented
from support.masks import ArrayMask, InProcess

GRID = Geometry((20, 18, 40), (1.5, 1.5, 2.0), (-10.0, 3.0, -700.0))
WHOLE = (slice(None), slice(None), slice(None))


def two_lungs(geometry=GRID):
    labels = np.zeros(geometry.shape, np.uint16)
    nz, ny, nx = geometry.shape
    labels[nz // 8 : -nz // 8, ny // 4 : -ny // 4, nx // 8 : nx // 2 - 1] = 1
    labels[nz // 8 : -nz // 8, ny // 4 : -ny // 4, nx // 2 + 1 : -nx // 8] = 2
    return labels


@pytest.fixture
def cohort(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    hu = np.random.default_rng(0).normal(-850, 40, GRID.shape).astype(np.int16)
    case_of(cohort, "one", hu, GRID, chunk_slices=16)
    return cohort


def read(cohort, array="reference"):
    return CaseFiles(cohort["one"]).read_temporary(array, WHOLE)


def test_labels_on_the_grid_of_the_scan_are_imported_as_they_are(cohort):
    result = import_labels(InProcess(), cohort, "one", ArrayMask(two_lungs(), GRID), {1: 2, 2: 7})
    expected = np.array([0, 2, 7], np.uint8)[two_lungs()]
    assert np.array_equal(read(cohort), expected)
    assert result == {"grid": "same", "voxels": {2: int((expected == 2).sum()), 7: int((expected == 7).sum())}}


def test_labels_in_another_order_of_axes_are_imported_to_the_voxel(cohort):
    labels, grid = reoriented(two_lungs(), GRID, "SAR")
    result = import_labels(InProcess(), cohort, "one", ArrayMask(labels, grid), {1: 1, 2: 2})
    assert result["grid"] == "resampled"
    assert np.array_equal(read(cohort), two_lungs())
    assert "imported" not in cohort["one"]._group


def test_a_mask_that_lies_elsewhere_is_rejected_and_writes_nothing(cohort):
    far = Geometry(GRID.size, GRID.spacing, (500.0, 3.0, -700.0))
    with pytest.raises(SourceError, match="does not overlap the scan"):
        import_labels(InProcess(), cohort, "one", ArrayMask(two_lungs(), far), {1: 1})
    assert "reference" not in cohort["one"]._group


def test_a_mask_without_orientation_is_taken_on_the_same_grid_only(cohort):
    unknown = Geometry(GRID.size, GRID.spacing, GRID.origin, orientation_known=False)
    assert import_labels(InProcess(), cohort, "one", ArrayMask(two_lungs(), unknown), {1: 1})["grid"] == "same"
    shifted = Geometry(GRID.size, GRID.spacing, (-11.0, 3.0, -700.0), orientation_known=False)
    with pytest.raises(SourceError, match="how its axes lie"):
        import_labels(InProcess(), cohort, "one", ArrayMask(two_lungs(), shifted), {1: 1})


def test_a_mask_with_too_few_slices_is_an_error(cohort):
    with pytest.raises(SourceError, match="slices that it declares"):
        import_labels(InProcess(), cohort, "one", ArrayMask(two_lungs()[:-1], GRID), {1: 1})


def test_the_next_command_deletes_what_a_killed_import_left(cohort):
    import_labels(InProcess(), cohort, "one", ArrayMask(two_lungs(), GRID), {1: 1})
    assert invalidate_corrupt_stages(cohort["one"]) == {}
    assert "reference" not in cohort["one"]._group
