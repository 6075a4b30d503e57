"""Evaluation: measures by slabs compared with scipy on whole volumes, and a cohort compared with mask files."""

import csv
import json
from contextlib import nullcontext
from dataclasses import replace
from math import isnan

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lungmix
from lungmix.cli.show_evaluation import evaluation_values, pooled_by_hu
from lungmix.formats.masks import Segment, open_mask
from lungmix.geometry import Geometry
from lungmix.kernels.data_dictionary import EVALUATION, EVALUATION_HU
from lungmix.stages import evaluation
from lungmix.stages.comparisons import SEGMENTS, Comparison
from lungmix.stages.measure import drop_rows
from lungmix.store import CaseRef
from lungmix.store.schema import IMPORTED, REFERENCE
from oracle.agreement import agreement
from support.evaluations import GRID, OneWorker, case_of_labels, lungs, write
from support.generators import masks

pytestmark = pytest.mark.usefixtures("evaluates_here")

LUNGS = (Comparison("lungs", (1, 2)), Comparison("right", (1,)), Comparison("left", (2,)))


def expected(side, reference, geometry=GRID):
    spacing = geometry.spacing_zyx
    pairs = {"lungs": (np.isin(side, (1, 2)), np.isin(reference, (1, 2)))}
    pairs |= {name: (side == label, reference == label) for label, name in ((1, "right"), (2, "left"))}
    return {name: agreement(*volumes, spacing) for name, volumes in pairs.items()}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluated")


sizes = st.tuples(st.integers(1, 34), st.integers(2, 9), st.integers(2, 9))


