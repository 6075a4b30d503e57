"""Studies of cohorts that consist of histograms alone."""

import math
from itertools import product

import numpy as np
import pytest

from lungmix.analysis.bootstrap import Bootstrap, Interval, bootstrap, distinct_draws, rows_of
from lungmix.analysis.comparison import compare, involvement
from lungmix.analysis.robustness import default_sizes, study, total_variation
from lungmix.analysis.selection import bic_table
from lungmix.errors import UsageError
from lungmix.kernels.measures import measure_counts
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.parameters import FitParameters
from lungmix.stages.fit import add_counts, fit_counts
from oracle.posteriors import posteriors
from support.generators import counts_of_scans, expected_counts


@pytest.fixture(scope="module")
def counts():
    return counts_of_scans(12, 40_000)


@pytest.fixture(scope="module")
def fits(counts):
    return fit_counts(add_counts(counts), FitParameters())


def test_comparison_shows_all_fits_and_the_involvement_that_is_measured(counts, fits):
    comparison = compare(fits, counts, -1000)
    assert [row["case"] for row in comparison.involvement] == ["pooled", *counts]
    for row in comparison.involvement[1:]:
        for name, model in fits.items():
            measured = measure_counts(counts[row["case"]], model.lookup_table(), 1.0)
            assert row[name] == pytest.approx(measured["lung_involvement"])
    assert [row["converged.mean_hu"] for row in comparison.components] == list(fits.converged.means)
    assert [row["paper"] for row in comparison.thresholds] == fits.paper.map_thresholds()
    quality = {row["fit"]: row for row in comparison.quality}
    assert quality["converged"]["log_likelihood"] > quality["paper"]["log_likelihood"]
    assert quality["converged"]["bic"] < quality["paper"]["bic"]


def test_lung_involvement_of_an_empty_histogram_is_nan():
    assert np.isnan(involvement(PUBLISHED, np.zeros(65536, np.uint64)))


def test_fits_without_five_components_have_no_lung_involvement(counts):
    fits = fit_counts(add_counts(counts), FitParameters(n_components=2))
    comparison = compare(fits, counts, -1000)
    assert comparison.involvement == []
    assert [row["component"] for row in comparison.components] == ["component_1", "component_2"]


def test_bic_finds_the_number_of_components_that_the_counts_were_made_with():
    model = TissueModel((0.5, 0.3, 0.2), (-950.0, -700.0, -200.0), (2000.0, 6000.0, 20000.0))
    exact = expected_counts(model.weights, model.means, np.sqrt(model.variances), 1)
    drawn = np.random.default_rng(0).multinomial(300_000, exact / exact.sum()).astype(np.uint64)
    rows = bic_table(drawn, FitParameters(), [1, 2, 3, 4])
    assert [row["components"] for row in rows] == [1, 2, 3, 4]
    assert min(rows, key=lambda row: row["converged.bic"])["components"] == 3
    assert [row["parameters"] for row in rows] == [2, 5, 8, 11]


def test_bootstrap_gives_an_interval_to_every_parameter_and_threshold(counts, fits):
    seen = []
    result = bootstrap(counts, FitParameters(fit="converged"), refits=30, progress=lambda *at: seen.append(at))
    assert seen[-1] == (30, 30)
    assert [(i.name, i.of) for i in result.intervals][:-2:5] == [
        ("weight", "air"), ("mean", "air"), ("sd", "air"), ("threshold", "air → healthy"),
    ]  # fmt: skip
    assert len(result.intervals) == 5 + 5 + 5 + 4 + 2
    assert result.model.means == fits.converged.means
    for interval in result.intervals:
        assert interval.low < interval.high
        assert interval.low - 3 * interval.error < interval.estimate < interval.high + 3 * interval.error
    assert len(rows_of(result)) == len(result.intervals)


def test_bootstrap_gives_an_interval_to_the_expected_involvement(counts):
    result = bootstrap(counts, FitParameters(fit="converged"), refits=10)
    by_label, expected = result.intervals[-2:]
    assert (by_label.name, expected.name) == ("lung_involvement", "lung_involvement_expected")
    assert (expected.of, expected.unit) == ("pooled", "%")
    pooled = add_counts(counts)
    hu = np.repeat(np.arange(-32768, 32768), pooled.astype(int))
    shares = posteriors(hu, result.model).mean(axis=0)
    assert expected.estimate == pytest.approx(100 * shares[2:].sum(), rel=1e-9)
    assert expected.low < expected.estimate < expected.high


def test_bootstrap_of_the_anchored_fit_uses_its_prior(counts):
    far = TissueModel(PUBLISHED.weights, tuple(mean + 40 for mean in PUBLISHED.means), PUBLISHED.variances)
    results = [
        bootstrap(counts, FitParameters(fit="anchored", prior=far, prior_strength=strength), refits=4)
        for strength in (0.01, 1e4)
    ]
    assert np.allclose([model.means for model in results[1].models], far.means, atol=0.5)
    assert abs(results[0].model.means[1] - far.means[1]) > 20
    assert results[0].fit == "anchored"


