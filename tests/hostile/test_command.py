"""The command line with valid and hostile sources: scans are converted, others named, and no file is left behind."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import hostile.dicom
import hostile.places  # noqa: F401
import lungmix
from hostile.corpus import CASES, READ, REFUSED
from hostile.images import VOLUME, nrrd
from hostile.outcome import faults_of_reason

pytestmark = pytest.mark.slow

# Faults that only a worker finds when it reads voxels, and unusual folders, archives and names.
CHOSEN = [
    "nrrd_gzip_with_a_wrong_checksum",
    "nrrd_gzip_cut_short",
    "nrrd_voxel_nan",
    "nrrd_hu_beyond_16_bits",
    "nrrd_bzip2_cut_short",
    "meta_compressed_wrong_checksum",
    "nifti_slope_huge",
    "nifti_packed_and_cut",
    "dicom_jpeg2000_of_junk",
    "dicom_rle_of_junk",
    "dicom_deflated_cut_short",
    "dicom_spacing_nan",
    "dicom_cut_by_a_byte",
    "nrrd_field_of_a_library_s_buffer",
    "nrrd_data_file_absolute",
    "meta_axes_huge",
    "nifti_affine_nan",
    "zip_climbs_out",
    "zip_bomb",
    "zip_encrypted",
    "zip_plain",
    "tar_of_links_and_devices_and_a_scan",
    "tar_writes_through_a_link",
    "tar_bomb_in_a_header",
    "tar_xz_cut_short",
    "folder_of_pipes_sockets_devices_and_a_scan",
    "folder_of_pipes_alone",
    "name_newline_of_a_broken_file",
    "name_undecodable_of_a_broken_file",
    "name_undecodable_of_a_scan",
    "name_right_to_left_of_a_scan",
    "name_carriage_return_and_escape_of_a_broken_file",
    "name_markup_of_a_broken_file",
    "name_very_long_of_a_scan",
    "list_of_itself",
    "list_with_nul",
    "pipe_given_by_name",
    "device_given_by_name",
]


def files_of(folder):
    """Return size and modification time of each file below a folder, except those in the store."""
    contents = {}
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in ("cohort.zarr", "dask-scratch-space")]
        for name in names:
            state = os.lstat(f"{root}/{name}")
            contents[root, name] = state.st_size, state.st_mtime_ns
    return contents


def test_good_scans_among_hostile_files_are_done_and_nothing_else_is_written(tmp_path):
    cases = [CASES[name] for name in CHOSEN]
    sources = []
    for case in cases:
        folder = tmp_path / "in" / case.name
        folder.mkdir(parents=True)
        sources.append(case.write(folder))
    expected = [case.expected for case in cases]
    for place in (0, len(sources) // 2, len(sources)):
        folder = tmp_path / "good" / str(place)
        folder.mkdir(parents=True)
        sources.insert(place, nrrd(folder))
        expected.insert(place, READ)
    passing = tmp_path / "passing"
    passing.mkdir()
    before = files_of(tmp_path)
    command = [sys.executable, "-c", "from lungmix.cli import main; main()", "convert", tmp_path / "cohort.zarr"]
    done = subprocess.run(
        [*command, *sources, "--json", "--workers", "1", "--memory-limit", "1.5GB"],
        capture_output=True, env={**os.environ, "TMPDIR": str(passing)}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    failed = {key.partition(",")[0]: reason for key, reason in answer["failed"].items()}
    places = {name: place.partition(",")[0] for name, place in answer["sources"].items()}
    failed = {places.get(key, key): reason for key, reason in failed.items()}
    for number, (source, verdict) in enumerate(zip(sources, expected, strict=True), start=1):
        assert (f"source {number}" in failed) == (verdict == REFUSED), (source, failed)
    for reason in failed.values():
        assert not faults_of_reason(reason, ("the file",)), reason
    cohort = lungmix.open_cohort(tmp_path / "cohort.zarr")
    assert sorted(cohort) == sorted(answer["done"])
    assert len(cohort) == expected.count(READ)
    for case in cohort.values():
        assert np.array_equal(case.ct.compute(), VOLUME)
    assert files_of(tmp_path) == before
    assert not [path for path in passing.iterdir() if path.name.startswith("lungmix-")]
