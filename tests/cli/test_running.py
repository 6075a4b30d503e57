"""The surroundings of a command: what is loaded while a cluster starts, and what dask may print."""

import logging
import os
import subprocess
import sys

import pytest

from lungmix.cli.names import command_line
from lungmix.cli.on_cluster import OnCluster
from lungmix.cli.running import _loading, pipeline_on

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
def test_dask_logs_to_the_terminal_only_where_tracebacks_are_asked_for(words, dasks_loggers, tmp_path):
    store = str(tmp_path / "s.zarr")
    with command_line(words), pipeline_on(store, OnCluster(quiet=True), wait=False, create=True, needed=False):
        heard = [logger.isEnabledFor(logging.ERROR) for logger in dasks_loggers]
    assert heard == ["--debug" in words] * len(DASKS)


def test_a_module_is_whole_when_what_it_was_loaded_beside_has_failed(tmp_path, monkeypatch):
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
