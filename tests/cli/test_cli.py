import json
import shutil

import nibabel
import numpy as np
import pyarrow.parquet
import pytest
import SimpleITK as sitk

import lungmix
from lungmix.geometry import Geometry
from lungmix.phantom import Phantom, write_phantom
from lungmix.privacy.acquisition import Acquisition
from lungmix.stages.measure import measure_cohort
from lungmix.store import CaseWriter
from support.command import SMALL, run, run_here
from support.generators import counts_of_scans, store_of_counts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    oblique = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
    phantom = Phantom(
        (40, 64, 64), (5.5, 5.625, 7.5), 4, name="case-001", origin=(-179.25, 12.5, 0.1), direction=oblique
    )
    write_phantom(folder / "case-001.mha", phantom)
    (folder / "broken.nrrd").write_text("no image")
    cluster = ("--workers", 1, "--memory-limit", "2GB")
    page = ("--report", folder / "page")
    done = run("run", folder / "s.zarr", folder, "--model", "published", *SMALL, *cluster, *page, "--json")
    return folder, done


def test_run_ends_with_one_json_object_and_status_1_where_a_case_failed(store):
    _, done = store
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert answer["done"] == ["case-001"]
    (place,) = answer["failed"]
    assert place.startswith("source 1, item ")
    assert "is not an image" in answer["failed"][place]
    assert answer["sources"]["case-001"].startswith("source 1, item ")
    assert answer["measurements"][0]["lung_involvement"] > 0
    assert answer["model"]["means"][0] == -950.35445
    assert "Traceback" not in done.stderr


def test_log_has_plain_lines_with_case_and_stage(store):
    _, done = store
    assert "case-001: done" in done.stderr
    assert "\x1b" not in done.stderr


def test_page_shows_scores_of_the_cohort_and_rejects_those_of_another(store, tmp_path):
    folder, _ = store
    file = tmp_path / "scores.csv"
    file.write_text("case,S\ncase-001,4\n")
    done = run_here("report", folder / "s.zarr", tmp_path / "page", "--scores", file, "--quiet")
    assert done.returncode == 0, done.stderr
    assert "Score" in (tmp_path / "page" / "index.html").read_text()
    file.write_text("case,S\nsomebody,4\n")
    refused = run_here("report", folder / "s.zarr", tmp_path / "page", "--scores", file, "--quiet")
    assert refused.returncode == 2
    assert "somebody" in refused.stderr


