"""The label map under a Potts prior in a store: on request, and equal to that of the whole volume."""

import json

import numpy as np
import pytest

import lungmix
from lungmix.errors import StoreError, UsageError
from lungmix.export import export_case
from lungmix.kernels.potts import WEIGHT_UNITS, axis_weights, count_neighbours, estimate_beta, potts_labels, tables_of
from lungmix.mixture import PUBLISHED
from lungmix.parameters import MaskParameters, PottsParameters
from lungmix.phantom import Phantom
from lungmix.serve.links import neuroglancer_state
from lungmix.stages import label, mask
from lungmix.stages.base import StageContext
from lungmix.store import CaseWriter, choices
from lungmix.store.schema import LABELS_FILE
from lungmix.verify.case import Comparison
from lungmix.verify.problems import Verification
from support.generators import as_axial, case_of, reoriented

pytestmark = pytest.mark.usefixtures("stages_here")

PHANTOM = Phantom((70, 64, 72), (4.2, 4.4, 2.6), 3, traps={"vessels", "cut"})
PHYSICAL = MaskParameters("physical", min_voxels=900)
ESTIMATED = PottsParameters()


def masked_case(folder, volume=None, geometry=None, chunk_slices=None):
    cohort = lungmix.open_cohort(folder / "s.zarr", "a")
    volume = PHANTOM.volume() if volume is None else volume
    case_of(cohort, "one", volume, geometry or PHANTOM.geometry, chunk_slices)
    mask.MaskStage(PHYSICAL).run(StageContext(None, cohort), "one")
    return cohort


def labelled(cohort, smooth):
    return label.LabelStage(PUBLISHED, "published", smooth=smooth).run(StageContext(None, cohort), "one")


def tables():
    return tables_of(PUBLISHED.weights, PUBLISHED.means, PUBLISHED.variances)


def listed(case):
    return json.loads(CaseWriter(case).read_object(LABELS_FILE))["attributes"]["ome"]["labels"]


@pytest.mark.parametrize(("chunk_slices", "limit"), [(8, 1 << 28), (16, 8 << 30), (None, 1 << 30)])
def test_labels_equal_those_of_the_whole_volume_whatever_the_slabs(tmp_path, monkeypatch, chunk_slices, limit):
    monkeypatch.setattr(label, "min_worker_memory", lambda client: limit)
    cohort = masked_case(tmp_path, chunk_slices=chunk_slices)
    assert labelled(cohort, ESTIMATED) == "done"
    case = cohort["one"]
    tissue, lung = case.zarr_array("tissue")[:], case.zarr_array("lung")[:]
    counts = count_neighbours(tissue)
    codes = np.flatnonzero(counts)
    weights = axis_weights(PHANTOM.spacing[::-1])
    beta = estimate_beta(codes, counts[codes], weights, 5)
    assert beta > 0.2
    expected = potts_labels(PHANTOM.volume(), lung, tables(), weights, beta)
    assert np.array_equal(case.tissue_potts.compute(), expected)
    record = case.stages["label"]
    assert record["potts"] == {
        "version": 1, "beta": beta, "estimated": True, "iterations": 5, "weights": [w / WEIGHT_UNITS for w in weights],
    }  # fmt: skip
    assert record["potts_voxels"] == np.bincount(expected.ravel(), minlength=6).tolist()
    assert listed(case) == ["lung", "side", "tissue", "tissue_median", "tissue_potts"]
    assert {layer["name"] for layer in neuroglancer_state(case, "http://x")["layers"]} >= {"tissue_potts"}


def test_label_map_exists_only_while_it_is_wanted(tmp_path):
    cohort = masked_case(tmp_path)
    assert labelled(cohort, None) == "done"
    plain = cohort["one"].stages["label"]
    assert not any("potts" in key for key in [*plain, *plain["files"]])
    with pytest.raises(StoreError, match='smooth="potts"'):
        cohort["one"].array("tissue_potts")
    assert labelled(cohort, PottsParameters(0.5)) == "done"
    assert labelled(cohort, PottsParameters(0.5)) == "kept"
    given = cohort["one"].zarr_array("tissue_potts")[:]
    stored = cohort["one"].stages["label"]
    assert (stored["potts"]["beta"], stored["potts"]["estimated"]) == (0.5, False)
    assert stored["key"] == plain["key"]
    assert {key: receipt for key, receipt in stored["files"].items() if "potts" not in key} == plain["files"]
    assert labelled(cohort, PottsParameters(2.0)) == "done"
    assert not np.array_equal(cohort["one"].zarr_array("tissue_potts")[:], given)
    assert labelled(cohort, None) == "done"
    assert cohort["one"].stages["label"] == plain
    assert not cohort["one"].is_started("tissue_potts")
    assert listed(cohort["one"]) == ["lung", "side", "tissue", "tissue_median"]


