import json
import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import lungmix
from lungmix.analysis.comparison import compare_cases
from lungmix.callbacks import Callback
from lungmix.errors import UsageError
from lungmix.geometry import Geometry
from lungmix.parameters import FitParameters
from lungmix.stages.fit import fit_cohort, pool_counts, publish
from lungmix.stages.measure import WORDS, measure_cohort, read_measurements
from lungmix.store import MEASUREMENTS_FILE, CaseWriter, CohortWriter
from lungmix.webpage.figures import mixture_figure
from lungmix.webpage.page import write_page
from lungmix.webpage.pictures import MIN_SCANS, draw_robustness, draw_scores, model_title
from lungmix.webpage.scans import OPENING, histogram_of
from lungmix.webpage.volume import CLASSES, preview_of
from support.generators import counts_of_scans, store_of_counts
from support.labelled import add_case, label_record, labelled_store, unlabelled

HOSTILE = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    cohort, scores = labelled_store(folder / "cohort.zarr", 4)
    unlabelled(cohort, "empty", f"no lung: {HOSTILE}")
    return cohort, scores, write_page(cohort, folder / "page", {HOSTILE: HOSTILE}, scores=scores)


def delivered(path):
    text = path.read_text()
    assert text.startswith(OPENING)
    assert text.endswith(");\n")
    return json.loads(text[len(OPENING) : -3])


def unrolled(volume, name):
    """Array of a sheet of slices."""
    depth, height, width = volume["shape"]
    sheet = np.asarray(Image.open(BytesIO(b64decode(volume[name]))).convert("RGB"))[..., 0]
    rows = sheet.reshape(-1, height, volume["columns"], width).swapaxes(1, 2)
    return rows.reshape(-1, height, width)[:depth].astype(int)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_all_measurements_are_in_the_table(made):
    cohort, _, page = made
    text = page.read_text()
    for row in read_measurements(cohort):
        for key, value in row.items():
            # A missing value is an empty cell.
            shown = "" if value != value else value if key in WORDS else repr(value)
            data = {"case": f'data-case="{shown}"', "mask": f">{shown}<", "model": f">{shown}<"}
            assert data.get(key, f'data-value="{shown}"') in text, key


def test_text_from_files_stays_text(made):
    _, _, page = made
    text = page.read_text()
    assert HOSTILE not in text
    tags = Tags(text).tags
    assert [tag for tag, _ in tags].count("script") == 1
    assert not [attributes for _, attributes in tags if any(name.startswith("on") for name in attributes)]
    assert "alert(1)" in text, "the reason is shown as text"


def test_page_needs_no_network(made):
    _, _, page = made
    for tag, attributes in Tags(page.read_text()).tags:
        for name in ("src", "href"):
            assert not re.match(r"\w+:(?!,)|//", attributes.get(name, "")), (tag, attributes)
    text = page.read_text()
    assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z]+\.", text)
    assert "fetch(" not in text
    assert "XMLHttpRequest" not in text


def test_file_of_a_scan_holds_its_volume_and_is_light(made):
    cohort, _, page = made
    case = cohort["case-002"]
    path = page.parent / "data" / "case-002.js"
    assert path.stat().st_size < 500_000
    volume = delivered(path)["volume"]
    preview = preview_of(case)
    sheets = {name: unrolled(volume, name) for name in ("grey", "labels")}
    assert np.array_equal(sheets["labels"] / volume["spread"], preview.labels)
    assert volume["step"] * np.sqrt(((sheets["grey"] - preview.grey) ** 2).mean()) < 30
    assert volume["classes"] == CLASSES


