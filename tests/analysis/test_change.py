"""Changes between two scans: against single voxels, and intervals that cover the true changes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from lungmix.analysis.change import (
    ERRORS,
    INSPIRATION_ERROR,
    INVOLVEMENT,
    OF_REGION,
    SHARES,
    FollowupScan,
    changes_of,
    involvement_at_volume,
    percents,
    remarks_on_pair,
)
from lungmix.analysis.followup import _doubts_about, mean_change, zone_sums
from lungmix.analysis.score_agreement import Settings, kappas
from lungmix.analysis.scores import pearson
from lungmix.errors import UsageError
from lungmix.kernels.data_dictionary import FOLLOWUP_REGIONS
from lungmix.kernels.histogram import FIRST_HU, N_HU
from lungmix.kernels.inspiration import expand_gas
from lungmix.kernels.measures import measure_counts, measure_zones
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.tissue import LOBES

HU = np.arange(FIRST_HU, FIRST_HU + N_HU)
TABLE = PUBLISHED.lookup_table()
HEALTHY = (0.36, 0.5, 0.06, 0.03, 0.05)
ILL = (0.3, 0.4, 0.18, 0.07, 0.05)
WIDTH = stats.norm.ppf(0.975)


def counts_of(voxels):
    return np.bincount(np.asarray(voxels) - FIRST_HU, minlength=N_HU).astype(np.uint64)


def densities():
    """Densities of the five tissues of the published mixture, shape (5, 65536), as far as a scanner's HU go."""
    means, sds = np.array(PUBLISHED.means)[:, None], np.sqrt(PUBLISHED.variances)[:, None]
    values = stats.norm.pdf(HU, means, sds) * ((HU > -1030) & (HU < 600))
    return values / values.sum(axis=1, keepdims=True)


DENSITIES = densities()


def lung(weights, voxels=4_000_000):
    """Histogram of a lung by the weights of its tissues, without noise."""
    return voxels * (np.asarray(weights) @ DENSITIES)


def scan(histogram, lung_ml=4000.0, **more):
    counts = np.rint(np.maximum(histogram, 0)).astype(np.uint64)
    return FollowupScan(counts, lung_ml / float(counts.sum()), kernel=more.pop("kernel", "B70f"), slice_mm=1.0, **more)


def half_width(change):
    return (change.corrected_high - change.corrected_low) / 2


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(-1050, 300), min_size=1, max_size=40),
    st.lists(st.integers(-1050, 300), min_size=1, max_size=40),
    st.floats(0.7, 1.4),
)
def test_changes_equal_those_of_single_voxels(before, after, ratio):
    first, later = (FollowupScan(counts_of(voxels), 1.0) for voxels in (before, after))
    later = replace(later, voxel_ml=ratio * len(before) / len(after))
    result = changes_of(first, later, PUBLISHED)

    def involved(voxels):
        return 100 * np.mean([TABLE[hu - FIRST_HU] >= 3 for hu in voxels])

    assert result[INVOLVEMENT].value == pytest.approx(involved(after) - involved(before))
    # Gas expands until the later lung has the volume of the first.
    tissue = np.clip(1 + np.array(after) / 1000, 0, 1)
    gas = (1 - tissue).sum()
    factor = (len(after) / ratio - tissue.sum()) / gas if gas else -1.0
    if factor <= 0:
        # The effect of another inspiration is unknown, and with it the interval of the measured change.
        assert np.isnan([result[INVOLVEMENT].corrected, result[INVOLVEMENT].low, result[INVOLVEMENT].high]).all()
        assert result[INVOLVEMENT].course == ""
        return
    volumes = tissue + factor * (1 - tissue)
    involved_volume = 0.0
    for hu, part, volume in zip(after, tissue, volumes, strict=True):
        new = hu if part in (0, 1) else 1000 * (part / volume - 1)
        low = int(np.floor(round(new, 9)))
        high_share = round(new, 9) - low
        is_involved = [TABLE[value - FIRST_HU] >= 3 for value in (low, low + 1)]
        involved_volume += volume * ((1 - high_share) * is_involved[0] + high_share * is_involved[1])
    corrected = 100 * involved_volume / volumes.sum()
    assert result[INVOLVEMENT].corrected == pytest.approx(corrected - involved(before), abs=1e-6)
    assert involvement_at_volume(first, later, PUBLISHED) == pytest.approx(corrected, abs=1e-6)


def test_percents_are_those_of_the_measurements():
    counts = np.rint(lung(ILL)).astype(np.uint64)
    measured = measure_counts(counts, TABLE, 0.001)
    assert percents(counts[None].astype(float), TABLE)[0] == pytest.approx([measured[key] for key in SHARES])


