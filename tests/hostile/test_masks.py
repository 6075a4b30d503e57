"""Changed bytes of masks are rejected in one sentence or read, and names in them reach no message."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile.masks import GRID, SECRET, SEEDS, masks_by_lungmix
from hostile.mutations import CHANGES, mutated
from hostile.outcome import faults_of_reason

LONG = os.environ.get("LUNGMIX_FUZZ")


@pytest.fixture(scope="module")
def folder():
    path = Path(tempfile.mkdtemp(prefix="fuzz-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def seed_of(kind, folder):
    name, write = SEEDS[kind]
    return name, write(folder)


@pytest.mark.parametrize("kind", SEEDS)
def test_masks_are_read_and_their_names_are_not_shown(kind, folder, apart):
    name, content = seed_of(kind, folder)
    (folder / name).write_bytes(content)
    ended = apart(masks_by_lungmix, str(folder / name))
    assert not ended.fault, ended.fault
    assert ended.value["slices"] == GRID.size[2]
    assert SECRET in content.decode("latin-1")
    assert SECRET not in ended.value["shown"]


@pytest.mark.parametrize("kind", SEEDS)
def test_changed_bytes_of_masks_are_rejected_or_read(kind, folder, apart):
    name, seed = seed_of(kind, folder)
    other = seed_of("slicer" if "seg" in kind else "seg_binary", folder)[1]

    # Most changes are in the first kilobyte after `begin`, which may be anywhere in the file.
    @settings(max_examples=int(LONG or 25), derandomize=not LONG)
    @given(CHANGES, st.integers(0, len(seed) // 4 * 3))
    def check(changes, begin):
        (folder / name).write_bytes(seed[:begin] + mutated(seed[begin:], changes, other))
        ended = apart(masks_by_lungmix, str(folder / name))
        assert not ended.fault, ended.fault
        if "reason" in ended.value:
            assert not faults_of_reason(ended.value["reason"], (name,)), ended.value["reason"]
            assert SECRET not in ended.value["reason"]
            assert name not in ended.value["redacted"]
        else:
            assert SECRET not in ended.value["shown"]

    check()
