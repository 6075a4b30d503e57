"""A whole run on a cluster, compared with the same method on arrays in memory."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

import lungmix
from lungmix.callbacks import Callback
from lungmix.errors import StoreError, UsageError
from lungmix.formats import find_scans
from lungmix.parameters import FitParameters, IntakeParameters, MaskParameters
from lungmix.phantom import Cohort, Phantom, write_cohort, write_phantom
from lungmix.pipeline import Pipeline
from lungmix.webpage.overview import overview_of
from oracle import reference

pytestmark = pytest.mark.slow

MASK = MaskParameters(opening=1, min_voxels=3000, radii=(4, 3))
SHAPE, SPACING = (150, 64, 64), (5.6, 5.6, 2.0)


class Said(Callback):
    """Callback that stores messages."""

    def __init__(self):
        self.said = []

    def on_warning(self, message):
        self.said.append(message)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    write_cohort(folder, Cohort(4, 3, SHAPE, SPACING, frozenset({"vessels"})), "mixed")
    return folder


@pytest.fixture(scope="module")
def finished(scans, client, tmp_path_factory):
    url = str(tmp_path_factory.mktemp("store") / "cohort.zarr")
    report = Pipeline(client, lungmix.open_cohort(url, "a")).run([scans], mask=MASK, fit=FitParameters(fit="paper"))
    assert not report.failed, report.failed
    return url, report


def test_everything_equals_the_method_in_memory(finished, scans):
    url, report = finished
    cohort = lungmix.open_cohort(url)
    assert list(cohort) == report.done == [f"case-{i:03d}" for i in range(1, 5)]
    pooled = []
    for scan in find_scans(scans):
        if scan.name not in cohort:
            continue
        case = cohort[scan.name]
        hu = np.concatenate(list(scan.slabs(1000)))
        lung = reference.lung_mask(hu, n_open=1, min_voxels=3000, radii=(4, 3))
        assert lung.any()
        assert np.array_equal(case.ct.compute(), hu)
        assert np.array_equal(case.lung.compute(), lung)
        tissue = np.where(lung, report.model.predict(hu), 0)
        assert np.array_equal(case.tissue.compute(), tissue)
        assert np.array_equal(case.tissue_median.compute(), ndimage.median_filter(tissue, size=4))
        assert np.array_equal(case.hu_counts, np.bincount(hu[lung].astype(int) + 32768, minlength=65536))
        row = next(row for row in report.rows if row["case"] == scan.name)
        for label, key in enumerate(("air", "healthy", "ggo", "consolidation", "other"), start=1):
            assert row[key] == pytest.approx(100 * (tissue[lung] == label).mean())
        assert row["lung_involvement"] == pytest.approx(100 * (tissue[lung] >= 3).mean())
        sides = case.side.compute()
        assert np.array_equal(sides > 0, lung)
        for label, key in ((1, "right"), (2, "left")):
            mask_of_lung = sides == label
            assert row[f"{key}_ml"] == pytest.approx(mask_of_lung.sum() * case.geometry.voxel_ml)
            assert row[f"{key}_mean_hu"] == pytest.approx(hu[mask_of_lung].mean())
            assert row[f"{key}_lung_involvement"] == pytest.approx(100 * (tissue[mask_of_lung] >= 3).mean())
        pooled.append(np.maximum(hu[lung], -1000))
    voxels = np.concatenate(pooled)
    assert report.model.fit_info["voxels"] == len(voxels)
    mixture = lungmix.GaussianMixture(random_state=0).fit(voxels)
    assert np.allclose(sorted(mixture.means_[:, 0]), report.model.means)


def test_store_holds_the_table_and_the_model(finished):
    url, report = finished
    cohort = lungmix.open_cohort(url)
    rows = list(csv.DictReader(io.StringIO(cohort.read_text("measurements.csv"))))
    assert [row["case"] for row in rows] == report.done
    assert float(rows[0]["lung_involvement"]) == report.rows[0]["lung_involvement"]
    assert lungmix.TissueModel.from_json(cohort.read_text("model.json")) == report.model


def test_second_run_keeps_what_is_valid(finished, scans, client, tmp_path):
    url, report = finished
    files = {p: p.stat().st_mtime_ns for p in __import__("pathlib").Path(url).rglob("c/*") if p.is_file()}
    again = Pipeline(client, lungmix.open_cohort(url, "r+")).run([scans], mask=MASK)
    assert again.rows == report.rows
    assert {p: p.stat().st_mtime_ns for p in files} == files


def test_changed_model_relabels_and_leaves_the_masks(scans, client, tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    source = scans / "case-001.nrrd"
    Pipeline(client, cohort).run([source], mask=MASK, model="published")
    before = cohort["case-001"].stages
    tissue = cohort["case-001"].tissue.compute()
    report = Pipeline(client, cohort).run([source], mask=MASK)
    after = lungmix.open_cohort(tmp_path / "s.zarr")["case-001"]
    assert after.stages["mask"] == before["mask"]
    assert after.stages["label"]["key"] != before["label"]["key"]
    assert not np.array_equal(after.tissue.compute(), tissue)
    assert report.model != lungmix.load_model("published")
    # Each case records the model of its labels.
    for stages, model in ((before, lungmix.load_model("published")), (after.stages, report.model)):
        recorded = stages["label"]["model"]
        assert (recorded["weights"], recorded["means"]) == (list(model.weights), list(model.means))


def test_other_chunks_convert_a_case_again_and_stay_until_others_are_given(scans, client, tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    source = next(iter(find_scans(scans))).path

    def convert(**options):
        assert not Pipeline(client, cohort).convert([source], **options).failed
        case = cohort["case-001"]
        return case.zarr_array("ct").chunks[0], case.salt, case.stages["convert"]["voxels_sha256"]

    first = convert()
    assert first[0] == 64
    assert convert(chunk_slices=64) == first
    thin = convert(chunk_slices=16)
    assert thin[0] == 16
    assert thin[1] != first[1]
    assert thin[2] == first[2]
    assert convert() == convert(chunk_slices=16) == thin
    with pytest.raises(UsageError, match="8, 16, 32, 64"):
        convert(chunk_slices=5)


def test_new_source_gets_the_next_number_and_an_old_one_keeps_its_number(scans, client, tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    other = tmp_path / "elsewhere"
    other.mkdir()
    write_phantom(other / "case-001.nrrd", Phantom(SHAPE, SPACING, 99))
    Pipeline(client, cohort).run([scans / "case-001.nrrd"], mask=MASK, model="published")
    before = cohort["case-001"].stages
    report = Pipeline(client, cohort).run([other, scans / "case-001.nrrd"], mask=MASK, model="published")
    assert cohort["case-001"].stages == before
    assert report.places == {"case-002": "source 1", "case-001": "source 2"}
    assert list(cohort) == ["case-001", "case-002"]
    assert len(report.rows) == 2


def test_bad_sources_fail_by_name_and_others_are_processed(scans, client, tmp_path):
    image = sitk.ReadImage(str(scans / "case-001.nrrd"))
    cut = (scans / "case-001.nrrd").read_bytes()
    (tmp_path / "cut.nrrd").write_bytes(cut[: len(cut) // 2])
    sitk.WriteImage(image[:, :, 5], str(tmp_path / "flat.mha"))
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32) / 0.0, str(tmp_path / "nan.nii.gz"))
    sitk.WriteImage(image * 0 + 40, str(tmp_path / "solid.nrrd"))
    (tmp_path / "words.nrrd").write_text("no image")
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    report = Pipeline(client, cohort).run(
        [*sorted(p for p in tmp_path.iterdir() if p.is_file()), scans / "case-003.mha"], mask=MASK, model="published"
    )
    assert report.done == ["case-004"]
    assert len(report.rows) == 1
    # Cases are numbered in the order of the file names: cut.nrrd, flat.mha, nan.nii.gz, solid.nrrd, words.nrrd
    for name, words in [
        ("case-001", ("cut.nrrd", "cut short|damaged")),
        ("source 2", ("flat.mha", "2-D")),
        ("case-002", ("nan.nii.gz", "finite")),
        ("case-003", ("no lung",)),
        ("source 5", ("words.nrrd", "not an image")),
    ]:
        reason = report.messages[name]
        assert all(any(part in reason for part in word.split("|")) for word in words), reason
    assert set(report.failed) == {"case-001", "case-002", "case-003", "source 2", "source 5"}
    assert cohort["case-003"].failure["stage"] == "mask"
    assert "case-001" not in cohort
    # The store records the reason of each failure, without names of files.
    assert set(cohort.failed) == {"case-001", "case-002"}
    assert "cut.nrrd" not in str(cohort.failed)
    assert overview_of(cohort).damaged["case-002"].startswith("case case-002: ")


def test_truncated_source_keeps_earlier_results(scans, client, tmp_path):
    source = Path(shutil.copy(scans / "case-002.nii.gz", tmp_path / "scan.nii.gz"))
    cohort, heard = lungmix.open_cohort(tmp_path / "s.zarr", "a"), Said()
    complete = Pipeline(client, cohort).run([source], mask=MASK, model="published")
    before, content = cohort["case-001"].tissue.compute(), source.read_bytes()
    source.write_bytes(content[: len(content) * 2 // 3])
    for chunk_slices in (None, 8):
        report = Pipeline(client, cohort, heard).run([source], mask=MASK, model="published", chunk_slices=chunk_slices)
        assert list(report.failed) == ["case-001"]
        case = cohort["case-001"]
        assert case.failure["stage"]
        assert np.array_equal(case.tissue.compute(), before)
    assert "case-001: source files changed; converting again" in heard.said
    # A run without the source leaves the case as it was; a run with a complete source converts it.
    assert Pipeline(client, cohort).run([], mask=MASK, model="published").rows == complete.rows
    source.write_bytes(content)
    assert Pipeline(client, cohort).run([source], mask=MASK, model="published").rows == complete.rows
    assert cohort["case-001"].failure is None


def test_labels_in_progress_are_no_empty_image(scans, client, tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    Pipeline(client, cohort).run([scans / "case-001.nrrd"], mask=MASK, model="published")
    seen, opened_before = [], cohort["case-001"]

    class Reader(Callback):
        def on_progress(self, case, stage, done, total):
            for reader in (lungmix.open_cohort(tmp_path / "s.zarr")[case], opened_before):
                with pytest.raises(StoreError, match="no complete image tissue: it does not exist yet"):
                    reader.array("tissue")
                seen.append(int(reader.lung.sum().compute()))

    other = lungmix.TissueModel((0.5, 0.5), (-850.0, -100.0), (1e4, 1e4))
    (tmp_path / "other.json").write_text(other.to_json())
    Pipeline(client, cohort, Reader()).relabel(tmp_path / "other.json")
    assert seen
    assert min(seen) > 0


def test_image_that_is_lost_without_its_source_fails_by_name_in_every_command(scans, client, tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    Pipeline(client, cohort).convert([scans / "case-001.nrrd", scans / "case-003.mha"])
    (tmp_path / "s.zarr" / "case-001" / "0" / "c" / "1" / "0" / "0").unlink()
    for command in ("mask", "run"):
        pipeline = Pipeline(client, lungmix.open_cohort(tmp_path / "s.zarr", "r+"))
        report = pipeline.mask(MASK) if command == "mask" else pipeline.run([scans / "case-003.mha"], mask=MASK)
        assert list(report.failed) == ["case-001"]
        assert "run `Pipeline.run(sources)` with its source" in report.failed["case-001"]
        assert report.done == ["case-002"]
        assert pipeline.cohort["case-001"].failure["stage"] == "mask"


def test_failed_mask_reports_components_and_a_remedy(scans, client, tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    report = Pipeline(client, cohort).run(
        [scans / "case-002.nii.gz"], mask=MaskParameters(min_voxels=10**9), model="published"
    )
    reason = report.failed["case-001"]
    for word in (
        " of air, the largest: ",
        "voxels",
        "touches the image edge",
        "spacing",
        '`MaskParameters(preset="physical")`',
    ):
        assert word in reason


def test_run_without_any_lung_ends_without_a_model(client, tmp_path):
    sitk.WriteImage(sitk.Image([20, 20, 10], sitk.sitkInt16), str(tmp_path / "solid.nrrd"))
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    report = Pipeline(client, cohort).run([tmp_path / "solid.nrrd"], mask=MASK)
    assert report.model is None
    assert list(report.failed) == ["case-001"]


def test_stages_one_by_one_give_the_same_as_a_run(scans, client, tmp_path):
    in_one_run = Pipeline(client, lungmix.open_cohort(tmp_path / "one.zarr", "a"))
    report = in_one_run.run([scans / "case-001.nrrd"], mask=MASK, fit=FitParameters(n_init=2))
    two = Pipeline(client, lungmix.open_cohort(tmp_path / "two.zarr", "a"))
    two.convert([scans / "case-001.nrrd"])
    two.mask(MASK)
    two.fit(fit=FitParameters(n_init=2))
    two.label()
    assert two.measure().rows == report.rows
    for name in ("ct", "lung", "side", "tissue", "tissue_median"):
        first, second = (p.cohort["case-001"].array(name).compute() for p in (in_one_run, two))
        assert np.array_equal(first, second)


def test_key_table_that_is_requested_later_is_complete_without_converting(scans, client, tmp_path):
    cohort, key = lungmix.open_cohort(tmp_path / "s.zarr", "a"), tmp_path / "key.csv"
    sources = [scans / "case-004", scans / "case-001.nrrd"]
    Pipeline(client, cohort).convert(sources, nrrd=tmp_path / "nrrd")
    before = {name: case.stages for name, case in cohort.items()}
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "nrrd").iterdir()}
    assert sorted(file.name for file in files) == ["case-001.nrrd", "case-002.nrrd"]
    intake = IntakeParameters(key=key, retain_patient=True, shift_dates=True)
    Pipeline(client, cohort).convert([sources[1], tmp_path / "none.nrrd", sources[0]], intake, tmp_path / "nrrd")
    assert {name: case.stages for name, case in cohort.items()} == before
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "nrrd").iterdir()} == files
    with key.open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert (first["case"], first["source"], first["patient_name"]) == ("case-001", "source 3", "Phantom^Chest")
    assert (second["case"], second["source"], second["path"]) == ("case-002", "source 1", str(sources[1]))
