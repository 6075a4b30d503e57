"""Hostile files end in a scan as SimpleITK reads it or in one sentence, not in a crash, a hang or much memory."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

import hostile.dicom
import hostile.places  # noqa: F401
from hostile.corpus import CASES, READ, REFUSED
from hostile.images import VOLUME
from hostile.outcome import digest, faults_of_reason
from hostile.reading import by_lungmix, by_simpleitk
from lungmix.errors import mark_path, reveal
from lungmix.formats.images import extension_of


@pytest.fixture
def folder():
    """Temporary folder with a short path, as cases create very deep folders in it."""
    path = Path(tempfile.mkdtemp(prefix="hostile-"))
    yield path
    subprocess.run(["rm", "-rf", str(path)], check=True)  # Python cannot remove folders that are so deep


def test_corpus_is_large():
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_hostile_file_is_read_as_by_simpleitk_or_rejected_in_one_sentence(case, folder, apart):
    inside = folder / "in"
    inside.mkdir()
    source = case.write(inside)
    ended = apart(by_lungmix, str(source))
    assert not ended.fault, ended.fault
    outcomes = ended.value
    assert outcomes, "no word about the source"
    reasons = [outcome["reason"] for outcome in outcomes if "reason" in outcome]
    scans = [outcome for outcome in outcomes if "digest" in outcome]
    for reason in reasons:
        names = case.names or (reveal(mark_path(source)), reveal(mark_path(source.parent)))
        assert not faults_of_reason(reason, names), reason
    assert all(word in " ".join(reasons) for word in case.words), reasons
    if case.expected == REFUSED:
        assert not scans
    if case.expected == READ:
        assert scans, reasons
        assert not reasons
    for scan in scans:
        if not scan["files"][0].startswith(str(folder)) or not case.simpleitk:
            # The temporary folder of an archive has been removed; the scan in an archive is always the same volume.
            assert scan["digest"] == digest(VOLUME)
            continue
        other = apart(by_simpleitk, [_readable(file, folder) for file in scan["files"]])
        assert other.value is not None, "read although SimpleITK refuses it"
        assert (scan["geometry"], scan["digest"]) == (other.value["geometry"], other.value["digest"])
    # No file was written next to the source or above it.
    assert {path.name for path in folder.iterdir()} <= {"in", "readable"}


def _readable(file, folder):
    """Return a path that SimpleITK can open: that of a copy if the name of the file is not printable."""
    if file.isprintable():
        return file
    (folder / "readable").mkdir(exist_ok=True)
    return shutil.copy(file, folder / "readable" / f"scan{extension_of(Path(file))}")
