"""Labels under a Potts prior against slow whole-volume versions, and their independence of the division of a volume."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix.errors import UsageError
from lungmix.kernels import potts
from lungmix.kernels.potts import (
    WEIGHT_UNITS,
    axis_weights,
    count_neighbours,
    estimate_beta,
    potts_labels,
    potts_posteriors,
    tables_of,
)
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.parameters import LARGEST_BETA, PottsParameters
from oracle import potts as oracle
from support import calibration
from support.generators import masks
from support.smoothing import SCANS, compare, row_of, voxels_of

TABLES = tables_of(PUBLISHED.weights, PUBLISHED.means, PUBLISHED.variances)
spacings = st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 1.25, 3.0, 8.0])] * 3)
betas = st.sampled_from([0.0, 0.2, 0.5, 0.75, 1.0, 2.0])


@st.composite
def scans(draw, largest=14):
    """HU of patches with noise, and a mask."""
    mask = draw(masks(st.tuples(*[st.integers(1, largest)] * 3)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hu = random.choice(PUBLISHED.means, mask.shape) if draw(st.booleans()) else np.full(mask.shape, -700.0)
    return np.clip(hu + random.normal(0, 150, mask.shape), -1024, 3071).astype(np.int16), mask


@given(scans(), spacings, betas, st.integers(1, 6))
def test_posteriors_equal_those_of_whole_volumes_in_double_precision(scan, spacing, beta, iterations):
    hu, mask = scan
    weights = axis_weights(spacing)
    actual = potts_posteriors(hu, mask, TABLES, weights, beta, iterations)
    exact_spacing = 1 / np.maximum(np.array(weights), 1e-9)
    expected = oracle.posteriors(hu, mask, PUBLISHED, exact_spacing, beta * np.mean(weights) / WEIGHT_UNITS, iterations)
    # Each iteration begins from posteriors in units of 1/4096.
    np.testing.assert_allclose(np.moveaxis(actual, 0, -1), expected, atol=4e-4 * (1 + 2 * beta) ** 3)
    labels = potts_labels(hu, mask, TABLES, weights, beta, iterations)
    assert np.array_equal(labels, np.where(mask, actual.argmax(axis=0) + 1, 0))


@given(scans(22), spacings, betas, st.integers(1, 6), st.data())
def test_labels_do_not_depend_on_chunks(scan, spacing, beta, iterations, data):
    hu, mask = scan
    weights = axis_weights(spacing)
    expected = potts_labels(hu, mask, TABLES, weights, beta, iterations)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(hu) - 1), max_size=4))) if len(hu) > 1 else []
    thinnest, smallest = potts._THINNEST_BAND, potts.BAND_BYTES
    try:
        # Bands of few rows, which a small volume does not need.
        potts._THINNEST_BAND, potts.BAND_BYTES = data.draw(st.integers(1, 20)), 0
        parts = []
        for start, stop in zip([0, *cuts], [*cuts, len(hu)], strict=True):
            first, last = max(0, start - iterations), min(len(hu), stop + iterations)
            core = slice(start - first, stop - first)
            parts.append(potts_labels(hu[first:last], mask[first:last], TABLES, weights, beta, iterations, core))
    finally:
        potts._THINNEST_BAND, potts.BAND_BYTES = thinnest, smallest
    assert np.array_equal(np.concatenate(parts), expected)


@given(scans(), spacings, betas, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_labels_do_not_depend_on_the_order_of_axes(scan, spacing, beta, order, flipped):
    hu, mask = scan
    expected = potts_labels(hu, mask, TABLES, axis_weights(spacing), beta)
    axes = tuple(axis for axis, flip in enumerate(flipped) if flip)
    stored = [np.flip(volume.transpose(order), axes) for volume in (hu, mask, expected)]
    turned = potts_labels(*stored[:2], TABLES, axis_weights([spacing[axis] for axis in order]), beta)
    assert np.array_equal(turned, stored[2])


@given(st.data(), masks(st.tuples(*[st.integers(1, 7)] * 3)), st.integers(2, 9), spacings)
def test_neighbours_and_beta_equal_those_of_the_slow_version(data, mask, n_labels, spacing):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    labels = (mask * random.integers(1, n_labels + 1, mask.shape)).astype(np.uint8)
    if data.draw(st.booleans()):
        labels[:, : labels.shape[1] // 2] = mask[:, : labels.shape[1] // 2]
    counts = count_neighbours(labels)
    codes = np.flatnonzero(counts)
    actual = {tuple((code >> (3 * i)) & 7 for i in range(6)): counts[code] for code in codes.tolist()}
    assert actual == oracle.arrangements(labels)
    cut = data.draw(st.integers(0, len(labels)))
    lower, upper = labels[: cut + 1], labels[max(0, cut - 1) :]
    parts = count_neighbours(lower, slice(0, cut)) + count_neighbours(upper, slice(cut - max(0, cut - 1), None))
    assert np.array_equal(parts, counts)
    weights = axis_weights(spacing)
    beta = estimate_beta(codes, counts[codes], weights, n_labels)
    exact_spacing = 1 / np.array(weights, float)
    scale = np.mean(weights) / WEIGHT_UNITS
    expected = oracle.estimate_beta(labels, exact_spacing, n_labels, LARGEST_BETA * scale) / scale
    values = [oracle.log_pseudo_likelihood(labels, exact_spacing, n_labels, b * scale) for b in (beta, expected)]
    assert values[0] >= values[1] - 1e-4 * (1 + abs(values[1]))


def test_a_border_costs_in_proportion_to_its_area():
    assert axis_weights((1.0, 1.0, 1.0)) == (256, 256, 256)
    z, y, x = axis_weights((5.0, 0.5, 1.0))
    assert y / x == pytest.approx(2, rel=0.02)
    assert x / z == pytest.approx(5, rel=0.03)
    assert (z + y + x) / 3 == pytest.approx(256, abs=1)


def test_label_map_without_any_pattern_has_beta_0_and_a_smooth_one_a_large_beta():
    random = np.random.default_rng(0)
    noise = random.integers(1, 6, (20, 40, 40)).astype(np.uint8)
    halves = np.ones((20, 40, 40), np.uint8)
    halves[:, :20] = 3
    estimates = []
    for labels in (noise, halves, np.zeros_like(noise)):
        counts = count_neighbours(labels)
        codes = np.flatnonzero(counts)
        estimates.append(estimate_beta(codes, counts[codes], axis_weights((1, 1, 1)), 5))
    assert estimates[0] < 0.02
    assert estimates[1] > 1.5
    assert estimates[2] == 0


def test_ties_go_to_the_smaller_label():
    twins = TissueModel((0.5, 0.5), (-800.0, -800.0), (900.0, 900.0))
    tables = tables_of(twins.weights, twins.means, twins.variances)
    hu = np.full((3, 4, 5), -800, np.int16)
    assert (potts_labels(hu, np.ones(hu.shape, np.uint8), tables, (256, 256, 256), 1.0) == 1).all()


def test_voxels_of_any_hu_have_posteriors():
    hu = np.array([-32768, -5000, -1024, 0, 3071, 32767], np.int16).reshape(1, 1, 6)
    for beta in (0.0, LARGEST_BETA):
        posteriors = potts_posteriors(hu, np.ones(hu.shape, np.uint8), TABLES, axis_weights((1, 1, 1)), beta)
        assert posteriors.sum(axis=0) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("beta", [-0.1, 10.5, float("nan")])
def test_beta_out_of_range_is_rejected(beta):
    with pytest.raises(UsageError, match="beta"):
        PottsParameters(beta)


def test_without_iterations_there_are_no_labels():
    hu = np.zeros((1, 1, 1), np.int16)
    with pytest.raises(UsageError, match="1 or more"):
        potts_labels(hu, np.ones(hu.shape, np.uint8), TABLES, (256, 256, 256), 0.5, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCANS)
def test_ground_glass_and_consolidation_are_found_better_than_without_the_prior(name):
    result = compare(*voxels_of(SCANS[name]))
    for k in (0, 1):
        assert result.dice["Potts"][k] >= max(result.dice["MAP"][k], result.dice["median"][k]) + 0.05
    # Posteriors are too confident where noise is correlated between voxels.
    assert result.calibration_error["Potts"] <= (0.1 if "strongly" in name else 0.025)


def test_page_has_the_numbers_of_the_comparison():
    name = "lesions, noise of 30 HU"
    page = (Path(__file__).parents[2] / "docs" / "potts.md").read_text()
    assert row_of(name, compare(*voxels_of(SCANS[name]))) in page


@pytest.mark.slow
def test_page_has_the_numbers_of_the_calibration():
    page = (Path(__file__).parents[2] / "docs" / "potts.md").read_text()
    name = "lesions, noise of 30 HU, slices of 5 mm"
    assert calibration.row_of(name, SCANS[name]) in page


@pytest.mark.slow
def test_partial_volume_and_correlated_noise_each_make_posteriors_less_calibrated():
    row = calibration.row_of_blur("strong", SCANS["lesions, noise of 60 HU, strongly blurred"])
    both, partial, correlated, neither = (float(cell.split()[0]) for cell in row.split("|")[2:6])
    assert both > partial > correlated > neither
