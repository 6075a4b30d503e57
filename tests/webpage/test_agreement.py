"""Agreement with references in the report of a cohort: figures, captions, and the slices that differ most."""

import csv
import json
import shutil

import numpy as np
import pytest
from matplotlib.colors import to_hex

import lungmix
from lungmix.callbacks import Callback
from lungmix.kernels.data_dictionary import EVALUATION
from lungmix.pipeline import Pipeline
from lungmix.stages.evaluation_rows import store_evaluations
from lungmix.stages.worst_slices import MAX_SLICES, WorstSlice, add_slice, store_slices, stored_slices
from lungmix.store import CohortWriter
from lungmix.store.schema import EVALUATION_FILE, EVALUATION_SLICES_FILE
from lungmix.webpage.agreement_figures import (
    REFERENCE_COLOR,
    STORE_COLOR,
    agreement_figure,
    limits_of_agreement,
    worst_slices_figure,
)
from lungmix.webpage.page import write_page
from lungmix.webpage.pictures import draw_evaluation
from support.labelled import labelled_store


def row(case, dice, volume=1000.0, reference=900.0, region="mask", worst_slice=8):
    values = {column.key: 1.0 for column in EVALUATION}
    named = {"case": case, "region": region, "dice": dice, "volume_ml": volume, "reference_ml": reference}
    return {**values, **named, "worst_slice": worst_slice, "grid": "same", "mask": "paper", "model": "published"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agreement")
    cohort, _ = labelled_store(folder / "s.zarr", 4)
    return cohort, folder


@pytest.fixture
def evaluated(made):
    """Store of four cases, three of which were compared; in the reference of the second case, the lung is shifted."""
    cohort, folder = made
    CohortWriter(cohort).write_text(EVALUATION_FILE, "")
    rows = [row("case-001", 0.99), row("case-002", 0.5, 800.0), row("case-003", 0.9, 1200.0, 1000.0)]
    store_evaluations(cohort, rows, EVALUATION_FILE)
    for values in rows:
        name = str(values["case"])
        reference = np.roll(cohort[name].zarr_array("lung")[8] > 0, 3, axis=1)
        add_slice(cohort, WorstSlice(name, "mask", 8, reference), float(values["dice"]))
    store_slices(cohort)
    return cohort, folder, rows


def test_kept_slices_are_those_of_the_worst_dice_and_the_same_when_read(evaluated):
    cohort, _, _ = evaluated
    slices = stored_slices(cohort)
    assert [worst.case for worst in slices] == ["case-002", "case-003", "case-001"]
    expected = np.roll(cohort["case-002"].zarr_array("lung")[8] > 0, 3, axis=1)
    assert expected.any()
    assert np.array_equal(slices[0].reference, expected)
    assert np.array_equal(slices[0].segment(cohort["case-002"]), cohort["case-002"].zarr_array("lung")[8] > 0)


def test_slices_of_rows_that_changed_are_not_shown_and_only_few_are_kept(evaluated, tmp_path):
    cohort, _, _ = evaluated
    store_evaluations(cohort, [row("case-002", 0.6, worst_slice=9), row("case-003", float("nan"))], EVALUATION_FILE)
    assert [worst.case for worst in stored_slices(cohort)] == ["case-001"]
    many = [row("case-001", n / 10, region=region) for n, region in enumerate(("air", "healthy", "ggo", "other"))]
    many += [row("case-004", n / 10, region=region) for n, region in enumerate(("air", "healthy", "ggo", "other"))]
    store_evaluations(cohort, many, EVALUATION_FILE)
    plane = np.zeros(cohort["case-001"].geometry.shape[1:], bool)
    for values in many:
        add_slice(cohort, WorstSlice(str(values["case"]), str(values["region"]), 8, plane), float(values["dice"]))
    store_slices(cohort)
    kept = stored_slices(cohort)
    assert [worst.region for worst in kept] == ["air", "air", "healthy", "healthy", "ggo", "ggo"]
    assert len(kept) == MAX_SLICES


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", '[{"case": "case-001"}]',
     json.dumps([WorstSlice("case-001", "mask", 8, np.ones((2, 2), bool)).to_dict()])],
)  # fmt: skip
def test_file_that_cannot_be_read_has_no_slices(evaluated, content):
    cohort, folder, _ = evaluated
    (folder / "s.zarr" / EVALUATION_SLICES_FILE).write_text(content)
    assert stored_slices(cohort) == []


def test_removed_case_leaves_no_slice_of_its_reference(evaluated, tmp_path):
    _, folder, _ = evaluated
    copy = shutil.copytree(folder / "s.zarr", tmp_path / "copy.zarr")
    assert "case-002" in (copy / EVALUATION_SLICES_FILE).read_text()
    cohort = lungmix.open_cohort(copy, "r+")
    Pipeline(None, cohort).remove(["case-002"])
    slices = json.loads((copy / EVALUATION_SLICES_FILE).read_text())
    assert [values["case"] for values in slices] == ["case-003", "case-001"]
    assert [worst.case for worst in stored_slices(cohort)] == ["case-003", "case-001"]
    (copy / EVALUATION_SLICES_FILE).write_text('[{"case": "case-001"')
    Pipeline(None, cohort).remove(["case-001"])
    assert json.loads((copy / EVALUATION_SLICES_FILE).read_text()) == []