def test_posteriors_are_in_the_viewer_on_request(made, tmp_path):
    cohort, _, page = made
    assert 'value="posterior"' not in page.read_text()
    assert "posterior" not in delivered(page.parent / "data" / "case-002.js")["volume"]
    text = write_page(cohort, tmp_path, posterior="consolidation").read_text()
    assert 'value="posterior"><span>Posterior: Consolidation</span>' in text
    assert 'data-posterior="4"' in text
    assert re.search(r'<option value="case-002" data-stamp="\w+-consolidation">', text)
    file = tmp_path / "data" / "case-002.js"
    volume = delivered(file)["volume"]
    preview = preview_of(cohort["case-002"], posterior="consolidation")
    shares = unrolled(volume, "posterior") / volume["posteriorSpread"]
    assert np.array_equal(shares, preview.posterior)
    assert 0 < shares.max() <= volume["posteriorSteps"]
    assert file.stat().st_size < 500_000


def test_labels_under_a_potts_prior_are_in_the_viewer_if_the_store_has_them(made, tmp_path):
    page = made[2]
    assert 'value="potts"' not in page.read_text()
    assert "potts" not in delivered(page.parent / "data" / "case-002.js")["volume"]
    cohort, _ = labelled_store(tmp_path / "s.zarr", scans=1, beta=0.5)
    text = write_page(cohort, tmp_path / "page").read_text()
    assert 'value="potts"><span>Potts prior</span>' in text
    assert re.search(r'<option value="case-001" data-stamp="\w+-potts0.5">', text)
    volume = delivered(tmp_path / "page" / "data" / "case-001.js")["volume"]
    assert np.array_equal(unrolled(volume, "potts") / volume["spread"], preview_of(cohort["case-001"]).potts)


def test_mixture_of_other_components_has_no_posteriors_of_tissues(tmp_path):
    model = lungmix.TissueModel((0.5, 0.5), (-900, 0), (2500, 40000))
    cohort = lungmix.open_cohort(tmp_path / "cohort.zarr", "a")
    ct = np.random.default_rng(0).normal(-500, 200, (20, 30, 30)).astype(np.int16)
    add_case(cohort, "one", ct, np.ones(ct.shape, np.uint8), Geometry((30, 30, 20)), model=model)
    write_page(cohort, tmp_path / "page", posterior="ggo")
    assert "posterior" not in delivered(tmp_path / "page" / "data" / "one.js")["volume"]


def test_posterior_of_an_unknown_tissue_is_rejected_before_anything_is_written(made, tmp_path):
    with pytest.raises(UsageError, match="no tissue 'heart': choose one of air, healthy, ggo, consolidation, other"):
        write_page(made[0], tmp_path / "page", posterior="heart")
    assert not (tmp_path / "page").exists()


def test_histogram_adds_up_to_all_lung_voxels(made):
    cohort, _, _ = made
    counts = cohort["case-001"].hu_counts
    drawn = histogram_of(counts, lungmix.load_model("published"))
    inside = sum(drawn["shares"]) * drawn["width"] / 10
    assert inside + drawn["below"] + drawn["above"] == pytest.approx(100, abs=0.01)
    parts = np.sum(drawn["components"]) * drawn["width"] / 1000
    assert 0.95 < parts < 1
    assert histogram_of(counts, None)["components"] == []


def test_preset_fit_and_publication_have_words_of_their_own(made):
    _, _, page = made
    text = page.read_text()
    assert ">Mask preset</button>" in text
    assert "<caption>Mixture of the publication (“published”)" in text
    assert "Mixture of the labels: mixture of the publication (“published”)." in text
    assert "As Figure 3 of Zaffino et al. 2021." in text
    assert not re.search(r"<h[23][^>]*>(?:Figure|Table) \d", text)
    assert "Fit “" not in text
    assert model_title("paper") == "fit as published (“paper”)"


def test_failed_cases_are_listed_with_their_reasons(made):
    _, _, page = made
    failed = page.read_text().split('id="failed-title"')[1]
    assert "empty" in failed
    assert "mask failed: no lung:" in failed


def test_every_figure_is_written_as_png_and_svg(made):
    _, _, page = made
    figures = page.parent / "figures"
    names = ("mixture", "pipeline", "slices", "scores", "score_agreement")
    assert {path.name for path in figures.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures.glob("*.png"))
    assert all("<svg" in path.read_text()[:1000] for path in figures.glob("*.svg"))


