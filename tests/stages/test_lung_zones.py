"""Lung zones in a store: on request, and equal to those of the whole volume in any chunks and storage order."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lungmix
from lungmix.errors import StoreError, UsageError
from lungmix.geometry import Geometry
from lungmix.kernels.histogram import count_hu
from lungmix.kernels.lung_zones import zone_counts
from lungmix.mixture import PUBLISHED
from lungmix.parameters import MaskParameters
from lungmix.phantom import Phantom
from lungmix.pipeline.staleness import stale_stages
from lungmix.pipeline.zones import remember_zones, zone_stages
from lungmix.stages import label, mask, regions
from lungmix.stages.anatomical import mask_stage
from lungmix.stages.base import StageContext
from lungmix.stages.fit import publish
from lungmix.stages.lung_zones import ZoneStage, is_valid
from lungmix.stages.measure import drop_stale_rows, measure_cohort, rows_of_case
from lungmix.store import MEASUREMENTS_FILE, ZONES_FILE, CaseWriter, choices
from lungmix.store.schema import LABELS_FILE
from lungmix.store.tables import lines_of
from lungmix.tissue import LUNG_ZONES
from lungmix.verify.case import Comparison
from lungmix.verify.objects import unexpected_objects
from lungmix.verify.problems import Verification
from oracle.lung_zones import zones_of
from support.generators import ORIENTATIONS, as_axial, case_of, reoriented

pytestmark = pytest.mark.usefixtures("stages_here")

FINE = Geometry((56, 54, 40), (1.25, 1.25, 1.5))
"""Reduced voxels are two voxels wide."""


def sides_of(shape, seed=0):
    """Return regions of a right and a left lung with rough surfaces and a hole, an airway and a voxel elsewhere."""
    random = np.random.default_rng(seed)
    sides = np.zeros(shape, np.uint8)
    z, y, x = np.indices(shape)
    nz, ny, nx = shape
    sides[
        ((z - nz * 0.5) / (nz * 0.7)) ** 2 + ((y - ny * 0.5) / (ny * 0.48)) ** 2 + ((x - nx * 0.4) / (nx * 0.38)) ** 2
        < 1
    ] = 1
    sides[
        ((z - nz * 0.4) / (nz * 0.4)) ** 2 + ((y - ny * 0.6) / (ny * 0.3)) ** 2 + ((x - nx * 0.9) / (nx * 0.1)) ** 2 < 1
    ] = 2
    sides[:, ny // 2 : ny // 2 + 2, int(nx * 0.78) : int(nx * 0.8)] = 3
    sides[nz // 2, ny // 2, int(nx * 0.4)] = 0
    sides[0, 0, 0] = 4
    sides[(random.random(shape) < 0.01) & (y < ny // 4)] = 0
    return sides


def hu_of(shape, seed=0):
    return np.random.default_rng(seed).integers(-1000, 200, shape).astype(np.int16)


def case_with(cohort, sides, geometry, chunk_slices=None, name="one"):
    """Add a case whose mask and regions are given, as after the label stage."""
    hu = hu_of(sides.shape)
    case = case_of(cohort, name, hu, geometry, chunk_slices)
    lung = (sides > 0).astype(np.uint8)
    for image, volume in (("lung", lung), ("side", sides)):
        case.create_image(image)
        for start, stop in case.layout.slabs():
            case.write(image, start, volume[start:stop])
    case.write_histogram("hu_counts", count_hu(hu, lung))
    counts = np.stack([count_hu(hu, (sides == region).astype(np.uint8)) for region in range(1, 5)])
    case.write_histogram("side_counts", counts)
    case.record("mask", {"key": "m", "parameters": {"preset": "physical"}})
    touches = {key: [] for key in ("right", "left", "airway", "elsewhere")}
    case.record("side", {"key": regions.key_for(case), "touches": touches})
    return case


def zoned(cohort, by="volume", name="one"):
    return ZoneStage(by).run(StageContext(None, cohort), name)


def listed(case):
    return json.loads(CaseWriter(case).read_object(LABELS_FILE))["attributes"]["ome"]["labels"]


@pytest.fixture(scope="module")
def expected():
    """Zones of the whole volume by each rule."""
    sides = sides_of(FINE.shape)
    return sides, {by: zones_of(sides, FINE.spacing_zyx, by) for by in ("volume", "height", "volume-common")}


@pytest.mark.parametrize("by", ["volume", "height", "volume-common"])
@pytest.mark.parametrize("chunk_slices", [8, 16, None])
def test_zones_equal_those_of_the_whole_volume_whatever_the_slabs(tmp_path, expected, by, chunk_slices):
    sides, zones = expected
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_with(cohort, sides, FINE, chunk_slices)
    assert zoned(cohort, by) == "done"
    case = cohort["one"]
    assert np.array_equal(case.zone.compute(), zones[by])
    hu = case.zarr_array("ct")[:]
    counts = np.stack([count_hu(hu, (zones[by] == zone.label).astype(np.uint8)) for zone in LUNG_ZONES])
    assert np.array_equal(case.zone_counts, counts)
    sums = case.zone_counts.reshape(2, 12, -1).sum(axis=1)
    assert np.array_equal(sums, case.side_counts[:2])
    voxels = np.bincount(zones[by].ravel(), minlength=25)[1:]
    assert case.stages["zone"]["voxels"] == {zone.key: voxels[zone.label - 1] for zone in LUNG_ZONES}
    assert (voxels > 0).sum() >= 18
    assert listed(case) == ["lung", "side", "zone"]
    assert is_valid(case)


@settings(max_examples=8)
@given(st.sampled_from([8, 16]), st.integers(0, 1000), st.sampled_from([0.9, 2.4, 5.0]), st.sampled_from(ORIENTATIONS))
def test_zones_do_not_depend_on_chunks_and_storage_order(tmp_path_factory, chunk_slices, seed, step, orientation):
    geometry = Geometry((17, 22, 20), (step, step * 1.2, 6.0))
    sides = sides_of(geometry.shape, seed)
    cohort = lungmix.open_cohort(tmp_path_factory.mktemp("h") / "s.zarr", "a")
    stored, moved = reoriented(sides, geometry, orientation)
    case_with(cohort, stored, moved, chunk_slices)
    zoned(cohort)
    zones = as_axial(cohort["one"].zarr_array("zone")[:], moved)
    assert np.array_equal(zones, zones_of(sides, geometry.spacing_zyx, "volume"))


@pytest.mark.parametrize("orientation", ["RAI", "SAL", "PIR"])
def test_zones_are_the_same_in_every_storage_order(tmp_path, expected, orientation):
    sides, zones = expected
    stored, geometry = reoriented(sides, FINE, orientation)
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_with(cohort, stored, geometry, 8)
    zoned(cohort)
    assert np.array_equal(as_axial(cohort["one"].zarr_array("zone")[:], geometry), zones["volume"])


def test_zones_exist_only_while_they_are_wanted(tmp_path, expected):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_with(cohort, expected[0], FINE, 8)
    with pytest.raises(StoreError, match='zones="volume"'):
        cohort["one"].array("zone")
    before = {key: size for key, size in CaseWriter(cohort["one"]).sizes().items() if key != "zarr.json"}
    assert zone_stages(cohort) == []
    remember_zones(cohort, "volume")
    assert zone_stages(cohort) == [ZoneStage("volume")]
    assert (zoned(cohort), zoned(cohort)) == ("done", "kept")
    first = cohort["one"].zone.compute()
    assert zoned(cohort, "height") == "done"
    assert not np.array_equal(cohort["one"].zone.compute(), first)
    remember_zones(cohort, None)
    assert choices.last_zones(cohort) == "volume"
    assert "lung zones by volume" in choices.choose(str(tmp_path / "s.zarr")).kept
    remember_zones(cohort, "none")
    case = CaseWriter(lungmix.open_cohort(tmp_path / "s.zarr")["one"])
    assert {key: size for key, size in case.sizes().items() if key != "zarr.json"} == before
    assert "zone" not in case.stages
    assert case.packed_threshold is not None
    assert listed(case) == ["lung", "side"]
    assert choices.last_zones(lungmix.open_cohort(tmp_path / "s.zarr")) is None


def test_interrupted_stage_leaves_no_zones_and_is_resumed(tmp_path, expected, monkeypatch):
    sides, zones = expected
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_with(cohort, sides, FINE, 8)
    zoned(cohort, "height")
    from lungmix.stages import lung_zones

    calls = []

    def counts_until_the_third(*slab):
        calls.append(slab)
        if len(calls) == 3:
            raise OSError("disk full")
        return zone_counts(*slab)

    monkeypatch.setattr(lung_zones, "zone_counts", counts_until_the_third)
    with pytest.raises(OSError, match="disk full"):
        zoned(cohort)
    interrupted = CaseWriter(lungmix.open_cohort(tmp_path / "s.zarr")["one"])
    assert "zone" not in interrupted.stages
    assert unexpected_objects(interrupted)["zone"] == "the stage zone was interrupted"
    assert rows_of_case(interrupted, ZONES_FILE, PUBLISHED) == []
    monkeypatch.setattr(lung_zones, "zone_counts", zone_counts)
    assert zoned(cohort) == "done"
    assert np.array_equal(cohort["one"].zone.compute(), zones["volume"])
    assert not any("zone" in key for key in unexpected_objects(CaseWriter(cohort["one"])))


def test_new_mask_invalidates_zones(tmp_path, expected):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = case_with(cohort, expected[0], FINE)
    zoned(cohort)
    assert stale_stages(cohort["one"], zone_stages(cohort)) == set()
    CaseWriter(cohort["one"]).start_stage("mask", "other")
    assert "zone" not in cohort["one"].stages
    with pytest.raises(StoreError, match="no complete lung mask"):
        zoned(cohort)
    CaseWriter(cohort["one"]).record("mask", {"key": "other"})
    with pytest.raises(StoreError, match=r"right and left lung are missing or corrupt: run `Pipeline\.label\(\)`"):
        zoned(cohort)
    assert stale_stages(case, [ZoneStage()]) == {"zone"}


def test_scan_of_unknown_orientation_has_no_zones(tmp_path):
    geometry = replace(FINE, orientation_known=False)
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_with(cohort, np.zeros(geometry.shape, np.uint8), geometry)
    assert zoned(cohort) == "done"
    case = cohort["one"]
    assert not case.zone.compute().any()
    assert not case.zone_counts.any()
    assert rows_of_case(case, ZONES_FILE, PUBLISHED) == []


def test_counts_are_of_harmonised_hu(tmp_path, expected):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = case_with(cohort, expected[0], FINE)
    case.create_image("harmonised")
    for start, stop in case.layout.slabs():
        case.write("harmonised", start, np.full((stop - start, *FINE.shape[1:]), -500, np.int16))
    case.record("harmonise", {"key": "h"})
    zoned(cohort)
    counts = cohort["one"].zone_counts
    assert counts[:, -500 + 32768].sum() == counts.sum() == (expected[0] == 1).sum() + (expected[0] == 2).sum()


CHEST = Phantom((60, 52, 56), (5.2, 5.6, 3.4), 3, traps={"vessels"})


def masked_chest(folder, preset, orientation="LPS", chunk_slices=None):
    """Return a new store with a masked chest, as which `preset` decides whether regions are written with the mask."""
    cohort = lungmix.open_cohort(folder / "s.zarr", "a")
    stored, geometry = reoriented(CHEST.volume(), CHEST.geometry, orientation)
    case_of(cohort, "one", stored, geometry, chunk_slices)
    parameters = MaskParameters(preset, **({"min_voxels": 900} if preset == "physical" else {}))
    assert mask_stage(parameters).run(StageContext(None, cohort), "one") == "done"
    assert regions.is_valid(cohort["one"]) is (preset == "anatomical")
    return cohort


def labelled_by(cohort, *stages):
    return [stage.run(StageContext(None, cohort), "one") for stage in stages]


@pytest.mark.parametrize("preset", ["physical", "anatomical"])
@pytest.mark.parametrize(
    ("orientation", "chunk_slices", "by"), [("LPS", None, "volume"), ("RAI", 8, "height"), ("PIR", 16, "volume-common")]
)
def test_zones_made_along_with_labels_are_those_of_the_stage(tmp_path, preset, orientation, chunk_slices, by):
    cases = []
    for folder, stages in (
        ("along", [label.LabelStage(PUBLISHED, zones=by)]),
        ("after", [label.LabelStage(PUBLISHED), ZoneStage(by)]),
    ):
        cohort = masked_chest(tmp_path / folder, preset, orientation, chunk_slices)
        assert set(labelled_by(cohort, *stages)) == {"done"}
        assert labelled_by(cohort, ZoneStage(by)) == ["kept"]
        cases.append(cohort["one"])
    along, after = cases
    assert min(after.stages["zone"]["voxels"][zone] for zone in ("right_upper_dorsal_peel", "left_lower_ventral_core"))
    # Records contain a receipt of each object.
    for stage in ("side", "label", "zone"):
        assert along.stages[stage] == after.stages[stage]
    assert np.array_equal(along.zone.compute(), after.zone.compute())
    assert np.array_equal(along.zone_counts, after.zone_counts)
    assert listed(along) == listed(after)
    assert not any("labels" in key or "zone" in key for key in unexpected_objects(CaseWriter(along)))


@pytest.mark.parametrize("preset", ["physical", "anatomical"])
def test_interrupted_labels_leave_no_zones_and_both_are_resumed(tmp_path, preset, monkeypatch):
    from lungmix.stages import lung_zones

    cohort = masked_chest(tmp_path / "interrupted", preset, chunk_slices=16)
    stage = label.LabelStage(PUBLISHED, zones="volume")

    def fail(*slab):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(lung_zones, "zone_counts", fail)
        with pytest.raises(OSError, match="disk full"):
            labelled_by(cohort, stage)
    interrupted = CaseWriter(lungmix.open_cohort(tmp_path / "interrupted" / "s.zarr")["one"])
    assert {"label", "zone"}.isdisjoint(interrupted.stages)
    assert labelled_by(cohort, stage) == ["done"]
    undisturbed = masked_chest(tmp_path / "undisturbed", preset, chunk_slices=16)
    labelled_by(undisturbed, stage)
    assert cohort["one"].stages["zone"] == undisturbed["one"].stages["zone"]
    assert not any("labels" in key or "zone" in key for key in unexpected_objects(CaseWriter(cohort["one"])))


def test_labels_make_zones_only_where_the_store_lacks_them(tmp_path, monkeypatch):
    from lungmix.stages import lung_zones

    cohort = masked_chest(tmp_path, "physical")
    assert labelled_by(cohort, label.LabelStage(PUBLISHED)) == ["done"]
    # Labels that are kept are not read again for the zones.
    assert labelled_by(cohort, label.LabelStage(PUBLISHED, zones="volume")) == ["kept"]
    assert "zone" not in cohort["one"].stages
    assert labelled_by(cohort, ZoneStage("volume")) == ["done"]
    record = cohort["one"].stages["zone"]
    other = replace(PUBLISHED, means=tuple(mean + 1 for mean in PUBLISHED.means))
    with monkeypatch.context() as patch:
        patch.setattr(lung_zones, "divide", None)
        assert labelled_by(cohort, label.LabelStage(other, zones="volume")) == ["done"]
    assert cohort["one"].stages["zone"] == record
    assert labelled_by(cohort, label.LabelStage(PUBLISHED, zones="height")) == ["done"]
    assert cohort["one"].stages["zone"]["by"] == "height"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Folder of a labelled store with lung zones."""
    from _pytest.monkeypatch import MonkeyPatch

    folder = tmp_path_factory.mktemp("labelled")
    with MonkeyPatch.context() as patch:
        here(patch)
        cohort = lungmix.open_cohort(folder / "s.zarr", "a")
        case_of(cohort, "one", CHEST.volume(), CHEST.geometry)
        context = StageContext(None, cohort)
        mask.MaskStage(MaskParameters("physical", min_voxels=900)).run(context, "one")
        publish(cohort, PUBLISHED, {"given": True})
        remember_zones(cohort, "volume")
        for stage in (label.LabelStage(PUBLISHED, "published"), *zone_stages(cohort)):
            stage.run(context, "one")
    return folder


