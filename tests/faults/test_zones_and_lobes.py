"""Runs that make lung zones, and take lobes from masks, are killed: repeated, they leave an undisturbed run's store."""

import numpy as np
import pytest

import lungmix
from faults.processes import Cluster, end, kill, start_run, wait_until
from faults.test_faults import FIT, MASK, Strike
from faults.test_masks_of_others import assert_clean
from lungmix.formats import write_image
from lungmix.pipeline import Pipeline
from support.stores import assert_same_store

pytestmark = pytest.mark.slow

LABELS = "right-upper=1,right-lower=2,left-upper=3,left-lower=4"


@pytest.fixture(scope="module")
def masks(finished_store, tmp_path_factory):
    """Mask files with two lobes of each lung."""
    folder = tmp_path_factory.mktemp("lobes")
    for name, case in lungmix.open_cohort(finished_store).items():
        side = case.side.compute()
        lower = np.arange(len(side))[:, None, None] < len(side) // 2
        lobes = np.where(side < 3, 2 * side.astype(int) - 1 + lower * (side > 0), 0).clip(0).astype(np.uint8)
        write_image(folder / f"{name}.nrrd", [lobes], case.geometry, np.uint8)
    return folder


def run(client, url, scans, masks, callback=None):
    pipeline = Pipeline(client, lungmix.open_cohort(url, "a"), *([] if callback is None else [callback]))
    report = pipeline.run([scans], mask=MASK, fit=FIT, masks=masks, mask_labels=LABELS, zones="volume")
    assert not report.failed, report.failed
    return report


@pytest.fixture(scope="module")
def undisturbed(scans, masks, client, tmp_path_factory):
    url = tmp_path_factory.mktemp("undisturbed") / "s.zarr"
    report = run(client, url, scans, masks)
    assert {row["by"] for row in report.zones} == {"volume", "lobes"}
    assert len(report.zones) == 3 * (66 + 5)
    return url


@pytest.mark.parametrize("stage", ["mask", "label"])
def test_worker_killed_in_a_stage(stage, scans, masks, undisturbed, client, tmp_path):
    victim = next(iter(client.cluster.workers.values())).pid
    run(client, tmp_path / "s.zarr", scans, masks, Strike(stage, lambda: kill(victim)))
    assert victim not in {process.pid for process in client.cluster.workers.values()}
    assert_same_store(undisturbed, tmp_path / "s.zarr")


@pytest.mark.parametrize("image", ["lobe", "zone"])
def test_client_killed_amid_an_image_and_run_again(image, scans, masks, undisturbed, client, tmp_path):
    store, log = tmp_path / "s.zarr", tmp_path / "client.log"
    with Cluster(tmp_path, workers=1) as cluster:
        words = ("--masks", str(masks), "--mask-labels", LABELS, "--zones", "volume", "--scheduler", cluster.address)
        command = start_run(store, [scans], *words, log=log)

        try:
            wait_until(lambda: command.poll() is not None or any(store.glob(f"case-*/labels/{image}/0/c/*")))
            kill(command.pid)
            assert command.wait() < 0, log.read_text()
            assert not (store / "zones.csv").exists()
            command = start_run(store, [scans], *words, log=log)
            assert command.wait(300) == 0, log.read_text()
        finally:
            end(command)
    assert_same_store(undisturbed, store)
    assert_clean(client, store)


def test_worker_killed_while_zones_are_made_of_kept_labels(scans, masks, undisturbed, client, tmp_path):
    pipeline = Pipeline(client, lungmix.open_cohort(tmp_path / "s.zarr", "a"))
    report = pipeline.run([scans], mask=MASK, fit=FIT, masks=masks, mask_labels=LABELS)
    assert not report.failed, report.failed
    victim = next(iter(client.cluster.workers.values())).pid
    strike = Strike("zone", lambda: kill(victim))
    report = Pipeline(client, lungmix.open_cohort(tmp_path / "s.zarr", "a"), strike).zones("volume")
    assert not report.failed, report.failed
    assert victim not in {process.pid for process in client.cluster.workers.values()}
    assert_same_store(undisturbed, tmp_path / "s.zarr")
