"""The recipes for SLURM, on a SLURM with one node from packages of Debian."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from support.clusters import wait_until
from support.recipes import CASES, RECIPES, assert_equal, site_in, story, words

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Start SLURM for the tests of this module, and yield the environment variables that `sbatch` needs."""
    folder = tmp_path_factory.mktemp("slurm")
    with (folder / "out").open("w") as log:
        process = subprocess.Popen([ROOT / "scripts" / "slurm.sh", "run", folder], stdout=log, stderr=log)
        try:
            configuration = folder / "slurm.conf"
            wait_until(configuration.exists, lambda: story(folder), process)
            yield {**os.environ, "SLURM_CONF": str(configuration)}
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def idle(slurm):
    """SLURM without jobs of an earlier test."""

    def queue():
        return subprocess.run(["squeue", "--noheader"], env=slurm, capture_output=True, text=True).stdout

    subprocess.run(["scancel", "--me"], env=slurm, check=True)
    wait_until(lambda: not queue(), queue)
    return slurm


def test_workers_that_are_jobs_give_the_voxels_of_a_local_cluster(idle, two_scans, local, tmp_path):
    recipe = (RECIPES / "slurm.py").read_text()
    site = site_in(tmp_path)
    filled = re.sub(r"SITE = \{.*?\n\}", lambda _: f"SITE = {site!r}", recipe, flags=re.DOTALL)
    assert filled != recipe
    (tmp_path / "slurm.py").write_text(filled)
    store = tmp_path / "s.zarr"
    command = ["python", tmp_path / "slurm.py", "1", *words(store, two_scans)[1:]]
    done = subprocess.run(command, env=idle, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr + story(tmp_path)
    assert json.loads(done.stdout)["done"] == CASES
    assert_equal(store, local)
    logs = "".join(file.read_text() for file in tmp_path.glob("dask-worker-*"))
    assert "Start worker at" in logs, "a job ran the worker"


def test_one_job_of_scheduler_workers_and_client_gives_the_voxels_of_a_local_cluster(idle, two_scans, local, tmp_path):
    store = tmp_path / "s.zarr"
    command = [
        "sbatch", "--wait", "--ntasks=2", "--mem-per-cpu=2500M", f"--output={tmp_path}/job.out",
        RECIPES / "slurm.sh", *words(store, two_scans)[1:],
    ]  # fmt: skip
    environment = {**idle, "DASK_HOST": "127.0.0.1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr + story(tmp_path)
    assert_equal(store, local)
    assert not list(tmp_path.glob("lungmix-*")), "the folder of the scheduler file is gone"
