"""Masks from files that replace other masks, or fail: arrays that remain, and results of verification."""

from dataclasses import replace

import numpy as np
import pytest

from lungmix.cluster.worker_memory import WorkerMemory
from lungmix.errors import RoomError, SourceError, StoreError
from lungmix.geometry import Geometry
from lungmix.kernels.packed_masks import unpack
from lungmix.stages import given_mask
from lungmix.stages.base import StageContext
from lungmix.stages.convert import AIR_THRESHOLD
from lungmix.stages.flags import flags_of
from lungmix.stages.imported_labels import check_memory, import_labels
from lungmix.stages.mask import pack_air
from lungmix.stages.quality import QualityStage
from lungmix.store import CaseFiles, CaseRef, CaseWriter, case_files
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
    import_labels(InProcess(), CaseRef.of(cohort, "one"), mask_of(two_lungs(), GRID), {1: 1})
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


def test_a_task_holds_no_more_voxels_of_a_mask_than_a_slab_of_the_scan_has(cohort, monkeypatch):
    fine = Geometry((80, 72, 80), tuple(np.array(GRID.spacing) * (0.25, 0.25, 0.5)), GRID.origin)
    labels = np.repeat(np.repeat(np.repeat(two_lungs(), 2, 0), 4, 1), 4, 2)
    mask = mask_of(labels, fine)
    thicknesses, boxes = [], []
    read_labels, read_temporary = mask.reader, CaseFiles.read_temporary

    def reader(source, values, grid, thickness):
        thicknesses.append(thickness)
        return read_labels(source, values, grid, thickness)

    def read(case, name, box):
        boxes.append(read_temporary(case, name, box))
        return boxes[-1]

    monkeypatch.setattr(CaseFiles, "read_temporary", read)
    give(cohort, replace(mask, reader=reader), "right=1,left=2")
    case = cohort["one"]
    slab = case.layout.slab * GRID.shape[1] * GRID.shape[2]
    assert max(thicknesses) * fine.shape[1] * fine.shape[2] <= slab
    assert max(box.size for box in boxes) <= slab < labels.size
    nearest = np.array(case.side.compute())
    assert np.array_equal(nearest[:, 2:-2, 2:-2], two_lungs()[:, 2:-2, 2:-2])


def test_slices_of_a_mask_that_no_worker_can_hold_are_an_error_with_their_size(cohort):
    huge = Geometry((4096, 4096, 2), (0.1, 0.1, 10.0), GRID.origin)
    memory = WorkerMemory(700_000_000, 0.8)
    check_memory(memory, cohort["one"], mask_of(two_lungs(), GRID))
    with pytest.raises(RoomError, match="slices of 4096 x 4096 pixels need"):
        check_memory(memory, cohort["one"], mask_of(two_lungs(), huge))


def test_a_check_of_a_killed_run_writes_into_no_later_import(cohort, monkeypatch):
    monkeypatch.setattr(case_files, "_ATTEMPT_TIMEOUT_S", 0.0)
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=2")
    labels, grid = reoriented(two_lungs(), GRID, "SAR")
    claims, check = [], given_mask._check_usable

    def remember(mask, case_ref, values):
        claims.append(case_ref)
        return check(mask, case_ref, values)

    monkeypatch.setattr(given_mask, "_check_usable", remember)
    give(cohort, mask_of(labels, grid, fingerprint="f2"), "right=1,left=2")
    CaseWriter(cohort["one"]).claim("evaluate")
    with pytest.raises(StoreError, match="another run"):
        check(mask_of(labels, grid), claims[0], {1: 1, 2: 2})
    assert temporary_arrays(cohort) == []


def test_labels_that_no_voxel_has_are_noted_with_their_numbers(cohort):
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=3,left=4")
    assert [text for text in flags_of(cohort["one"]) if "labels 3, 4, which `mask_labels` takes as left" in text]
    assert problems_of(cohort) == []
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=2")
    assert not [text for text in flags_of(cohort["one"]) if "no voxel of its mask" in text]
