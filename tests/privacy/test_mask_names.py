"""Names of structures and of mask files reach no output; only the known regions that they stand for do."""

from __future__ import annotations

import csv
import gzip
import shutil

import nibabel
import numpy as np
import pytest
from pydicom.sr.codedict import codes

import lungmix
from lungmix.formats import write_image
from lungmix.phantom import Phantom, write_phantom
from privacy.commands import run_apart, run_inside
from privacy.planting import PLANTED, SHAPE, SPACING, UID, WORD
from privacy.search import find
from support.clusters import running_cluster
from support.segmentations import LEFT, RIGHT, segment, segmentation
from support.structure_sets import contour, structure_set

pytestmark = pytest.mark.slow

PHANTOM = Phantom(SHAPE, SPACING, 4)
LUNGS = np.where(np.array(PHANTOM.side_truth()) < 3, PHANTOM.side_truth(), 0).astype(np.uint8)
GOOD = {"slicer", "nifti", "seg", "contours", "lobes", "nrrd", "meta"}


def _slicer(path, names=("right lung", "left lung")):
    grid = PHANTOM.geometry
    steps = np.reshape(grid.direction, (3, 3)) * grid.spacing
    vectors = " ".join(f"({','.join(map(str, steps[:, axis]))})" for axis in range(3))
    lines = [
        "NRRD0004", f"# {WORD}", "type: unsigned char", "dimension: 3", "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, grid.size))}", f"space directions: {vectors}", "kinds: domain domain domain",
        "encoding: gzip", f"space origin: ({','.join(map(str, grid.origin))})", f"content: {WORD}",
        f"Segmentation_MasterRepresentation:={WORD}", f"{WORD}:={WORD}",
    ]  # fmt: skip
    for number, name in enumerate((*names, WORD)):
        lines += [
            f"Segment{number}_Name:={name}", f"Segment{number}_ID:={WORD}", f"Segment{number}_LabelValue:={number + 1}",
            f"Segment{number}_Layer:=0", f"Segment{number}_Tags:={WORD}:{WORD}|", f"Segment{number}_{WORD}:={WORD}",
        ]  # fmt: skip
    path.write_bytes("\n".join([*lines, "", ""]).encode() + gzip.compress(LUNGS.tobytes()))


def _nifti(path, labels=LUNGS):
    grid = PHANTOM.geometry
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ (np.reshape(grid.direction, (3, 3)) * grid.spacing)
    affine[:3, 3] = np.array([-1, -1, 1]) * grid.origin
    image = nibabel.Nifti1Image(labels.T, affine)
    image.header["descrip"] = image.header["aux_file"] = image.header["db_name"] = WORD.encode()
    image.header["intent_name"] = WORD.encode()
    names = "".join(
        f'<Label Key="{key}" Red="0"><![CDATA[{name}]]></Label>'
        for key, name in ((1, "lung_right"), (2, "lung_left"), (3, WORD))
    )
    for code, text in ((0, f"<LabelTable>{names}</LabelTable>"), (6, WORD), (4, f"<x>{WORD}</x>")):
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, text.encode()))
    nibabel.save(image, path)


def _seg(path):
    segments = [segment(1, f"{WORD} a", codes.SCT.Lung, RIGHT), segment(2, f"{WORD} b", codes.SCT.Lung, LEFT)]

    def plant(dataset):
        for item in dataset.SegmentSequence:
            item.SegmentDescription = item.SegmentAlgorithmName = item.TrackingID = WORD
        dataset.ContentCreatorName = dataset.PatientName = dataset.PatientID = dataset.SeriesDescription = WORD
        dataset.ContentLabel, dataset.Manufacturer, dataset.ManufacturerModelName = WORD.upper(), WORD, WORD
        dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = dataset.FrameOfReferenceUID = UID

    segmentation(path, LUNGS, segments, geometry=PHANTOM.geometry, change=plant)


