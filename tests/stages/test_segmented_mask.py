"""Masks by segmenters of another package, compared with the segmenter applied to the whole volume."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from threading import Lock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lungmix
from lungmix.cluster.worker_memory import WorkerMemory
from lungmix.errors import HuError, RoomError, SegmenterError
from lungmix.geometry import Geometry
from lungmix.kernels.label_components import find_clean_up
from lungmix.kernels.plausibility import summarize
from lungmix.parameters import MaskParameters
from lungmix.segmenters import AxialSlices, find_segmenter
from lungmix.stages import regions
from lungmix.stages.base import StageContext
from lungmix.stages.fit import publish
from lungmix.stages.flags import flags_of
from lungmix.stages.given_mask import is_given
from lungmix.stages.label import LabelStage
from lungmix.stages.mask import MaskStage
from lungmix.stages.measure import rows_of_case
from lungmix.stages.segmented_mask import SegmentedMaskStage
from lungmix.store import CaseWriter, stage_of
from lungmix.store.models import mask_text
from lungmix.store.objects import receipt_of
from lungmix.tissue import LOBES
from lungmix.verify import verify_cases
from support import segmenters
from support.generators import ORIENTATIONS, case_of, reoriented
from support.masks import InProcess

pytestmark = pytest.mark.usefixtures("stages_here", "toy")

MODEL = lungmix.load_model("published")
PHYSICAL = MaskParameters("physical")
GRID = Geometry((20, 16, 23), (1.5, 1.6, 2.0), (-10.0, 3.0, -700.0))


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """An installed package with segmenters."""
    folder = segmenters.install(tmp_path / "site")
    segmenters.forget()
    monkeypatch.syspath_prepend(folder)
    yield folder
    segmenters.forget()


def chest(seed=0, shape=GRID.shape):
    """Return HU with two lungs, air outside the body, and noise; without any symmetry."""
    random = np.random.default_rng(seed)
    hu = random.normal(30, 20, shape)
    nz, ny, nx = shape
    lungs = np.zeros(shape, bool)
    lungs[2 : nz - 3, 3 : ny - 2, 2 : nx // 2 - 1] = lungs[4 : nz - 1, 2 : ny - 4, nx // 2 + 1 : nx - 3] = True
    hu[lungs] = random.normal(-850, 40, int(lungs.sum()))
    hu[random.random(shape) < 0.05] = -900
    return hu.astype(np.int16)


def add_case(cohort, hu, grid, chunk_slices=16, name="one"):
    case = case_of(cohort, name, hu, grid, chunk_slices=chunk_slices)
    record = case.stages["convert"]
    files = {key: receipt_of(case.read_object(key)) for key in case.sizes() if stage_of(key) == "convert"}
    digest = sha256(hu.tobytes()).hexdigest()
    case.record("convert", {**record, "key": "k", "voxels_sha256": digest}, files)
    return case


@pytest.fixture
def cohort(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    add_case(cohort, chest(), GRID)
    publish(cohort, MODEL, {"given": True})
    return cohort


def segment(cohort, name, weights=None, parameters=PHYSICAL, memory=None, **options):
    stage = SegmentedMaskStage(find_segmenter(name, weights), parameters, **options)
    return stage.run(StageContext(InProcess(), cohort, memory or WorkerMemory()), "one")


def on_whole_volume(name, hu, spacing=(2.0, 1.6, 1.5)):
    """Return the labels of a segmenter by its definition.

    It labels batches of axial slices from the feet on; the whole volume is then cleaned and brought to the scan's grid.
    """
    with find_segmenter(name).loaded() as segmenter:
        starts = range(0, len(hu), segmenter.batch_slices)
        batches = [
            AxialSlices(np.ascontiguousarray(hu[start : start + segmenter.batch_slices]), start, len(hu), spacing)
            for start in starts
        ]
        labels = np.concatenate([segmenter.segment(batch) for batch in batches])
        if segmenter.clean_up:
            raw = labels
            labels = find_clean_up(lambda start, stop: raw[start:stop], len(hu), len(hu)).apply(0, raw)
        pieces = zip(np.split(labels, list(starts)[1:]), batches, strict=True)
        return np.concatenate([segmenter.place(piece, batch) for piece, batch in pieces])


def problems_of(cohort):
    verification = verify_cases(InProcess(), lungmix.open_cohort(cohort.url), list(cohort), {})
    return [problem for problems in verification.wrong.values() for problem in problems]


def test_a_segmenter_of_another_distribution_makes_mask_regions_and_counts(cohort):
    assert segment(cohort, "threshold") == "done"
    case, expected = cohort["one"], on_whole_volume("threshold", chest())
    assert np.array_equal(case.lung.compute(), expected > 0)
    assert np.array_equal(case.side.compute(), expected)
    counts = np.bincount(chest()[expected > 0].astype(int) + 32768, minlength=1 << 16)
    assert np.array_equal(case.hu_counts, counts)
    assert regions.is_valid(case)
    assert mask_text(case) == "threshold"
    LabelStage(MODEL).run(StageContext(InProcess(), cohort), "one")
    row = rows_of_case(cohort["one"], "measurements.csv", MODEL)[0]
    assert row["mask"] == "threshold"
    assert row["lung_ml"] == pytest.approx((expected > 0).sum() * GRID.voxel_ml)
    assert problems_of(cohort) == []


def test_lobes_of_a_segmenter_are_stored_with_both_lungs(cohort):
    assert segment(cohort, "lobes") == "done"
    case, expected = cohort["one"], on_whole_volume("lobes", chest())
    assert np.array_equal(case.lobe.compute(), np.array([0, 4, 5, 1, 2, 3])[expected])
    assert np.array_equal(case.side.compute(), on_whole_volume("threshold", chest()))
    assert [int(n) for n in case.lobe_counts.sum(axis=1)] == [int((expected == k).sum()) for k in (3, 4, 5, 1, 2)]
    LabelStage(MODEL).run(StageContext(InProcess(), cohort), "one")
    assert [row["zone"] for row in rows_of_case(cohort["one"], "zones.csv", MODEL)] == [lobe.key for lobe in LOBES]
    assert problems_of(cohort) == []
    assert segment(cohort, "lobes") == "kept"
    assert segment(cohort, "threshold") == "done"
    assert not cohort["one"].has_lobes


@settings(max_examples=12)
@given(
    depth=st.integers(1, 40),
    chunk_slices=st.sampled_from([8, 16, 64]),
    name=st.sampled_from(["of-batch", "clean"]),
    orientation=st.sampled_from(ORIENTATIONS),
    seed=st.integers(0, 1000),
)
def test_chunks_and_storage_order_never_change_a_mask(depth, chunk_slices, name, orientation, seed):
    hu = chest(seed, (depth, 16, 20))
    grid = Geometry((20, 16, depth), GRID.spacing, GRID.origin)
    expected = on_whole_volume(name, hu)
    if not expected.any():
        return
    stored, stored_grid = reoriented(hu, grid, orientation)
    with tempfile.TemporaryDirectory() as folder:
        cohort = lungmix.open_cohort(f"{folder}/s.zarr", "a")
        case = add_case(cohort, stored, stored_grid, chunk_slices)
        segment(cohort, name)
        side = cohort["one"].side.compute()
        assert np.array_equal(case.geometry.axis_order.to_axial(side), expected)


@pytest.mark.parametrize("orientation", ["LPS", "RAI", "SRP", "PIL", "LSA"])
def test_slices_are_as_a_radiologist_sees_them_in_any_storage_order(cohort, orientation):
    grid = Geometry((5, 4, 6), (1.0, 2.0, 3.0), (7.0, 8.0, 9.0))
    hu = np.full((6, 4, 5), 40, np.int16)
    hu[0, 1, 3] = -1000  # lowest slice, in front, on the patient's left
    stored, stored_grid = reoriented(hu, grid, orientation)
    cohort = lungmix.open_cohort(cohort.url.replace("s.zarr", "t.zarr"), "a")
    add_case(cohort, stored, stored_grid)
    segment(cohort, "positions", accept_hu=True)
    import toy_segmenters

    assert toy_segmenters.Positions.SEEN == [
        (0, 6, (3.0, 2.0, 1.0), (4, 4, 5), "int16"), (4, 6, (3.0, 2.0, 1.0), (2, 4, 5), "int16"),
    ]  # fmt: skip
    order = cohort["one"].geometry.axis_order
    assert np.argwhere(order.to_axial(cohort["one"].side.compute())).tolist() == [[0, 1, 3]]


def test_a_process_loads_a_segmenter_once_and_another_in_its_place(cohort, tmp_path):
    import toy_segmenters

    segment(cohort, "threshold")
    add_case(cohort, chest(1), GRID, name="two")
    SegmentedMaskStage(find_segmenter("threshold"), PHYSICAL).run(StageContext(InProcess(), cohort), "two")
    assert len(toy_segmenters.LOADED) == 1
    segment(cohort, "both")
    segment(cohort, "threshold")
    assert len(toy_segmenters.LOADED) == 3


def test_two_threads_share_one_object_and_never_call_it_at_a_time():
    spec, inside, overlaps = find_segmenter("threshold"), Lock(), []

    def use(_):
        with spec.loaded() as segmenter:
            overlaps.append(not inside.acquire(blocking=False))
            inside.release()
            return id(segmenter)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(use, range(40)))) == 1
    assert not any(overlaps)


def test_regions_are_computed_if_the_segmenter_has_no_labels_for_them(cohort):
    segment(cohort, "both")
    assert not regions.is_valid(cohort["one"])
    LabelStage(MODEL).run(StageContext(InProcess(), cohort), "one")
    assert regions.is_valid(cohort["one"])
    assert np.array_equal(cohort["one"].lung.compute(), chest() < -500)


def test_lung_that_a_segmenter_omits_is_flagged_with_its_name(cohort):
    segment(cohort, "threshold")
    record = cohort["one"].stages["side"]
    CaseWriter(cohort["one"]).record("side", {**record, "rejected": [{"ml": 80.0, "touches_edge": False}]})
    assert "80 mL that look like lung are not in the mask: this component is not in the mask by threshold" in " ".join(
        flags_of(cohort["one"])
    )


def test_the_record_tells_segmenter_version_weights_and_labels_but_no_path(cohort, tmp_path):
    weights = tmp_path / "Rossi.pth"
    weights.write_text("-600")
    segment(cohort, "threshold", weights)
    record = cohort["one"].stages["mask"]
    assert record["from_file"] == {
        "kind": "segmenter", "segmenter": "threshold", "version": "1.0", "device": "cpu", "libraries": {},
        "weights": sha256(b"-600").hexdigest(), "labels": {"right": [1], "left": [2]}, "regions": True,
    }  # fmt: skip
    assert "Rossi" not in str(cohort["one"].stages)
    assert is_given(cohort["one"])


def test_a_mask_is_kept_until_version_weights_or_segmenter_change(cohort, tmp_path, toy):
    weights = tmp_path / "w.pth"
    weights.write_text("-500")
    assert segment(cohort, "threshold", weights) == "done"
    assert segment(cohort, "threshold", weights) == "kept"
    moved = weights.rename(tmp_path / "elsewhere.pth")
    assert segment(cohort, "threshold", moved) == "kept"
    moved.write_text("-870")
    assert segment(cohort, "threshold", moved) == "done"
    assert np.array_equal(cohort["one"].lung.compute(), chest() < -870)
    segmenters.install(toy, "1.1")
    assert segment(cohort, "threshold", moved) == "done"
    assert segment(cohort, "both") == "done"
    assert segment(cohort, "both") == "kept"


def test_a_computed_mask_replaces_one_by_a_segmenter_and_the_other_way_round(cohort):
    segment(cohort, "threshold")
    computed = MaskStage(MaskParameters(opening=0, min_voxels=10, radii=(0,)))
    with suppress(lungmix.LungmixError):
        computed.run(StageContext(InProcess(), cohort), "one")
    assert not is_given(cohort["one"])
    assert segment(cohort, "threshold") == "done"
    assert is_given(cohort["one"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "the segmenter raises failed (RuntimeError: Rossi has no lungs): report it"),
        ("wrong-shape", "returned uint8 (5, 15, 20) instead of uint8 (5, 16, 20)"),
        ("wrong-type", "returned int64 (5, 16, 20) instead of uint8 (5, 16, 20)"),
        ("wrong-label", "returned the label 3, which it does not name"),
        ("cannot-load", "cannot be loaded (OSError: no such file)"),
    ],
)
def test_failure_of_a_segmenter_is_one_sentence_and_keeps_an_earlier_mask(cohort, name, message):
    segment(cohort, "threshold")
    before = cohort["one"].stages
    with pytest.raises(SegmenterError) as caught:
        segment(cohort, name)
    assert message in str(caught.value)
    assert caught.value.case == "one"
    assert "Rossi" not in caught.value.redacted_message
    assert lungmix.open_cohort(cohort.url)["one"].stages == before


def test_a_segmenter_that_fails_leaves_no_mask_of_its_own(cohort):
    with pytest.raises(SegmenterError, match="failed"):
        segment(cohort, "raises")
    cohort = lungmix.open_cohort(cohort.url, "r+")
    assert "mask" not in cohort["one"].stages
    assert segment(cohort, "threshold") == "done"
    assert np.array_equal(cohort["one"].side.compute(), on_whole_volume("threshold", chest()))


def test_no_voxel_of_lung_is_an_error_of_the_case(cohort):
    with pytest.raises(SegmenterError, match="nothing found no lung"):
        segment(cohort, "nothing")


def test_a_scan_of_unknown_orientation_is_not_segmented(cohort):
    cohort = lungmix.open_cohort(cohort.url.replace("s.zarr", "t.zarr"), "a")
    add_case(cohort, chest(), Geometry(GRID.size, GRID.spacing, GRID.origin, orientation_known=False))
    with pytest.raises(SegmenterError, match="does not say how its axes lie"):
        segment(cohort, "threshold")


def test_a_worker_without_room_for_the_segmenter_is_an_error_before_work_begins(cohort):
    memory = WorkerMemory(4 << 30, 0.8, True)
    with pytest.raises(RoomError, match="give workers more"):
        segment(cohort, "heavy", memory=memory)
    assert segment(cohort, "threshold", memory=memory) == "done"


def test_a_worker_with_another_version_or_other_weights_says_so(cohort, toy, tmp_path):
    weights = tmp_path / "w.pth"
    weights.write_text("-500")
    spec = find_segmenter("threshold", weights)
    weights.write_text("-501")
    stage = SegmentedMaskStage(spec, PHYSICAL)
    with pytest.raises(SegmenterError, match="missing on a worker or differ"):
        stage.run(StageContext(InProcess(), cohort), "one")
    weights.write_text("-500")
    segmenters.install(toy, "2.0")
    with pytest.raises(SegmenterError, match=r"a worker has version 2\.0 of threshold, and this program 1\.0"):
        stage.run(StageContext(InProcess(), cohort), "one")


def test_temporary_labels_are_deleted(cohort):
    segment(cohort, "clean")
    assert not {"segmented", "imported"} & {*CaseWriter(cohort["one"])._group}


def test_values_that_are_no_hu_are_rejected_as_for_any_mask(cohort):
    cohort = lungmix.open_cohort(cohort.url.replace("s.zarr", "t.zarr"), "a")
    case = add_case(cohort, chest(), GRID)
    counts = np.bincount(np.zeros(1000, int) + 32768 + 5000, minlength=1 << 16)
    case.record("convert", {**case.stages["convert"], "hu": summarize(counts).to_dict()})
    with pytest.raises(HuError):
        segment(cohort, "threshold")
