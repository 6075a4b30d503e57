import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lungmix
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED
from lungmix.webpage.volume import CLASSES, LOWEST_HU, POSTERIOR_STEPS, STEP_HU, preview_of
from oracle.posteriors import posteriors
from support.labelled import add_case


def store_of(folder, ct, spacing, direction=None, labels=None):
    """Return a case with the given HU and labels."""
    nz, ny, nx = ct.shape
    given = {} if direction is None else {"direction": direction}
    cohort = lungmix.open_cohort(folder, "a")
    case = add_case(cohort, "a", ct, np.zeros(ct.shape, np.uint8), Geometry((nx, ny, nz), spacing, **given))
    if labels is not None:
        for start, stop in case.layout.slabs():
            case.write("tissue", start, labels[start:stop])
            case.write("tissue_median", start, labels[start:stop])
    return case


def hu_of(preview):
    return LOWEST_HU + STEP_HU * preview.grey.astype(float)


def test_small_scan_keeps_every_voxel(tmp_path):
    random = np.random.default_rng(0)
    ct = random.integers(-400, 300, (9, 20, 24)).astype(np.int16)
    labels = random.integers(0, 6, ct.shape).astype(np.uint8)
    preview = preview_of(store_of(tmp_path / "s.zarr", ct, (1.0, 1.0, 3.0), labels=labels))
    assert preview.grey.shape == ct.shape
    assert np.abs(hu_of(preview) - ct).max() <= STEP_HU / 2
    assert np.array_equal(preview.labels, CLASSES * labels + labels)


def test_preview_has_the_requested_size_equal_spacing_and_the_mean_of_the_scan(tmp_path):
    z, y, x = np.indices((96, 128, 160))
    ct = (4 * x - 2 * y + z - 200).astype(np.int16)
    preview = preview_of(store_of(tmp_path / "s.zarr", ct, (0.5, 0.5, 0.5)), 40_000)
    assert 30_000 < preview.grey.size <= 44_000
    spacing = [axis.spacing for axis in preview.axes]
    assert max(spacing) / min(spacing) < 1.15
    steps = [np.diff(hu_of(preview).mean(axis=tuple({0, 1, 2} - {i}))).mean() for i in range(3)]
    slopes = [step / axis.step for step, axis in zip(steps, preview.axes, strict=True)]
    assert slopes == pytest.approx([1, -2, 4], rel=0.06)


def test_thick_slices_are_all_kept(tmp_path):
    ct = np.zeros((12, 96, 96), np.int16)
    preview = preview_of(store_of(tmp_path / "s.zarr", ct, (0.7, 0.7, 8.0)), 20_000)
    assert preview.grey.shape[0] == 12
    assert preview.axes[0].step == 1
    assert 30 < preview.grey.shape[1] < 48


def test_air_around_the_patient_is_cut_off_but_no_slice(tmp_path):
    ct = np.full((10, 96, 96), -1000, np.int16)
    ct[2:7, 40:70, 30:80] = 40
    preview = preview_of(store_of(tmp_path / "s.zarr", ct, (1.0, 1.0, 1.0)))
    depth, height, width = preview.grey.shape
    assert depth == 10
    assert 30 <= height < 60
    assert 50 <= width < 80
    assert (preview.grey > 190).sum() == 5 * 30 * 50
    assert preview.axes[1].first <= 40


@settings(max_examples=20)
@given(st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([-1, 1])] * 3))
def test_every_orientation_is_turned_to_face_the_viewer(tmp_path_factory, order, signs):
    patient = np.zeros((12, 16, 20), np.int16)
    patient[:8, :10, :12] = 200  # inferior, anterior, right
    direction = np.zeros((3, 3))
    for column, (row, sign) in enumerate(zip(order, signs, strict=True)):
        direction[row, column] = sign
    array = patient.transpose([2 - order[2 - i] for i in range(3)])
    array = array[tuple(slice(None, None, signs[2 - i]) for i in range(3))]
    case = store_of(tmp_path_factory.mktemp("s") / "s.zarr", array, (1, 1, 1), tuple(direction.ravel()))
    preview = preview_of(case)
    assert np.array_equal(preview.grey > 200, patient > 0)
    assert [axis.ends for axis in preview.axes] == [("I", "S"), ("A", "P"), ("R", "L")]
    for axis, store in zip(preview.axes, [2 - order.index(2 - i) for i in range(3)], strict=True):
        assert axis.name == "zyx"[store]
        assert sorted({round(axis.first), round(axis.first + axis.step * (axis.size - 1))}) == [0, axis.size - 1]


