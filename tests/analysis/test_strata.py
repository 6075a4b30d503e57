"""Strata: groups of scans with equal acquisition, their mixtures and their lung involvement."""

import csv
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import lungmix
from lungmix.analysis.case_groups import ATTRIBUTES, group_cases
from lungmix.analysis.comparison import involvement
from lungmix.analysis.strata import _check_groups, rows_of, study
from lungmix.cli.show_strata import show_strata, strata_values
from lungmix.errors import ModelError, UsageError
from lungmix.geometry import Geometry
from lungmix.kernels.measures import component_keys
from lungmix.mixture import PUBLISHED, TissueModel, diagnose, fit_anchored, fit_converged, fit_paper
from lungmix.mixture.distance import total_variation
from lungmix.parameters import FitParameters
from lungmix.privacy.acquisition import Acquisition
from lungmix.stages.fit import HU, fit_counts
from lungmix.store import CohortWriter
from lungmix.webpage.studies import write_strata
from support.generators import counts_of_scans, store_of_counts

SHARP = TissueModel(PUBLISHED.weights, PUBLISHED.means, tuple(v + 50.0**2 for v in PUBLISHED.variances))
KERNELS = {
    "case-001": "B70f", "case-002": "B31f", "case-003": "B31f", "case-004": "B70f", "case-005": "B31f",
    "case-006": None, "case-007": "B70f", "case-008": "B31f",
}  # fmt: skip
REFITS = 6


@pytest.fixture(scope="module")
def counts():
    soft, sharp = counts_of_scans(8, 20_000, spread=8.0), counts_of_scans(8, 30_000, spread=8.0, seed=1, model=SHARP)
    return {name: (sharp if kernel == "B70f" else soft)[name] for name, kernel in KERNELS.items()}


def store_by_kernel(url, counts):
    return store_of_counts(url, counts, {name: Acquisition(kernel=kernel) for name, kernel in KERNELS.items()})


@pytest.fixture
def cohort(tmp_path, counts):
    return store_by_kernel(tmp_path / "s.zarr", counts)


def members(kernel):
    return [name for name, other in KERNELS.items() if other == kernel]


def plain_refit(drawn, model, fit):
    if fit == "paper":
        return fit_paper(HU, drawn, clip=-1000)
    if fit == "anchored":
        return fit_anchored(HU, drawn, [model], clip=-1000)
    return fit_converged(HU, drawn, [model], clip=-1000, afresh=False)


def plain_stratum(names, counts, model_of_all, seed, fit, weigh):
    """Fit, lung involvement and intervals of a group, from whole histograms that are added up in loops."""
    scaled = weigh == "scans" and fit != "paper"
    total = sum(counts[name] for name in names)
    pooled = sum(counts[name] / counts[name].sum() for name in names) * (total.sum() / len(names)) if scaled else None
    model = fit_counts(total, FitParameters(), pooled)[fit]
    times = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), size=REFITS)
    own_values, values_by_all, columns = [], [], []
    for row in times:
        drawn, fitted = np.zeros(65536, np.uint64), np.zeros(65536)
        for name, count in zip(names, row, strict=True):
            drawn += np.uint64(count) * counts[name]
            fitted += int(count) * (counts[name] / counts[name].sum() if scaled else counts[name])
        refitted = plain_refit(fitted if scaled else drawn, model, fit)
        own_values.append(involvement(refitted, drawn))
        values_by_all.append(involvement(model_of_all or model, drawn))
        columns.append([*refitted.weights, *refitted.means, *np.sqrt(refitted.variances)])
    return SimpleNamespace(
        model=model,
        total=total,
        fitted=total if pooled is None else pooled,
        own=np.percentile(own_values, [2.5, 97.5]),
        pooled=np.percentile(values_by_all, [2.5, 97.5]),
        columns=np.percentile(columns, [2.5, 97.5], axis=0),
    )


