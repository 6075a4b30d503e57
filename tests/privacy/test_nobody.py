"""No output contains a word that was planted in the sources.

Words are planted in every text attribute of the DICOM dictionary, in private attributes, sequences and overlays, in
comments and keys of image files, and in names of files, of folders and of files in archives. Every command is run on
these sources. All files, logs, and texts that are printed for programs or for debugging are searched, also in
compressed parts.
"""

from __future__ import annotations

import csv
import gzip
import shutil
import stat

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import SimpleITK as sitk
import zarr
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import lungmix
from lungmix.cli.app import app
from lungmix.export import FORMATS
from lungmix.formats import Scan, find_scans
from lungmix.geometry import Geometry
from lungmix.phantom import Phantom
from privacy.commands import run_apart, run_inside
from privacy.planting import PLANTED, SHAPE, SPACING, STUDY, UID, WORD, write_sources
from privacy.search import find, packed
from support.clusters import running_cluster

SMALL = ("--preset", "paper", "--opening", "1", "--min-voxels", "1000", "--radius", "3")
ON_A_CLUSTER = ("mask", "label", "relabel", "verify")
GOOD = 9
"""Number of valid scans: a series, six images, and one scan in each of two archives."""


class Outputs:
    """Outputs of all commands: a folder for the files that they write, and the texts that they print."""

    def __init__(self, base):
        self.folder, self.key, self.log = base / "out", base / "safe" / "key.csv", base / "told.log"
        self.folder.mkdir()
        self.sources = write_sources(base / "in")
        self.statuses = []

    def run(self, *words):
        """Run a command in a separate process, as it starts processes itself."""
        self._keep(words[0], *run_apart(*words), False)

    def here(self, *words, person=False):
        """Run a command in this process; with `person`, its output is for a terminal and kept separately."""
        self._keep(words[0], *run_inside(*words), person)

    def _keep(self, command, status, text, person):
        self.statuses.append((command, status))
        place = self.log if person else self.folder / f"printed-{len(self.statuses):02d}-{command}.txt"
        place.write_text(text)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    base = tmp_path_factory.mktemp("nobody")
    everything = Outputs(base)
    cluster = everything.folder / "cluster"
    cluster.mkdir()
    with running_cluster(cluster, workers=1) as (_, file):
        run_all(everything, base, ("--scheduler-file", file))
    return everything