def here(patch):
    """Let stages compute in this process, as the fixture ``stages_here`` does."""
    import dask

    from lungmix.stages import lung_zones

    def gather(client, values, watch=None):
        with dask.config.set(scheduler="synchronous"):
            return list(dask.compute(*values))

    for stage in (mask, label, lung_zones):
        patch.setattr(stage, "compute_in_order", gather)
    for stage in (mask, label):
        patch.setattr(stage, "min_worker_memory", lambda client: 1 << 30)


@pytest.fixture
def store(labelled, tmp_path):
    """Copy of the labelled store that a test may change."""
    import shutil

    shutil.copytree(labelled, tmp_path / "copy")
    return lungmix.open_cohort(tmp_path / "copy" / "s.zarr", "a")


def test_rows_of_sums_agree_with_the_measurements(store):
    (measured,) = rows_of_case(store["one"], MEASUREMENTS_FILE, PUBLISHED)
    rows = {row["zone"]: row for row in rows_of_case(store["one"], ZONES_FILE, PUBLISHED)}
    assert len(rows) == 24 + 3 * 14
    for side in ("right", "left"):
        assert rows[side]["lung_ml"] == measured[f"{side}_ml"]
        for column in ("lung_involvement", "mean_hu", "laa950", "perc15", "mass_g", "ggo", "lung_involvement_expected"):
            assert rows[side][column] == pytest.approx(measured[f"{side}_{column}"], rel=1e-12)
    for parts in (
        ("upper", "middle", "lower"),
        ("ventral", "dorsal"),
        ("core", "peel"),
        tuple(f"{third}_{half}" for third in ("upper", "middle", "lower") for half in ("ventral", "dorsal")),
    ):
        for side in ("right", "left", "both"):
            for column in ("voxels", "mass_g", "ggo_ml"):
                total = sum(rows[f"{side}_{part}"][column] for part in parts)
                assert total == pytest.approx(rows[side][column])
    for zone in LUNG_ZONES:
        row = rows[zone.key]
        assert (row["side"], row["third"], row["half"], row["depth"]) == tuple(zone.key.split("_"))
        assert row["voxels"] == store["one"].stages["zone"]["voxels"][zone.key]
    assert (rows["both"]["side"], rows["both"]["third"]) == ("both", "all")
    assert {row["by"] for row in rows.values()} == {"volume"}
    thirds = [rows[f"right_{third}"]["lung_ml"] for third in ("upper", "middle", "lower")]
    assert max(thirds) < 1.1 * min(thirds)


