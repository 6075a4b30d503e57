"""A cohort goes from an archive to a data set; scans that are added there become its next version."""

import csv
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

import lungmix
from lungmix.formats.dicomweb import server
from lungmix.phantom import Cohort, write_cohort
from lungmix.publish import check_dataset
from lungmix.publish.folder import read_sums
from privacy.search import find
from support.command import run
from support.orthanc import PASSWORD, USER, running_archive
from support.series import copy

pytestmark = pytest.mark.slow

WORD = "Qzxplant"
FIRST, ALL = 12, 15


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Folders of series whose patients have planted names, and a table of their scores."""
    root = tmp_path_factory.mktemp("sources")
    cohort = Cohort(ALL, 3, (40, 64, 64), (5.6, 5.6, 7.5), frozenset())
    folders = write_cohort(root, cohort, "dicom")
    with (root / "scores by patient.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["patient", "score"])
        for number, (folder, patient) in enumerate(zip(folders, cohort, strict=True)):
            table.writerow([f"{WORD}-{number:02d}", patient.score])
            for file in folder.iterdir():
                copy(
                    file, file, PatientName=f"{WORD}^P{number}", PatientID=f"{WORD}-{number:02d}", StudyDate="20190823",
                    PatientBirthDate="19470213", StudyDescription=f"chest {WORD}", AccessionNumber=f"A{WORD}{number}",
                )  # fmt: skip
    return folders, root / "scores by patient.csv"


@pytest.fixture(scope="module")
def versions(series, tmp_path_factory):
    """Both versions in one folder, its files in the first one, and all that the commands wrote and printed."""
    base = tmp_path_factory.mktemp("versions")
    out, key = base / "out", base / "key.csv"
    out.mkdir()
    (base / "people.csv").write_text('name\n"Doe, Jane"\n')
    (folders, scores), said, before = series, [], {}

    def command(*words):
        done = run(*words)
        said.append(done.stdout + done.stderr)
        assert done.returncode == 0, said[-1]

    with pytest.MonkeyPatch.context() as patched, running_archive(base / "orthanc") as archive:
        patched.setenv(server.USER, USER)
        patched.setenv(server.PASSWORD, PASSWORD)
        for version, (start, stop) in {"1.0": (0, FIRST), "2.0": (FIRST, ALL)}.items():
            archive.upload(file for folder in folders[start:stop] for file in sorted(folder.iterdir()))
            command(
                "run", out / "s.zarr", archive.address, "--model", "published", "--key-table", key, "--workers", 2,
                "--quiet", "--log", out / f"{version}.jsonl",
            )  # fmt: skip
            command(
                "publish", out / "s.zarr", out / "data", "--title", "T", "--license", "CC0-1.0", "--version", version,
                "--creators", base / "people.csv", "--scores", scores, "--key-table", key, "--workers", 2, "--no-page",
            )  # fmt: skip
            before = before or places(out / "data")
    return out, before, "\n".join(said)


def places(folder):
    """Return inode, time and sum of each file."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: (path.stat().st_ino, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for name, path in files.items()
    }


def test_second_version_adds_scans_and_does_not_touch_the_images_of_others(versions):
    out, before, _ = versions
    cohort, after = lungmix.open_cohort(out / "s.zarr"), places(out / "data")
    images = {path: place for path, place in before.items() if path.endswith(".nrrd")}
    assert len(images) >= 4 * FIRST
    assert {path: after[path] for path in images} == images
    assert len({Path(path).parent for path in after if path.endswith(".nrrd")}) == len(cohort) == ALL
    changes = (out / "data" / "CHANGELOG.md").read_text()
    assert changes.count("- added: ") == ALL - FIRST
    assert "relabelled" not in changes
    assert f"- unchanged: {len(images)} images" in changes
    assert {path: place[2] for path, place in after.items() if path != "SHA256SUMS"} == read_sums(out / "data")


def test_table_has_the_scores_of_all_patients(versions, series):
    with (versions[0] / "data" / "cases.csv").open() as stream:
        scores = [int(row["score"]) for row in csv.DictReader(stream)]
    with series[1].open() as stream:
        assert sorted(scores) == sorted(int(row["score"]) for row in csv.DictReader(stream))


def test_croissant_is_valid_and_loads_by_its_own_command(versions):
    pytest.importorskip("mlcroissant")
    metadata = versions[0] / "data" / "croissant.json"
    program = Path(sys.executable).with_name("mlcroissant")
    valid = subprocess.run([program, "validate", "--jsonld", metadata], capture_output=True, text=True, timeout=300)
    assert valid.returncode == 0, valid.stderr
    assert "Done." in valid.stdout + valid.stderr
    loaded = subprocess.run(
        [program, "load", "--jsonld", metadata, "--record_set", "cases", "--num_records", str(ALL)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr
    assert (loaded.stdout + loaded.stderr).count("cases/patient") >= ALL


def test_planted_names_and_identifiers_are_nowhere(versions):
    out, _, said = versions
    assert not [word for word in (WORD, PASSWORD) if word in said]
    assert find([WORD, PASSWORD, "19470213", "20190823", "dicom-web"], out) == []
    assert check_dataset(out / "data", [WORD]) == {}
