"""Right and left of masks against the truth of phantoms, with traps such as a table, in all directions of axes."""

import numpy as np
import pytest

import lungmix
from lungmix.errors import NoLungError
from lungmix.geometry import Geometry
from lungmix.kernels.histogram import N_HU
from lungmix.kernels.measures import measure_scan
from lungmix.parameters import MaskParameters
from lungmix.phantom import Phantom
from lungmix.stages import anatomical, label, mask, regions
from lungmix.stages.base import StageContext
from lungmix.stages.measure import rows_of_case
from lungmix.store import MEASUREMENTS_FILE, CaseWriter
from lungmix.tissue import AIRWAY, ELSEWHERE, LUNGS, SIDES
from support.generators import case_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("stages_here")]

MODEL = lungmix.load_model("published")
HEALTHY = (0.45, 0.55, 0.0, 0.0, 0.0)
FINE = ((160, 256, 256), (1.4, 1.4, 1.9))
THICK = ((60, 256, 256), (1.4, 1.4, 5.0))
COARSE = ((48, 96, 96), (3.7, 3.7, 6.25))
GRIDS = {"fine": FINE, "thick": THICK, "coarse": COARSE}
FEET_FIRST = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
FLIPPED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
PRONE = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def sides_of(tmp_path, phantom, parameters=MaskParameters("physical")):  # noqa: B008
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_of(cohort, "one", phantom.volume(), phantom.geometry)
    mask.MaskStage(parameters).run(StageContext(None, cohort), "one")
    assert label.LabelStage(MODEL).run(StageContext(None, cohort), "one") == "done"
    return cohort["one"]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("traps", [(), ("touching",), ("touching", "cut"), ("touching", "vessels", "consolidation")])
def test_volume_of_each_lung_is_that_of_the_truth_within_1_percent(tmp_path, grid, traps):
    phantom = Phantom(*GRIDS[grid], 3, weights=HEALTHY, traps=traps)
    case, truth = sides_of(tmp_path, phantom), phantom.side_truth()
    if grid == "coarse" and "consolidation" in traps:
        # The mask misses half a percent of the lung: dense voxels at the chest wall.
        truth = truth[case.lung.compute() > 0]
    actual = case.side_counts.sum(axis=1)
    for lung in LUNGS:
        assert actual[lung.label - 1] == pytest.approx((truth == lung.label).sum(), rel=0.01), lung.name


@pytest.mark.parametrize("seed", [5, 8])
@pytest.mark.parametrize("weights", [HEALTHY, None], ids=["healthy", "diseased"])
def test_joined_lungs_of_coarse_voxels_and_the_trachea_between_them_are_separated(tmp_path, weights, seed):
    phantom = Phantom(*COARSE, seed, traps={"touching", "cut"}, **({"weights": weights} if weights else {}))
    case = sides_of(tmp_path, phantom)
    truth = phantom.side_truth()[case.lung.compute() > 0]
    actual = case.side_counts.sum(axis=1)
    for lung in LUNGS:
        assert actual[lung.label - 1] == pytest.approx((truth == lung.label).sum(), rel=0.01), lung.name
    assert actual[AIRWAY.label - 1] == pytest.approx((truth == AIRWAY.label).sum(), rel=0.5)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("traps", [(), ("touching",), ("touching", "cut"), ("touching", "vessels", "consolidation")])
def test_volume_of_each_diseased_lung_in_the_mask_is_the_truth_within_1_percent(tmp_path, grid, traps):
    # Compare within the mask, which misses dense tissue at the chest wall.
    phantom = Phantom(*GRIDS[grid], 3, traps=traps)
    case = sides_of(tmp_path, phantom)
    truth = phantom.side_truth()[case.lung.compute() > 0]
    actual = case.side_counts.sum(axis=1)
    for lung in LUNGS:
        assert actual[lung.label - 1] == pytest.approx((truth == lung.label).sum(), rel=0.01), lung.name


@pytest.mark.parametrize("traps", [(), ("touching",), ("edge",)])
def test_lungs_that_the_closing_of_the_paper_joins_keep_their_volumes(tmp_path, traps):
    phantom = Phantom(*FINE, 3, weights=HEALTHY, traps=traps)
    case = sides_of(tmp_path, phantom, MaskParameters(min_voxels=5_000))
    truth, lung = phantom.side_truth(), case.lung.compute() > 0
    actual = case.side_counts.sum(axis=1)
    assert (lung & (truth == 0)).sum() > 0.02 * lung.sum()
    for lung_class in LUNGS:
        assert actual[lung_class.label - 1] == pytest.approx((truth == lung_class.label).sum(), rel=0.01), (
            lung_class.name
        )
    assert actual[ELSEWHERE.label - 1] == pytest.approx((lung & (truth == 0)).sum(), rel=0.05)


def test_trachea_in_the_mask_is_airway(tmp_path):
    phantom = Phantom(*FINE, 3, weights=HEALTHY)
    case = sides_of(tmp_path, phantom, MaskParameters(min_voxels=5_000))
    truth = (phantom.side_truth() == AIRWAY.label) & (case.lung.compute() > 0)
    actual = case.side.compute() == AIRWAY.label
    assert truth.sum() > 5000
    assert (actual & truth).sum() > 0.85 * truth.sum()
    assert actual.sum() < 1.1 * truth.sum()