def test_limits_of_agreement_are_the_mean_and_196_standard_deviations(evaluated):
    _, _, rows = evaluated
    differences = [100.0, -100.0, 200.0]
    mean, low, high = limits_of_agreement(rows)
    assert mean == pytest.approx(np.mean(differences))
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(differences, ddof=1))
    assert limits_of_agreement(rows[:2]) is None


def test_volumes_and_differences_are_drawn_by_region(evaluated):
    _, _, rows = evaluated
    axes = agreement_figure([*rows, row("case-001", 1.0, 5.0, 4.0, "right")]).axes
    assert [a.get_title(loc="left") for a in axes] == [
        "Volumes: mask, 3 cases", "Differences: mask, 3 cases", "Volumes: right, 1 case", "Differences: right, 1 case",
    ]  # fmt: skip
    points = axes[0].collections[0].get_offsets()
    assert np.allclose(points, [(r["reference_ml"], r["volume_ml"]) for r in rows])
    points = axes[1].collections[0].get_offsets()
    assert np.allclose(points, [(950, 100), (850, -100), (1100, 200)])
    axes[1].figure.canvas.draw()
    # The texts are next to the axes, where there are no points.
    assert [text.get_window_extent().x0 > axes[1].bbox.x1 for text in axes[1].texts] == [True] * 3


def test_worst_slices_have_the_contours_of_both(evaluated):
    cohort, _, rows = evaluated
    figure = worst_slices_figure(cohort, stored_slices(cohort), rows)
    first = figure.axes[0]
    assert first.get_title(loc="left") == "case-002, slice 8\nmask, Dice 0.500"
    colors = [to_hex(collection.get_edgecolor()[0]) for collection in first.collections]
    assert colors == [REFERENCE_COLOR, STORE_COLOR]


def test_worst_slice_of_a_damaged_shard_has_no_picture_and_the_others_have(evaluated, tmp_path):
    _, folder, rows = evaluated
    copy = shutil.copytree(folder / "s.zarr", tmp_path / "copy.zarr")
    damage(copy / "case-002" / "0")
    cohort = lungmix.open_cohort(copy)
    first, second = worst_slices_figure(cohort, stored_slices(cohort), rows).axes[:2]
    assert first.get_title(loc="left").endswith("no picture: it cannot be read")
    assert not first.images
    assert second.get_title(loc="left") == "case-003, slice 8\nmask, Dice 0.900"
    assert second.images
    assert 'src="figures/worst_slices.svg"' in write_page(cohort, tmp_path / "page").read_text()


def test_figure_of_a_damaged_shard_is_missing_with_a_warning(evaluated, tmp_path):
    _, folder, _ = evaluated
    copy = shutil.copytree(folder / "s.zarr", tmp_path / "copy.zarr")
    for case in copy.glob("case-*"):
        damage(case / "labels" / "lung" / "0")
    warnings = Warnings()
    text = write_page(lungmix.open_cohort(copy), tmp_path / "page", callback=warnings).read_text()
    assert [message for message in warnings.seen if message.startswith("no figure: ")]
    assert 'src="figures/pipeline.svg"' not in text
    assert 'src="figures/slices.svg"' in text
    assert 'src="figures/worst_slices.svg"' in text


class Warnings(Callback):
    """Callback that stores warnings."""

    def __init__(self):
        self.seen = []

    def on_warning(self, message):
        self.seen.append(message)


def damage(level):
    """Invert the last bytes of every shard of a resolution level."""
    shards = [path for path in (level / "c").rglob("*") if path.is_file()]
    assert shards
    for path in shards:
        content = bytearray(path.read_bytes())
        content[-40:] = bytes(255 - byte for byte in content[-40:])
        path.write_bytes(content)


def test_page_has_the_figures_their_numbers_and_their_files(evaluated, tmp_path):
    cohort, _, rows = evaluated
    text = write_page(cohort, tmp_path / "page").read_text()
    assert '<a href="#agreement">Agreement</a>' in text
    assert "Mask: 3 cases, median Dice 0.900, mean difference +67 mL (−233 to +366)." in text
    assert "case-002, mask, slice 8; case-003, mask, slice 8; case-001, mask, slice 8." in text
    figures = tmp_path / "page" / "figures"
    for name in ("agreement", "worst_slices"):
        assert f'src="figures/{name}.svg"' in text
        assert (figures / f"{name}.png").stat().st_size > 5000
    table = list(csv.DictReader((figures / "agreement.csv").open()))
    assert [float(r["dice"]) for r in table] == [r["dice"] for r in rows]


def test_cohort_without_an_evaluation_has_no_section(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    assert draw_evaluation(cohort, tmp_path) == []
