"""One cohort for the tests of recipes, and the store that a local cluster makes of it."""

import pytest

import lungmix
from lungmix.phantom import Cohort, write_cohort
from support.command import run_here
from support.recipes import words


@pytest.fixture(scope="session")
def two_scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    write_cohort(folder, Cohort(2, 3, (90, 64, 64), (5.6, 5.6, 3.0)))
    return folder


@pytest.fixture(scope="session")
def local(two_scans, client, tmp_path_factory):
    store = tmp_path_factory.mktemp("local") / "s.zarr"
    done = run_here(*words(store, two_scans), "--scheduler", client.scheduler.address)
    assert done.returncode == 0, done.stderr
    return lungmix.open_cohort(store)
