"""The data card says with the numbers of the data set how it was made, which scans are doubtful, and what is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lungmix.mixture import PUBLISHED
from lungmix.publish import About, Creator, publish
from lungmix.publish.contents import contents_table
from lungmix.publish.sections import acquisition_text, limits_text, making_text, quality_text
from lungmix.publish.texts import description_of
from lungmix.quality_flags import FLAGS, RaisedFlag
from lungmix.store.models import ModelId
from lungmix.webpage.overview import overview_of
from support.labelled import labelled_store

ABOUT = About("Phantoms", "1.0", "CC0-1.0", (Creator("Doe, Jane"),))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return labelled_store(tmp_path_factory.mktemp("card") / "s.zarr", 2)[0]


@pytest.fixture(scope="module")
def overview(cohort):
    return overview_of(cohort)


def row(name, **values):
    cells = {"patient": name, "manufacturer": "", "scanner_model": "", "kvp": "", "slice_thickness": "", "kernel": ""}
    sizes = {f"{what}_{axis}": number for what, number in (("size", 9), ("spacing", 1.5)) for axis in "xyz"}
    return {"case": name, "score": "", "flags": "", **cells, **sizes, **values}


def rows_of(cohort, **values):
    return [row(name, **values) for name in cohort]


def test_card_has_weights_means_deviations_and_upper_ends_of_the_mixture(cohort, overview):
    text = making_text(overview, rows_of(cohort), PUBLISHED.to_json())
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(("| 1", "| 2", "| 5"))]
    for cells in lines:
        label = int(cells[0])
        assert float(cells[3]) == pytest.approx(100 * PUBLISHED.weights[label - 1], abs=0.05)
        assert float(cells[4]) == pytest.approx(PUBLISHED.means[label - 1], abs=0.5)
        assert float(cells[5]) == pytest.approx(PUBLISHED.variances[label - 1] ** 0.5, abs=0.5)
    for cells in lines[:2]:
        end = int(cells[6])
        assert PUBLISHED.predict([end, end + 1]).tolist() == [int(cells[0]), int(cells[0]) + 1]
    assert len(lines) == 3
    assert lines[2][6] == "no limit"


def test_card_explains_the_rules_of_masks_and_the_kind_of_mixture(cohort, overview):
    names = list(cohort)
    masks = {names[0]: "anatomical", names[1]: "paper threshold=-300"}
    labels = {names[0]: ModelId("anchored", "abc"), names[1]: ModelId("given", "def")}
    use = replace(overview.made_with, masks=masks, labels=labels, harmonised={names[0]: "moments"})
    changed = replace(overview, made_with=use)
    text = making_text(changed, rows_of(cohort), PUBLISHED.to_json())
    for words in (
        "rules *anatomical* (1 scan): lung is air below -300 HU",
        "rules *paper threshold=-300* (1 scan): air is below -155 HU",
        "mixture *anchored:abc* (1 scan) is fitted to the lung voxels",
        "mixture *given:def* (1 scan) is a mixture that the publisher gave",
        "Harmonisation of HU before all other steps, by moments",
        "There are no scores",
    ):
        assert words in text
    limits = limits_text(changed, rows_of(cohort))
    assert "rules anatomical have Dice coefficients of 0.98" in limits
    assert "rules paper have Dice coefficients of 0.95 (right) and 0.89 (left)" in limits


def test_card_summarises_volume_involvement_and_scores(cohort, overview):
    rows = [row("a", lung_ml=2000.0, lung_involvement=10.0, score=2), row("b", lung_ml=4000.0, lung_involvement="")]
    text = making_text(overview, rows, PUBLISHED.to_json())
    assert "Lung volume: median 3,000 mL, from 2,000 to 4,000. Lung involvement: median 10 %, from 10 to 10." in text
    assert "A radiologist scored 1 scan, by the part of the lungs that is involved: 0 none, 1 less than 5 %" in text


def test_card_counts_flags_with_their_thresholds_and_meanings(cohort, overview):
    names = list(cohort)
    flags = [RaisedFlag("cut_end", 9, 3.5, "cm²", "x"), RaisedFlag("small_side", 20, 30, "%", "x")]
    cases = [replace(case, quality=flags if case.name == names[0] else flags[:1]) for case in overview.cases]
    changed = replace(overview, cases=cases)
    text = quality_text(changed, rows_of(cohort, flags="cut_end"))
    assert text.startswith("2 of 2 scans have flags")
    assert "| cut_end | 2 | area of both lungs on the first and the last slice: is 3.5 cm² or more |" in text
    assert "| small_side | 1 | smaller lung, of both lungs: is less than 30 % |" in text
    assert "cut_end" not in quality_text(changed, rows_of(cohort)[:0])
    assert f"by {len(FLAGS)} rules. No scan has a flag" in quality_text(overview, rows_of(cohort))


def test_card_lists_scanners_sizes_and_spacings_of_the_published_scans():
    rows = [
        row("a", manufacturer="Siemens", scanner_model="Go", kvp=110.0, size_z=240),
        row("b", manufacturer="Siemens", scanner_model="Go", kvp=120.0, spacing_x=0.75),
        row("c"),
    ]
    text = acquisition_text(rows)
    assert "| Siemens | Go | 2 | 110 (1), 120 (1) | unknown | unknown |" in text
    assert "| unknown | unknown | 1 | unknown | unknown | unknown |" in text
    assert "Voxels along x, y, z: 9, 9, 9 to 240. Their spacing in mm: 0.75 to 1.5, 1.5, 1.5." in text
    assert description_of(rows).startswith("3 chest CT scans (258 slices) of 3 patients")


def test_card_lists_only_files_of_the_data_set():
    table = contents_table({"images/a/a_ct.nrrd": "a", "images/b/b_tissue.nii.gz": "b", "cases.csv": ""})
    listed = [line.split(" | ")[0].strip("| ") for line in table.splitlines()[2:]]
    assert listed == ["images/CASE/CASE_ct.nrrd", "images/CASE/CASE_IMAGE.nii.gz", "cases.csv"]


def test_reader_of_the_folder_alone_gets_answers(cohort, tmp_path):
    """A card names what, who, how, faults and loading, and explains words that only programmers of lungmix know."""
    assert publish(cohort, tmp_path / "d", ABOUT).is_complete
    text = (tmp_path / "d" / "README.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    for heading in ("Who may use it", "Files", "How to load it", "How it was acquired", "How it was made",
                    "Doubtful scans", "How it was de-identified", "Known limits"):  # fmt: skip
        assert f"## {heading}" in headings
    assert "store" not in text.replace("restore", "")
    assert "Hounsfield units (HU)" in text.split("##")[0]
