"""Memory and cores that this process may use, by the limits of the machine, of control groups and of a SLURM job."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from dask.system import CPU_COUNT
from distributed.system import MEMORY_LIMIT

_GROUPS, _GROUPS_OF_PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_MEGABYTE = 1 << 20


def memory_limit(
    environ: Mapping[str, str] = os.environ, groups: Path = _GROUPS, of_process: Path = _GROUPS_OF_PROCESS
) -> int:
    """Return the bytes of memory that all processes of this program may use together.

    This is the least of the limit that dask reports, the limits of the control groups of this process, and the memory
    of a SLURM job on this machine.

    Parameters
    ----------
    environ : mapping
        Environment variables.
    groups, of_process : Path
        Mount point of control groups, and the file that lists the control groups of this process.
    """
    limits = [MEMORY_LIMIT, *_slurm_memory(environ)]
    for folder in _folders(groups, of_process, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limits += _numbers_in(folder / name)
    return min(limits)


def cpu_count(
    environ: Mapping[str, str] = os.environ, groups: Path = _GROUPS, of_process: Path = _GROUPS_OF_PROCESS
) -> int:
    """Return the number of cores that this program may use; see `memory_limit` for the parameters."""
    counts = [CPU_COUNT]
    for folder in _folders(groups, of_process, "cpu"):
        with suppress(OSError, ValueError):
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            counts.append(math.ceil(quota / period))
        for quota, period in zip(
            _numbers_in(folder / "cpu.cfs_quota_us"), _numbers_in(folder / "cpu.cfs_period_us"), strict=False
        ):
            counts.append(math.ceil(quota / period))
    with suppress(KeyError, ValueError):
        counts.append(int(environ["SLURM_CPUS_ON_NODE"]))
    return max(1, min(counts))


def process_limit() -> int | None:
    """Return the bytes that one process may use, as set by ``ulimit -v``; None if there is no such limit."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else int(limit)


def _slurm_memory(environ: Mapping[str, str]) -> Iterator[int]:
    """Yield the memory of a SLURM job on this machine, bytes. SLURM states it in MB; 0 means all of the machine."""
    with suppress(KeyError, ValueError):
        if (size := int(environ["SLURM_MEM_PER_NODE"])) > 0:
            yield size * _MEGABYTE
    with suppress(KeyError, ValueError):
        size = int(environ["SLURM_MEM_PER_CPU"]) * int(environ["SLURM_CPUS_ON_NODE"])
        if size > 0:
            yield size * _MEGABYTE


def _folders(groups: Path, of_process: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups of this process, from its own up to the root."""
    try:
        lines = of_process.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = (*line.split(":", 2), "", "")[:3]
        if names and controller not in names.split(","):
            continue
        # In a container, the mounted root is the group of the container, but the path may be one on the host.
        bases = [groups] if not names else [groups / names, groups / controller]
        group_path = PurePosixPath(path.lstrip("/"))
        if ".." in group_path.parts:
            group_path = PurePosixPath()
        for base in bases:
            for folder in (group_path, *group_path.parents):
                yield base / folder


def _numbers_in(file: Path) -> list[int]:
    with suppress(OSError, ValueError):
        number = int(file.read_text())
        return [number] if number > 0 else []
    return []
