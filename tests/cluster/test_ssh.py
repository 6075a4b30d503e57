"""The recipe for SSH, with the client of OpenSSH and a server that runs commands in terminals like OpenSSH's."""

import os
import signal
from pathlib import Path

import pytest

from support.clusters import wait_until
from support.recipes import (
    CHECKOUT,
    ELSEWHERE,
    RECIPES,
    address_in,
    assert_done,
    assert_equal,
    assert_nothing_is_left,
    assert_work_goes_to_workers_like_local_ones,
    end,
    of_sessions,
    running,
    story,
    words,
)
from support.sshd import running_ssh_server

pytestmark = pytest.mark.slow


@pytest.fixture
def ssh(tmp_path_factory):
    with running_ssh_server(tmp_path_factory.mktemp("ssh"), ELSEWHERE) as server:
        try:
            yield server
        finally:
            end(server.sessions)


@pytest.fixture
def recipe(ssh, two_scans, tmp_path):
    """The recipe on two machines with one worker each, which do not inherit the environment of this process."""
    command = ["bash", RECIPES / "ssh.sh", "127.0.0.1 localhost", "1", *words(tmp_path / "s.zarr", two_scans)[1:]]
    environment = {**os.environ, "DASK_HOST": "127.0.0.1", "SSH_OPTIONS": ssh.options, "WORKER_ENV": CHECKOUT}
    with running(command, environment, tmp_path) as process:
        wait_until(lambda: len(ssh.sessions) == 2, lambda: story(tmp_path), process)
        yield process


def test_workers_behind_ssh_give_the_voxels_of_a_local_cluster_and_end_with_it(recipe, ssh, local, tmp_path):
    assert_work_goes_to_workers_like_local_ones(address_in(next(iter(ssh.sessions.values()))))
    assert_done(recipe, tmp_path)
    assert_nothing_is_left({recipe.pid, *ssh.sessions})
    assert_equal(tmp_path / "s.zarr", local)


def test_workers_end_with_their_connection_or_with_an_interrupted_run(recipe, ssh, tmp_path):
    # The first case is created when all workers have answered, so that none is lost while they are asked.
    wait_until(lambda: any((tmp_path / "s.zarr").glob("case-*")), lambda: story(tmp_path), recipe)
    started = of_sessions({recipe.pid})
    # A run of small scans could end before its connection does.
    client = next(process for process in started if Path(process.cmdline()[1]).name == "lungmix")
    client.suspend()
    next(process for process in started if process.name() == "ssh").kill()
    wait_until(lambda: not all(of_sessions({leader}) for leader in ssh.sessions), lambda: story(tmp_path))
    assert recipe.poll() is None
    assert any(of_sessions({leader}) for leader in ssh.sessions), "the other worker is there"
    client.resume()
    os.killpg(recipe.pid, signal.SIGINT)  # as a terminal does
    assert recipe.wait(60) == 130, story(tmp_path)
    assert_nothing_is_left({recipe.pid, *ssh.sessions})