def test_robustness_is_drawn_of_cohorts_that_are_large_enough(tmp_path):
    few = store_of_counts(tmp_path / "few.zarr", counts_of_scans(MIN_SCANS - 1, 2000))
    assert draw_robustness(few, tmp_path) is None
    enough = store_of_counts(tmp_path / "enough.zarr", counts_of_scans(MIN_SCANS, 2000))
    steps = []
    picture = draw_robustness(enough, tmp_path, lambda done, total: steps.append((done, total)))
    assert picture.table
    assert "Mean distance" in picture.text
    assert steps[-1][0] == steps[-1][1]
    assert {path.suffix for path in (tmp_path / "figures").glob("robustness.*")} == {".csv", ".png", ".svg"}


def test_scores_are_drawn_for_cases_with_score_and_measurement(tmp_path):
    involvement = {"a": 1.0, "b": 12.0, "c": 30.0, "d": 31.0}
    assert draw_scores({"a": 0, "b": 2, "z": 4}, involvement, tmp_path) == []
    picture, agreement = draw_scores({"a": 0, "b": 2, "c": 3, "d": 3, "z": 4}, involvement, tmp_path)
    assert "of 4 scans" in picture.caption
    assert "S = 3: median 30.5 %" in picture.text
    assert "equal for 75 %" in agreement.text
    assert "area under the ROC curve of LI is 1.00" in agreement.text


def test_rewritten_page_drops_removed_cases_and_keeps_other_files(tmp_path):
    cohort, _ = labelled_store(tmp_path / "cohort.zarr", 2)
    page = write_page(cohort, tmp_path / "page")
    (tmp_path / "page" / "data" / "mine.js").write_text("1")
    first = {path.name: path.read_bytes() for path in (tmp_path / "page" / "data").iterdir()}
    CohortWriter(cohort).remove("case-001")
    assert write_page(cohort, tmp_path / "page") == page
    left = {path.name: path.read_bytes() for path in (tmp_path / "page" / "data").iterdir()}
    assert left == {name: first[name] for name in ("case-002.js", "mine.js")}
    assert 'data-case="case-001"' not in page.read_text()
    assert not list((tmp_path / "page").rglob("*.partial"))


def test_case_without_its_arrays_is_reported_and_the_others_are_shown(tmp_path):
    cohort, _ = labelled_store(tmp_path / "cohort.zarr", 2)
    CaseWriter(cohort["case-001"]).delete_array("labels/tissue")
    page = write_page(cohort, tmp_path / "page")
    assert "no view: case case-001 has no labels/tissue" in page.read_text()
    assert [path.name for path in (tmp_path / "page" / "data").iterdir()] == ["case-002.js"]


def test_callback_receives_every_case(tmp_path):
    class Recorder(Callback):
        def __init__(self):
            self.cases = []

        def on_case_end(self, case, failure=None):
            self.cases.append((case, failure))

    cohort, _ = labelled_store(tmp_path / "cohort.zarr", 2)
    recorder = Recorder()
    write_page(cohort, tmp_path / "page", callback=recorder)
    assert sorted(recorder.cases) == [("case-001", None), ("case-002", None), ("figures", None)]


def test_page_of_an_empty_store_and_of_unlabelled_cases(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "cohort.zarr", "a")
    assert "holds no case yet" in write_page(cohort, tmp_path / "page").read_text()
    unlabelled(cohort, "a", "no lung")
    text = write_page(cohort, tmp_path / "page").read_text()
    assert "no labels" in text
    assert 'id="view"' not in text


def test_unknown_columns_are_shown_too(tmp_path):
    cohort, _ = labelled_store(tmp_path / "cohort.zarr", 1)
    header, values = cohort.read_text(MEASUREMENTS_FILE).splitlines()
    CohortWriter(cohort).write_text(MEASUREMENTS_FILE, f"{header},left_lung_ml\n{values},1234.5\n")
    text = write_page(cohort, tmp_path / "page").read_text()
    assert "Left lung (mL)" in text
    assert 'data-value="1234.5"' in text