def test_same_scan_is_stable():
    first = scan(lung(HEALTHY))
    for change in changes_of(first, first, PUBLISHED).values():
        assert change.value == change.corrected == 0
        assert change.low == -change.high
        assert change.high == pytest.approx(WIDTH * 0.5)
    assert changes_of(first, first, PUBLISHED)[INVOLVEMENT].course == "stable"


def test_growing_disease_is_worse_and_receding_disease_improved():
    healthy, ill = scan(lung(HEALTHY)), scan(lung(ILL))
    assert changes_of(healthy, ill, PUBLISHED)[INVOLVEMENT].course == "worse"
    assert changes_of(ill, healthy, PUBLISHED)[INVOLVEMENT].course == "improved"


def test_exhaled_lung_is_worse_as_measured_and_stable_at_equal_volume():
    first = scan(lung(HEALTHY))
    exhaled = expand_gas(first.counts, 0.7)
    later = scan(exhaled, 4000 * exhaled.sum() / first.counts.sum())
    change = changes_of(first, later, PUBLISHED)[INVOLVEMENT]
    assert change.value > 4
    assert change.corrected == pytest.approx(0, abs=0.1)
    assert change.course == "stable"
    assert change.low < 0 < change.value < change.high
    assert half_width(change) == pytest.approx(
        WIDTH * np.hypot(0.5, INSPIRATION_ERROR * (change.value - change.corrected))
    )


@pytest.mark.parametrize(
    ("more", "variance", "remark"),
    [
        ({"kernel": "B31f"}, ERRORS[INVOLVEMENT].kernel ** 2, "kernel B31f instead of B70f"),
        ({"kernel": None}, ERRORS[INVOLVEMENT].kernel ** 2, "kernel unknown"),
        ({"slice_mm": 4.0}, (2 * ERRORS[INVOLVEMENT].doubled_slices) ** 2, "slices of 4 instead of 1 mm"),
        ({"slice_mm": 1.05}, 0.0, None),
        ({"slice_mm": float("nan")}, 0.0, None),
        ({"harmonised": "kernel"}, ERRORS[INVOLVEMENT].kernel ** 2, "HU harmonised by kernel instead of none"),
        ({"scanner": "GE Revolution"}, 0.0, "scanner GE Revolution instead of Siemens Force"),
        ({"mask": "physical"}, 0.0, "mask physical instead of anatomical"),
    ],
)
def test_differences_of_acquisition_widen_intervals_and_are_named(more, variance, remark):
    first = scan(lung(HEALTHY), mask="anatomical", scanner="Siemens Force")
    later = replace(first, **more)
    assert half_width(changes_of(first, later, PUBLISHED)[INVOLVEMENT]) == pytest.approx(
        WIDTH * np.sqrt(ERRORS[INVOLVEMENT].repeatability ** 2 + variance)
    )
    assert remarks_on_pair(first, later) == ([] if remark is None else [remark])


def test_harmonised_kernels_widen_intervals_little():
    first, later = (scan(lung(HEALTHY), kernel=kernel, harmonised="air-blood,kernel") for kernel in ("B31f", None))
    widths = {key: half_width(change) for key, change in changes_of(first, later, PUBLISHED).items()}
    for key in SHARES:
        error = ERRORS[key]
        assert widths[key] == pytest.approx(WIDTH * np.hypot(error.repeatability, error.harmonised_kernel))


def test_another_lung_volume_is_named():
    first = scan(lung(HEALTHY), 5000.0)
    assert remarks_on_pair(first, scan(lung(HEALTHY), 4000.0)) == ["lung volume 20 % smaller: inspiration?"]
    assert remarks_on_pair(first, scan(lung(HEALTHY), 4400.0)) == []


def test_refits_widen_intervals_by_the_spread_of_the_change():
    first, later = scan(lung(HEALTHY)), scan(lung(ILL))
    random = np.random.default_rng(3)
    models = [
        TissueModel(PUBLISHED.weights, tuple(np.add(PUBLISHED.means, random.normal(0, 12, 5))), PUBLISHED.variances)
        for _ in range(30)
    ]
    changes = [changes_of(first, later, model)[INVOLVEMENT].corrected for model in models]
    change = changes_of(first, later, PUBLISHED, models)[INVOLVEMENT]
    assert half_width(change) == pytest.approx(WIDTH * np.hypot(np.std(changes, ddof=1), 0.5))
    assert half_width(change) > half_width(changes_of(first, later, PUBLISHED)[INVOLVEMENT]) + 0.05


