"""Memory and cores that this process may use: of the machine, of its control groups, of its SLURM job."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from dask.system import CPU_COUNT
from distributed.system import MEMORY_LIMIT

_GROUPS, _OF_PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_MEGABYTE = 1 << 20


def memory_limit(
    environ: Mapping[str, str] = os.environ, groups: Path = _GROUPS, of_process: Path = _OF_PROCESS
) -> int:
    """Bytes of memory that all processes of this program may take together.

    The least of what dask finds, the limits of the control group of this process and of those that it lies in, and the
    memory of a SLURM job on this machine.

    Parameters
    ----------
    environ : mapping
        Variables of the environment.
    groups, of_process : Path
        Where control groups are mounted, and the file that says which ones this process belongs to.
    """
    limits = [MEMORY_LIMIT, *_slurm_memory(environ)]
    for folder in _folders(groups, of_process, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limits += _number_in(folder / name)
    return min(limits)


def cpu_count(environ: Mapping[str, str] = os.environ, groups: Path = _GROUPS, of_process: Path = _OF_PROCESS) -> int:
    """Cores that this program may use; parameters are those of `memory_limit`."""
    counts = [CPU_COUNT]
    for folder in _folders(groups, of_process, "cpu"):
        with suppress(OSError, ValueError):
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            counts.append(math.ceil(quota / period))
        for quota, period in zip(
            _number_in(folder / "cpu.cfs_quota_us"), _number_in(folder / "cpu.cfs_period_us"), strict=False
        ):
            counts.append(math.ceil(quota / period))
    with suppress(KeyError, ValueError):
        counts.append(int(environ["SLURM_CPUS_ON_NODE"]))
    return max(1, min(counts))


def process_limit() -> int | None:
    """Bytes that one process may take, as ``ulimit -v`` says; None where it may take any."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else int(limit)


def _slurm_memory(environ: Mapping[str, str]) -> Iterator[int]:
    """Memory of a SLURM job on this machine, which SLURM states in MB and does not always enforce; 0 stands for all."""
    with suppress(KeyError, ValueError):
        if (size := int(environ["SLURM_MEM_PER_NODE"])) > 0:
            yield size * _MEGABYTE
    with suppress(KeyError, ValueError):
        size = int(environ["SLURM_MEM_PER_CPU"]) * int(environ["SLURM_CPUS_ON_NODE"])
        if size > 0:
            yield size * _MEGABYTE


def _folders(groups: Path, of_process: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups that this process lies in, from its own up to the root."""
    try:
        lines = of_process.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = (*line.split(":", 2), "", "")[:3]
        if names and controller not in names.split(","):
            continue
        # In a container the root of what is mounted is the container's own group, and the path may be the host's.
        bases = [groups] if not names else [groups / names, groups / controller]
        inside = PurePosixPath(path.lstrip("/"))
        if ".." in inside.parts:
            inside = PurePosixPath()
        for base in bases:
            for folder in (inside, *inside.parents):
                yield base / folder


def _number_in(file: Path) -> list[int]:
    with suppress(OSError, ValueError):
        number = int(file.read_text())
        return [number] if number > 0 else []
    return []