def run_all(everything, base, cluster):
    """Run every command; `cluster` are the options of a cluster whose processes write to a log."""
    run, run_inline, out, key = everything.run, everything.here, everything.folder, everything.key
    sources = everything.sources
    kept = ("--key-table", key, "--retain-patient-characteristics", "--shift-dates")
    run_inline("convert", out / "one.zarr", *sources, "--nrrd", out / "nrrd", *cluster, "--debug")
    run("run", out / "two.zarr", *sources, "--model", "published", "--report", out / "page", *SMALL, *kept,
        *cluster, "--json", "--debug", "--log", out / "run.jsonl", "--performance-report",
        out / "dask.html")  # fmt: skip
    # Run on a local cluster of the command, whose workers write to the terminal.
    run("convert", out / "three.zarr", sources[3], "--workers", 1, "--memory-limit", "1GB", "--json")
    run_inline("convert", base / "told.zarr", sources[3], *cluster, person=True)
    two = out / "two.zarr"
    run_inline("scan", *sources, "--json")
    run_inline("scan", *sources, "--debug")
    run_inline("info", two)
    run_inline("info", two, "--json", "--debug")
    run_inline("measure", two, "--radiomics", "--json")
    run_inline("validate", "bootstrap", two, "--refits", 3, "--out", out / "validation", "--json")
    for attribute in ("scanner", "preset"):
        few = ("--min-scans", 2, "--refits", 2, "--out", out / "validation")
        run_inline("validate", "strata", two, "--by", attribute, *few)
    scores = base / "in" / f"{WORD} scores.csv"
    with scores.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["patient", "S", WORD])
        table.writerows([[f"{WORD}^{WORD} {PLANTED[-1]}", 3, WORD], [f"{WORD}.mha", 1, WORD], [f"{WORD} none", 2, WORD],
                         [f"{WORD}.nrrd", 5, WORD], [f"{WORD}.mhd", 4, WORD]])  # fmt: skip
    run_inline("validate", "scores", two, "--scores", scores, "--key-table", key, "--out", out / "validation", "--json")
    run_inline(
        "validate", "scores", two, "--scores", sources[4], "--key-table", key, "--out", out / "validation", "--debug"
    )
    readers = base / "in" / f"{WORD} readers.csv"
    readers.write_text(
        scores.read_text().replace(f"patient,S,{WORD}", f"patient,S_{WORD},S_{WORD}2").replace(f",{WORD}\n", ",3\n")
    )
    for consensus in ("median", WORD, f"{WORD}3"):
        words = ("--scores", readers, "--consensus", consensus, "--key-table", key, "--out", out / "readers", "--debug")
        run_inline("validate", "scores", two, *words)
    for more in (("--by", "S"), ("--by", "s", "--cut", "3"), ("--by", "kernel"), ()):
        words = ("--table", scores, "--key-table", key, "--out", out / "groups", "--debug")
        run_inline("validate", "groups", two, *more, *words)
    run_inline("report", two, out / "page2", "--scores", scores, "--key-table", key, "--debug")
    creators = base / "people.csv"
    creators.write_text("name\nA Hospital\n")
    words = ("--title", "T", "--license", "CC0-1.0", "--version", "1.0", "--creators", creators, "--key-table", key)
    run_inline("publish", two, out / "data", *words, *cluster, "--json", "--debug")
    run_inline("publish", "--check", out / "data", "--key-table", key, "--json")
    patients = base / "in" / f"{WORD} patients.csv"
    patients.write_text(f"case,patient,{WORD}\n{WORD}.mha,{WORD}^1,\n{WORD}.nrrd,{WORD} 1,\n{WORD}.x,{WORD},{WORD}\n")
    run_inline("followup", two, "--key-table", key, "--json", "--debug")
    run_inline("followup", two, "--patients", patients, "--key-table", key, "--json")
    run_inline("followup", two, "--patients", patients, "--debug")
    patients.write_text(f"case,patient,date\n{WORD}.mha,{WORD},{WORD}\n")
    run_inline("followup", two, "--patients", patients, "--key-table", key, "--debug")
    run_inline("fit", two, "--model", base / "in" / f"{WORD} model.json", "--debug")
    run_inline("run", out / "none.zarr", *sources, "--key-table", scores, *cluster, "--json")
    for format in FORMATS:
        more = ("--with-ct",) if format.startswith("dicom") else ()
        run_inline("export", two, "--all", out / f"export-{format}", "--format", format, *more, "--json", "--debug")
    run_inline(
        "export", two, "case-001", base / "retained" / "seg.dcm", "--source", sources[0], "--retain-uid", "--json"
    )
    report = base / "retained-report" / "report.dcm"
    run_inline(
        "export", two, "case-001", report, "--format", "dicom-sr", "--source", sources[0], "--retain-uid", "--json"
    )
    # All other commands run on a copy of the store.
    shutil.copytree(two, out / "copy.zarr")
    done = {command for command, _ in everything.statuses}
    for name in sorted(
        {registered.name or registered.callback.__name__ for registered in app.registered_commands} - done - {"serve"}
    ):
        run_inline(name, out / "copy.zarr", *(cluster if name in ON_A_CLUSTER else ()), "--json", "--debug")
    for word in ("one", "two"):
        cohort = lungmix.open_cohort(out / f"{word}.zarr")
        (out / f"{word}.html").write_text(
            cohort._repr_html_() + "".join(case._repr_html_() for case in cohort.values())
        )


@pytest.mark.slow
def test_no_output_holds_a_planted_word(outputs):
    assert find(PLANTED, outputs.folder) == []


@pytest.mark.slow
def test_a_reference_to_the_original_holds_its_identifiers_and_nothing_else(outputs):
    for folder, number in (("retained", 1), ("retained-report", 4)):
        files = list((outputs.key.parent.parent / folder).iterdir())
        assert len(files) == number
        for file in files:
            assert {hit.split(" in ")[0] for hit in find(PLANTED, file)} == {UID}