def test_name_of_the_store_is_shown_without_the_folders_above(tmp_path):
    cohort, _ = labelled_store(tmp_path / "Jane Doe" / "cohort.zarr", 1)
    page = write_page(cohort, tmp_path / "page")
    assert "<h1>cohort.zarr</h1>" in page.read_text()
    assert all(b"Jane" not in path.read_bytes() for path in (tmp_path / "page").rglob("*.*"))


def test_names_of_scanners_are_escaped(tmp_path):
    labelled_store(tmp_path / "cohort.zarr", 1)
    odd = {"manufacturer": HOSTILE, "model": "'\"&\u2028"}
    writable = lungmix.open_cohort(tmp_path / "cohort.zarr", "r+")["case-001"]
    writable._group.attrs["lungmix"] = {**writable._attributes, "acquisition": odd}
    page = write_page(lungmix.open_cohort(tmp_path / "cohort.zarr"), tmp_path / "page")
    assert HOSTILE not in page.read_text()
    assert delivered(page.parent / "data" / "case-001.js")["scanner"] == "other"


def test_failed_checks_of_the_mixture_of_the_labels_are_listed(tmp_path):
    cohort, _ = labelled_store(tmp_path / "cohort.zarr", 1)
    assert "mixture are doubtful" not in write_page(cohort, tmp_path / "good").read_text()
    model = lungmix.load_model("published")
    wide = replace(model, variances=(*model.variances[:3], 475.0**2, model.variances[4]))
    for case in cohort.values():
        label_record(case, wide, "given")
    publish(cohort, wide, {"given": True})
    measure_cohort(cohort, list(cohort), wide)
    text = write_page(lungmix.open_cohort(tmp_path / "cohort.zarr"), tmp_path / "page").read_text()
    assert "Labels by this mixture are doubtful" in text
    assert "<li>Consolidation: its standard deviation 475 HU is 250 HU or more" in text


def test_diagnosis_of_every_fit_is_on_the_page_as_on_the_terminal(tmp_path):
    cohort, _ = labelled_store(tmp_path / "cohort.zarr", 2)
    parameters = FitParameters(fit="anchored")
    fits, _ = fit_cohort(cohort, list(cohort), parameters)
    comparison = compare_cases(fits, cohort, list(cohort), pool_counts(cohort, list(cohort)), parameters.clip)
    text = write_page(cohort, tmp_path / "page").read_text()
    sections = {name: text.split(f"<caption>{model_title(name).capitalize()}")[1].split("</div>")[0] for name in fits}
    for name, item in comparison.diagnosis.items():
        section = sections[name]
        verdict = "doubtful" if item["doubtful"] else "pass"
        assert re.search(f'<p class="verdict"><span class="tag[^"]*">{verdict}</span>', section)
        assert f"distance from the published model: {100 * item['distance']:.1f} %" in section
        points = f"{item['involvement_shift']:+.1f}".replace("-", "−")
        assert f"published model: {points} points" in section
        for row in item["checks"]:
            assert f"<li>{'' if row['fails'] else 'remark: '}{row['text']}</li>" in section
    assert "remark: " in "".join(sections.values())
    published = text.split(f"<caption>{model_title('published').capitalize()}")[1].split("</div>")[0]
    assert '<span class="tag good">pass</span>' in published
    assert "distance from the published model: 0.0 %" in published


def test_folder_that_cannot_be_written_is_rejected(tmp_path):
    cohort, _ = labelled_store(tmp_path / "cohort.zarr", 1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"):
        write_page(cohort, tmp_path / "file" / "page")


def test_figure_of_the_mixture_shows_the_top_of_the_histogram_but_not_of_padding():
    hu = np.arange(-32768, 32768)
    counts = np.rint(1e6 * np.exp(-(((hu + 860) / 30) ** 2) / 2)).astype(np.uint64)
    counts[-1024 + 32768] = 10**8
    figure = mixture_figure(lungmix.load_model("published"), counts)
    top = figure.axes[0].get_ylim()[1]
    assert 1e6 / counts.sum() < top < 0.1 * 1e8 / counts.sum()
