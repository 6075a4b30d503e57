"""Anatomical masks in a store: the same voxels as in memory, regions, tables, and what happens to corrupt ones."""

import numpy as np
import pytest

import lungmix
from lungmix.errors import NoLungError, StoreError
from lungmix.export import export_case
from lungmix.export.formats import options_for
from lungmix.formats.masks import open_mask
from lungmix.geometry import Geometry, axis_order
from lungmix.parameters import MaskParameters
from lungmix.stages import label, regions
from lungmix.stages.anatomical import mask_stage
from lungmix.stages.base import StageContext
from lungmix.stages.flags import raised_flags
from lungmix.stages.given_mask import GivenMaskStage
from lungmix.stages.measure import rows_of_case
from lungmix.stages.quality import QualityStage
from lungmix.store import MEASUREMENTS_FILE, CaseFiles, CaseWriter
from lungmix.verify.objects import unexpected_objects
from oracle.anatomical import lung_parts
from support.chests import GRIDS, chest
from support.generators import case_of
from support.masks import InProcess
from support.patients import Atelectasis, Consolidation, Effusion, Mass, Patient, scan

pytestmark = pytest.mark.usefixtures("stages_here")

SHAPE = (40, 84, 100)
SPACING = GRIDS[SHAPE]
MODEL = lungmix.load_model("published")
STAGE = mask_stage(MaskParameters("anatomical"))
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def hu():
    return chest(SHAPE, SPACING, 5)


def masked(tmp_path, hu, direction=AXIAL, chunk_slices=None, spacing=SPACING, origin=(0.0, 0.0, 0.0)):
    order = axis_order(direction)
    stored = np.ascontiguousarray(order.from_axial(hu))
    geometry = Geometry(stored.shape[::-1], order.by_array(spacing)[::-1], origin, direction)
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_of(cohort, "one", stored, geometry, chunk_slices=chunk_slices)
    assert STAGE.run(StageContext(None, cohort), "one") == "done"
    return cohort, order


@pytest.mark.parametrize(
    "direction", [AXIAL, (1, 0, 0, 0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, 0, 1, 0, -1, 0), (0, 0, 1, 1, 0, 0, 0, 1, 0)]
)
def test_voxels_are_those_of_the_slow_definition_in_every_order(tmp_path, hu, direction):
    cohort, order = masked(tmp_path, hu, direction)
    case = cohort["one"]
    expected = lung_parts(hu, SPACING, case.geometry.axial.first_index)
    assert set(np.unique(expected)) > {1, 2}
    np.testing.assert_array_equal(order.to_axial(case.array("region").compute()), expected)
    np.testing.assert_array_equal(order.to_axial(case.lung.compute()) > 0, expected > 0)
    np.testing.assert_array_equal(order.to_axial(case.side.compute()), np.array([0, 1, 2, 1, 2])[expected])
    for part in (1, 2, 3, 4):
        values = hu[expected == part].astype(np.int64) + 32768
        np.testing.assert_array_equal(case.region_counts[part - 1], np.bincount(values, minlength=65536))
    np.testing.assert_array_equal(case.hu_counts, case.side_counts.sum(axis=0))