@pytest.mark.parametrize("orientation", ["RAI", "SAL", "PIR"])
def test_labels_are_the_same_in_every_storage_order(tmp_path, orientation):
    results = []
    for name in ("LPS", orientation):
        (tmp_path / name).mkdir()
        volume, geometry = reoriented(PHANTOM.volume(), PHANTOM.geometry, name)
        cohort = masked_case(tmp_path / name, volume, geometry)
        labelled(cohort, ESTIMATED)
        case = cohort["one"]
        results.append((as_axial(case.zarr_array("tissue_potts")[:], geometry), case.stages["label"]["potts"]["beta"]))
    assert results[0][0].any()
    assert np.array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("is_changed", [False, True])
def test_verification_recomputes_the_labels(tmp_path, is_changed):
    cohort = masked_case(tmp_path)
    labelled(cohort, ESTIMATED)
    writer = CaseWriter(cohort["one"])
    if is_changed:
        record = dict(writer.stages["label"])
        start, stop = next(writer.layout.slabs())
        files = record.pop("files") | writer.write("tissue_potts", start, writer.read("tissue", start, stop))
        record["potts_voxels"] = [0] * 6
        writer.record("label", record, files)
    verification = Verification()
    verification.wrong["one"] = []
    comparison = Comparison(None, cohort, CaseWriter(cohort["one"]), None, PUBLISHED, verification)
    comparison._check_records()
    comparison._recompute()
    problems = [text for text in verification.wrong["one"] if "potts" in text]
    assert bool(problems) is is_changed
    assert not is_changed or "potts_voxels of the stage label differs when recomputed" in problems


def test_store_remembers_the_prior_until_it_is_switched_off(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    before = (tmp_path / "s.zarr" / "zarr.json").read_bytes()
    assert choices.remember_smoothing(cohort, None, None) is None
    assert choices.remember_smoothing(cohort, "none", None) is None
    assert (tmp_path / "s.zarr" / "zarr.json").read_bytes() == before
    with pytest.raises(UsageError, match='smooth="potts"'):
        choices.remember_smoothing(cohort, None, 0.5)
    assert choices.remember_smoothing(cohort, "potts", None) == ESTIMATED
    assert choices.remember_smoothing(cohort, None, 0.5) == PottsParameters(0.5)
    again = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    assert choices.last_smoothing(again) == PottsParameters(0.5)
    kept = choices.choose(str(tmp_path / "s.zarr")).kept
    assert kept == ["labels under a Potts prior of beta 0.5"]
    assert choices.remember_smoothing(again, "none", None) is None
    assert choices.last_smoothing(lungmix.open_cohort(tmp_path / "s.zarr")) is None


@pytest.mark.parametrize(
    ("smooth", "beta", "words"),
    [("gauss", None, "no smoothing"), ("none", 0.5, "without smoothing"), ("potts", 11.0, "0 to 10")],
)
def test_impossible_parameters_are_rejected(tmp_path, smooth, beta, words):
    with pytest.raises(UsageError, match=words):
        choices.choose(str(tmp_path / "s.zarr"), smooth=smooth, beta=beta)
    with pytest.raises(UsageError, match=words):
        lungmix.run(tmp_path / "s.zarr", tmp_path, smooth=smooth, beta=beta)
    assert not (tmp_path / "s.zarr").exists()


def test_labels_are_exported_by_their_name(tmp_path):
    import SimpleITK as sitk

    cohort = masked_case(tmp_path)
    labelled(cohort, ESTIMATED)
    (file,) = export_case(cohort["one"], tmp_path / "one_tissue_potts.seg.nrrd")
    read = sitk.ReadImage(str(file))
    assert np.array_equal(sitk.GetArrayFromImage(read), cohort["one"].tissue_potts.compute())
    assert "Ground-glass opacity" in {read.GetMetaData(key) for key in read.GetMetaDataKeys() if key.endswith("_Name")}
