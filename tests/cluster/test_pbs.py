"""The recipe for PBS, without PBS: scripts in place of `qsub` and `qdel`, without queue, limits or other nodes."""

import os

import pytest

from support.clusters import wait_until
from support.recipes import (
    RECIPES,
    address_in,
    assert_done,
    assert_equal,
    assert_nothing_is_left,
    assert_work_goes_to_workers_like_local_ones,
    end,
    running,
    site_in,
    story,
    words,
)

pytestmark = pytest.mark.slow

# As with PBS, the queue keeps a copy of a submitted script, a job does not inherit the environment of the submission,
# and its output is in the folder that the script names. The number of a job is the process id of its session leader.
QSUB = """#!/bin/sh
set -eu
script=$(mktemp "$JOBS/XXXXXX")
cp "$1" "$script"
output=$(sed -n 's/^#PBS -o //p' "$script")
env -i HOME="$HOME" PATH=/usr/local/bin:/usr/bin:/bin \\
    setsid sh -c 'PBS_JOBID=$$.here exec bash "$0" >"$1/$$.here.OU" 2>&1' "$script" "$output" \\
    </dev/null >/dev/null 2>&1 &
ln "$script" "$JOBS/$!.sh"
echo "$!.here"
"""
QDEL = """#!/bin/sh
kill -TERM -- "-${1%%.*}"
"""


class Queue:
    """Queue with the submitted jobs: their scripts by the process id of the session leader."""

    def __init__(self, folder):
        self._folder = folder

    def jobs(self):
        return {int(file.stem): file.read_text() for file in self._folder.glob("*.sh")}


@pytest.fixture
def queue(tmp_path, monkeypatch):
    programs, folder = tmp_path / "bin", tmp_path / "jobs"
    programs.mkdir()
    folder.mkdir()
    for name, text in (("qsub", QSUB), ("qdel", QDEL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(folder))
    started = Queue(folder)
    try:
        yield started
    finally:
        end(started.jobs())


def test_workers_that_are_jobs_give_the_voxels_of_a_local_cluster_and_end_with_it(queue, two_scans, local, tmp_path):
    recipe = (RECIPES / "pbs.py").read_text()
    site = site_in(tmp_path)
    filled = recipe.replace("SITE = {\n", f"SITE = {{\n    **{site!r},\n")
    assert filled != recipe
    (tmp_path / "pbs.py").write_text(filled)
    store = tmp_path / "s.zarr"
    command = ["python", tmp_path / "pbs.py", "2", *words(store, two_scans)[1:]]
    with running(command, os.environ, tmp_path) as process:
        wait_until(lambda: len(queue.jobs()) == 2, lambda: story(tmp_path), process)
        scripts = list(queue.jobs().values())
        assert_work_goes_to_workers_like_local_ones(address_in(scripts[0]))
        assert_done(process, tmp_path)
        assert_nothing_is_left({process.pid, *queue.jobs()})
    assert_equal(store, local)
    assert list(queue.jobs().values()) == scripts, "a job of each worker was enough"
    for script in scripts:
        assert "#PBS -l select=1:ncpus=1:mem=2500mb" in script
        assert "#PBS -l walltime=04:00:00" in script
        assert "--lifetime 225m --lifetime-stagger 10m" in script
    logs = [file.read_text() for file in tmp_path.glob("*.here.OU")]
    assert ["Start worker at" in log for log in logs] == [True, True]