@pytest.mark.parametrize("direction", [FEET_FIRST, FLIPPED, PRONE, OBLIQUE])
def test_right_is_the_right_of_the_patient_for_any_direction_of_axes(tmp_path, direction):
    phantom = Phantom(*THICK, 3, direction=direction, traps={"touching"})
    case = sides_of(tmp_path, phantom)
    truth, actual = phantom.side_truth(), case.side.compute()
    for lung in LUNGS:
        lung_voxels = actual == lung.label
        assert (lung_voxels & (truth == lung.label)).sum() > 0.98 * lung_voxels.sum()
    x = np.argwhere(actual == 1)[:, ::-1].mean(axis=0) - np.argwhere(actual == 2)[:, ::-1].mean(axis=0)
    assert (np.reshape(direction, (3, 3)) @ (x * phantom.spacing))[0] < -50


def test_single_lung_is_not_cut_and_keeps_its_region(tmp_path):
    phantom = Phantom(*THICK, 3)
    hu, truth = phantom.volume(), phantom.side_truth()
    hu[truth == 1] = 40
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = case_of(cohort, "one", hu, phantom.geometry)
    mask.MaskStage(MaskParameters("physical")).run(StageContext(None, cohort), "one")
    label.LabelStage(MODEL).run(StageContext(None, cohort), "one")
    assert np.flatnonzero(case.side_counts.sum(axis=1)).tolist() == [LUNGS[1].label - 1]


def test_component_next_to_the_lungs_belongs_to_neither(tmp_path):
    phantom = Phantom(*THICK, 3)
    hu = phantom.volume()
    hu[:, 228:250, 50:210] = 40
    hu[1:-1, 232:246, 60:200] = -1000
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = case_of(cohort, "one", hu, phantom.geometry)
    mask.MaskStage(MaskParameters("physical")).run(StageContext(None, cohort), "one")
    label.LabelStage(MODEL).run(StageContext(None, cohort), "one")
    table = case.side.compute()[:, 232:246]
    assert (table == ELSEWHERE.label).sum() > 100_000
    assert not ((table > 0) & (table != ELSEWHERE.label)).any()


def test_parts_add_up_to_the_mask_and_their_counts_to_its_counts(tmp_path):
    phantom = Phantom(*FINE, 5, traps={"touching", "noise"})
    case = sides_of(tmp_path, phantom, MaskParameters(min_voxels=5_000))
    actual, hu = case.side.compute(), phantom.volume()
    assert np.array_equal(actual > 0, case.lung.compute() > 0)
    for region in SIDES:
        counts = np.bincount(hu[actual == region.label].astype(int) + 32768, minlength=N_HU)
        assert np.array_equal(case.side_counts[region.label - 1], counts)
    assert np.array_equal(case.side_counts.sum(axis=0), case.hu_counts)


def test_lung_that_the_volume_cuts_is_flagged(tmp_path):
    for name, traps, expected in [("a", (), []), ("b", ("cut",), ["z first", "z last"])]:
        case = sides_of(tmp_path / name, Phantom(*COARSE, 1, traps=traps))
        touches = case.stages["side"]["touches"]
        assert touches["right"] == touches["left"] == expected


def test_valid_regions_are_kept_and_a_new_mask_recomputes_them(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    phantom = Phantom(*COARSE, 1)
    case_of(cohort, "one", phantom.volume(), phantom.geometry)
    mask.MaskStage(MaskParameters("physical")).run(StageContext(None, cohort), "one")
    assert not regions.is_valid(cohort["one"])
    assert label.LabelStage(MODEL).run(StageContext(None, cohort), "one") == "done"
    assert label.LabelStage(MODEL).run(StageContext(None, cohort), "one") == "kept"
    assert regions.is_valid(cohort["one"])
    assert label.without_sides(cohort) == []
    before = cohort["one"].side_counts
    CaseWriter(cohort["one"]).start_stage("side", "another")
    assert label.without_sides(cohort) == ["one"]
    assert label.LabelStage(MODEL).run(StageContext(None, cohort), "one") == "done"
    assert np.array_equal(cohort["one"].side_counts, before)
    mask.MaskStage(MaskParameters("physical", threshold=-200)).run(StageContext(None, cohort), "one")
    assert not regions.is_valid(cohort["one"])


def test_labels_of_another_model_keep_the_regions_of_the_mask(tmp_path, monkeypatch):
    case = sides_of(tmp_path, Phantom(*COARSE, 1))
    monkeypatch.setattr(regions, "compute_coarse_regions", lambda case_ref: pytest.fail("regions are computed again"))
    before, labels = case.side_counts, case.tissue.compute()
    other = lungmix.TissueModel(MODEL.weights[::-1], MODEL.means, MODEL.variances)
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "r+")
    assert label.LabelStage(other).run(StageContext(None, cohort), "one") == "done"
    case = cohort["one"]
    assert np.array_equal(case.side_counts, before)
    assert regions.is_valid(case)
    assert not np.array_equal(case.tissue.compute(), labels)


