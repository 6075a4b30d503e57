"""Which voxels the fits pool, and how much each scan counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lungmix
from lungmix.analysis.comparison import compare
from lungmix.errors import ModelError, UsageError
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED, fit_anchored, fit_converged, fit_paper
from lungmix.parameters import FitParameters, MaskParameters
from lungmix.phantom import Phantom
from lungmix.stages import label, mask, regions
from lungmix.stages.base import StageContext
from lungmix.stages.fit import HU, add_counts, fit_cohort
from lungmix.stages.pool import Pool, involved_percents, pool_cohort, without_lungs
from lungmix.stages.sides import SideStage
from lungmix.store import CaseWriter
from lungmix.tissue import LUNGS
from oracle.pool import pooled, pooled_alike
from support.generators import case_of, counts_of_scans, store_of_counts

ALIKE, SCANS = FitParameters(), FitParameters(weigh="scans")
COARSE = ((48, 96, 96), (3.7, 3.7, 6.25))


@pytest.fixture
def counts():
    """Scans of which one has 50 times as many voxels as the others."""
    counts = counts_of_scans(3, 20_000, spread=5.0)
    return {**counts, **{"case-000": counts_of_scans(1, 1_000_000, spread=5.0, seed=4)["case-001"]}}


@pytest.fixture
def cohort(tmp_path, counts):
    return store_of_counts(tmp_path / "s.zarr", counts)


def pooled_counts(cohort, names, parameters, client=None):
    return pool_cohort(cohort, names, parameters, client)[1]


def test_scans_that_count_alike_have_the_same_number_of_voxels(cohort, counts):
    names = list(cohort)
    pooled = pooled_counts(cohort, names, FitParameters(weigh="scans"))
    total = sum(int(histogram.sum()) for histogram in counts.values())
    expected = sum((histogram / histogram.sum() for histogram in counts.values()), np.zeros(65536)) * total / 4
    np.testing.assert_allclose(pooled, expected, rtol=1e-12)
    assert pooled.sum() == pytest.approx(total)
    np.testing.assert_array_equal(pooled_counts(cohort, names, FitParameters()), add_counts(counts))


def test_only_the_fit_of_the_paper_pools_voxels_alike(cohort, counts):
    fits, _ = fit_cohort(cohort, list(cohort), FitParameters(weigh="scans"))
    pooled = pooled_counts(cohort, list(cohort), FitParameters(weigh="scans"))
    assert fits.paper.means == fit_paper(HU, add_counts(counts), clip=-1000).means
    converged = fit_converged(HU, pooled, [fits.paper], clip=-1000)
    assert fits.converged.means == converged.means
    anchored = fit_anchored(HU, pooled, [converged, fits.paper], clip=-1000)
    assert fits.anchored.means == anchored.means
    alike, _ = fit_cohort(cohort, list(cohort), FitParameters())
    assert alike.paper.means == fits.paper.means
    # The large scan decides where voxels count alike.
    large, pooled_mean = (np.average(HU, weights=histogram) for histogram in (counts["case-000"], pooled))
    means = [np.dot(model.weights, model.means) for model in (alike.converged, fits.converged)]
    assert abs(means[0] - large) < abs(means[1] - large)
    assert means[1] == pytest.approx(pooled_mean, abs=3)


def test_another_pool_is_another_fit_and_the_next_run_keeps_it(cohort):
    assert fit_cohort(cohort, list(cohort), FitParameters())[1] == "done"
    assert fit_cohort(cohort, list(cohort), FitParameters(weigh="scans"))[1] == "done"
    assert fit_cohort(cohort, list(cohort), FitParameters(weigh="scans"))[1] == "kept"
    assert cohort.settings["fit"]["parameters"]["weigh"] == "scans"
    fit_cohort(cohort, list(cohort), FitParameters())
    assert {"weigh", "pool"}.isdisjoint(cohort.settings["fit"]["parameters"])


def test_unknown_pools_are_rejected():
    with pytest.raises(UsageError, match="no pool 'body': choose one of mask, lungs"):
        FitParameters(pool="body")
    with pytest.raises(UsageError, match="no weigh 'patients': choose one of voxels, scans"):
        FitParameters(weigh="patients")


def test_cohort_without_a_voxel_has_no_pool(tmp_path):
    cohort = store_of_counts(tmp_path / "s.zarr", {"case-001": np.zeros(65536, np.uint64)})
    with pytest.raises(ModelError, match="none of 1 case has a lung voxel"):
        pooled_counts(cohort, ["case-001"], SCANS)


BINS = [0, 31768, 32768, 65535]
HISTOGRAMS = st.lists(
    st.lists(st.integers(0, 2**40), min_size=4, max_size=4) | st.lists(st.integers(0, 3), min_size=4, max_size=4),
    min_size=1,
    max_size=8,
)


def dense(bins):
    counts = np.zeros(65536, np.uint64)
    counts[BINS] = bins
    return counts


@given(HISTOGRAMS, st.randoms(use_true_random=False), st.integers(1, 4))
def test_parts_of_a_pool_in_any_order_are_the_exact_pool(bins, random, parts):
    scans = [dense(row) for row in bins]
    small = [np.array(row, np.uint64) for row in bins]
    shuffled = random.sample(scans, len(scans))
    for parameters in (ALIKE, SCANS):
        whole_pool = Pool(parameters)
        for first in range(parts):
            part = Pool(parameters)
            for counts in shuffled[first::parts]:
                part.add_counts(counts)
            whole_pool.add_part(part.part())
        if not any(counts.any() for counts in scans):
            with pytest.raises(ModelError, match="has a lung voxel"):
                whole_pool.counts()
            continue
        expected = pooled(small) if parameters is ALIKE else pooled_alike(small)
        np.testing.assert_array_equal(whole_pool.counts()[BINS], expected)
        assert np.count_nonzero(whole_pool.counts()) == np.count_nonzero(expected)


def test_pool_without_a_case_is_the_pool_of_the_others(cohort, counts):
    for parameters in (ALIKE, SCANS):
        pools = Pool(parameters), Pool(parameters)
        for name, case in cohort.items():
            pools[0].add(case)
            if name != "case-000":
                pools[1].add(case)
        np.testing.assert_array_equal(pools[0].counts([cohort["case-000"]]), pools[1].counts())


@pytest.mark.parametrize("cases_of_batch", [1, 3, 64])
def test_batches_do_not_change_the_pool(cohort, counts, monkeypatch, cases_of_batch):
    monkeypatch.setattr("lungmix.stages.batches.BATCH_CASES", cases_of_batch)
    alike, scans = pool_cohort(cohort, list(cohort), SCANS)
    np.testing.assert_array_equal(alike, add_counts(counts))
    np.testing.assert_array_equal(scans, pooled_alike_of(counts))
    involved = {"low": HU < -900, "high": HU > -500}
    percents = involved_percents(cohort, [*counts], involved)
    assert list(percents) == list(counts)
    for name, histogram in counts.items():
        expected = {key: 100 * int(histogram[chosen].sum()) / int(histogram.sum()) for key, chosen in involved.items()}
        assert percents[name] == expected


def pooled_alike_of(counts):
    present = np.flatnonzero(add_counts(counts))
    out = np.zeros(65536)
    out[present] = pooled_alike([histogram[present] for histogram in counts.values()])
    return out


@pytest.mark.slow
def test_workers_pool_what_the_client_pools(client, tmp_path, monkeypatch):
    monkeypatch.setattr("lungmix.stages.batches.BATCH_CASES", 4)
    counts = counts_of_scans(18, 3000, spread=5.0)
    cohort = store_of_counts(tmp_path / "s.zarr", counts)
    names, heard = list(cohort), []
    for parameters in (ALIKE, SCANS):
        on_workers = pool_cohort(cohort, names, parameters, client, lambda *numbers: heard.append(numbers))
        for histogram, expected in zip(on_workers, pool_cohort(cohort, names, parameters), strict=True):
            np.testing.assert_array_equal(histogram, expected)
    assert heard[-1] == (18, 18)
    result = lungmix.Pipeline(client, cohort).fit()
    assert result.comparison == compare(result.fits, counts, -1000)


@pytest.mark.slow
def test_corrupt_histogram_read_by_a_worker_leaves_only_its_case_out(client, tmp_path, monkeypatch):
    monkeypatch.setattr("lungmix.stages.batches.BATCH_CASES", 2)
    cohort = store_of_counts(tmp_path / "s.zarr", counts_of_scans(6, 3000))
    (file,) = (tmp_path / "s.zarr" / "case-003" / "hu_counts").glob("c*/**/[0-9]*")
    file.write_bytes(file.read_bytes()[:-9] + bytes(9))
    result = lungmix.Pipeline(client, cohort).fit()
    assert list(result.failed) == ["case-003"]
    others = [name for name in cohort if name != "case-003"]
    assert result.fits == fit_cohort(cohort, others, FitParameters())[0]


def masked(folder, phantom, geometry=None, chunk_slices=None):
    cohort = lungmix.open_cohort(folder, "a")
    case_of(cohort, "one", phantom.volume(), geometry or phantom.geometry, chunk_slices)
    mask.MaskStage(MaskParameters("physical")).run(StageContext(None, cohort), "one")
    return cohort


@pytest.mark.usefixtures("stages_here")
@pytest.mark.parametrize("chunk_slices", [8, 16])
def test_sides_found_before_the_fit_are_those_of_the_label_stage(tmp_path, chunk_slices):
    phantom = Phantom(*COARSE, 3, traps={"touching", "table"})
    first = masked(tmp_path / "first.zarr", phantom, chunk_slices=chunk_slices)
    before, later = first, masked(tmp_path / "later.zarr", phantom)
    assert SideStage().run(StageContext(None, before), "one") == "done"
    assert SideStage().run(StageContext(None, before), "one") == "kept"
    sides, counts, quality = before["one"].side.compute(), before["one"].side_counts, before["one"].quality
    for cohort in (before, later):
        assert label.LabelStage(PUBLISHED).run(StageContext(None, cohort), "one") == "done"
        np.testing.assert_array_equal(cohort["one"].side.compute(), sides)
        np.testing.assert_array_equal(cohort["one"].side_counts, counts)
        assert cohort["one"].quality == quality
        records = [dict(stored["one"].stages["side"]) for stored in (cohort, before)]
        assert [record.pop("files") is not None for record in records] == [True, True]
        assert records[0] == records[1]
    pooled = pooled_counts(before, ["one"], FitParameters(pool="lungs"))
    expected = np.isin(sides, [lung.label for lung in LUNGS])
    np.testing.assert_array_equal(
        pooled, np.bincount(phantom.volume()[expected].astype(np.int64) + 32768, minlength=65536)
    )
    assert pooled.sum() < before["one"].hu_counts.sum()
    assert not without_lungs(before, ["one"])


@pytest.mark.usefixtures("stages_here")
def test_whole_mask_is_pooled_where_right_and_left_are_unknown(tmp_path):
    phantom = Phantom(*COARSE, 3)
    geometry = Geometry(phantom.geometry.size, phantom.geometry.spacing, orientation_known=False)
    cohort = masked(tmp_path / "s.zarr", phantom, geometry)
    SideStage().run(StageContext(None, cohort), "one")
    pooled = pooled_counts(cohort, ["one"], FitParameters(pool="lungs"))
    np.testing.assert_array_equal(pooled, cohort["one"].hu_counts)
    (note,) = without_lungs(cohort, ["one"])
    assert "the whole mask of 1 case (one) is pooled" in note


@pytest.mark.usefixtures("stages_here")
def test_sides_that_were_interrupted_are_found_again(tmp_path):
    cohort = masked(tmp_path / "s.zarr", Phantom(*COARSE, 3))
    SideStage().run(StageContext(None, cohort), "one")
    sides = cohort["one"].side.compute()
    CaseWriter(cohort["one"]).start_stage("side", "another")
    assert not regions.is_valid(cohort["one"])
    assert SideStage().run(StageContext(None, cohort), "one") == "done"
    np.testing.assert_array_equal(cohort["one"].side.compute(), sides)
