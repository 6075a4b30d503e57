"""One cohort for the tests of recipes, and what a local cluster makes of it."""

import subprocess

import pytest

import lungmix
from lungmix.phantom import Cohort, write_cohort
from support.recipes import words


@pytest.fixture(scope="session")
def two_scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    write_cohort(folder, Cohort(2, 3, (90, 64, 64), (5.6, 5.6, 3.0)))
    return folder


@pytest.fixture(scope="session")
def local(two_scans, tmp_path_factory):
    store = tmp_path_factory.mktemp("local") / "s.zarr"
    command = ["lungmix", *words(store, two_scans), "-j", "1", "--memory-limit", "2GB"]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr
    return lungmix.open_cohort(store)
