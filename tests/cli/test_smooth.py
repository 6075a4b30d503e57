"""The option --smooth on a cluster: the label map, what a store remembers, and errors."""

import json

import numpy as np
import pytest

import lungmix
from lungmix.phantom import Phantom, write_phantom
from lungmix.stages import potts
from support.command import SMALL, run_here


@pytest.fixture(scope="module")
def words(client, tmp_path_factory):
    """Store, scan and the options of all commands."""
    folder = tmp_path_factory.mktemp("smooth")
    scan = write_phantom(folder / "scan.nrrd", Phantom((80, 64, 64), (5.6, 5.6, 3.7), 4, traps={"noise"}))
    return folder / "s.zarr", scan or folder / "scan.nrrd", ("--scheduler", client.scheduler.address)


def test_store_keeps_a_third_label_map_until_it_is_switched_off(words):
    store, scan, cluster = words
    done = run_here("run", store, scan, "--model", "published", *SMALL, "--smooth", "potts", *cluster, "--json")
    assert done.returncode == 0, done.stderr
    case = lungmix.open_cohort(store)["case-001"]
    assert potts.parameters_of(case.stages["label"]).beta is None
    labels, measured = case.tissue_potts.compute(), (store / "measurements.csv").read_bytes()
    assert np.array_equal(labels > 0, case.lung.compute() > 0)
    verified = run_here("verify", store, "--all", *cluster, "--json")
    assert json.loads(verified.stdout)["wrong"] == {}, verified.stdout
    again = run_here("run", store, scan, *cluster, "--beta", "1.5", "--json")
    assert again.returncode == 0, again.stderr
    given = lungmix.open_cohort(store)["case-001"]
    assert given.stages["label"]["potts"]["beta"] == 1.5
    assert not np.array_equal(given.tissue_potts.compute(), labels)
    kept = run_here("run", store, scan, *cluster)
    assert "labels under a Potts prior of beta 1.5" in kept.stderr
    assert run_here("label", store, "--smooth", "none", *cluster, "--quiet").returncode == 0
    assert not lungmix.open_cohort(store)["case-001"].is_started("tissue_potts")
    assert (store / "measurements.csv").read_bytes() == measured
    missing = run_here("export", store, "case-001", store.parent / "x_tissue_potts.nrrd")
    assert missing.returncode == 2
    assert f"lungmix run {store} SOURCE --smooth potts" in missing.stderr


def test_errors_name_options(words):
    store, scan, cluster = words
    for given, text in ((("--beta", "0.5"), "--smooth potts"), (("--smooth", "gauss"), "potts, none")):
        done = run_here("run", store.parent / "new.zarr", scan, *given, *cluster)
        assert done.returncode == 2
        assert text in done.stderr
    assert not (store.parent / "new.zarr").exists()