def test_columns_are_those_of_the_data_dictionary(store):
    from lungmix.kernels.data_dictionary import ZONES

    rows = rows_of_case(store["one"], ZONES_FILE, PUBLISHED)
    assert [*rows[0]] == [column.key for column in ZONES]


def test_only_the_table_of_zones_loses_rows_when_zones_change(store):
    measured = measure_cohort(store, ["one"], PUBLISHED)
    measure_cohort(store, ["one"], PUBLISHED, (), ZONES_FILE)
    before = store.read_text(MEASUREMENTS_FILE)
    assert len(lines_of(store.read_text(ZONES_FILE))[1]["one"]) == 66
    drop_stale_rows(store, lambda case: stale_stages(case, [ZoneStage("volume")]))
    assert "one" in lines_of(store.read_text(ZONES_FILE))[1]
    drop_stale_rows(store, lambda case: stale_stages(case, [ZoneStage("height")]))
    assert lines_of(store.read_text(ZONES_FILE))[1] == {}
    assert store.read_text(MEASUREMENTS_FILE) == before
    assert store.read_text(ZONES_FILE).startswith("case,zone,side,third,half,depth,lung_ml,air,")
    measure_cohort(store, ["one"], PUBLISHED, (), ZONES_FILE)
    drop_stale_rows(store, lambda case: {"label"})
    assert lines_of(store.read_text(ZONES_FILE))[1] == lines_of(store.read_text(MEASUREMENTS_FILE))[1] == {}
    assert measured


