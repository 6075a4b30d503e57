"""Follow-up with registration: its columns, its setting, scans that cannot be registered, and what invalidates it."""

import numpy as np
import pytest
import SimpleITK as sitk

import lungmix
from lungmix.analysis.followup import stored_followup
from lungmix.errors import UsageError
from lungmix.export import export_case, export_cohort
from lungmix.export.formats import options_for
from lungmix.geometry import Geometry
from lungmix.kernels.data_dictionary import REGISTRATION
from lungmix.mixture import PUBLISHED
from lungmix.stages.fit import publish
from lungmix.stages.measure import measure_cohort
from lungmix.tissue import CHANGES
from support.breathing import FIRST, LATER, add, scan
from support.stores import store_digest

TABLE = "case,patient,days\none-a,Rossi,0\none-b,Rossi,30\ntwo-a,Verdi,0\ntwo-b,Verdi,9\n"
COLUMNS = [column.key for column in REGISTRATION]
THIN = Geometry((128, 84, 8), LATER.spacing, (-110.0, -80.0, 60.0))


@pytest.fixture
def cohort(tmp_path):
    """Store of two patients, the second of whom has a later scan with too small a part of the lungs."""
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    for name, geometry, amount in (("one-a", FIRST, 0), ("one-b", LATER, 1), ("two-a", FIRST, 0), ("two-b", THIN, 1)):
        add(cohort, name, *scan(geometry, amount), geometry, 16)
    publish(cohort, PUBLISHED, {"given": True})
    measure_cohort(cohort, list(cohort), PUBLISHED)
    (tmp_path / "patients.csv").write_text(TABLE)
    return cohort


def rows(cohort):
    return {row["case"]: row for row in stored_followup(cohort)}


def test_registration_adds_columns_and_maps(cohort, client, tmp_path):
    pipeline = lungmix.Pipeline(client, cohort)
    before = store_digest(cohort.url)
    plain = pipeline.followup(tmp_path / "patients.csv")
    assert not set(COLUMNS) & set(plain.rows[0])
    unregistered = store_digest(cohort.url)
    assert {key for key in unregistered if before.get(key) != unregistered[key]} <= {
        "zarr.json", "followup.csv", "followup.parquet"
    }  # fmt: skip
    result = pipeline.followup(register="affine")
    assert list(result.failed) == ["two-b"]
    assert "it cannot be registered: only" in result.failed["two-b"]
    assert result.done == ["one-a", "one-b", "two-a"]
    table = rows(cohort)
    assert [table[name]["registration"] for name in table] == ["", "affine", "", "failed"]
    row = table["one-b"]
    assert row["change_registered_lung_involvement"] == pytest.approx(
        row["registered_lung_involvement"] - row["registered_lung_involvement_first"]
    )
    labels = cohort["one-b"].change.compute()
    for change in CHANGES[1:]:
        assert row[f"{change.key}_ml"] == pytest.approx(np.count_nonzero(labels == change.label) * FIRST.voxel_ml)
    assert np.isnan(float(table["two-b"]["new_ml"]))
    # Nothing is computed again, and the kind is that of the last call.
    stored = store_digest(cohort.url)
    again = pipeline.followup()
    assert list(again.failed) == ["two-b"]
    assert store_digest(cohort.url) == stored
    pipeline.followup(register="none")
    assert store_digest(cohort.url) == unregistered
    # Measuring keeps the columns, and needs no workers.
    pipeline.followup(register="affine")
    lungmix.Pipeline(None, cohort).measure()
    assert rows(cohort)["one-b"] == row


def test_maps_are_exported_in_the_geometry_of_the_first_scan(cohort, client, tmp_path):
    lungmix.Pipeline(client, cohort).followup(tmp_path / "patients.csv", register="affine")
    case = cohort["one-b"]
    for image in ("change", "registered_tissue"):
        for extension in ("nrrd", "nii.gz", "mha", "seg.nrrd"):
            (path, *_) = export_case(case, tmp_path / f"one-b_{image}.{extension}")
            written = sitk.ReadImage(str(path))
            assert Geometry.from_sitk(written).size == FIRST.size
            assert np.allclose(written.GetOrigin(), FIRST.origin, atol=1e-4)
            assert np.allclose(written.GetSpacing(), FIRST.spacing, atol=1e-6)
            assert np.array_equal(sitk.GetArrayFromImage(written), case.zarr_array(image)[:])
    for file in ("x.dcm", "x.csv"):
        with pytest.raises(UsageError, match="grid of another scan"):
            export_case(case, tmp_path / file, "change", options=options_for(with_ct=file == "x.dcm"))


def test_export_of_all_cases_writes_the_later_scans_and_says_so(cohort, client, tmp_path):
    with pytest.raises(UsageError, match="belongs to later scans of patients, and the store knows none"):
        export_cohort(cohort, tmp_path / "none", "nrrd", "change")
    lungmix.Pipeline(client, cohort).followup(tmp_path / "patients.csv", register="affine")
    result = export_cohort(cohort, tmp_path / "out", "nrrd", "change")
    assert list(result.files) == ["one-b"]
    assert list(result.failed) == ["two-b"]
    assert "2 cases without the image 'change', which only later scans of patients have" in result.warnings
    assert sorted(export_cohort(cohort, tmp_path / "all", "nrrd", "tissue").files) == sorted(cohort)


def test_unknown_kind_or_no_client_is_wrong_usage_before_anything_is_written(cohort, tmp_path):
    before = store_digest(cohort.url)
    with pytest.raises(UsageError, match="affine, deformable, none"):
        lungmix.Pipeline(None, cohort).followup(tmp_path / "patients.csv", register="rigid")
    with pytest.raises(UsageError, match="registration needs workers"):
        lungmix.Pipeline(None, cohort).followup(tmp_path / "patients.csv", register="affine")
    assert store_digest(cohort.url) == before


def test_removed_first_scan_removes_the_registration(cohort, client, tmp_path):
    pipeline = lungmix.Pipeline(client, cohort)
    pipeline.followup(tmp_path / "patients.csv", register="affine")
    pipeline.remove(["one-a"])
    assert not {"register", "change"} & cohort["one-b"].stages.keys()
    assert not cohort["one-b"].is_started("change")
