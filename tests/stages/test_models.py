"""A store whose labels are by another mixture than its model: tables, commands, page and exports all say so."""

import csv
import io
import json
import re
import shutil

import nibabel
import numpy as np
import pyarrow.parquet
import pydicom
import pytest
import SimpleITK as sitk

import lungmix
from lungmix.cli.app import _status_of
from lungmix.errors import StoreError
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.parameters import FitParameters
from lungmix.pipeline import Pipeline
from lungmix.stages.measure import comparable_measurements, read_measurements, rows_of_case
from lungmix.store import CaseWriter, CohortWriter
from lungmix.store.models import model_use, text_of_mask
from lungmix.store.tables import text_of
from lungmix.webpage.page import write_page
from support.labelled import label_record, labelled_store

TABLES = ("measurements.csv", "measurements.parquet", "radiomics.csv", "radiomics.parquet")
NAME = f"published:{PUBLISHED.digest}"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Store with labels by the published mixture, and with both tables of measurements."""
    url = tmp_path_factory.mktemp("models") / "cohort.zarr"
    labelled_store(url, 3)
    assert not Pipeline(None, lungmix.open_cohort(url, "r+")).measure(radiomics=True).failed
    return url


@pytest.fixture(scope="module")
def fitted(published):
    """The same store after a fit, so that no labels are by the model of the store."""
    url = shutil.copytree(published, published.parent / "fitted.zarr")
    Pipeline(None, lungmix.open_cohort(url, "r+")).fit()
    return url


@pytest.fixture
def store(fitted, tmp_path):
    return shutil.copytree(fitted, tmp_path / "copy.zarr")


def contents(url):
    return {file: (url / file).read_bytes() for file in TABLES}


def test_digest_depends_only_on_the_numbers_of_a_mixture():
    other = TissueModel(PUBLISHED.weights, PUBLISHED.means, PUBLISHED.variances, {"name": "paper"})
    assert other.digest == PUBLISHED.digest == TissueModel.from_json(PUBLISHED.to_json()).digest
    means = (*PUBLISHED.means[:-1], np.nextafter(PUBLISHED.means[-1], 0))
    assert TissueModel(PUBLISHED.weights, means, PUBLISHED.variances).digest != PUBLISHED.digest


def test_rows_contain_preset_and_mixture(published):
    for file in ("measurements.csv", "radiomics.csv"):
        rows = list(csv.DictReader(io.StringIO((published / file).read_text())))
        assert {row["model"] for row in rows} == {NAME}
        assert {row["mask"] for row in rows} == {"physical"}
    table = pyarrow.parquet.read_table(published / "measurements.parquet")
    assert set(table["model"].to_pylist()) == {NAME}


def test_fit_says_that_labels_are_by_another_model(published, tmp_path, capsys):
    url = shutil.copytree(published, tmp_path / "s.zarr")
    assert _status_of(["fit", str(url), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "3 cases carry labels by another model (published:" in err
    assert f"run `lungmix label {url}`" in err
    assert "mixture of the labels" not in out
    assert "the model of the store is paper:" in out
    assert _status_of(["fit", str(url), "--quiet", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model_id"].startswith("paper:")
    assert answer["stale_labels"] == dict.fromkeys(lungmix.open_cohort(url), NAME)
    assert _status_of(["fit", str(url), "--model", "published"]) == 0
    assert "another model" not in capsys.readouterr().err


def test_measure_rejects_labels_by_another_model_and_keeps_the_tables(store, capsys):
    before = contents(store)
    assert _status_of(["measure", str(store), "--quiet", "--radiomics", "--json"]) == 1
    out, err = capsys.readouterr()
    assert list(json.loads(out)["failed"]) == list(lungmix.open_cohort(store))
    assert "another model" in err
    assert contents(store) == before


def test_measure_drops_rows_of_missing_labels_and_keeps_the_headers(store):
    heads = {file: (store / file).read_text().splitlines()[0] for file in TABLES if file.endswith("csv")}
    cohort = lungmix.open_cohort(store, "r+")
    CaseWriter(cohort["case-001"]).start_stage("label", "of a run that was killed")
    Pipeline(None, cohort).measure()
    assert [row["case"] for row in read_measurements(cohort)] == ["case-002", "case-003"]
    for name in ("case-002", "case-003"):
        CaseWriter(cohort[name]).start_stage("label", "of a run that was killed")
    report = Pipeline(None, cohort).measure()
    assert set(report.failed) == set(cohort)
    for file, head in heads.items():
        assert (store / file).read_text() == f"{head}\n"
        twin = pyarrow.parquet.read_table(store / file.replace(".csv", ".parquet"))
        assert (twin.column_names, twin.num_rows) == (head.split(","), 0)


def test_table_never_holds_rows_of_two_models(store):
    cohort = lungmix.open_cohort(store, "r+")
    model = cohort.model
    label_record(cohort["case-002"], model, "paper")
    report = Pipeline(None, cohort).measure()
    assert set(report.failed) == {"case-001", "case-003"}
    rows = read_measurements(cohort)
    assert [(row["case"], row["model"]) for row in rows] == [("case-002", f"paper:{model.digest}")]


def test_rows_of_given_and_computed_masks_name_a_remedy_that_helps(store):
    cohort = lungmix.open_cohort(store, "r+")
    case = CaseWriter(cohort["case-002"])
    case.record("mask", {**case.stages["mask"], "from_file": {"kind": "image"}})
    rows = [row for case in cohort.values() for row in rows_of_case(case, TABLES[0], cohort.model)]
    CohortWriter(cohort).write_text(TABLES[0], text_of(rows))
    with pytest.raises(StoreError, match=r"2 different kinds of masks .*given.*`masks=PLACE`, .* `masks='none'`"):
        comparable_measurements(cohort)


def test_rows_of_two_models_are_not_compared(store, tmp_path, capsys):
    cohort = lungmix.open_cohort(store, "r+")
    label_record(cohort["case-002"], cohort.model, "paper")
    rows = [row for case in cohort.values() for row in rows_of_case(case, TABLES[0], case.model)]
    CohortWriter(cohort).write_text(TABLES[0], text_of(rows))
    with pytest.raises(StoreError, match=r"2 different models .*paper:"):
        comparable_measurements(cohort)
    (tmp_path / "scores.csv").write_text("case,S\ncase-001,1\ncase-002,3\ncase-003,5\n")
    words = ["validate", "scores", str(store), "--scores", str(tmp_path / "scores.csv"), "--out", str(tmp_path / "out")]
    assert _status_of(words) == 2
    assert "different models" in capsys.readouterr().err
    page = write_page(cohort, tmp_path / "page", scores={"case-001": 1, "case-002": 3, "case-003": 5}).read_text()
    assert "median lung involvement" not in page
    assert "figure-scores" not in page


def test_info_names_preset_and_models_and_where_they_disagree(published, store, capsys):
    assert _status_of(["info", str(published)]) == 0
    out = capsys.readouterr().out
    assert f"model of the store: {NAME}" in out
    assert "masks: physical" in out
    assert "warning" not in out
    assert _status_of(["info", str(store)]) == 0
    assert "warning: 3 cases carry labels by another model (published:" in capsys.readouterr().out
    assert _status_of(["info", str(store), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["made_with"]["model"].startswith("paper:")
    assert set(answer["made_with"]["labels"].values()) == {NAME}
    assert len(answer["warnings"]) == 1


def test_masks_of_several_presets_are_named(store, capsys):
    cohort = lungmix.open_cohort(store, "r+")
    case = CaseWriter(cohort["case-001"])
    case.record("mask", {**case.stages["mask"], "parameters": {"preset": "paper", "threshold": -300}})
    assert _status_of(["info", str(store)]) == 0
    said = "masks were computed with different parameters (paper threshold=-300: 1 case, physical: 2 cases)"
    assert said in capsys.readouterr().out


def test_page_names_the_mixture_of_the_labels_and_not_the_one_of_the_store(store, tmp_path, capsys):
    assert _status_of(["report", str(store), str(tmp_path / "page"), "--quiet"]) == 0
    assert "another model" in capsys.readouterr().err
    page = (tmp_path / "page" / "index.html").read_text()
    (warning,) = re.findall(r'<p class="warning" role="note">(.*?)</p>', page)
    assert str(model_use(lungmix.open_cohort(store)).stored) in warning
    assert NAME in warning
    assert str(store) not in page
    tags = dict(re.findall(r"<caption>[^<]*“(\w+)”\)(.*?)</caption>", page))
    assert "mixture of the labels" in tags["published"]
    assert "mixture of the labels" not in tags["paper"] + tags["converged"]
    assert "not yet of all labels" in tags["paper"]
    assert "Mixture of the labels: mixture of the publication (“published”)" in page
    script = (tmp_path / "page" / "data" / "case-001.js").read_text()
    histogram = json.loads(script[script.index("{") : script.rindex("}") + 1])["histogram"]
    centres = histogram["first"] + histogram["width"] * np.arange(len(histogram["labels"])) + 2
    assert histogram["labels"] == PUBLISHED.predict(centres).tolist()


def test_page_of_a_store_that_agrees_has_no_warning(published, tmp_path):
    page = write_page(lungmix.open_cohort(published), tmp_path / "page").read_text()
    assert 'class="warning"' not in page
    assert re.findall(r"<caption>[^<]*“(\w+)”\).*?mixture of the labels", page) == ["published"]


@pytest.mark.parametrize("extension", [".nrrd", ".mha", ".mhd", ".nii.gz", ".seg.nrrd", ".dcm"])
def test_exported_labels_name_their_mixture_and_the_command_warns(store, tmp_path, capsys, extension):
    file = tmp_path / f"case-001_tissue{extension}"
    words = ["export", str(store), "case-001", str(file), *(["--with-ct"] if extension == ".dcm" else [])]
    assert _status_of([*words, "--quiet", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["made_with"] == {"case-001": {"lungmix_mask": "physical", "lungmix_model": NAME}}
    assert "another model" in err
    if extension == ".nii.gz":
        assert nibabel.load(file).header["descrip"].item().decode() == f"mask physical; model {NAME}"
    elif extension == ".dcm":
        algorithm = pydicom.dcmread(file).SegmentSequence[1].SegmentationAlgorithmIdentificationSequence[0]
        assert NAME in algorithm.AlgorithmParameters
    else:
        image = sitk.ReadImage(str(file))
        assert image.GetMetaData("lungmix_model") == NAME
        case = lungmix.open_cohort(store)["case-001"]
        assert np.array_equal(sitk.GetArrayFromImage(image), case.array("tissue").compute())


def test_exported_scan_carries_no_model_and_no_warning(store, tmp_path, capsys):
    assert _status_of(["export", str(store), "case-001", str(tmp_path / "x.mha"), "--quiet", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["made_with"] == {"case-001": {}}
    assert err == ""


def test_python_distinguishes_the_model_of_the_store_and_of_the_labels(store):
    cohort = lungmix.open_cohort(store)
    assert cohort.model.fit_info["name"] == "paper"
    assert cohort["case-001"].model.digest == PUBLISHED.digest != cohort.model.digest
    assert NAME in cohort["case-001"]._repr_html_()
    assert NAME in cohort._repr_html_()


def test_later_fit_of_the_same_name_is_another_model(store):
    cohort = lungmix.open_cohort(store, "r+")
    for case in cohort.values():
        label_record(case, cohort.model, "paper")
    assert model_use(cohort).stale == {}
    Pipeline(None, cohort).fit(exclude_cases=["case-002"])
    use = model_use(cohort)
    assert set(use.stale) == set(cohort)
    assert {model_id.name for model_id in use.stale.values()} == {use.stored.name} == {"paper"}
    Pipeline(None, cohort).fit(fit=FitParameters(fit="converged"))
    assert model_use(cohort).stored.name == "converged"


def test_model_of_a_file_is_called_given_unless_it_is_the_published_one(store, tmp_path):
    cohort = lungmix.open_cohort(store, "r+")
    (tmp_path / "m.json").write_text(cohort.model.to_json())
    Pipeline(None, cohort).fit(tmp_path / "m.json")
    assert model_use(cohort).stored.name == "given"
    (tmp_path / "p.json").write_text(PUBLISHED.to_json())
    Pipeline(None, cohort).fit(tmp_path / "p.json")
    assert model_use(cohort).stored.name == "published"


def test_label_record_without_a_mixture_is_consistent(store):
    cohort = lungmix.open_cohort(store, "r+")
    for case, record in zip(cohort.values(), (None, {"weights": [1]}, "x"), strict=True):
        CaseWriter(case).record(
            "label", {"key": "of an earlier version"} | ({} if record is None else {"model": record})
        )
        assert case.model is None
    assert model_use(cohort).labels == {}
    assert model_use(cohort).warnings() == []


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"preset": "paper", "threshold": -155}, "paper"),
        ({"preset": "physical", "threshold": -155, "opening": None, "radii": None}, "physical"),
        ({"preset": "paper", "opening": 1, "radii": [30, 20]}, "paper opening=1 radii=30+20"),
    ],
)  # fmt: skip
def test_mask_is_named_by_its_preset_and_what_differs(parameters, text):
    assert text_of_mask(parameters) == text