def test_oblique_scans_have_two_letters(tmp_path):
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    preview = preview_of(store_of(tmp_path / "s.zarr", np.zeros((8, 12, 12), np.int16), (1, 1, 1), tuple(turn.ravel())))
    assert [axis.ends for axis in preview.axes] == [("I", "S"), ("AL", "PR"), ("RA", "LP")]


def test_padding_does_not_darken_the_edge_of_the_body(tmp_path):
    ct = np.full((4, 32, 32), 0, np.int16)
    ct[:, :, :2] = -3024
    preview = preview_of(store_of(tmp_path / "s.zarr", ct, (1, 1, 1)), 4 * 16 * 16)
    assert preview.grey.shape == (4, 16, 16) or preview.grey.size <= 4 * 20 * 20
    assert set(np.unique(preview.grey)) >= {0}
    assert hu_of(preview)[:, :, -1].min() > -STEP_HU


def test_labels_are_never_mixed(tmp_path):
    random = np.random.default_rng(1)
    labels = random.choice(np.array([0, 2, 5], np.uint8), (32, 64, 64))
    preview = preview_of(
        store_of(tmp_path / "s.zarr", np.zeros(labels.shape, np.int16), (1, 1, 1), labels=labels), 9000
    )
    allowed = {CLASSES * a + a for a in (0, 2, 5)}
    assert set(np.unique(preview.labels)) == allowed


def posterior_store(folder, shape, spacing, direction=None):
    random = np.random.default_rng(2)
    ct = random.normal(-500, 200, shape).astype(np.int16)
    lung = (random.random(shape) < 0.7).astype(np.uint8)
    given = {} if direction is None else {"direction": direction}
    cohort = lungmix.open_cohort(folder, "a")
    case = add_case(cohort, "a", ct, lung, Geometry(shape[::-1], spacing, **given))
    return case, posteriors(ct, PUBLISHED)[..., 2] * lung


def test_posteriors_of_a_small_scan_are_those_of_its_voxels(tmp_path):
    case, expected = posterior_store(tmp_path / "s.zarr", (9, 20, 24), (1.0, 1.0, 3.0))
    preview = preview_of(case, posterior="ggo")
    assert np.array_equal(preview.posterior, np.rint(POSTERIOR_STEPS * expected))
    assert preview_of(case).posterior is None


@pytest.mark.parametrize("shape", [(96, 64, 80), (91, 61, 77)])
def test_posteriors_of_a_reduced_scan_are_means_of_all_its_voxels(tmp_path, shape):
    case, expected = posterior_store(tmp_path / "s.zarr", shape, (0.5, 0.5, 0.5))
    preview = preview_of(case, 12_000, "ggo")
    assert preview.posterior.size < 14_000
    assert preview.posterior.shape == preview.grey.shape
    # The slow definition: the mean over a box, in which voxels at its faces count by their share.
    for axis, size in zip(preview.axes, preview.grey.shape, strict=True):
        edges = axis.first - (axis.step - 1) / 2 + axis.step * np.arange(size + 1)
        number = "zyx".index(axis.name)
        n = shape[number]
        overlap = np.array(
            [[max(0, min(b, i + 1) - max(a, i)) for i in range(n)] for a, b in zip(edges, edges[1:], strict=False)]
        )
        overlap /= overlap.sum(axis=1, keepdims=True)
        expected = np.moveaxis(np.tensordot(overlap, expected, (1, number)), 0, number)
    assert np.abs(preview.posterior - POSTERIOR_STEPS * expected).max() <= 0.5 + 1e-3


def test_posteriors_are_turned_with_the_scan(tmp_path):
    direction = (-1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0)
    case, expected = posterior_store(tmp_path / "s.zarr", (12, 16, 20), (1.0, 1.0, 1.0), direction)
    preview = preview_of(case, posterior="ggo")
    assert np.array_equal(preview.posterior, np.rint(POSTERIOR_STEPS * expected[::-1, :, ::-1]))


def test_labels_under_a_potts_prior_are_turned_with_the_scan(tmp_path):
    random = np.random.default_rng(4)
    ct, lung = random.normal(-500, 200, (12, 16, 20)).astype(np.int16), (random.random((12, 16, 20)) < 0.8).view("u1")
    geometry = Geometry((20, 16, 12), (1.0, 1.0, 3.0), direction=(-1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0))
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = add_case(cohort, "a", ct, lung, geometry, beta=0.7)
    expected = lungmix.potts_labels(ct, lung, PUBLISHED, geometry.spacing, 0.7)
    assert np.array_equal(preview_of(case).potts, expected[::-1, :, ::-1])
    assert preview_of(add_case(cohort, "b", ct, lung, geometry)).potts is None
