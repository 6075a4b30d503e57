"""The option --harmonise and the command harmonise on a cluster: the image, what a store remembers, and errors."""

import json

import numpy as np
import pytest

import lungmix
from lungmix.phantom import Phantom, write_phantom
from support.command import SMALL, run_here


@pytest.fixture(scope="module")
def words(client, tmp_path_factory):
    """Store, scan and the options of all commands."""
    folder = tmp_path_factory.mktemp("harmonise")
    scan = write_phantom(folder / "scan.nrrd", Phantom((80, 96, 96), (3.7, 3.7, 3.7), 4, traps={"noise"}))
    return folder / "s.zarr", scan or folder / "scan.nrrd", ("--scheduler", client.scheduler.address)


def test_harmonised_hu_are_measured_until_they_are_switched_off(words):
    store, scan, cluster = words
    plain = run_here("run", store, scan, "--model", "published", *SMALL, *cluster, "--json")
    assert plain.returncode == 0, plain.stderr
    before = (store / "measurements.csv").read_bytes()
    done = run_here("run", store, scan, *cluster, "--harmonise", "kernel", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    case = lungmix.open_cohort(store)["case-001"]
    assert not np.array_equal(case.harmonised.compute(), case.ct.compute())
    (row,) = json.loads(done.stdout)["measurements"]
    assert row["harmonised"] == "kernel"
    assert (store / "measurements.csv").read_bytes() != before
    verified = run_here("verify", store, "--all", *cluster, "--json")
    assert json.loads(verified.stdout)["wrong"] == {}, verified.stdout
    again = run_here("run", store, scan, *cluster)
    assert "HU harmonised by kernel" in again.stderr
    refitted = run_here("run", store, scan, "--model", "fit", "--fit", "paper", *cluster, "--yes", "--quiet", "--json")
    assert refitted.returncode == 0, refitted.stderr
    off = run_here("run", store, scan, "--model", "published", "--harmonise", "none", *cluster, "--yes", "--quiet")
    assert off.returncode == 0, off.stderr
    assert not lungmix.open_cohort(store)["case-001"].is_started("harmonised")
    assert (store / "measurements.csv").read_bytes() == before


def test_command_writes_images_of_a_store(words):
    store, _, cluster = words
    done = run_here("harmonise", store, *cluster, "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    case = lungmix.open_cohort(store)["case-001"]
    assert case.stages["harmonise"]["parameters"]["methods"] == ["air-blood", "kernel"]
    assert "mask" not in case.stages
    assert run_here("mask", store, *cluster, "--quiet").returncode == 0
    assert run_here("harmonise", store, "--harmonise", "none", *cluster, "--quiet").returncode == 0
    assert list(lungmix.open_cohort(store)["case-001"].stages) == ["convert"]


def test_errors_name_options(words):
    store, scan, cluster = words
    for given, text in (
        (("--harmonise", "soft"), "air-blood or kernel"),
        (("--kernel-reference", "38,x"), "38.5,43.6"),
        (("--kernel-reference", "38,40"), "--harmonise kernel"),
    ):
        done = run_here("run", store.parent / "new.zarr", scan, *given, *cluster)
        assert done.returncode == 2
        assert text in done.stderr
    assert not (store.parent / "new.zarr").exists()
