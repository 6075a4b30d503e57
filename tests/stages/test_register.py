"""Registration and change maps in a store: equal to those of the whole volume, kept while they are valid."""

import numpy as np
import pytest
import SimpleITK as sitk

import lungmix
from lungmix.errors import StoreError
from lungmix.geometry import Geometry
from lungmix.kernels.warping import CHANGE_CODES
from lungmix.pipeline.registration import drop_stale_registrations, remember_registration
from lungmix.stages import change, register
from lungmix.stages.base import StageContext
from lungmix.store import CaseFiles, CaseWriter, CohortWriter
from lungmix.store.patients import PatientScan, record_patients
from lungmix.store.schema import LABELS_FILE
from lungmix.tissue import CHANGES
from lungmix.verify.case import Comparison
from lungmix.verify.problems import Verification
from support.breathing import FIRST, LATER, add, points_of, scan, to_first
from support.generators import reoriented

pytestmark = pytest.mark.usefixtures("stages_here")

FIRSTS = {"later": "first"}


def store(folder, chunk_slices=None, orientation=None):
    """Return a store with two scans of a patient, in chunks and, for the later scan, a storage order of choice."""
    cohort = lungmix.open_cohort(folder / "s.zarr", "a")
    for name, geometry, amount in (("first", FIRST, 0.0), ("later", LATER, 1.0)):
        hu, lung = scan(geometry, amount)
        stored = geometry
        if orientation is not None:
            hu, stored = reoriented(hu, geometry, orientation)
            lung, _ = reoriented(lung, geometry, orientation)
        add(cohort, name, hu, lung, stored, chunk_slices)
    record_patients(cohort, {"patient-001": [PatientScan("first", 0), PatientScan("later", 20)]})
    return cohort


def run(cohort, kind="affine"):
    context = StageContext(None, cohort)
    return [stage.run(context, "later") for stage in (register.RegisterStage(FIRSTS, kind), change.ChangeStage(FIRSTS))]


