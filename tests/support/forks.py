"""Processes that tests start, forked from a server that has imported what they import.

A command, a scheduler or a worker that starts as a new Python takes one to two seconds of a core before it works,
nearly all of them for imports. Forks are processes of their own all the same, which may be stopped or killed. Tests of
the start itself, and of whole commands, start a new Python as users do.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path

import dask
import psutil
import zarr
from distributed import nanny, process

from lungmix.cluster.local import WORKER_ENVIRONMENT

_IMPORTS = [
    "lungmix.stages.convert", "lungmix.stages.mask", "lungmix.stages.label", "lungmix.cli.app", "lungmix.pipeline",
    "distributed.cli.dask_worker", "distributed.cli.dask_scheduler", "distributed.nanny", "pytest",
]  # fmt: skip
_OF_THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_OF_WORKERS = {**_OF_THREADS, **WORKER_ENVIRONMENT, "LUNGMIX_WORKER": "1"}
_OF_TESTS = {"PYTEST_CURRENT_TEST", "COLUMNS"}
_BEFORE = dict(os.environ)
_start = nanny.WorkerProcess.start

PROGRAMS = {"lungmix": "lungmix.__main__", "dask": "dask.__main__"}
"""Modules whose function `main` is a command line."""

LINUX = sys.platform == "linux"

configured_context = nanny.get_mp_context
"""Returns the context by which nannies start workers for users."""


def fork_workers() -> None:
    """Have all local clusters of this process fork workers, where these have the environment of the server."""
    if LINUX:
        nanny.get_mp_context = process.get_mp_context = _context
        nanny.WorkerProcess.start = _start_in_its_environment


def forget_environments() -> None:
    """Undo what nannies have left in the environment of this process, where the workers of later clusters find it."""
    for name in _OF_WORKERS:
        if name in _BEFORE:
            os.environ[name] = _BEFORE[name]
        else:
            os.environ.pop(name, None)


async def _start_in_its_environment(self):
    """Set the environment before a context is chosen by it, and not only after that, as nannies do."""
    os.environ.update(self.pre_spawn_env)
    return await _start(self)


def _context():
    """Return the context to start the next worker by."""
    expected = {**_OF_WORKERS, **_BEFORE}
    if any(os.environ.get(name) != expected.get(name) for name in (os.environ.keys() | expected.keys()) - _OF_TESTS):
        return configured_context()
    return _server()


def _server():
    """Return the context of forks once their server runs, in the environment of workers."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTS)
    before = dict(os.environ)
    _set_environment({**_OF_WORKERS, **_BEFORE})
    try:
        forkserver.ensure_running()
    finally:
        _set_environment(before)
    return context


def _set_environment(environment: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


class Program:
    """A command line in a process of its own, as `subprocess.Popen` would start it."""

    def __init__(
        self, program: str, words: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path | None = None
    ) -> None:
        arguments = program, list(words), log, dict(environment), folder or Path.cwd()
        self.args = [program, *words]
        # What a failed test leaves running ends with this process.
        self._process = _server().Process(target=_program, args=arguments, name=program, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def start(program: str, words: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path | None = None):
    """Start a program of `PROGRAMS` that appends what it prints to a file."""
    if LINUX:
        return Program(program, words, log, environment, folder)
    command = [sys.executable, "-c", f"from {PROGRAMS[program]} import main; main()", *words]
    with log.open("a") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream, env=dict(environment), cwd=folder)


def _program(program: str, words: list[str], log: Path, environment: dict[str, str], folder: Path) -> None:
    """Be a program until it exits."""
    _move_to(log, environment, folder)
    sys.argv, module = [program, *words], import_module(PROGRAMS[program])
    sys.modules["__main__"] = module
    gc.freeze()
    multiprocessing.current_process()._config["daemon"] = False  # a nanny has a child
    _fork_in_turn(log, folder)
    try:
        module.main()
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def _move_to(log: Path, environment: Mapping[str, str], folder: Path) -> None:
    """Take output, environment and working folder that a new process would have, in place of those of the server."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    os.chdir(folder)
    _set_environment(environment)
    # These have read the environment of the server.
    dask.config.refresh()
    zarr.config.refresh()


def _fork_in_turn(log: Path, folder: Path) -> None:
    """Have the nanny that this process may become fork its worker from the same server, and write down which it is."""

    async def start_and_tell(self):
        os.environ.update(self.pre_spawn_env)
        status = await _start(self)
        log.with_name(_name_of(os.getpid())).write_text(str(self.pid))
        return status

    def process_of(target, **options):
        return process.AsyncProcess(target=partial(_worker, log, dict(os.environ), folder, target), **options)

    context = multiprocessing.get_context("forkserver")
    forkserver._forkserver.ensure_running = lambda: None  # it runs, but is no child of this process
    nanny.get_mp_context = process.get_mp_context = lambda: context
    nanny.AsyncProcess = process_of
    nanny.WorkerProcess.start = start_and_tell


def _worker(log: Path, environment: Mapping[str, str], folder: Path, run: Callable[[], None]) -> None:
    """Be the worker of a nanny."""
    _move_to(log, environment, folder)
    run()


def workers_of(nanny_pid: int, folder: Path) -> list[int]:
    """Return the worker of a nanny that was started with a log in this folder."""
    file = folder / _name_of(nanny_pid)
    workers = [int(file.read_text())] if file.exists() else []
    return [worker for worker in workers if psutil.pid_exists(worker)]


def _name_of(nanny_pid: int) -> str:
    return f"worker-of-{nanny_pid}"