@pytest.mark.parametrize(
    ("fit", "weigh"), [("paper", "voxels"), ("converged", "voxels"), ("anchored", "voxels"), ("anchored", "scans")]
)
def test_strata_equal_fits_of_summed_histograms(cohort, counts, fit, weigh):
    result = study(cohort, ["kernel"], FitParameters(fit=fit, weigh=weigh), refits=REFITS, seed=5)
    plain_of_all = plain_stratum(list(KERNELS), counts, None, (5, 0), fit, weigh)
    assert [stratum.group.name for stratum in result.groups] == ["B31f", "B70f", "unknown"]
    expected = {
        kernel: plain_stratum(members(kernel), counts, plain_of_all.model, (5, number), fit, weigh)
        for number, kernel in ((1, "B31f"), (2, "B70f"))
    }
    for stratum, plain in zip([*result.compared, result.everything], [*expected.values(), plain_of_all], strict=True):
        assert stratum.voxels == plain.total.sum()
        np.testing.assert_allclose(stratum.model.means, plain.model.means, rtol=1e-9, atol=1e-6)
        assert stratum.own_involvement.estimate == pytest.approx(involvement(plain.model, plain.total), abs=1e-9)
        assert stratum.pooled_involvement.estimate == pytest.approx(
            involvement(plain_of_all.model, plain.total), abs=1e-9
        )
        assert [stratum.own_involvement.low, stratum.own_involvement.high] == pytest.approx(list(plain.own), abs=1e-6)
        assert [stratum.pooled_involvement.low, stratum.pooled_involvement.high] == pytest.approx(
            list(plain.pooled), abs=1e-6
        )
        np.testing.assert_allclose([i.low for i in stratum.parameters], plain.columns[0], rtol=1e-6)
        np.testing.assert_allclose([i.high for i in stratum.parameters], plain.columns[1], rtol=1e-6)
        means = [i.estimate for i in stratum.parameters if i.name == "mean"]
        assert means == list(stratum.model.means)
        assert [i.of for i in stratum.parameters if i.name == "mean"] == component_keys(5)
        texts = [check["text"] for check in stratum.checks]
        assert texts == diagnose(plain.model, plain.fitted).sentences()
        assert stratum.distance_to_all == pytest.approx(total_variation(plain.model, plain_of_all.model), abs=1e-9)
    (row,) = result.distances
    assert (row["first"], row["second"]) == ("B31f", "B70f")
    assert row["distance"] == pytest.approx(total_variation(*(plain.model for plain in expected.values())), abs=1e-9)


def test_strata_do_not_depend_on_the_order_of_cases(cohort, counts, tmp_path):
    reverse = store_by_kernel(tmp_path / "r.zarr", dict(reversed(counts.items())))
    first, second = (study(c, ["kernel"], FitParameters(fit="anchored"), refits=4) for c in (cohort, reverse))
    assert first == second
    items = list(cohort.items())
    assert group_cases(items, ["kernel"]) == group_cases(items[::-1], ["kernel"])