def test_regions_change_by_the_expansion_of_the_whole_lung():
    parts = {"right": lung(HEALTHY, 2_000_000), "left": lung(ILL, 2_000_000)}
    first = scan(sum(parts.values()), regions={key: np.rint(part).astype(np.uint64) for key, part in parts.items()})
    smaller = {key: np.rint(expand_gas(part, 0.8)).astype(np.uint64) for key, part in first.regions.items()}
    volume = 4000 * sum(part.sum() for part in smaller.values()) / first.counts.sum()
    later = scan(sum(smaller.values()), volume, regions={**smaller, "both_upper": smaller["left"]})
    result = changes_of(first, later, PUBLISHED)
    assert list(result) == [*SHARES, "right_lung_involvement", "left_lung_involvement"]
    for key in ("right_lung_involvement", "left_lung_involvement"):
        assert result[key].value > 2
        assert result[key].corrected == pytest.approx(0, abs=0.1)
        effect = INSPIRATION_ERROR * (result[key].value - result[key].corrected)
        assert half_width(result[key]) == pytest.approx(WIDTH * np.hypot(ERRORS[OF_REGION].repeatability, effect))


def test_empty_scans_and_other_mixtures():
    empty = FollowupScan(np.zeros(N_HU, np.uint64), 0.001)
    for pair in ((empty, scan(lung(ILL))), (scan(lung(ILL)), empty), (empty, empty)):
        change = changes_of(*pair, PUBLISHED)[INVOLVEMENT]
        assert np.isnan(change.value)
        assert change.course == ""
        assert np.isnan(involvement_at_volume(*pair, PUBLISHED))
    with pytest.raises(UsageError, match="five tissues"):
        changes_of(empty, empty, TissueModel((0.5, 0.5), (-900.0, -100.0), (100.0, 100.0)))
    with pytest.raises(UsageError, match="100 %"):
        changes_of(empty, empty, PUBLISHED, level=100)


def test_sums_of_zones_are_those_of_the_table_of_zones():
    zones = np.random.default_rng(0).integers(0, 5, (24, N_HU)).astype(np.uint64)
    zones[:, HU > 0] = 0
    rows = {row["zone"]: row for row in measure_zones(zones, TABLE, 0.001, PUBLISHED.posterior_table())}
    sums = zone_sums(zones)
    assert ["right", "left", *sums, *(lobe.key for lobe in LOBES)] == list(FOLLOWUP_REGIONS)
    for name, counts in sums.items():
        assert rows[name]["voxels"] == counts.sum()
        assert percents(counts[None].astype(float), TABLE)[0, -1] == pytest.approx(rows[name]["lung_involvement"])


def row(patient, number, change, course):
    nan = float("nan")
    value = nan if change is None else change
    keys = {"change_lung_involvement": value + 1, "change_lung_involvement_corrected": value}
    return {"patient": patient, "scan": number, "course": course, **keys}


def test_mean_change_is_that_of_the_last_scans_with_an_interval_by_t():
    rows = [
        row("p1", 1, None, ""), row("p1", 2, 9.0, "worse"), row("p1", 3, 4.0, "stable"), row("p2", 1, None, ""),
        row("p2", 2, -3.0, "improved"), row("p3", 1, None, ""), row("p3", 2, 6.5, "worse"),
    ]  # fmt: skip
    mean = mean_change(rows)
    low, high = stats.ttest_1samp([4.0, -3.0, 6.5], 0).confidence_interval(0.95)
    assert (mean.value, mean.low, mean.high) == pytest.approx((2.5, low, high))
    assert mean.measured == pytest.approx(3.5)
    assert (mean.patients, mean.scans, mean.improved, mean.stable, mean.worse) == (3, 7, 1, 1, 1)
    assert np.isnan(mean_change(rows[:3]).low)


# Simulated cohorts: 62 scans of 50 patients, of whom 12 have two scans; three readers.

PATIENTS, FOLLOWED, SIMULATIONS = 50, 12, 200
READERS = {"a": 6.0, "b": 8.0, "c": 12.0}
"""Standard deviation of the error of each reader, points of lung involvement."""
KERNELS = ("B31f", "B70f")


def weights_of(involvement):
    """Weights of the tissues of a lung of which this percentage is ill; healthy lung has vessels too."""
    ill = involvement / 100
    return (1 - ill) * np.array(HEALTHY) + ill * np.array([0, 0, 0.6, 0.25, 0.15])


LABELLED = 100 * (np.isin(TABLE, (3, 4, 5)) @ DENSITIES.T)
"""Lung involvement by labels of each tissue alone, percent."""


def labelled(involvement):
    """Lung involvement by labels of a scan without errors, percent."""
    return weights_of(involvement) @ LABELLED


SLOPE = (labelled(60.0) - labelled(20.0)) / 40
"""Points of lung involvement by labels per point of true involvement."""