@pytest.mark.parametrize("is_changed", [False, True])
def test_verification_recomputes_zones_and_rows(store, is_changed):
    measure_cohort(store, ["one"], PUBLISHED)
    measure_cohort(store, ["one"], PUBLISHED, (), ZONES_FILE)
    writer = CaseWriter(store["one"])
    if is_changed:
        record = dict(writer.stages["zone"])
        start, stop = next(writer.layout.slabs())
        files = record.pop("files") | writer.write("zone", start, writer.read("side", start, stop))
        record["planes"] = {}
        writer.record("zone", record, files)
        text = store.read_text(ZONES_FILE)
        (store_file,) = [line for line in text.splitlines() if line.startswith("one,left_lower_dorsal_peel,")]
        from lungmix.stages.measure import write_table

        write_table(store, ZONES_FILE, text.replace(store_file, store_file.replace("peel,left", "peel,right")))
    verification = Verification()
    verification.wrong["one"] = []
    comparison = Comparison(None, store, CaseWriter(store["one"]), None, PUBLISHED, verification)
    comparison._check_records()
    comparison._recompute()
    problems = [text for text in verification.wrong["one"] if "zone" in text]
    assert bool(problems) is is_changed
    if is_changed:
        assert "planes of the stage zone differs when recomputed" in problems
        assert "its row in zones.csv does not match its histograms: run `Pipeline.measure()`" in problems


@pytest.mark.parametrize("call", [choices.choose, lambda url, zones: lungmix.run(url, url, zones=zones)])
def test_unknown_rule_is_rejected_before_a_store_is_made(tmp_path, call):
    with pytest.raises(UsageError, match=r"no lung zones by .*lobes.*: choose one of volume, height, .*, none"):
        call(str(tmp_path / "s.zarr"), zones="lobes")
    assert not (tmp_path / "s.zarr").exists()
