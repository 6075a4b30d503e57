"""Commands with mask files that are killed: repeated, they leave the same store as an undisturbed command."""

import json
from pathlib import Path

import numpy as np
import pytest

import lungmix
from faults.processes import Cluster, end, kill, start_command, start_run, wait_until
from faults.test_faults import MASK, copy_of, under_way
from lungmix.formats import write_image
from lungmix.geometry import Geometry
from lungmix.pipeline import Pipeline
from lungmix.store.schema import TEMPORARY
from lungmix.verify import verify_cases
from support.stores import assert_same_store

pytestmark = pytest.mark.slow

NAMES = ["case-001", "case-002", "case-003"]


@pytest.fixture(scope="module")
def masks(finished_store, tmp_path_factory):
    """Mask files with right and left lung of each case, on a finer grid, so that the import takes a while."""
    folder = tmp_path_factory.mktemp("masks")
    for name, case in lungmix.open_cohort(finished_store).items():
        grid, side = case.geometry, np.array(case.side.compute())
        fine = Geometry(
            (4 * grid.size[0], 4 * grid.size[1], grid.size[2]),
            (grid.spacing[0] / 4, grid.spacing[1] / 4, grid.spacing[2]),
            grid.origin,
            grid.direction,
        )
        lungs = np.where(side < 3, side, 0).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
        write_image(folder / f"{name}.nrrd", [np.roll(lungs, 4, axis=2)], fine, np.uint8)
    return folder


def recorded(store):
    """Return the cases whose agreement with a reference is recorded."""
    names = []
    for file in sorted(Path(store).glob("case-*/zarr.json")):
        if json.loads(file.read_text())["attributes"]["lungmix"].get("evaluations"):
            names.append(file.parent.name)
    return names


def assert_clean(client, store):
    """Check that no temporary arrays are left, and that verification finds no problem."""
    cohort = lungmix.open_cohort(store)
    assert not [(name, array) for name, case in cohort.items() for array in TEMPORARY if array in case._group]
    assert not [file for file in Path(store).glob("case-*/zarr.json") if '"working"' in file.read_text()]
    wrong = verify_cases(client, cohort, list(cohort), {}).wrong
    assert not any(wrong.values()), wrong


def test_evaluation_killed_amid_its_cases_keeps_the_finished_ones(finished_store, masks, client, tmp_path):
    store, expected = copy_of(finished_store, tmp_path), copy_of(finished_store, tmp_path / "undisturbed")
    assert not lungmix.evaluate(str(expected), masks, client=client).failed
    log, answer = tmp_path / "client.log", tmp_path / "answer.json"
    with Cluster(tmp_path, workers=1) as cluster:
        words = ("evaluate", store, masks, "--scheduler", cluster.address, "--json")
        command = start_command(*words, log=log)
        try:
            wait_until(lambda: command.poll() is not None or (recorded(store) and under_way(store, "evaluate")))
            kill(command.pid)
            assert command.wait() < 0, log.read_text()
            finished = recorded(store)
            assert 0 < len(finished) < len(NAMES)
            assert not (store / "evaluation.csv").exists()
            command = start_command(*words, log=answer)
            assert command.wait(300) == 0, answer.read_text()
        finally:
            end(command)
    text = answer.read_text()
    result, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    assert result["done"] == NAMES
    assert result["kept"] == finished
    for file in ("evaluation.csv", "evaluation_slices.json"):
        assert (store / file).read_bytes() == (expected / file).read_bytes()
    assert_clean(client, store)


def test_run_killed_while_a_mask_is_imported_and_run_again(scans, masks, client, tmp_path):
    store, expected, log = tmp_path / "s.zarr", tmp_path / "undisturbed.zarr", tmp_path / "client.log"
    report = Pipeline(client, lungmix.open_cohort(expected, "a")).run([scans], mask=MASK, masks=masks)
    assert not report.failed, report.failed
    with Cluster(tmp_path, workers=1) as cluster:
        words = ("--masks", str(masks), "--scheduler", cluster.address)
        command = start_run(store, [scans], *words, log=log)
        try:
            wait_until(lambda: command.poll() is not None or any(store.glob("case-*/imported/c/*/*/*")))
            kill(command.pid)
            assert command.wait() < 0, log.read_text()
            command = start_run(store, [scans], *words, log=log)
            assert command.wait(300) == 0, log.read_text()
        finally:
            end(command)
    assert_same_store(expected, store)
    assert_clean(client, store)