def test_report_lists_cases_and_failures_and_has_one_file_per_scan(store, tmp_path):
    folder, _ = store
    again = run_here("report", folder / "s.zarr", tmp_path / "page", "--quiet")
    assert again.returncode == 0, again.stderr
    assert again.stderr.split() == ["page:", str(tmp_path / "page" / "index.html")]
    for place, failures in ((folder / "page", True), (tmp_path / "page", False)):
        page = (place / "index.html").read_text()
        assert 'data-case="case-001"' in page
        assert ("is not an image" in page) == failures
        assert (place / "data" / "case-001.js").is_file()
        for picture in ("mixture", "pipeline", "slices"):
            assert f"figures/{picture}.svg" in page
            assert (place / "figures" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_info_lists_cases_and_scanners(store):
    folder, _ = store
    done = run_here("info", folder / "s.zarr")
    assert done.returncode == 0
    assert "case-001" in done.stdout
    assert "convert, mask, right/left, label" in done.stdout
    assert "labels by: published:" in done.stdout
    answer = json.loads(run_here("info", folder / "s.zarr", "--json").stdout)
    assert answer["slices"] == 40


@pytest.mark.parametrize("image", ["ct", "lung", "side", "tissue", "tissue_median"])
@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz", ".mha"])
def test_exported_image_has_the_geometry_of_the_scan(store, tmp_path, image, extension):
    folder, _ = store
    out = tmp_path / f"x{extension}"
    assert run_here("export", folder / "s.zarr", "case-001", out, "--image", image).returncode == 0
    case = lungmix.open_cohort(folder / "s.zarr")["case-001"]
    read = sitk.ReadImage(str(out))
    assert np.array_equal(sitk.GetArrayFromImage(read), case.array(image).compute())
    geometry, scan = Geometry.from_sitk(read), case.geometry
    assert scan == Geometry.from_sitk(sitk.ReadImage(str(folder / "case-001.mha")))
    if extension == ".nii.gz":
        columns = np.diag([-1, -1, 1]) @ (np.reshape(scan.direction, (3, 3)) * scan.spacing)
        assert np.array_equal(nibabel.load(out).affine[:3, :3], columns.astype(np.float32))
        assert np.allclose(geometry.origin, scan.origin, rtol=1e-7)
    else:
        assert geometry == scan


def test_export_of_all_cases_prints_one_line_per_case(store, tmp_path):
    folder, _ = store
    done = run_here("export", folder / "s.zarr", "--all", tmp_path / "out", "--format", "pyradiomics")
    assert done.returncode == 0, done.stderr
    assert "case-001: done" in done.stderr
    assert str(tmp_path / "out" / "pyradiomics.csv") in done.stdout
    words = ("--all", tmp_path / "out", "--format", "dicom-seg", "--with-ct", "--binary", "--quiet", "--json")
    answer = json.loads(run_here("export", folder / "s.zarr", *words).stdout)
    assert answer["files"]["case-001"] == [
        str(tmp_path / "out" / "case-001_tissue.dcm"), str(tmp_path / "out" / "case-001_tissue_ct"),
    ]  # fmt: skip


def test_case_without_labels_fails_alone_and_with_its_reason(counted, tmp_path):
    done = run_here("export", counted, "--all", tmp_path / "out", "--format", "seg.nrrd")
    assert done.returncode == 1
    assert "5 failed" in done.stdout
    assert "case-003: failed: case case-003 has no finished image 'tissue'" in done.stderr


def test_wrong_usage_ends_with_status_2_and_no_traceback(store, tmp_path):
    folder, _ = store
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    for words, message in [
        (("run",), "STORE"),
        (("run", tmp_path / "a.zarr", folder, "--preset", "papier"), "paper, physical"),
        (("run", tmp_path / "a.zarr", folder, "--model", "none.json"), "none.json"),
        (("run", tmp_path / "other", folder), "not a lungmix store"),
        (("info", tmp_path / "none.zarr"), "no store"),
        (("export", folder / "s.zarr", "case-9", "x.nrrd"), "case-9"),
        (("export", folder / "s.zarr", "case-001", tmp_path / "x.jpg"), ".nrrd"),
        (("run", tmp_path / "a.zarr", folder, "--scheduler", "tcp://127.0.0.1:1", "-j", "2"), "local cluster"),
        (("export", folder / "s.zarr", "case-001"), "--all"),
        (("export", folder / "s.zarr", "--all", tmp_path / "x", "--format", "papyrus"), "itk-snap"),
        (("export", folder / "s.zarr", "--all", tmp_path / "x", "--format", "dicom-seg"), "--with-ct"),
        (("serve", tmp_path / "none.zarr"), "no store"),
        (("nonsense",), "nonsense"),
    ]:
        done = run_here(*words)
        assert done.returncode == 2, (words, done.stdout, done.stderr)
        assert message in done.stderr.replace("\n", " "), (words, done.stderr)
        assert "Traceback" not in done.stderr


def test_fit_shows_all_fits_thresholds_involvement_and_diagnosis(store, tmp_path):
    folder, _ = store
    # The other fit would make the labels of the store stale for other tests.
    url = shutil.copytree(folder / "s.zarr", tmp_path / "s.zarr")
    done = run_here("fit", url, "--figure", tmp_path / "fits.png")
    assert done.returncode == 0, done.stderr
    for word in (
        "paper",
        "conv.",
        "MAP thresholds",
        "Consolidation | Other denser tissue",
        "pooled",
        "case-001",
        "BIC",
        "Diagnosis",
    ):
        assert word in done.stdout
    assert (tmp_path / "fits.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "fits.svg").is_file()
    answer = json.loads(run_here("fit", url, "--fit", "converged", "--json").stdout)
    assert set(answer["fits"]) == set(answer["diagnosis"]) == {"paper", "converged", "anchored"}
    assert answer["model"]["means"] == answer["fits"]["converged"]["means"]
    assert [row["case"] for row in answer["involvement"]] == ["pooled", "case-001"]
    assert len(answer["thresholds"]) == 4
    # Rows of quality control have the name "quality" in every command.
    assert [row["fit"] for row in answer["fit_quality"]] == ["paper", "converged", "anchored"]
    assert answer["quality"] == []


def test_range_of_components_prints_a_table_of_bic(store):
    folder, _ = store
    answer = json.loads(run_here("fit", folder / "s.zarr", "--components", "1-2,4", "--json").stdout)
    assert [row["components"] for row in answer["bic"]] == [1, 2, 4]
    assert answer["model"] is None


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    url = tmp_path_factory.mktemp("counted") / "cohort.zarr"
    store_of_counts(url, counts_of_scans(5, 20_000))
    return url


def test_leave_out_takes_several_names(counted):
    for words, left in [
        (("--leave-out", "case-001", "case-004"), ["case-002", "case-003", "case-005"]),
        (("--leave-out", "case-001", "--leave-out", "case-004"), ["case-002", "case-003", "case-005"]),
        (("--cases", "case-001", "case-004", "--components", "2"), ["case-001", "case-004"]),
    ]:
        done = run_here("fit", counted, *words, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["done"] == left
    assert json.loads(run_here("fit", "--leave-out", "case-001", counted, "--json").stdout)["done"][0] == "case-002"


def test_studies_print_a_table_or_one_json_object_and_write_files(counted, tmp_path):
    done = run_here("validate", "robustness", counted, "--out", tmp_path / "a", "--sizes", "2,4")
    assert done.returncode == 0, done.stderr
    assert "Total variation distance" in done.stdout
    answer = json.loads(run_here("validate", "robustness", counted, "--out", tmp_path / "a", "--json").stdout)
    assert [row["size"] for row in answer["sizes"]] == [1, 2, 3, 4]
    assert len(answer["groups"]) == 12
    done = run_here("validate", "bootstrap", counted, "--out", tmp_path / "b", "--refits", 5, "--json", "--quiet")
    answer = json.loads(done.stdout)
    assert len(answer["intervals"]) == 21
    assert sorted(p.name for p in tmp_path.glob("*/*")) == sorted(
        f"{name}.{kind}" for name in ("bootstrap", "robustness") for kind in ("csv", "png", "svg")
    )
    assert "conv" in run_here("validate", "bootstrap", counted, "--out", tmp_path / "b", "--refits", 5).stdout


def test_severity_prints_tables_or_one_json_object_and_writes_files(counted, tmp_path):
    assert run_here("fit", counted, "--model", "published", "--json").returncode == 0
    cohort = lungmix.open_cohort(counted, "r+")
    for case in cohort.values():
        CaseWriter(case).record("label", {"key": "label", "model_name": "published"})
    measure_cohort(cohort, list(cohort), lungmix.load_model("published"))
    words = ("validate", "severity", counted, "--out", tmp_path / "out")
    done = run_here(*words)
    assert done.returncode == 0, done.stderr
    assert "Scores by case" in done.stdout
    assert "no lung zones: `lungmix zones" in done.stdout
    answer = json.loads(run_here(*words, "--json").stdout)
    assert [row["case"] for row in answer["rows"]] == list(cohort)
    assert answer["rows"][0]["score_24"] is None
    assert (answer["fit"], answer["refits"]) == (None, 0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["severity-summary.csv", "severity.csv"]
    file = tmp_path / "scores.csv"
    file.write_text("case,S\n" + "".join(f"case-00{i},{s}\n" for i, s in enumerate("32140", start=1)) + "other,1\n")
    done = run_here(*words, "--scores", file)
    assert done.returncode == 0, done.stderr
    assert "Agreement with the reader" in done.stdout
    assert "in the table, but not measured: line 7 (other)" in done.stdout
    answer = json.loads(run_here(*words, "--scores", file, "--json").stdout)
    assert "in the table, but not measured: line 7 (...)" in answer["notes"]
    (row,) = answer["agreement"]
    assert (row["score"], row["scans"]) == ("score", 5)
    assert (tmp_path / "out" / "severity-agreement.csv").exists()
    done = run_here(*words, "--detection-limit", "6")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_strata_print_a_table_or_one_json_object_and_write_files(tmp_path):
    kernels = {f"case-00{i}": Acquisition(kernel="B70f" if i > 3 else "B31f") for i in range(1, 7)}
    store_of_counts(tmp_path / "s.zarr", counts_of_scans(6, 20_000), kernels)
    words = ("validate", "strata", tmp_path / "s.zarr", "--by", "kernel", "--refits", 3, "--out", tmp_path / "out")
    done = run_here(*words, "--fit", "anchored")
    assert done.returncode == 0, done.stderr
    assert "Fit 'anchored' by kernel" in done.stdout
    answer = json.loads(run_here(*words, "--json", "--quiet").stdout)
    assert (answer["fit"], answer["by"]) == ("paper", ["kernel"])
    assert [(group["group"], group["scans"]) for group in answer["groups"]] == [("B31f", 3), ("B70f", 3)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "strata-distances.csv", "strata.csv", "strata.png", "strata.svg",
    ]  # fmt: skip


def test_wrong_usage_of_fits_is_explained(counted, tmp_path):
    for words, message in [
        (("fit", counted, "--leave-out", "case-9"), "case-9"),
        (("fit", counted, "--components", "two"), "3,5,7"),
        (("fit", counted, "--components", "0"), "0 components"),
        (("fit", counted, "--fit", "best"), "paper, converged"),
        (("fit", counted, "--method", "magic"), "minibatch"),
        (("fit", counted, "--model", "published", "--figure", tmp_path / "x.png"), "--figure"),
        (("validate", "robustness", counted, "--sizes", "9"), "5 scans"),
        (("validate", "robustness", tmp_path / "none.zarr"), "no store"),
        (("validate", "bootstrap", counted, "--refits", "1"), "2 or more"),
        (("validate", "strata", counted, "--by", "kernel"), "no other attribute gives two groups"),
        (("validate", "strata", counted, "--by", "kernel", "--min-scans", 1), "--min-scans 1 is not possible"),
    ]:
        done = run_here(*words)
        assert done.returncode == 2, (words, done.stdout, done.stderr)
        assert message in done.stderr.replace("\n", " "), (words, done.stderr)


def test_measure_excludes_regions_and_writes_radiomics_and_parquet(store):
    folder, _ = store
    plain = json.loads(run_here("measure", folder / "s.zarr", "--json").stdout)["measurements"][0]
    words = ("measure", folder / "s.zarr", "--exclude-airways", "--exclude-elsewhere", "--radiomics", "--json")
    answer = json.loads(run_here(*words).stdout)
    row = answer["measurements"][0]
    assert row["lung_ml"] == pytest.approx(row["right_ml"] + row["left_ml"])
    assert row["left_out_ml"] == pytest.approx(plain["airway_ml"] + plain["elsewhere_ml"])
    assert plain["lung_ml"] == pytest.approx(row["lung_ml"] + row["left_out_ml"])
    assert [features["region"] for features in answer["radiomics"]] == [
        "lung", "air", "healthy", "ggo", "consolidation", "other",
    ]  # fmt: skip
    for name, rows in (("measurements", answer["measurements"]), ("radiomics", answer["radiomics"])):
        table = pyarrow.parquet.read_table(folder / "s.zarr" / f"{name}.parquet")
        text = (folder / "s.zarr" / f"{name}.csv").read_text().splitlines()
        assert text[0].split(",") == table.column_names == list(rows[0])
        assert table.to_pylist() == rows
        columns = json.loads(run_here("measure", "--dictionary", "--json").stdout)[name]
        assert [features["column"] for features in columns] == table.column_names
    assert "haa_600_250" in run_here("measure", "--dictionary").stdout
    assert run_here("measure").returncode == 2


def test_measure_computes_missing_regions(store, client, tmp_path):
    folder, _ = store
    shutil.copytree(folder / "s.zarr", tmp_path / "s.zarr")
    before = json.loads(run_here("measure", tmp_path / "s.zarr", "--json").stdout)["measurements"]
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "r+")
    CaseWriter(cohort["case-001"]).start_stage("side", "another")
    again = run_here("measure", tmp_path / "s.zarr", "--scheduler", client.scheduler.address, "--json")
    assert json.loads(again.stdout)["measurements"] == before, again.stderr
    assert "side" in lungmix.open_cohort(tmp_path / "s.zarr")["case-001"].stages


def test_scores_print_a_table_or_one_json_object_and_write_figure_5(counted, tmp_path):
    assert run_here("fit", counted, "--model", "published", "--json").returncode == 0
    cohort = lungmix.open_cohort(counted, "r+")
    for case in cohort.values():
        CaseWriter(case).record("label", {"key": "label"})
    measure_cohort(cohort, list(cohort), lungmix.load_model("published"))
    file = tmp_path / "scores.csv"
    file.write_text(
        "case,S,age\n" + "".join(f"case-00{i},{s},5{i}\n" for i, s in zip(range(1, 6), "32140", strict=True))
    )
    words = ("validate", "scores", counted, "--scores", file, "--out", tmp_path / "out")
    done = run_here(*words)
    assert done.returncode == 0, done.stderr
    assert "Pearson" in done.stdout
    answer = json.loads(run_here(*words, "--json").stdout)
    assert [row["case"] for row in answer["scans"]] == list(cohort)
    assert {resampling["draw"] for resampling in answer["resamplings"]} == {"proportional", "equal"}
    assert [row["computed_score"] for row in answer["scans"]] != [None] * 5
    assert sum(map(sum, answer["agreement"]["confusion"])) == 5
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "scores-agreement.png", "scores-agreement.svg", "scores.csv", "scores.png", "scores.svg",
    ]  # fmt: skip
    file.write_text("case,S_anna,S_ben\n" + "".join(f"case-00{i},{s},{s}\n" for i, s in enumerate("32140", start=1)))
    answer = json.loads(run_here(*words, "--consensus", "ben", "--json").stdout)
    assert answer["readers"]["consensus"] == "ben"
    assert answer["readers"]["pairs"][0]["equal"] == 100
    assert (tmp_path / "out" / "scores-readers.svg").exists()
    assert "anna, ben" in run_here(*words).stdout
    done = run_here(*words, "--detection-limit", "6")
    assert done.returncode == 2
    assert "detection limit of 6 % is not possible" in done.stderr.replace("\n", " ")
    file.write_text("case,S\ncase-001,7\n")
    done = run_here(*words)
    assert done.returncode == 2
    assert "whole numbers from 0 to 5" in done.stderr.replace("\n", " ")


def test_debug_shows_the_traceback(tmp_path):
    assert "Traceback" in run("info", tmp_path / "none.zarr", "--debug").stderr


def test_help_and_version():
    assert run("--version").stdout.strip() == f"lungmix {lungmix.__version__}"
    for command in (
        "run", "convert", "mask", "fit", "label", "measure", "info", "report", "export", "serve", "validate robustness",
        "validate bootstrap", "validate scores", "validate severity", "validate strata", "validate groups",
    ):  # fmt: skip
        done = run_here(*command.split(), "--help")
        assert done.returncode == 0
        assert f"lungmix {command} cohort.zarr" in done.stdout