def expected_maps(cohort):
    """Return the later labels in the space of the first scan, and the changes, of whole volumes by SimpleITK."""
    first, later = cohort["first"], cohort["later"]
    field = Geometry.from_dict(later.stages["register"]["field"])
    displacement = CaseFiles(later).read_displacement().astype(np.float64)
    wide = np.pad(displacement, ((1, 1), (1, 1), (1, 1), (0, 0)), mode="edge")
    corner = np.array(field.origin) - np.reshape(field.direction, (3, 3)) @ np.array(field.spacing)
    grid = Geometry(np.array(field.size) + 2, field.spacing, corner, field.direction)
    transform = sitk.DisplacementFieldTransform(grid.apply_to(sitk.GetImageFromArray(wide, isVector=True)))
    resampled = [
        sitk.GetArrayFromImage(
            sitk.Resample(later.to_sitk(name), first.to_sitk("tissue"), transform, sitk.sitkNearestNeighbor, 0)
        )
        for name in ("tissue", "tissue_median")
    ]
    # More than a voxel outside the field there is no label.
    index = np.einsum(
        "ji,jzyx->izyx",
        np.reshape(grid.direction, (3, 3)),
        points_of(first.geometry) - np.reshape(corner, (3, 1, 1, 1)),
    ) / np.reshape(grid.spacing, (3, 1, 1, 1))
    outside = ((index < -1e-9) | (index > np.reshape(grid.size, (3, 1, 1, 1)) - 1 + 1e-9)).any(axis=0)
    for labels in resampled:
        labels[outside] = 0
    return resampled[0], CHANGE_CODES[first.zarr_array("tissue_median")[:], resampled[1]]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Maps by SimpleITK of the affine registration, which are the same for all chunks."""
    with pytest.MonkeyPatch.context() as patch:
        _compute_here(patch)
        cohort = store(tmp_path_factory.mktemp("reference"))
        assert run(cohort) == ["done", "done"]
        return expected_maps(cohort)


def _compute_here(patch):
    import dask

    def gather(client, values, watch=None):
        with dask.config.set(scheduler="synchronous"):
            return list(dask.compute(*values))

    for stage in (register, change):
        patch.setattr(stage, "compute_in_order", gather)


@pytest.mark.parametrize("chunk_slices", [8, 16, None])
def test_maps_equal_those_of_the_whole_volume_whatever_the_slabs(tmp_path, reference, chunk_slices):
    cohort = store(tmp_path, chunk_slices)
    assert run(cohort) == ["done", "done"]
    case = cohort["later"]
    assert np.array_equal(case.registered_tissue.compute(), reference[0])
    assert np.array_equal(case.change.compute(), reference[1])
    assert set(np.unique(reference[1])) == {0, *(item.label for item in CHANGES)}
    assert case.grid_of("change") == FIRST
    assert case.geometry == LATER
    pairs = np.array(case.stages["change"]["pairs"])
    assert pairs.sum(axis=0)[1:].tolist() == [np.count_nonzero(reference[0] == label) for label in range(1, 6)]
    median_pairs = np.array(case.stages["change"]["median_pairs"])
    for item in CHANGES:
        assert median_pairs[item.label == CHANGE_CODES].sum() == np.count_nonzero(reference[1] == item.label)


@pytest.mark.parametrize("orientation", ["RAI", "SAL", "PIR"])
def test_scans_in_any_storage_order_are_registered_alike(tmp_path, reference, orientation):
    cohort = store(tmp_path, 8, orientation)
    assert run(cohort) == ["done", "done"]
    got = cohort["later"].to_sitk("change")
    assert got.GetDirection() == pytest.approx(cohort["first"].geometry.direction)
    assert np.array_equal(expected_maps(cohort)[1], sitk.GetArrayFromImage(got))
    # The registration works on the axial array. Changes differ only by the median, whose window is not symmetric.
    axial = sitk.GetArrayFromImage(sitk.DICOMOrient(cohort["later"].to_sitk("registered_tissue"), "LPS"))
    assert np.mean(axial != reference[0]) < 1e-4


def test_deformable_change_of_the_same_lungs_is_small(tmp_path):
    cohort = store(tmp_path)
    assert run(cohort, "deformable") == ["done", "done"]
    columns = change.columns_of(cohort["first"], cohort["later"])
    assert columns["registration"] == "deformable"
    assert columns["registration_dice"] > 0.97
    assert abs(columns["change_registered_lung_involvement"]) <= 0.5
    persistent = columns["persistent_ml"]
    assert columns["new_ml"] < 0.35 * persistent
    assert columns["gone_ml"] < 0.35 * persistent
    # Labels of known points: the same tissue in both scans at nearly all of them.
    case = cohort["later"]
    field = Geometry.from_dict(case.stages["register"]["field"])
    displacement = CaseFiles(case).read_displacement().astype(np.float64)
    transform = sitk.DisplacementFieldTransform(field.apply_to(sitk.GetImageFromArray(displacement, isVector=True)))
    lung = cohort["later"].zarr_array("lung")[:] > 0
    points = points_of(LATER)[:, lung].T[:: lung.sum() // 1000]
    predicted = np.array([transform.TransformPoint(point) for point in to_first(points.T).T.tolist()])
    assert np.linalg.norm(predicted - points, axis=1).mean() < 1.5


def test_transform_has_the_displacements_and_is_affine_elsewhere(tmp_path):
    cohort = store(tmp_path)
    run(cohort, "deformable")
    case = cohort["later"]
    field = Geometry.from_dict(case.stages["register"]["field"])
    transform = case.transform_from_first()

    def moved(points):
        return np.array([transform.TransformPoint(point) for point in points.tolist()])

    displacement = np.moveaxis(CaseFiles(case).read_displacement().astype(np.float64), -1, 0)
    points, expected = points_of(field), points_of(field) + displacement
    some = np.random.default_rng(1).integers(0, np.prod(field.shape), 500)
    at_voxels = (values.reshape(3, -1).T[some] for values in (points, expected))
    assert np.abs(moved(next(at_voxels)) - next(at_voxels)).max() < 1e-3
    # Between voxels: the centres of blocks of 2 x 2 x 2 voxels are moved by the mean of the eight.
    blocks = [slice(None, -1), slice(1, None)]
    between = [
        np.mean([values[:, z, y, x] for z in blocks for y in blocks for x in blocks], axis=0).reshape(3, -1).T[::997]
        for values in (points, expected)
    ]
    assert np.abs(moved(between[0]) - between[1]).max() < 1e-3
    assert np.ptp(np.linalg.norm(displacement, axis=0)) > 5
    far = np.array([[500.0, 10.0, 20.0], [0.0, -400.0, 300.0], [5.0, 6.0, -900.0]])
    affine = np.reshape(case.stages["register"]["affine"], (3, 4))
    assert np.abs(moved(far) - (far @ affine[:, :3].T + affine[:, 3])).max() < 1e-6


def test_scans_without_registration_have_no_transform(tmp_path):
    cohort = store(tmp_path)
    with pytest.raises(StoreError, match="case later is not registered"):
        cohort["later"].transform_from_first()
    thin = Geometry((128, 84, 8), LATER.spacing, (-110.0, -80.0, 60.0))
    CohortWriter(cohort).delete_cases(["later"])
    add(cohort, "later", *scan(thin, 1.0), thin)
    run(cohort, "affine")
    assert "reason" in cohort["later"].stages["register"]
    for name in ("later", "first"):
        with pytest.raises(StoreError, match=f"case {name} is not registered"):
            cohort[name].transform_from_first()


def test_registration_is_kept_until_a_scan_changes(tmp_path):
    cohort = store(tmp_path)
    remember_registration(cohort, "affine")
    run(cohort)
    assert run(cohort) == ["kept", "kept"]
    drop_stale_registrations(cohort)
    assert {"register", "change"} <= cohort["later"].stages.keys()
    # New labels of the first scan: the maps are stale, the registration is not.
    first = CaseWriter(cohort["first"])
    first.record("label", {**first.stages["label"], "key": "other labels"})
    drop_stale_registrations(cohort)
    assert "change" not in cohort["later"].stages
    assert not cohort["later"].is_started("change")
    assert run(cohort) == ["kept", "done"]
    # Another mask of the first scan: both are stale.
    first = CaseWriter(cohort["first"])
    first.record("mask", {**first.stages["mask"], "key": "other mask"})
    drop_stale_registrations(cohort)
    assert not {"register", "change"} & cohort["later"].stages.keys()
    assert not cohort["later"].is_started("displacement")
    assert run(cohort) == ["done", "done"]
    # Another kind.
    assert run(cohort, "deformable") == ["done", "done"]
    remember_registration(cohort, "none")
    assert not {"register", "change"} & cohort["later"].stages.keys()
    assert not [key for key in CaseFiles(cohort["later"]).sizes() if key.startswith(("change", "registered", "disp"))]
    assert "register" not in cohort.settings


def test_a_new_mask_of_the_later_scan_invalidates_its_maps(tmp_path):
    cohort = store(tmp_path)
    run(cohort)
    CaseWriter(cohort["later"]).start_stage("mask", "other")
    assert not {"register", "change"} & cohort["later"].stages.keys()


def test_patient_without_first_scan_loses_the_registration(tmp_path):
    cohort = store(tmp_path)
    remember_registration(cohort, "affine")
    run(cohort)
    record_patients(cohort, {})
    drop_stale_registrations(cohort)
    assert "register" not in cohort["later"].stages


def test_lungs_that_cannot_be_registered_have_a_recorded_reason(tmp_path):
    cohort = store(tmp_path)
    thin = Geometry((128, 84, 8), LATER.spacing, (-110.0, -80.0, 60.0))
    CohortWriter(cohort).delete_cases(["later"])
    add(cohort, "later", *scan(thin, 1.0), thin)
    assert run(cohort, "deformable") == ["done", "kept"]
    case = cohort["later"]
    assert "lungs of the first scan lie in the later scan" in change.reason_of(cohort["first"], case)
    assert not case.is_started("displacement")
    assert change.columns_of(cohort["first"], case) == {"registration": "failed"}
    assert run(cohort, "deformable") == ["kept", "kept"]


def test_scan_of_unknown_orientation_is_rejected(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    hu, lung = scan(FIRST)
    add(cohort, "first", hu, lung, Geometry(FIRST.size, FIRST.spacing, orientation_known=False))
    add(cohort, "later", hu, lung, FIRST)
    with pytest.raises(StoreError, match="orientation"):
        run(cohort)


def test_labels_of_the_store_do_not_list_maps_on_another_grid(tmp_path):
    cohort = store(tmp_path)
    run(cohort)
    assert b"change" not in CaseFiles(cohort["later"]).read_object(LABELS_FILE)


def test_verify_detects_a_changed_byte_of_a_map(tmp_path):
    cohort = store(tmp_path)
    run(cohort)

    def problems():
        verification = Verification()
        case = CaseFiles(cohort["later"])
        with pytest.MonkeyPatch.context() as patch:
            # Only the registration is recomputed; masks of this store were given.
            patch.setattr(Comparison, "_recompute", lambda self: None)
            Comparison(None, cohort, case, None, None, verification).compare()
        return [text for texts in verification.wrong.values() for text in texts]

    before = problems()
    case = CaseWriter(cohort["later"])
    key = next(key for key in case.stages["change"]["files"] if key.startswith("change/0/c"))
    content = bytearray(case.read_object(key))
    content[len(content) // 2] ^= 1
    case.write_object(key, bytes(content))
    after = problems()
    assert len(after) == len(before) + 1
    assert any(key in text for text in after)