def test_same_seed_gives_the_same_intervals(cohort):
    parameters = FitParameters(fit="converged")
    first, second, other = (study(cohort, ["kernel"], parameters, refits=4, seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert first.groups[0].model == other.groups[0].model
    assert first.groups[0].own_involvement != other.groups[0].own_involvement


def test_groups_with_few_scans_are_listed_but_not_compared(cohort, counts):
    done = []
    result = study(cohort, ["kernel"], FitParameters(fit="converged"), refits=3, progress=lambda *at: done.append(at))
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    small = result.groups[-1]
    assert (small.group.name, small.scans, small.voxels) == ("unknown", 1, counts["case-006"].sum())
    assert small.model is small.own_involvement is small.pooled_involvement is None
    assert result.notes[0] == "listed, but not compared, because of fewer than 3 scans: unknown (1 scan)"
    assert result.notes[1] == "intervals tend to be too narrow for fewer than 20 scans: B31f (4), B70f (3)"
    # The mixture of all scans includes those of small groups.
    assert result.everything.voxels == sum(int(histogram.sum()) for histogram in counts.values())
    assert "unknown" not in {row["first"] for row in result.distances} | {row["second"] for row in result.distances}


def test_excluded_regions_do_not_count_as_lung_involvement(cohort, counts, monkeypatch):
    airway = SimpleNamespace(key="airway")
    monkeypatch.setattr("lungmix.analysis.strata.excluded_regions", lambda cohort: [airway])
    monkeypatch.setattr(
        "lungmix.analysis.strata.measured_counts", lambda case, excluded: np.where(HU < -900, 0, case.hu_counts)
    )
    result = study(cohort, ["kernel"], FitParameters(fit="converged"), refits=3)
    total = sum(counts[name] for name in members("B31f"))
    model = fit_counts(total, FitParameters()).converged
    assert result.groups[0].own_involvement.estimate == pytest.approx(
        involvement(model, np.where(HU < -900, 0, total)), abs=1e-6
    )
    assert result.groups[0].model == model


def case_with(spacing=1.0, **values):
    mask = {"mask": {"parameters": {"preset": "physical"}}}
    acquisition = Acquisition(**values)
    return SimpleNamespace(acquisition=acquisition, geometry=Geometry((9, 9, 9), (0.7, 0.7, spacing)), stages=mask)


@pytest.mark.parametrize(
    ("by", "case", "name"),
    [
        ("kvp", case_with(kvp=119.7), "120 kVp"),
        ("kvp", case_with(), "unknown"),
        ("scanner", case_with(manufacturer="SIEMENS", model="SOMATOM Force"), "SIEMENS SOMATOM Force"),
        ("scanner", case_with(), "unknown"),
        ("manufacturer", case_with(manufacturer="SIEMENS"), "SIEMENS"),
        ("model", case_with(model="SOMATOM Force"), "SOMATOM Force"),
        ("kernel", case_with(kernel="B70f"), "B70f"),
        ("slice-thickness", case_with(slice_thickness=1.0), "<= 1 mm"),
        ("slice-thickness", case_with(slice_thickness=1.25), "1 to 2.5 mm"),
        ("slice-thickness", case_with(slice_thickness=2.5), "1 to 2.5 mm"),
        ("slice-thickness", case_with(slice_thickness=3.0), "> 2.5 mm"),
        ("slice-thickness", case_with(slice_thickness=0.0), "unknown"),
        ("slice-spacing", case_with(spacing=1.0000001), "<= 1 mm"),
        ("slice-spacing", case_with(spacing=5.0), "> 2.5 mm"),
        ("preset", case_with(), "physical"),
    ],
)
def test_values_of_a_case_name_its_group(by, case, name):
    case.damage = {}
    (group,) = group_cases([("a", case)], [by])
    assert (group.name, group.values, group.cases) == (name, {by: name}, ("a",))


def test_spacing_of_slices_is_that_between_feet_and_head():
    sagittal = Geometry((9, 9, 9), (5.0, 1.0, 0.7), direction=(0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0))
    case = SimpleNamespace(geometry=sagittal)
    assert group_cases([("a", case)], ["slice-spacing"])[0].name == "> 2.5 mm"


def test_numbers_are_sorted_by_value_and_unknown_comes_last():
    values = [120.0, None, 80.0, 100.0, 120.0]
    cases = [(f"case-{i}", case_with(kvp=value)) for i, value in enumerate(values)]
    groups = group_cases(cases, ["kvp"])
    assert [group.name for group in groups] == ["80 kVp", "100 kVp", "120 kVp", "unknown"]
    assert groups[2].cases == ("case-0", "case-4")


def test_capital_letters_do_not_make_another_group():
    spellings = ["Siemens", "SIEMENS", "Philips", "Siemens"]
    cases = [(f"case-{i}", case_with(manufacturer=spelling)) for i, spelling in enumerate(spellings)]
    for items in (cases, cases[::-1]):
        groups = group_cases(items, ["manufacturer"])
        assert [(group.name, len(group.cases)) for group in groups] == [("Philips", 1), ("SIEMENS", 3)]


def test_several_attributes_give_combinations():
    cases = [
        ("a", case_with(kernel="B70f", kvp=120.0)),
        ("b", case_with(kernel="B70f", kvp=100.0)),
        ("c", case_with(kernel="B70f", kvp=120.4)),
        ("d", case_with(kvp=120.0)),
    ]
    groups = group_cases(cases, ["kernel", "kvp", "kernel"])
    assert {group.name: group.cases for group in groups} == {
        "B70f, 100 kVp": ("b",),
        "B70f, 120 kVp": ("a", "c"),
        "unknown reconstruction kernel, 120 kVp": ("d",),
    }
    assert groups[-1].values == {"kernel": "unknown", "kvp": "120 kVp"}


@pytest.mark.parametrize(
    ("by", "options", "match"),
    [
        (["kvp"], {}, "tube voltage of 8 scans is unknown, .* group `by` kernel$"),
        (["slice-spacing"], {}, "slice spacing of 8 scans is the same .> 2.5 mm., .* group `by` kernel$"),
        (
            ["kernel"],
            {"min_scans": 4},
            "fewer than two groups .* 4 scans or more .B31f has 4, B70f has 3.*: give `min_scans=3`, or add",
        ),
        (["kernel"], {"min_scans": 1}, "give 2 or more"),
        (["kernel"], {"refits": 1}, "2 or more refits"),
        (["colour"], {}, "cannot be grouped by 'colour': choose from scanner"),
        ([], {}, "no attribute"),
    ],
)
def test_impossible_strata_are_rejected_with_a_remedy(cohort, by, options, match):
    with pytest.raises(UsageError, match=match):
        study(cohort, by, FitParameters(), **options)


def test_remedies_give_two_groups_that_can_be_compared():
    cases = {
        name: case_with(kernel=kernel, kvp=kvp, manufacturer=manufacturer)
        for name, kernel, kvp, manufacturer in (
            ("a", "B31f", 100.0, "one"), ("b", "B70f", 120.0, "one"), ("c", "I30f", 100.0, "one"),
            ("d", "I50f", 120.0, "other"),
        )
    }  # fmt: skip

    def text_of(by, min_scans):
        with pytest.raises(UsageError) as caught:
            _check_groups(group_cases(cases.items(), by), cases, by, min_scans)
        return str(caught.value)

    assert text_of(["kernel"], 2).endswith(" has 1 and 1 more): group `by` kvp")
    assert "min_scans" not in text_of(["kernel"], 2)
    assert text_of(["kvp"], 3).endswith(
        ": give `min_scans=2`, or add scans, because no other attribute gives two groups of 3 scans or more"
    )
    _check_groups(group_cases(cases.items(), ["kvp"]), cases, ["kvp"], 2)


def test_group_that_cannot_be_fitted_is_named(tmp_path, counts, monkeypatch):
    monkeypatch.setattr("lungmix.stages.fit.findings_of", lambda case: [])
    flat = dict(counts)
    for name in members("B70f"):
        flat[name] = np.where(HU == -900, np.uint64(10_000), np.uint64(0))
    cohort = store_by_kernel(tmp_path / "flat.zarr", flat)
    with pytest.raises(ModelError, match="group B70f cannot be fitted: 5 components need"):
        study(cohort, ["kernel"], FitParameters(), refits=2)


def test_cases_with_implausible_hu_and_without_a_mask_are_left_out(cohort, monkeypatch):
    CohortWriter(lungmix.open_cohort(cohort.url, "a")).add("case-009", Geometry((9, 9, 9)), Acquisition(kernel="B31f"))
    monkeypatch.setattr("lungmix.stages.fit.findings_of", lambda case: ["stepped"] if case.name == "case-002" else [])
    result = study(lungmix.open_cohort(cohort.url), ["kernel"], FitParameters(fit="converged"), refits=2)
    assert result.groups[0].group.cases == ("case-003", "case-005", "case-008")
    assert "without a lung mask, or with implausible HU, left out: case-002, case-009" in result.notes


def test_memory_does_not_grow_with_the_number_of_scans(tmp_path):
    counts = counts_of_scans(4, 20_000)
    peaks = []
    for scans in (8, 48):
        names = [f"case-{i:03d}" for i in range(scans)]
        many = {name: counts[f"case-00{1 + i % 4}"] for i, name in enumerate(names)}
        kernels = {name: Acquisition(kernel=("B31f", "B70f")[i % 2]) for i, name in enumerate(names)}
        cohort = store_of_counts(tmp_path / f"{scans}.zarr", many, kernels)
        tracemalloc.start()
        study(cohort, ["kernel"], FitParameters(fit="converged"), refits=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 40 further histograms would take 20 MB.
    assert peaks[1] - peaks[0] < 4e6


def test_results_are_printed_and_written(cohort, tmp_path):
    result = study(cohort, ["kernel"], FitParameters(fit="anchored"), refits=3)
    files = write_strata(result, tmp_path / "out")
    assert [file.name for file in files] == ["strata.csv", "strata-distances.csv", "strata.png", "strata.svg"]
    assert files[2].read_bytes()[:4] == b"\x89PNG"
    lines = list(csv.DictReader(files[0].read_text().splitlines()))
    assert [line["group"] for line in lines] == ["B31f", "B70f", "unknown", "all"]
    assert [line["scans"] for line in lines] == ["4", "3", "1", "8"]
    assert lines[2]["lung_involvement_own"] == lines[2]["ggo_mean_low"] == ""
    assert float(lines[0]["lung_involvement_own"]) == result.groups[0].own_involvement.estimate
    assert float(lines[1]["air_sd"]) == pytest.approx(np.sqrt(result.groups[1].model.variances[0]))
    assert [list(line) for line in lines] == [list(row) for row in rows_of(result)]
    console = Console(record=True, width=80)
    show_strata(console, result, files)
    text = console.export_text()
    assert "Fit 'anchored' by kernel" in text
    assert f"{result.groups[0].own_involvement.estimate:.1f} ({result.groups[0].own_involvement.low:.1f}–" in text
    assert "note: listed, but not compared" in text
    values = strata_values("s", result, files)
    assert [group["compared"] for group in values["groups"]] == [True, True, False]
    assert values["groups"][0]["lung_involvement"][0]["estimate"] == result.groups[0].own_involvement.estimate
    assert values["all"]["scans"] == 8


def test_failed_checks_of_a_group_are_shown(tmp_path, counts):
    shifted = {name: np.roll(h, 120) if KERNELS[name] == "B70f" else h for name, h in counts.items()}
    cohort = store_by_kernel(tmp_path / "shifted.zarr", shifted)
    result = study(cohort, ["kernel"], FitParameters(fit="converged"), refits=2)
    doubtful = result.groups[1]
    assert doubtful.is_doubtful
    console = Console(record=True, width=200)
    show_strata(console, result, write_strata(result, tmp_path / "out"))
    failed = [check["text"] for check in doubtful.checks if check["fails"]]
    printed = console.export_text()
    assert all(f"B70f: {text}" in printed for text in failed)
    assert rows_of(result)[1]["checks"] == "; ".join(failed)


def test_figure_holds_many_groups_and_combinations(cohort, tmp_path):
    result = study(cohort, ["kernel"], FitParameters(fit="converged"), refits=2)
    first = result.groups[0]
    name = "SIEMENS SOMATOM Definition AS+, unknown reconstruction kernel, 120 kVp"
    many = tuple(replace(first, group=replace(first.group, name=f"{name} {i}")) for i in range(12))
    files = write_strata(replace(result, groups=many), tmp_path)
    assert all(file.stat().st_size for file in files)


def test_lungs_are_pooled_where_the_last_fit_pooled_them(cohort, counts, monkeypatch):
    lungs = {name: np.where(HU > -100, 0, histogram).astype(np.uint64) for name, histogram in counts.items()}
    monkeypatch.setattr("lungmix.analysis.strata.counts_of", lambda case, pool: lungs[case.name])
    result = study(cohort, ["kernel"], FitParameters(fit="converged", pool="lungs"), refits=2)
    total, pooled = (sum(table[name] for name in members("B31f")) for table in (counts, lungs))
    model = fit_counts(total, FitParameters(), pooled).converged
    assert result.groups[0].model == model
    assert result.groups[0].own_involvement.estimate == pytest.approx(involvement(model, total), abs=1e-9)
    paper = study(cohort, ["kernel"], FitParameters(fit="paper", pool="lungs"), refits=2)
    assert paper.groups[0].model == fit_counts(total, FitParameters()).paper


def test_every_attribute_has_a_name_for_people():
    assert all(attribute.title and attribute.name == name for name, attribute in ATTRIBUTES.items())