def test_slabs_of_the_store_change_no_voxel(tmp_path, hu):
    expected = lung_parts(hu, SPACING)
    for slices in (8, 16):
        cohort, _ = masked(tmp_path / str(slices), hu, chunk_slices=slices)
        np.testing.assert_array_equal(cohort["one"].array("region").compute(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("direction", [AXIAL, (1, 0, 0, 0, 1, 0, 0, 0, -1), (0, 0, -1, 0, -1, 0, 1, 0, 0)])
def test_thin_slices_anywhere_in_the_patient_follow_the_slow_definition(tmp_path, direction):
    """Reduced voxels begin before the volume, and slabs end within them."""
    shape, spacing = (110, 128, 150), (1.9, 1.9, 1.9)
    hu = chest(shape, spacing, 7)
    cohort, order = masked(tmp_path, hu, direction, 8, spacing, (-142.5, 71.3, 9.6))
    first = cohort["one"].geometry.axial.first_index
    assert any(index % 2 for index in first)
    expected = lung_parts(hu, spacing, first)
    np.testing.assert_array_equal(order.to_axial(cohort["one"].array("region").compute()), expected)


def test_second_run_keeps_the_mask_and_labels_use_its_regions(tmp_path, hu):
    cohort, _ = masked(tmp_path, hu)
    context = StageContext(None, cohort)
    assert STAGE.run(context, "one") == "kept"
    before = cohort["one"].side.compute()
    assert label.LabelStage(MODEL).run(context, "one") == "done"
    np.testing.assert_array_equal(cohort["one"].side.compute(), before)


def test_lung_involvement_is_measured_with_and_without_dense_lung(tmp_path, hu):
    cohort, _ = masked(tmp_path, hu)
    label.LabelStage(MODEL).run(StageContext(None, cohort), "one")
    (row,) = rows_of_case(cohort["one"], "measurements.csv", MODEL)
    parts, tissue = lung_parts(hu, SPACING), MODEL.lookup_table()[hu.astype(np.int64) + 32768]
    assert row["dense_lung_ml"] == pytest.approx((parts > 2).sum() * np.prod(SPACING) / 1000)
    assert row["aerated_involvement"] == pytest.approx(100 * (tissue[(parts == 1) | (parts == 2)] > 2).mean())
    posteriors = MODEL.predict_proba(hu[(parts == 1) | (parts == 2)])
    assert row["aerated_involvement_expected"] == pytest.approx(100 * posteriors[:, 2:].sum(axis=1).mean(), rel=1e-6)
    assert row["lung_involvement"] == pytest.approx(100 * (tissue[parts > 0] > 2).mean())
    assert row["mask"] == "anatomical"


def test_corrupt_regions_are_never_computed_from_the_mask(tmp_path, hu):
    cohort, _ = masked(tmp_path, hu)
    context = StageContext(None, cohort)
    CaseWriter(cohort["one"]).mark_damaged("side", "a shard is missing")
    assert not regions.is_valid(cohort["one"])
    with pytest.raises(StoreError, match="were made with its mask"):
        label.LabelStage(MODEL).run(context, "one")
    assert label.LabelStage(MODEL, before=[STAGE]).run(context, "one") == "done"
    assert regions.is_valid(cohort["one"])


def test_mask_of_another_preset_leaves_nothing_of_the_anatomical_one(tmp_path, hu):
    cohort, _ = masked(tmp_path, hu)
    case = CaseFiles(cohort["one"])
    assert not [key for key in unexpected_objects(case) if "region" in key]
    mask_stage(MaskParameters("physical")).run(StageContext(None, cohort), "one")
    case = CaseFiles(cohort["one"])
    assert case.region_counts is None
    assert not [key for key in unexpected_objects(case) if "region" in key]
    assert "region" not in (tmp_path / "s.zarr" / "one" / "labels" / "zarr.json").read_text()
    assert not (tmp_path / "s.zarr" / "one" / "region_counts").exists()


def test_scan_without_lung_fails_with_a_reason(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    hu = chest(SHAPE, SPACING, 5)
    hu[hu < -500] = -995
    case_of(cohort, "one", hu, Geometry(hu.shape[::-1], SPACING[::-1]))
    stage = mask_stage(MaskParameters("anatomical"), accept_hu=True)
    with pytest.raises(NoLungError, match="aerated like a lung"):
        stage.run(StageContext(None, cohort), "one")


@pytest.mark.parametrize("file", ["x.seg.nrrd", "x.nii.gz", "x.dcm"])
def test_an_exported_region_map_gives_the_same_bytes_again(tmp_path, hu, file):
    cohort, _ = masked(tmp_path, hu)
    first = cohort["one"]
    label.LabelStage(MODEL).run(StageContext(InProcess(), cohort), "one")
    export_case(first, tmp_path / file, "region", **({"options": options_for(with_ct=True)} if "dcm" in file else {}))
    again = lungmix.open_cohort(tmp_path / "again.zarr", "a")
    case_of(again, "one", hu, first.geometry)
    stage = GivenMaskStage(mask_stage(MaskParameters()), {"one": open_mask(tmp_path / file)})
    assert stage.run(StageContext(InProcess(), again), "one") == "done"
    label.LabelStage(MODEL).run(StageContext(InProcess(), again), "one")
    for name in ("mask", "side", "label"):
        assert again["one"].stages[name]["files"] == cohort["one"].stages[name]["files"], name
    rows = [rows_of_case(store["one"], MEASUREMENTS_FILE, MODEL)[0] for store in (cohort, again)]
    assert rows[0] == {**rows[1], "mask": "anatomical"}


@pytest.mark.parametrize(
    ("diseases", "expected"),
    [
        ((), []),
        ((Mass(-1, 60.0, centre=(50, 5, 160)),), ["dense_at_mediastinum"]),
        ((Consolidation(1, 80.0, angle=70, height=110),), []),
        ((Effusion(-1, 300.0),), ["uneven_bases"]),
        ((Atelectasis(1, 150.0),), ["uneven_bases"]),
    ],
)
def test_disease_without_a_clear_border_is_flagged(tmp_path, diseases, expected):
    patient = scan(Patient(spacing=(4.0, 3.5, 3.5), diseases=diseases))
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_of(cohort, "one", patient.hu, Geometry(patient.hu.shape[::-1], (3.5, 3.5, 4.0)))
    for stage in (STAGE, QualityStage()):
        stage.run(StageContext(InProcess(), cohort), "one")
    raised = {flag.name for flag in raised_flags(cohort["one"])}
    assert [name for name in ("dense_at_mediastinum", "uneven_bases", "dense_tissue") if name in raised] == expected