def simulate(random):
    """Return the true involvement of 62 scans, and pairs of scans of 12 patients with their true changes."""
    first = np.clip(random.normal(28, 17, PATIENTS), 0.5, 90)
    second = np.clip(first[:FOLLOWED] + random.normal(4, 5, FOLLOWED), 0.5, 95)
    pairs = []
    for before, after in zip(first, second, strict=False):
        kernels, slices = random.choice(KERNELS, 2), random.choice([1.0, 2.0], 2)
        doublings = abs(np.log2(slices[0] / slices[1]))
        error = ERRORS[INVOLVEMENT]
        sd = np.sqrt(
            error.repeatability**2
            + (kernels[0] != kernels[1]) * error.kernel**2
            + (doublings * error.doubled_slices) ** 2
        )
        # The lung is breathed in more or less deeply. Densities follow the model with an error, the volume exactly.
        factor = np.exp(random.normal(0, 0.15))
        expected = lung(weights_of(after))
        breathed = expand_gas(expected, factor)
        effect = percents(breathed[None], TABLE)[0, -1] - labelled(after)
        wrong = random.normal(0, sd) + random.normal(0, INSPIRATION_ERROR) * effect
        seen = lung(weights_of(after + wrong / SLOPE))
        shown = expand_gas(seen, factor)
        volume = 4000 * shown.sum() / seen.sum()
        pairs.append((
            replace(scan(lung(weights_of(before))), kernel=kernels[0], slice_mm=slices[0]),
            replace(scan(shown, volume), kernel=kernels[1], slice_mm=slices[1]),
            labelled(after) - labelled(before),
        ))  # fmt: skip
    return np.concatenate([first, second]), pairs


def scores_of(random, involvement):
    noisy = {x: np.clip(involvement + random.normal(0, sd, len(involvement)), 0, 100) for x, sd in READERS.items()}
    return {x: np.searchsorted([0, 5, 25, 50, 75], values) for x, values in noisy.items()}


def test_intervals_cover_kappas_correlation_and_changes_of_simulated_cohorts():
    random = np.random.default_rng(5)
    first = np.clip(random.normal(28, 17, 400_000), 0.5, 90)
    second = np.clip(first + random.normal(4, 5, len(first)), 0.5, 95)
    scans = np.concatenate([first, second[: len(first) * FOLLOWED // PATIENTS]])
    true_scores = scores_of(random, scans)
    names = [("a", "b"), ("a", "c"), ("b", "c")]
    true_kappas = [
        cohen_kappa_score(true_scores[x], true_scores[y], labels=range(6), weights="quadratic") for x, y in names
    ]
    true_correlation = np.corrcoef(first, true_scores["a"][: len(first)])[0, 1]
    true_mean = SLOPE * (second - first).mean()
    patients = np.r_[np.arange(PATIENTS), np.arange(FOLLOWED)]
    covered = dict.fromkeys(("kappa", "correlation", "mean change", "change"), 0)
    measured_covered = 0
    for _ in range(SIMULATIONS):
        involvement, pairs = simulate(random)
        scores = scores_of(random, involvement)
        for (x, y), truth in zip(names, true_kappas, strict=True):
            kappa = kappas(scores[x], scores[y], patients, Settings(draws=400))["quadratic"]
            covered["kappa"] += kappa.low <= truth <= kappa.high
        correlation = pearson(involvement[:PATIENTS], scores["a"][:PATIENTS])
        covered["correlation"] += correlation.low <= true_correlation <= correlation.high
        rows = []
        for number, (before, after, truth) in enumerate(pairs):
            change = changes_of(before, after, PUBLISHED)[INVOLVEMENT]
            covered["change"] += change.corrected_low <= truth <= change.corrected_high
            measured_covered += change.low <= truth <= change.high
            rows.append(row(f"p{number}", 2, change.corrected, change.course))
        mean = mean_change(rows)
        covered["mean change"] += mean.low <= true_mean <= mean.high
    trials = {"kappa": 3 * SIMULATIONS, "change": FOLLOWED * SIMULATIONS}
    shares = {name: count / trials.get(name, SIMULATIONS) for name, count in covered.items()}
    # Three standard errors of 200 simulations are 4.6 %; kappas of three pairs of readers depend on each other.
    assert shares["kappa"] == pytest.approx(0.95, abs=0.046)
    assert shares["mean change"] == pytest.approx(0.95, abs=0.046)
    assert shares["change"] == pytest.approx(0.95, abs=0.0134)
    assert measured_covered / (FOLLOWED * SIMULATIONS) >= shares["change"]
    # Scores are steps, so that their correlation varies less than that of normal variables, which the interval is for.
    assert shares["correlation"] > 0.904


def test_registered_scans_of_unlike_structure_get_a_remark():
    assert _doubts_about({}) == []
    assert _doubts_about({"registration": "failed"}) == []
    assert _doubts_about({"registration": "affine", "registration_similarity": 0.2}) == []
    assert _doubts_about({"registration": "deformable", "registration_similarity": 0.8}) == []
    (doubt,) = _doubts_about({"registration": "deformable", "registration_similarity": 0.51})
    assert "similarity 0.51" in doubt