@pytest.mark.slow
def test_all_commands_ran_on_the_planted_names(outputs):
    kinds = {
        "convert": {1},
        "run": {1, 2},
        "scan": {1},
        "info": {0, 1},
        "measure": {0},
        "report": {0},
        "export": {0, 1},
        "followup": {0, 2},
        "publish": {0},
    }
    for name, expected in kinds.items():
        assert {status for command, status in outputs.statuses if command == name} <= expected, outputs.statuses
    assert {status for command, status in outputs.statuses if command == "validate"} == {0, 2}
    cohort = lungmix.open_cohort(outputs.folder / "two.zarr")
    labelled = [name for name, case in cohort.items() if "label" in case.stages]
    assert len(labelled) >= GOOD
    assert [file.stem for file in sorted((outputs.folder / "nrrd").iterdir())] == list(
        lungmix.open_cohort(outputs.folder / "one.zarr")
    )
    assert '"event": "failed"' in (outputs.folder / "run.jsonl").read_text()
    assert (outputs.folder / "dask.html").stat().st_size > 100_000
    assert "Registered to" in (outputs.folder / "cluster" / "cluster.log").read_text()
    matches = {word for hit in find(PLANTED, *outputs.sources[:5]) for word in PLANTED if hit.startswith(word)}
    assert matches == set(PLANTED)


@pytest.mark.slow
def test_messages_at_the_terminal_name_files(outputs):
    messages = outputs.log.read_text()
    for name in (f"words {WORD}.nrrd", f"nan {WORD}.nii.gz", f"cut {WORD}.nrrd", f"burned {WORD}"):
        assert name in messages
    assert "may hold text" in messages


@pytest.mark.slow
def test_key_table_identifies_each_case(outputs):
    assert stat.S_IMODE(outputs.key.stat().st_mode) == 0o600
    with outputs.key.open(newline="") as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    cohort = lungmix.open_cohort(outputs.folder / "two.zarr")
    assert list(rows) == list(cohort)
    (series,) = [row for row in rows.values() if row["patient_id"]]
    assert series["study_date"] == STUDY
    assert series["patient_name"].startswith(WORD)
    case = cohort[series["case"]]
    assert case.acquisition.age == 72
    assert case.acquisition.study_date not in (None, STUDY)
    assert all(WORD in row["path"] for row in rows.values())


@pytest.mark.slow
def test_anonymous_volumes_hold_voxels_and_geometry_and_nothing_else(outputs):
    expected = Phantom(SHAPE, SPACING, 4).volume()
    file = outputs.folder / "nrrd" / "case-001.nrrd"
    header = file.read_bytes().split(b"\n\n")[0].decode().splitlines()
    assert {line.split(":")[0] for line in header[1:]} == {
        "type", "dimension", "space", "sizes", "space directions", "kinds", "endian", "encoding", "space origin",
    }  # fmt: skip
    image = sitk.ReadImage(str(file))
    assert image.GetPixelID() == sitk.sitkInt16
    assert np.array_equal(sitk.GetArrayFromImage(image), expected)
    assert Geometry.from_sitk(image) == lungmix.open_cohort(outputs.folder / "one.zarr")["case-001"].geometry


@pytest.mark.slow
def test_scans_and_rejected_sources_show_no_names(outputs):
    for source in outputs.sources:
        for item in find_scans(source):
            assert WORD not in repr(item)
            if isinstance(item, Scan):
                assert WORD not in repr([item.identity, item.stack])


@pytest.mark.parametrize(
    "how", ["gzip after a header", "zlib", "base64 of gzip", "utf-16", "capitals", "percent", "gzip in zip"]
)
def test_a_leak_is_found_however_it_is_packed(tmp_path, how):
    (tmp_path / "clean").write_bytes(packed(b"nothing here", how))
    assert find(PLANTED, tmp_path) == []
    (tmp_path / "leak").write_bytes(packed(WORD.encode(), how))
    assert find(PLANTED, tmp_path)


def test_a_leak_is_found_in_names_tables_pictures_and_arrays(tmp_path):
    places = [tmp_path / name for name in ("a", "b", "c", "d", "e")]
    (places[0] / f"{WORD.lower()} folder").mkdir(parents=True)
    places[1].mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"case": [WORD]}), places[1] / "t.parquet", compression="zstd")
    places[2].mkdir()
    text = PngInfo()
    text.add_text("Comment", WORD, zip=True)
    Image.new("L", (4, 4)).save(places[2] / "p.png", pnginfo=text)
    voxels = np.frombuffer(WORD.encode().ljust(64, b"."), np.uint8)
    zarr.create_array(places[3], data=np.tile(voxels, 64), chunks=(512,), compressors=zarr.codecs.ZstdCodec())
    zarr.create_group(places[4], attributes={"name": WORD})
    for place in places:
        assert find(PLANTED, place), place


def test_identifiers_and_dates_are_found_too(tmp_path):
    (tmp_path / "x.bin").write_bytes(gzip.compress(b"...".join(word.encode() for word in PLANTED)))
    assert {hit.split(" in ")[0] for hit in find(PLANTED, tmp_path)} == set(PLANTED)
