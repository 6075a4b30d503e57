"""Files of every format with changed bytes are rejected in one sentence, or read as SimpleITK reads them.

`make fuzz` runs longer: LUNGMIX_FUZZ is the number of examples per format, which then differ in each run.
"""

import gzip
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from hostile.images import VOLUME, nrrd
from hostile.mutations import CHANGES, SEEDS, mutated, seed_of
from hostile.outcome import digest, faults_of_reason
from hostile.reading import affine_by_nibabel, by_lungmix, by_simpleitk

LONG = os.environ.get("LUNGMIX_FUZZ")
OTHERS = {"nifti_gzip": "nifti", "tar_gzip": "zip"}


@pytest.fixture(scope="module")
def folder():
    path = Path(tempfile.mkdtemp(prefix="fuzz-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("kind", SEEDS)
def test_changed_bytes_are_rejected_or_read_as_by_simpleitk(kind, folder, apart):
    name = SEEDS[kind][0]
    seed, other = seed_of(kind), seed_of(OTHERS.get(kind, "meta"))

    @settings(max_examples=int(LONG or 40), derandomize=not LONG)
    @given(CHANGES)
    def check(changes):
        source = folder / kind
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir()
        content = mutated(seed, changes, other)
        (source / name).write_bytes(gzip.compress(content, 1) if kind == "nifti_inside_gzip" else content)
        if kind == "list":
            nrrd(source)
        ended = apart(by_lungmix, str(source / name))
        assert not ended.fault, ended.fault
        for error in ended.value:
            if "reason" in error:
                # The reason for a list names an entry, which changed bytes may have made anything.
                names = (name, kind, "a.nrrd", "scan.nrrd") if kind != "list" else ("",)
                assert not faults_of_reason(error["reason"], names), error["reason"]
            elif "digest" in error:
                _check_voxels(kind, error, apart)

    check()


def _check_voxels(kind, scan, apart):
    if kind.startswith(("zip", "tar", "list")) or kind == "nrrd_bzip2":
        # Archives have checksums, so only the original scan is right; a tar file has no checksums of its files.
        assert scan["digest"] == digest(VOLUME) or kind == "tar"
        return
    other = apart(by_simpleitk, scan["files"])
    assert not other.fault, "read although SimpleITK dies of it"
    if other.value is None:
        # The change was in bits of the gzip header that this package ignores: voxels match their checksum.
        assert "gzip" in kind, "read although SimpleITK refuses it"
        assert scan["digest"] == digest(VOLUME), "read although SimpleITK refuses it"
        return
    assert scan["digest"] == other.value["digest"]
    if kind.startswith("nifti") and scan["geometry"] != other.value["geometry"]:
        # SimpleITK has its own rules for an inconsistent sform and qform, and a wider tolerance of right angles.
        geometry = scan["geometry"]
        columns = np.reshape(geometry["direction"], (3, 3)) * geometry["spacing"]
        affine = np.column_stack([columns, geometry["origin"]])
        assert np.allclose(affine, apart(affine_by_nibabel, scan["files"][0]).value[:3], rtol=1e-4, atol=1e-4)
        return
    assert scan["geometry"] == other.value["geometry"]