@given(masks(sizes), st.integers(0, 2**32 - 1), st.sampled_from([8, 16, None]), st.tuples(*[st.floats(0.4, 5)] * 3))
@settings(max_examples=12)
def test_tasks_by_slabs_give_the_measures_of_whole_volumes(stores, mask, seed, chunk_slices, spacing):
    random = np.random.default_rng(seed)
    halves = (np.arange(mask.shape[2]) < mask.shape[2] // 2) + 1
    side = (mask * halves).astype(np.uint8)
    side[random.random(mask.shape) < 0.05] = 3
    reference = np.roll(mask, random.integers(-2, 3, 3), (0, 1, 2)) * halves.astype(np.uint8)
    geometry = Geometry(mask.shape[::-1], spacing)
    cohort = lungmix.open_cohort(stores / "s.zarr", "a")
    case = case_of_labels(cohort, "one", side, geometry, chunk_slices=chunk_slices)
    case.create_temporary(REFERENCE)
    for start, stop in case.layout.slabs():
        case.write_temporary(REFERENCE, start, reference[start:stop])
    results = evaluation.compare(None, CaseRef.of(cohort, "one"), LUNGS)
    for result in results:
        values = expected(side, reference, geometry)[result.region]
        assert result.values == pytest.approx(values, rel=1e-9, abs=1e-9, nan_ok=True)
    differing = np.count_nonzero(np.isin(side, (1, 2)) != (reference > 0), axis=(1, 2))
    assert results[0].worst_slice == (int(differing.argmax()) if differing.any() else -1)


def test_cohort_is_compared_case_by_case_and_bad_references_end_their_case_alone(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    for name in ("good", "empty", "missing", "shifted", "tumour"):
        case_of_labels(cohort, name, lungs())
    folder = tmp_path / "Rossi"
    write(folder, "good.nrrd", lungs(1))
    write(folder, "empty_mask.nrrd", np.zeros(GRID.shape, np.uint8))
    write(folder, "tumour.nrrd", (lungs() > 0).astype(np.uint8) * 3)
    far = Geometry(GRID.size, GRID.spacing, (900.0, 3.0, -700.0))
    write(folder, "shifted-lung.nrrd", lungs(), far)
    result = lungmix.evaluate(cohort, folder, client=OneWorker())
    assert result.done == ["good", "tumour"]
    assert result.failed.keys() == {"empty", "missing", "shifted"}
    assert "has no mask for this case" in result.failed["missing"]
    assert "does not overlap the scan" in result.failed["shifted"]
    assert not [
        reason for reason in result.failed.values() if "Rossi" in reason or ".nrrd" in reason.replace("_lung.nrrd", "")
    ]
    for row in result.rows:
        if row["case"] == "good":
            values = expected(lungs(), lungs(1))[row["region"]]
            assert {key: row[key] for key in values} == pytest.approx(values, abs=1e-9)
    # A single label is both lungs.
    assert [row["region"] for row in result.rows] == ["lungs", "right", "left", "lungs"]
    assert result.rows[-1]["dice"] == 1
    assert result.notes == {"good": ("the reference does not name its labels: 1 was taken as right, 2 as left",)}
    assert all(REFERENCE not in case._group for case in cohort.values())


def test_table_of_the_store_has_the_rows_of_the_last_evaluation_of_each_region(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    for name in ("a", "b"):
        case_of_labels(cohort, name, lungs())
        write(tmp_path / "masks", f"{name}.nii.gz", lungs(1))
    lungmix.evaluate(cohort, tmp_path / "masks", client=OneWorker())
    again = write(tmp_path / "again", "b.mha", lungs(2))
    second = lungmix.evaluate(cohort, again, "right=1,healthy=2", client=OneWorker())
    assert second.failed.keys() == {"a"}
    rows = list(csv.DictReader((tmp_path / "s.zarr" / "evaluation.csv").open()))
    assert list(rows[0]) == [column.key for column in EVALUATION]
    assert [(row["case"], row["region"]) for row in rows] == [
        *(("a", region) for region in ("lungs", "right", "left")),
        *(("b", region) for region in ("lungs", "left", "right", "healthy")),
    ]
    assert float(rows[5]["dice"]) == expected(lungs(), lungs(2))["right"]["dice"] < float(rows[1]["dice"])
    table = pyarrow.parquet.read_table(tmp_path / "s.zarr" / "evaluation.parquet").to_pylist()
    assert [row["asd_mm"] for row in table] == [float(row["asd_mm"]) for row in rows]
    drop_rows(cohort, ["a"])
    assert "\na," not in (tmp_path / "s.zarr" / "evaluation.csv").read_text()


def test_tissues_have_their_sensitivity_by_hu(tmp_path):
    random = np.random.default_rng(0)
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    hu = random.integers(-1000, 100, GRID.shape).astype(np.int16)
    tissue = np.where(lungs() > 0, random.integers(1, 6, GRID.shape), 0).astype(np.uint8)
    case_of_labels(cohort, "one", lungs(), tissue=tissue, hu=hu)
    reference = np.where((lungs() > 0) & (hu > -700), np.where(hu >= -200, 9, 5), 0).astype(np.uint8)
    write(tmp_path / "r", "one.nrrd", reference)
    result = lungmix.evaluate(cohort, tmp_path / "r", "ggo=5,consolidation=9", client=OneWorker())
    values = agreement(tissue == 3, reference == 5, GRID.spacing_zyx)
    assert {key: result.rows[0][key] for key in values} == pytest.approx(values, abs=1e-9)
    rows = [row for row in result.by_hu if row["region"] == "ggo"]
    assert list(rows[0]) == [column.key for column in EVALUATION_HU]
    assert [row["from_hu"] for row in rows] == list(range(-700, -200, 50))
    for row in rows:
        voxels = (reference == 5) & (hu >= row["from_hu"]) & (hu <= row["to_hu"])
        assert row["sensitivity"] == (tissue[voxels] == 3).mean()
        assert row["reference_ml"] == pytest.approx(voxels.sum() * GRID.voxel_ml)
    assert (tmp_path / "s.zarr" / "evaluation_hu.parquet").is_file()


def test_bins_of_hu_of_an_earlier_reference_are_dropped(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    table = tmp_path / "s.zarr" / "evaluation_hu.csv"

    def evaluate_and_read(*voxels):
        reference = np.zeros(GRID.shape, np.uint8)
        for label, z in voxels:
            reference[z, 8, 8] = label
        write(tmp_path / "r", "one.nrrd", reference)
        assert not lungmix.evaluate(cohort, tmp_path / "r", "ggo=5,consolidation=9", client=OneWorker()).failed
        return [(row["region"], int(row["from_hu"])) for row in csv.DictReader(table.open())]

    hu = np.full(GRID.shape, -850, np.int16)
    hu[20] = -100
    case_of_labels(cohort, "one", lungs(), hu=hu)
    assert evaluate_and_read((5, 8), (5, 20)) == [("ggo", -850), ("ggo", -100)]
    assert evaluate_and_read((9, 8)) == [("consolidation", -850)]
    assert evaluate_and_read((7, 8)) == []
    assert table.read_text().startswith("case,region,from_hu")


def test_scan_without_disease_has_no_ratio_and_no_distance(tmp_path, monkeypatch):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_of_labels(cohort, "one", lungs(), tissue=np.where(lungs() == 1, 3, lungs()).astype(np.uint8))
    write(tmp_path / "r", "one.nrrd", np.zeros(GRID.shape, np.uint8))
    named = replace(open_mask(tmp_path / "r" / "one.nrrd"), segments=(Segment(1, "GGO", None, "ggo"),))
    monkeypatch.setattr("lungmix.formats.masks.sources.open_mask", lambda _: named)
    result = lungmix.evaluate(cohort, tmp_path / "r", "tissues", client=OneWorker())
    (row,) = result.rows
    assert (row["region"], row["dice"], row["reference_ml"]) == ("ggo", 0, 0)
    assert isnan(row["sensitivity"])
    assert isnan(row["asd_mm"])
    assert result.notes["one"] == ("the reference has no voxel of the tissues",)


def test_label_map_without_any_voxel_is_the_reference_of_a_scan_without_disease(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    tissue = np.where(lungs() == 1, 3, 0).astype(np.uint8)
    case_of_labels(cohort, "one", lungs(), tissue=tissue)
    write(tmp_path / "r", "one.nrrd", np.zeros(GRID.shape, np.uint8))
    result = lungmix.evaluate(cohort, tmp_path / "r", "ggo=1,consolidation=2", client=OneWorker())
    ggo, consolidation = result.rows
    assert (ggo["region"], ggo["dice"], ggo["precision"], ggo["reference_ml"]) == ("ggo", 0, 0, 0)
    assert ggo["volume_ml"] == pytest.approx((tissue == 3).sum() * GRID.voxel_ml)
    assert (consolidation["region"], consolidation["volume_ml"], consolidation["reference_ml"]) == (
        "consolidation",
        0,
        0,
    )
    assert isnan(consolidation["dice"])
    assert result.notes["one"] == ("the reference has no voxel of the tissues",)


@pytest.mark.parametrize("what", ["lungs", "tissues", "right=1,left=2", "lungs=1,ggo=2"])
def test_reference_without_any_voxel_is_rejected_unless_tissues_are_named(tmp_path, what):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_of_labels(cohort, "one", lungs())
    write(tmp_path / "r", "one.nrrd", np.zeros(GRID.shape, np.uint8))
    result = lungmix.evaluate(cohort, tmp_path / "r", what, client=OneWorker())
    assert "has no voxel of the labels" in result.failed["one"]
    assert not result.rows


def layered(path, **volumes):
    """Write a segmentation of 3D Slicer with one layer per segment, so that segments can share voxels."""
    path.parent.mkdir(exist_ok=True)
    nz, ny, nx = GRID.shape
    directions = " ".join(f"({','.join(map(str, row))})" for row in np.diag(GRID.spacing))
    lines = [
        "NRRD0004", "type: unsigned char", "dimension: 4", "space: left-posterior-superior",
        f"sizes: {len(volumes)} {nx} {ny} {nz}", f"space directions: none {directions}",
        "kinds: list domain domain domain", "encoding: raw", f"space origin: ({','.join(map(str, GRID.origin))})",
    ]  # fmt: skip
    for layer, name in enumerate(volumes):
        fields = {"ID": f"s{layer}", "Name": name, "LabelValue": 1, "Layer": layer}
        lines += [f"Segment{layer}_{key}:={value}" for key, value in fields.items()]
    voxels = np.stack(list(volumes.values()), axis=-1).astype(np.uint8)
    path.write_bytes("\n".join([*lines, "", ""]).encode() + voxels.tobytes())


def parts_of_lesion():
    ggo, consolidation = np.zeros((2, *GRID.shape), np.bool_)
    ggo[8:16, 6:12, 4:8] = True
    consolidation[14:20, 8:14, 6:9] = True
    return {"GGO": ggo, "Consolidations": consolidation, "Lesion": ggo | consolidation}


def parts_of_lung():
    return {"Lungs": lungs(1) > 0, "Right lung": lungs(1) == 1, "Left lung": lungs(1) == 2}


@pytest.mark.parametrize(
    ("what", "volumes", "rows"),
    [
        (
            "lungs=lung,right=right,left=left",
            parts_of_lung,
            {"lungs": "Lungs", "right": "Right lung", "left": "Left lung"},
        ),
        ("mask=1,right=2", parts_of_lung, {"mask": "Lungs", "right": "Right lung"}),
        ("tissues", parts_of_lesion, {"ggo": "GGO", "consolidation": "Consolidations", "lesion": "Lesion"}),
    ],
)
def test_segments_that_share_voxels_are_each_compared_whole(tmp_path, what, volumes, rows):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_of_labels(cohort, "one", lungs(), tissue=np.where(lungs() == 1, 3, 0).astype(np.uint8))
    layered(tmp_path / "r" / "one.seg.nrrd", **volumes())
    result = lungmix.evaluate(cohort, tmp_path / "r", what, client=OneWorker())
    assert not result.failed, result.failed
    assert [row["region"] for row in result.rows] == list(rows)
    for row in result.rows:
        image, labels = SEGMENTS[row["region"]]
        segment = np.isin(cohort["one"].zarr_array(image)[:], labels)
        values = agreement(segment, volumes()[rows[row["region"]]], GRID.spacing_zyx)
        assert {key: row[key] for key in values} == pytest.approx(values, abs=1e-9, nan_ok=True)
    assert not {REFERENCE, IMPORTED} & {*cohort["one"]._group}


def test_command_prints_a_table_or_one_object_and_ends_with_1_where_a_case_failed(tmp_path, monkeypatch, capsys):
    from lungmix.callbacks import Callback
    from lungmix.cli import main

    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    for name in ("one", "two"):
        case_of_labels(cohort, name, lungs())
    write(tmp_path / "r", "one.nrrd", lungs(1))
    monkeypatch.setattr(
        "lungmix.cli.commands.evaluate.cluster_session", lambda _: nullcontext((OneWorker(), Callback()))
    )
    outputs = []
    for option in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            main(["evaluate", str(tmp_path / "s.zarr"), str(tmp_path / "r"), *option])
        assert end.value.code == 1
        outputs.append(capsys.readouterr().out)
    answer = json.loads(outputs[1])
    assert answer["done"] == ["one"]
    assert [row["region"] for row in answer["evaluation"]] == ["lungs", "right", "left"]
    assert list(answer["failed"]) == ["two"]
    dice = answer["evaluation"][0]["dice"]
    for text in ("failed: two: r has no mask for this case", "1 done, 1 failed", f"{dice:.3f}"):
        assert text in outputs[0]


def test_object_of_an_evaluation_names_options(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_of_labels(cohort, "one", lungs())
    write(tmp_path / "r", "one.nrrd", lungs() + 3)
    result = lungmix.evaluate(cohort, tmp_path / "r", client=OneWorker())
    result.skip("mask 2", "give `what='mask=1'`")
    values = evaluation_values("s.zarr", result)
    assert "--what right=1,left=2" in values["failed"]["one"]
    assert values["skipped"]["mask 2"] == "give --what mask=1"
    assert "what=" not in json.dumps(values)


def test_bins_of_hu_are_pooled_over_cases_and_almost_empty_ones_are_not_printed():
    def row(case, low, volume, sensitivity):
        return {"case": case, "region": "ggo", "from_hu": low, "to_hu": low + 49, "reference_ml": volume,
                "sensitivity": sensitivity}  # fmt: skip

    rows = [row("a", -700, 3.0, 1.0), row("b", -700, 1.0, 0.0), row("b", -650, 6.0, 0.5), row("b", 900, 0.01, 1.0)]
    assert pooled_by_hu(rows) == [("ggo", -700, -651, 4.0, 0.75), ("ggo", -650, -601, 6.0, 0.5)]
