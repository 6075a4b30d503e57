"""Set-up of a command: modules that are loaded while a cluster starts, and logs of dask."""

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import lungmix
from lungmix.cli.option_groups import OnCluster
from lungmix.cli.redaction import command_line
from lungmix.cli.running import _loading, pipeline_on
from lungmix.phantom import Phantom, write_phantom
from support.command import SMALL
from support.unprivileged_user import NOBODY, UNKNOWN, as_nobody, open_to_all

DASKS = ("distributed", "distributed.client", "distributed.batched")


@pytest.fixture
def dasks_loggers():
    import distributed  # noqa: F401 - sets levels when it is imported

    kept = {name: logging.getLogger(name).level for name in DASKS}
    for name in DASKS:
        logging.getLogger(name).setLevel(logging.INFO)
    yield [logging.getLogger(name) for name in DASKS]
    for name, level in kept.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("words", [["mask"], ["mask", "--debug"]], ids=["plain", "debug"])
def test_dask_logs_to_the_terminal_only_with_debug(words, dasks_loggers, tmp_path):
    store = str(tmp_path / "s.zarr")
    with command_line(words), pipeline_on(store, OnCluster(quiet=True), create=True, needed=False):
        heard = [logger.isEnabledFor(logging.ERROR) for logger in dasks_loggers]
    assert heard == ["--debug" in words] * len(DASKS)


def test_module_is_complete_after_another_import_failed(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.3)\nwhole = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OSError, match="no scheduler"), _loading("slow_to_import"):
        raise OSError("no scheduler")
    assert sys.modules.pop("slow_to_import").whole


@pytest.mark.parametrize("content", ["distributed: {a: [", "- a\n- list\n"])
def test_configuration_of_dask_that_cannot_be_read_is_named_with_status_2(content, tmp_path):
    (tmp_path / "own.yaml").write_text(content)
    done = subprocess.run(
        [sys.executable, "-c", "from lungmix.cli import main; main()", "info", str(tmp_path / "none")],
        env={**os.environ, "DASK_CONFIG": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "own.yaml" in done.stderr
    assert "DASK_CONFIG" in done.stderr


@pytest.mark.parametrize("user", [NOBODY, UNKNOWN], ids=["without a home", "that the system does not know"])
def test_run_works_for_a_user_without_a_home_folder(user):
    job = ("run", "s.zarr", "scans", *SMALL, "--model", "published")
    cluster = ("--workers", 1, "--memory-limit", "2GB")
    with tempfile.TemporaryDirectory() as home:
        folder = open_to_all(Path(home))
        (folder / "scans").mkdir()
        write_phantom(folder / "scans" / "one.nrrd", Phantom((40, 64, 64), (5.5, 5.625, 7.5), 4))
        open_to_all(folder / "scans")
        words = ["-c", "from lungmix.cli import main; main()", *job, *cluster, "--report", "page", "--quiet", "--json"]
        done = as_nobody(words, folder, user=user, PYTHONPATH=str(Path(lungmix.__file__).parents[1]))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["done"] == ["case-001"]
        assert "matplotlib" not in done.stderr.lower(), done.stderr
        assert (folder / "page" / "index.html").is_file()