def _rtstruct(path, kind="CLOSED_PLANAR"):
    geometry = PHANTOM.geometry
    boxes = {}
    for label, name in ((1, "Lung-Right"), (2, "Lung-Left"), (1, WORD), (2, f"{WORD} Lung")):
        z, y, x = (np.flatnonzero((label == LUNGS).any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
        corners = [(x[0], y[0]), (x[-1], y[0]), (x[-1], y[-1]), (x[0], y[-1])]
        boxes[name] = [
            contour([(np.array((i, j, k)) * geometry.spacing + geometry.origin) for i, j in corners], kind) for k in z
        ]
    attributes = {"StructureSetLabel": WORD, "StructureSetName": WORD, "StructureSetDescription": WORD,
                  "PatientName": WORD, "ReviewerName": WORD, "SeriesDescription": WORD}  # fmt: skip
    structure_set(path, boxes, frame=UID, series=UID, **attributes)


def write_masks(folder, name_of):
    """Write a mask file of each kind; `name_of` returns the name of the case for a kind of mask."""
    folder.mkdir(parents=True)
    _slicer(folder / f"{name_of('slicer')}.seg.nrrd")
    _nifti(folder / f"{name_of('nifti')}_lung.nii.gz")
    _seg(folder / f"{name_of('seg')}.dcm")
    _rtstruct(folder / f"{name_of('contours')}_mask.dcm")
    parts = folder / name_of("lobes")
    parts.mkdir()
    upper = np.arange(len(LUNGS))[:, None, None] > len(LUNGS) // 2
    for side, label in (("right", 1), ("left", 2)):
        for level, is_inside in (("upper", upper), ("lower", ~upper)):
            labels = ((label == LUNGS) & is_inside).astype(np.uint8)
            write_image(parts / f"lung_{level}_lobe_{side}.nii.gz", [labels], PHANTOM.geometry, np.uint8)
    _nifti(parts / f"{WORD}.nii.gz")
    for kind, extension in (("nrrd", ".nrrd"), ("meta", ".mha")):
        write_image(folder / f"{name_of(kind)}{extension}", [LUNGS], PHANTOM.geometry, np.uint8)
    # Masks that cannot be used.
    _slicer(folder / f"{name_of('unknown')}.seg.nrrd", (WORD, f"{WORD} 2"))
    _nifti(folder / f"{name_of('floats')}.nii", LUNGS + np.float32(0.25))
    _rtstruct(folder / f"{name_of('open')}.dcm", "OPEN_PLANAR")
    (folder / f"{name_of('cut')}.nrrd").write_bytes((folder / f"{name_of('nrrd')}.nrrd").read_bytes()[:200])
    for suffix in ("lung", "mask"):
        _nifti(folder / f"{name_of('twice')}_{suffix}.nii")
    for side in ("left", "right"):
        write_image(folder / f"{name_of('bad part')}_{side}.nii.gz", [LUNGS], PHANTOM.geometry, np.uint8)
    _nifti(folder / f"nobody {WORD}.nii.gz")
    (folder / f"{WORD}.zip").write_bytes(f"PK {WORD}".encode())


KINDS = sorted(GOOD | {"unknown", "floats", "open", "cut", "twice", "bad part", "none"})


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    base = tmp_path_factory.mktemp("names")
    out, statuses = base / "out", {}
    out.mkdir()

    def run(*words, how=run_inside):
        status, printed = how(*words)
        statuses.setdefault(words[0], []).append(status)
        (out / f"printed-{sum(map(len, statuses.values()))}.txt").write_text(printed)

    scans = base / f"scans {WORD}"
    scans.mkdir()
    for kind in KINDS:
        write_phantom(scans / f"{WORD} {kind}.nrrd", PHANTOM)
    write_masks(base / f"masks {WORD}", lambda kind: f"{WORD} {kind}")
    by_case = {kind: f"case-{number:03d}" for number, kind in enumerate(KINDS, start=1)}
    write_masks(base / f"reference {WORD}", by_case.__getitem__)
    table = base / f"{WORD}.csv"
    with table.open("w", newline="") as stream:
        rows = [("case", "mask", WORD), ("case-001", f"none {WORD}.nrrd", WORD), (f"{WORD}", "x.nrrd", WORD)]
        csv.writer(stream).writerows(rows)
    store = out / "s.zarr"
    (out / "cluster").mkdir()
    with running_cluster(out / "cluster", workers=1) as (_, file):
        cluster = ("--scheduler-file", file, "--debug")
        run("run", store, scans, "--masks", base / f"masks {WORD}", "--model", "published", "--report", out / "page",
            "--json", "--log", out / "log.jsonl", "--performance-report", out / "dask.html", *cluster,
            how=run_apart)  # fmt: skip
        reference = base / f"reference {WORD}"
        run("evaluate", store, reference, "--json", *cluster, how=run_apart)
        run("evaluate", store, reference, "--what", f"right={WORD} a,left={WORD} b", "--json", *cluster)
        run("evaluate", store, table, "--json", *cluster)
        run("mask", store, "--masks", reference, "--mask-labels", f"{WORD}=1", "--json", *cluster)
        run("mask", store, "--masks", reference, "--mask-labels", WORD, "--json", *cluster)
        run("mask", store, "--masks", reference / f"{by_case['unknown']}.seg.nrrd", "--mask-labels",
            f"lung={WORD},lung={WORD} 2", "--json", *cluster)  # fmt: skip
        # There are more cases than valid masks, so that one case fails.
        run("verify", store, "--sample", len(GOOD) + 2, "--json", *cluster)
        run("report", store, out / "page2", "--debug")
        run("info", store, "--json", "--debug")
        run("info", store, by_case["slicer"], "--debug")
    cohort = lungmix.open_cohort(store)
    (out / "notebook.html").write_text("".join(case._repr_html_() for case in cohort.values()))
    yield base, cohort, statuses, by_case
    shutil.rmtree(base, ignore_errors=True)


def test_no_output_holds_a_name_of_a_structure_or_of_a_mask_file(outputs):
    base, _, _, _ = outputs
    assert find((WORD, UID), base / "out") == []
    # The search does find these names in the mask files.
    assert {hit.split(" in ")[0] for hit in find(PLANTED, base / f"masks {WORD}")} == {WORD, UID}


def test_masks_with_these_names_were_used_compared_and_rejected(outputs):
    base, cohort, statuses, by_case = outputs
    given = {name for name, case in cohort.items() if "from_file" in case.stages.get("mask", {})}
    assert {by_case[kind] for kind in GOOD} <= given
    with (base / "out" / "s.zarr" / "evaluation.csv").open(newline="") as stream:
        compared = {row["case"] for row in csv.DictReader(stream)}
    assert {by_case[kind] for kind in GOOD} <= compared
    assert statuses["run"] == [1]
    assert statuses["verify"] == [1]
    assert statuses["evaluate"][0] == 1