def test_mask_of_a_few_voxels_has_regions_too(tmp_path):
    hu = np.full((20, 40, 40), 40, np.int16)
    hu[5:7, 10:12, 5:7] = -900
    hu[5:7, 10:12, 31:33] = -900
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = case_of(cohort, "one", hu, Phantom(hu.shape, (0.7, 0.7, 0.7)).geometry)
    mask.MaskStage(MaskParameters(opening=0, min_voxels=1, radii=())).run(StageContext(None, cohort), "one")
    label.LabelStage(MODEL).run(StageContext(None, cohort), "one")
    actual = case.side.compute()
    assert (actual[5, 10, 5], actual[5, 10, 31]) == (1, 2)


def test_measures_of_each_lung_are_those_of_its_voxels(tmp_path):
    phantom = Phantom(*FINE, 5, traps={"touching"})
    case, hu = sides_of(tmp_path, phantom, MaskParameters(min_voxels=5_000)), phantom.volume()
    table = lungmix.load_model("published").lookup_table()
    voxel = phantom.geometry.voxel_ml
    sides, tissue = case.side.compute(), table[hu.astype(int) + 32768]
    row = measure_scan(case.hu_counts, case.side_counts, table, voxel)
    for prefix, inside in [("", sides > 0), ("right_", sides == 1), ("left_", sides == 2)]:
        lung_hu, labels = hu[inside].astype(float), tissue[inside]
        expected = {
            "ml": len(lung_hu) * voxel, "mean_hu": lung_hu.mean(), "sd_hu": lung_hu.std(),
            "perc15": np.percentile(lung_hu, 15),
            "ggo": 100 * (labels == 3).mean(), "lung_involvement": 100 * (labels >= 3).mean(),
            "laa950": 100 * (lung_hu < -950).mean(), "laa910": 100 * (lung_hu < -910).mean(),
            "laa856": 100 * (lung_hu < -856).mean(), "haa_above_700": 100 * (lung_hu > -700).mean(),
            "haa_600_250": 100 * ((lung_hu > -600) & (lung_hu < -250)).mean(),
            "aerated_950_700": 100 * ((lung_hu >= -950) & (lung_hu <= -700)).mean(),
            "mass_g": (np.maximum(1 + lung_hu / 1000, 0)).sum() * voxel,
        }  # fmt: skip
        for key, value in expected.items():
            name = "lung_ml" if (prefix, key) == ("", "ml") else prefix + key
            assert row[name] == pytest.approx(value, rel=1e-9), name
    assert row["airway_ml"] == pytest.approx((sides == 3).sum() * voxel)
    assert row["elsewhere_ml"] == pytest.approx((sides == 4).sum() * voxel)
    without = measure_scan(case.hu_counts, case.side_counts, table, voxel, exclude_regions=[AIRWAY, ELSEWHERE])
    lung_hu = hu[(sides == 1) | (sides == 2)]
    assert without["mean_hu"] == pytest.approx(lung_hu.mean())
    assert without["left_out_ml"] == pytest.approx((sides > 2).sum() * voxel)
    assert without["lung_ml"] == pytest.approx(len(lung_hu) * voxel)


def test_lung_that_the_mask_omits_at_the_edge_is_recorded_and_measured(tmp_path):
    phantom = Phantom((60, 96, 90), (3.6, 3.7, 5.0))
    right = np.concatenate(list(phantom.side_truth_slabs())) == 1
    hu = np.ascontiguousarray(phantom.volume()[:, :, int(np.flatnonzero(right.any(axis=(0, 1)))[0]) + 2 :])
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = case_of(cohort, "one", hu, Geometry(hu.shape[::-1], phantom.spacing))
    mask.MaskStage(MaskParameters("physical")).run(StageContext(None, cohort), "one")
    label.LabelStage(MODEL).run(StageContext(None, cohort), "one")
    (piece,) = cohort["one"].stages["side"]["rejected"]
    assert piece["touches_edge"]
    (row,) = rows_of_case(cohort["one"], MEASUREMENTS_FILE, MODEL)
    assert row["right_ml"] == 0
    assert row["touches_border"] == 1
    assert row["rejected_ml"] == piece["ml"] > 1000
    # Without the other lung the mask is empty, and a smaller `min_voxels` would not help.
    case = case_of(cohort, "two", np.ascontiguousarray(hu[:, :, :45]), Geometry((45, 96, 60), phantom.spacing))
    with pytest.raises(NoLungError, match=r"reach the image edge.*whole field of view") as caught:
        mask.MaskStage(MaskParameters("physical")).run(StageContext(None, cohort), case.name)
    assert "min_voxels" not in str(caught.value)
    # The preset that the message names keeps what the edge cuts.
    assert 'MaskParameters(preset="anatomical")' in str(caught.value)
    anatomical.AnatomicalMaskStage(MaskParameters("anatomical")).run(StageContext(None, cohort), case.name)
    assert cohort["two"].stages["mask"]["voxels"] * case.geometry.voxel_ml > 1000
