"""Studies of cohorts of which only counts are known."""

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
from support.generators import counts_of_scans, expected_counts


@pytest.fixture(scope="module")
def counts():
    return counts_of_scans(12, 40_000)


@pytest.fixture(scope="module")
def fits(counts):
    return fit_counts(add_counts(counts), FitParameters())


def test_comparison_shows_both_fits_and_the_involvement_that_is_measured(counts, fits):
    found = compare(fits, counts, -1000)
    assert [row["case"] for row in found.involvement] == ["pooled", *counts]
    for row in found.involvement[1:]:
        for name, model in fits.items():
            measured = measure_counts(counts[row["case"]], model.lookup_table(), 1.0)
            assert row[name] == pytest.approx(measured["lung_involvement"])
    assert [row["converged.mean_hu"] for row in found.components] == list(fits.converged.means)
    assert [row["paper"] for row in found.thresholds] == fits.paper.map_thresholds()
    quality = {row["fit"]: row for row in found.quality}
    assert quality["converged"]["log_likelihood"] > quality["paper"]["log_likelihood"]
    assert quality["converged"]["bic"] < quality["paper"]["bic"]


def test_involvement_of_no_voxels_is_not_a_number():
    assert np.isnan(involvement(PUBLISHED, np.zeros(65536, np.uint64)))


def test_fits_of_other_sizes_have_no_involvement(counts):
    fits = fit_counts(add_counts(counts), FitParameters(n_components=2))
    found = compare(fits, counts, -1000)
    assert found.involvement == []
    assert [row["component"] for row in found.components] == ["component_1", "component_2"]


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
    found = bootstrap(counts, FitParameters(fit="converged"), refits=30, watch=lambda *at: seen.append(at))
    assert seen[-1] == (30, 30)
    assert [(i.name, i.of) for i in found.intervals][::5] == [
        ("weight", "air"), ("mean", "air"), ("sd", "air"), ("threshold", "air → healthy"),
    ]  # fmt: skip
    assert len(found.intervals) == 5 + 5 + 5 + 4 + 1
    assert found.model.means == fits.converged.means
    for interval in found.intervals:
        assert interval.low < interval.high
        assert interval.low - 3 * interval.error < interval.estimate < interval.high + 3 * interval.error
    assert len(rows_of(found)) == len(found.intervals)


def test_bootstrap_draws_scans_and_not_voxels():
    # Scans that differ in nothing but the draw of voxels leave little room; scans that differ leave much.
    alike, apart = counts_of_scans(12, 40_000, spread=1e6), counts_of_scans(12, 40_000, spread=10)
    weight = [bootstrap(c, FitParameters(fit="converged"), refits=30).intervals[0].error for c in (alike, apart)]
    assert weight[1] > 3 * weight[0]


def test_bootstrap_of_the_same_seed_is_the_same(counts):
    one, two, other = (
        bootstrap(counts, FitParameters(fit=fit), refits=4, seed=seed)
        for fit, seed in (("paper", 1), ("paper", 1), ("paper", 2))
    )
    assert one.intervals == two.intervals != other.intervals


def test_bootstrap_of_few_scans_says_so_and_names_estimates_at_an_end():
    found = bootstrap(counts_of_scans(3, 20_000), FitParameters(fit="converged"), refits=20)
    assert found.notes[0].startswith("3 scans are too few: 10 different cohorts")
    assert "20 scans or more" in found.notes[0]
    enough = bootstrap(counts_of_scans(20, 5_000), FitParameters(fit="converged"), refits=20)
    assert not [note for note in enough.notes if "too few" in note]
    assert [row["estimate_at_end"] for row in rows_of(found)] == [int(one.is_at_end) for one in found.intervals]


@pytest.mark.parametrize(
    ("estimate", "at_end"), [(1.0, True), (1.005, True), (1.5, False), (2.0, True), (2.5, True), (math.inf, True)]
)
def test_estimate_at_an_end_of_its_interval_is_noted(estimate, at_end):
    one = Interval("mean", "air", "HU", estimate, 1.0, 2.0, 0.1)
    assert one.is_at_end == at_end
    notes = Bootstrap("converged", 62, 200, 95.0, [one], PUBLISHED, ()).notes
    assert notes == (
        [
            "mean of air: the estimate lies at an end of its interval, so the interval does not say how far "
            "it may move to that side"
        ]
        if at_end
        else []
    )


def test_different_cohorts_are_counted_as_they_can_be_drawn():
    for scans in (2, 3, 4, 5):
        drawn = {tuple(sorted(one)) for one in product(range(scans), repeat=scans)}
        assert distinct_draws(scans) == len(drawn)


@pytest.mark.parametrize(
    ("n", "options", "match"), [(1, {}, "two scans"), (3, {"refits": 1}, "2 or more"), (3, {"level": 100}, "100 %")]
)
def test_bootstrap_that_makes_no_sense_is_refused(n, options, match):
    with pytest.raises(UsageError, match=match):
        bootstrap(counts_of_scans(n, 1000), FitParameters(), **options)


def test_groups_grow_by_ten_as_in_the_paper_and_fit_small_cohorts():
    assert default_sizes(62) == [10, 20, 30, 40, 50, 60]
    assert default_sizes(12) == [2, 4, 6, 8, 10]
    assert default_sizes(3) == [1, 2]
    assert default_sizes(1) == []


def test_groups_differ_less_the_more_scans_they_hold(counts):
    found = study(counts, FitParameters(), sizes=[2, 10], seed=3)
    assert [group.size for group in found.groups] == [2, 2, 2, 10, 10, 10]
    assert all(len(set(group.cases)) == group.size for group in found.groups)
    small, large = found.rows
    for fit in ("paper", "converged"):
        assert large[f"{fit}.distance"] < small[f"{fit}.distance"]
        assert large[f"{fit}.to_whole"] < small[f"{fit}.to_whole"]
        assert small[f"{fit}.distance"] <= small[f"{fit}.largest"]
    assert large["shared"] > small["shared"]


def test_group_of_all_scans_is_the_whole(counts):
    found = study(counts, FitParameters(), sizes=[12])
    assert found.rows[0]["converged.largest"] == 0
    assert found.groups[0].fits == found.whole
    assert found.rows[0]["shared"] == 100


def test_distance_of_densities_is_zero_of_equals_and_one_of_strangers():
    one = TissueModel((1.0,), (-900.0,), (400.0,))
    assert total_variation(one, one) == 0
    assert total_variation(one, TissueModel((1.0,), (900.0,), (400.0,))) == pytest.approx(1)
    # Two normals of one spread: twice the distribution function at half their distance, less one.
    assert total_variation(one, TissueModel((1.0,), (-880.0,), (400.0,))) == pytest.approx(0.3829, abs=1e-3)


@pytest.mark.parametrize("options", [{"sizes": [13]}, {"sizes": []}, {"sizes": [0]}, {"groups": 1}])
def test_groups_that_cannot_be_drawn_are_refused(counts, options):
    with pytest.raises(UsageError, match="12 scans"):
        study(counts, FitParameters(), **options)
