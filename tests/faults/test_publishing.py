"""The command ``publish`` is killed at random moments; resumed, it ends with the bytes of an undisturbed one."""

import random
import time

import numpy as np
import pytest

from faults.processes import Cluster, end, kill, start_command, wait_until
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED
from lungmix.publish import About, Creator, check_dataset, publish
from lungmix.stages.measure import measure_cohort
from support.labelled import add_case, labelled_store

pytestmark = pytest.mark.slow


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def steps(folder):
    """Return how far a publication is: its files, and the lines of its journal."""
    journal = folder / "publishing.jsonl"
    try:
        return len([file for file in folder.rglob("*") if file.is_file()]) + journal.read_bytes().count(b"\n")
    except OSError:
        return 0


def publish_with_kills(words, folder, log, kills, seed):
    """Run the command until it ends with status 0; kill it at most `kills` times, each time some steps later."""
    choose, killed = random.Random(seed), 0
    while True:
        process = start_command("publish", *words, log=log)
        try:
            due = steps(folder) + choose.randint(1, 6)
            deadline = time.monotonic() + 300
            while process.poll() is None:
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                if killed < kills and steps(folder) >= due:
                    time.sleep(choose.uniform(0, 0.05))
                    kill(process.pid)
                    process.wait()
                    killed += 1
                time.sleep(0.002)
            if process.returncode == 0:
                return killed
            # What the workers of a killed command still write may be in the way of the next one.
            assert process.returncode < 0 or "NOT complete" in log.read_text(), log.read_text()[-2000:]
        finally:
            end(process)


def test_killed_publications_end_with_the_bytes_of_undisturbed_ones(tmp_path):
    cohort, _ = labelled_store(tmp_path / "s.zarr", 3)
    (tmp_path / "people.csv").write_text('name\n"Doe, Jane"\n')
    folder, undisturbed = tmp_path / "data", tmp_path / "undisturbed"
    ct, killed = np.random.default_rng(0).integers(-900, 0, (24, 48, 48)).astype("int16"), 0
    with Cluster(tmp_path, workers=1) as cluster:
        wait_until(cluster.answers)
        for version in ("1.0", "2.0"):
            about = About("T", version, "CC0-1.0", (Creator("Doe, Jane"),))
            if version == "2.0":
                add_case(cohort, "case-new", ct, np.ones(ct.shape, "uint8"), Geometry((48, 48, 24), (1.0, 2.0, 3.0)))
                measure_cohort(cohort, list(cohort), PUBLISHED)
            assert publish(cohort, undisturbed, about, page=True).is_complete
            words = ("--title", "T", "--license", "CC0-1.0", "--version", version, "--creators")
            words = [tmp_path / "s.zarr", folder, *words, tmp_path / "people.csv", "--scheduler", cluster.address]
            killed += publish_with_kills(words, folder, tmp_path / "publish.log", 4, float(version))
            assert contents(folder) == contents(undisturbed)
            assert check_dataset(folder) == {}
    assert killed >= 4