def test_bootstrap_draws_scans_and_not_voxels():
    # Intervals are narrow for scans that differ only by the random draw of voxels, and wide for different scans.
    alike, apart = counts_of_scans(12, 40_000, spread=1e6), counts_of_scans(12, 40_000, spread=10)
    weight = [bootstrap(c, FitParameters(fit="converged"), refits=30).intervals[0].error for c in (alike, apart)]
    assert weight[1] > 3 * weight[0]


def test_bootstrap_of_the_same_seed_is_the_same(counts):
    first, second, other = (
        bootstrap(counts, FitParameters(fit=fit), refits=4, seed=seed)
        for fit, seed in (("paper", 1), ("paper", 1), ("paper", 2))
    )
    assert first.intervals == second.intervals != other.intervals


def test_bootstrap_notes_few_scans_and_estimates_at_a_bound():
    result = bootstrap(counts_of_scans(3, 20_000), FitParameters(fit="converged"), refits=20)
    assert result.notes[0].startswith("3 scans are too few: 10 different cohorts")
    assert "20 scans or more" in result.notes[0]
    enough = bootstrap(counts_of_scans(20, 5_000), FitParameters(fit="converged"), refits=20)
    assert not [note for note in enough.notes if "too few" in note]
    assert [row["estimate_at_end"] for row in rows_of(result)] == [
        int(interval.is_at_end) for interval in result.intervals
    ]


@pytest.mark.parametrize(
    ("estimate", "at_end"), [(1.0, True), (1.005, True), (1.5, False), (2.0, True), (2.5, True), (math.inf, True)]
)
def test_estimate_at_a_bound_of_its_interval_is_noted(estimate, at_end):
    interval = Interval("mean", "air", "HU", estimate, 1.0, 2.0, 0.1)
    assert interval.is_at_end == at_end
    notes = Bootstrap("converged", 62, 200, 95.0, [interval], PUBLISHED, ()).notes
    assert notes == (
        [
            "mean of air: the estimate is at a bound of its interval, so the interval does not show its "
            "uncertainty in that direction"
        ]
        if at_end
        else []
    )


def test_number_of_different_cohorts_equals_that_of_all_draws():
    for scans in (2, 3, 4, 5):
        drawn = {tuple(sorted(draw)) for draw in product(range(scans), repeat=scans)}
        assert distinct_draws(scans) == len(drawn)


@pytest.mark.parametrize(
    ("n", "options", "match"), [(1, {}, "two scans"), (3, {"refits": 1}, "2 or more"), (3, {"level": 100}, "100 %")]
)
def test_impossible_bootstrap_is_rejected(n, options, match):
    with pytest.raises(UsageError, match=match):
        bootstrap(counts_of_scans(n, 1000), FitParameters(), **options)


def test_groups_grow_by_ten_as_in_the_paper_and_fit_small_cohorts():
    assert default_sizes(62) == [10, 20, 30, 40, 50, 60]
    assert default_sizes(12) == [2, 4, 6, 8, 10]
    assert default_sizes(3) == [1, 2]
    assert default_sizes(1) == []


def test_groups_differ_less_the_more_scans_they_hold(counts):
    result = study(counts, FitParameters(), sizes=[2, 10], seed=3)
    assert [group.size for group in result.groups] == [2, 2, 2, 10, 10, 10]
    assert all(len(set(group.cases)) == group.size for group in result.groups)
    small, large = result.rows
    for fit in ("paper", "converged"):
        assert large[f"{fit}.distance"] < small[f"{fit}.distance"]
        assert large[f"{fit}.to_whole"] < small[f"{fit}.to_whole"]
        assert small[f"{fit}.distance"] <= small[f"{fit}.largest"]
    assert large["shared"] > small["shared"]


def test_group_of_all_scans_equals_the_cohort(counts):
    result = study(counts, FitParameters(), sizes=[12])
    assert result.rows[0]["converged.largest"] == 0
    assert result.groups[0].fits == result.cohort_fits
    assert result.rows[0]["shared"] == 100


def test_distance_is_zero_for_equal_and_one_for_disjoint_densities():
    model = TissueModel((1.0,), (-900.0,), (400.0,))
    assert total_variation(model, model) == 0
    assert total_variation(model, TissueModel((1.0,), (900.0,), (400.0,))) == pytest.approx(1)
    # The distance of two normal distributions with equal SD is 2 F(d / 2) - 1, with d the distance of means in SD.
    assert total_variation(model, TissueModel((1.0,), (-880.0,), (400.0,))) == pytest.approx(0.3829, abs=1e-3)


@pytest.mark.parametrize("options", [{"sizes": [13]}, {"sizes": []}, {"sizes": [0]}, {"groups": 1}])
def test_groups_that_cannot_be_drawn_are_rejected(counts, options):
    with pytest.raises(UsageError, match="12 scans"):
        study(counts, FitParameters(), **options)
