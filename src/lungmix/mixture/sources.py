"""Sources of samples: arrays in memory, or dask arrays. Both are processed chunk by chunk, with small results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import dask
import dask.array as da
import numba
import numpy as np
import numpy.typing as npt
from dask.layers import ArrayValuesDep

from lungmix.mixture.em_kernels import assign, e_step_statistics
from lungmix.mixture.parameters import Floats, State
from lungmix.mixture.random_start import assign_randomly
from lungmix.mixture.sufficient_statistics import Statistics, combine_all

_PART = 1 << 18
_FAN_IN = 8

T = TypeVar("T")

Task = Callable[..., Any]
"""Function ``task(x, weights, index, argument)`` of a chunk: its rows, their weights or None, its number, and an
argument that differs between chunks."""


class Source(Protocol):
    """Samples in chunks. Tasks process the chunks where they are, and only their results are returned."""

    @property
    def n_features(self) -> int:
        """Number of columns of the samples."""

    def each(self, task: Task, per_chunk_args: Sequence[Any] | None = None) -> list[Any]:
        """Return the result of ``task(x, weights, index, per_chunk_args[index])`` for each chunk, in order."""

    def total(self, task: Callable[[Any, Any], T], combine: Callable[[list[T]], T]) -> T:
        """Return what `combine` makes of the results of ``task(x, weights)`` for all chunks, in a fixed order."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Samples in memory.

    Attributes
    ----------
    x : ndarray, shape (n, d)
        Samples of any real dtype.
    weights : ndarray, shape (n,), or None
        Sample weights; None means that each is 1.
    """

    x: npt.NDArray[Any]
    weights: npt.NDArray[Any] | None = None

    @property
    def n_features(self) -> int:
        """Number of columns of the samples."""
        return int(self.x.shape[1])

    @property
    def sizes(self) -> list[int]:
        """Number of rows of each chunk."""
        return [min(_PART, len(self.x) - start) for start in range(0, max(len(self.x), 1), _PART)]

    def each(self, task: Task, per_chunk_args: Sequence[Any] | None = None) -> list[Any]:
        """See `Source`. Chunks are 256 Ki rows, and are processed by several threads."""
        parts = []
        for index, start in enumerate(range(0, max(len(self.x), 1), _PART)):
            rows = slice(start, start + _PART)
            weights = None if self.weights is None else self.weights[rows]
            argument = None if per_chunk_args is None else per_chunk_args[index]
            parts.append((self.x[rows], weights, index, argument))
        return _in_threads(lambda part: task(*part), parts)

    def total(self, task: Callable[[Any, Any], T], combine: Callable[[list[T]], T]) -> T:
        """See `Source`."""
        return combine(self.each(partial(_without_index, task)))


@dataclass(frozen=True, eq=False)
class Chunks:
    """Samples in a dask array, which may be persisted or be read again in each pass, with any scheduler.

    Attributes
    ----------
    x : dask array, shape (n, d)
        Samples, in one chunk along the features. The sizes of chunks along the rows may be unknown.
    weights : dask array, shape (n,), or None
        Sample weights, in the same chunks as the rows; None means that each is 1.
    """

    x: da.Array
    weights: da.Array | None = None

    @property
    def n_features(self) -> int:
        """Number of columns of the samples."""
        return int(self.x.shape[1])

    def each(self, task: Task, per_chunk_args: Sequence[Any] | None = None) -> list[Any]:
        """See `Source`."""
        return [cell[0, 0] for cell in dask.compute(*self._cells(task, per_chunk_args))]

    def total(self, task: Callable[[Any, Any], T], combine: Callable[[list[T]], T]) -> T:
        """See `Source`. Workers combine the results of eight chunks at a time, and combine these results likewise."""
        level = self._cells(partial(_without_index, task), None)
        merge = dask.delayed(partial(_combine_cells, combine), pure=False)
        while True:
            level = [merge(level[i : i + _FAN_IN]) for i in range(0, len(level), _FAN_IN)]
            if len(level) == 1:
                return dask.compute(level[0])[0][0, 0]

    def block(self, index: int) -> tuple[Any, Any]:
        """Return chunk number `index` and its weights as dask delayed values; None in place of weights if none."""
        weights = None if self.weights is None else self.weights.blocks[index].to_delayed()[0]
        return self.x.blocks[index].to_delayed()[0, 0], weights

    def _cells(self, task: Task, per_chunk_args: Sequence[Any] | None) -> list[Any]:
        # In one blockwise layer, each task is fused with the reading of its chunk, so that chunks do not accumulate on
        # workers. The arguments of chunks are part of the layer instead of separate tasks.
        count = self.x.numblocks[0]
        arguments_of_chunks = np.empty(count, object)
        arguments_of_chunks[:] = [
            (index, None if per_chunk_args is None else per_chunk_args[index]) for index in range(count)
        ]
        arguments: list[Any] = [ArrayValuesDep(self.x.chunks[:1], arguments_of_chunks), "i", self.x, "ij"]
        if self.weights is not None:
            arguments += [self.weights, "i"]
        cells = da.blockwise(
            partial(_on_chunk, task),
            "ij",
            *arguments,
            dtype=object,
            meta=np.empty((0, 0), object),
            align_arrays=False,
            adjust_chunks={"i": 1, "j": 1},
            # Use a new name for each pass, so that a scheduler never returns the results of an earlier pass.
            name=f"mixture-{uuid4().hex}",
        )
        return list(cells.to_delayed().reshape(-1))


def _on_chunk(task: Task, argument: tuple[int, Any], x: Any, weights: Any = None) -> npt.NDArray[Any]:
    return _cell(task(x, weights, *argument))


def _combine_cells(combine: Callable[[list[Any]], Any], cells: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return _cell(combine([cell[0, 0] for cell in cells]))


def _cell(content: Any) -> npt.NDArray[Any]:
    out = np.empty((1, 1), object)
    out[0, 0] = content
    return out


def _without_index(task: Callable[[Any, Any], Any], x: Any, weights: Any, index: int, argument: Any) -> Any:
    return task(x, weights)


def _in_threads(function: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    # Use numba's number of threads, which joblib and others reduce if they run several processes on one machine.
    threads = min(numba.get_num_threads(), len(parts))
    if threads < 2:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(threads, thread_name_prefix="mixture") as pool:
        return list(pool.map(function, parts))


def e_step(source: Source, states: Sequence[State], covariance_type: str) -> Statistics:
    """Return the statistics of all samples under several states, in one pass over the data."""
    return source.total(partial(e_step_statistics, states=list(states), covariance_type=covariance_type), combine_all)


def hard_pass(source: Source, centres: Floats, covariance_type: str) -> Statistics:
    """Return the statistics of all samples that are assigned to the nearest centre; centres have shape (s, k, d)."""
    return source.total(partial(assign, centres=centres, covariance_type=covariance_type), combine_all)


def random_pass(source: Source, seeds: Sequence[int], n_components: int, covariance_type: str) -> Statistics:
    """Return the statistics of all samples that belong to components in random proportions, one state per seed."""
    task = partial(assign_randomly, seeds=seeds, n_components=n_components, covariance_type=covariance_type)
    return source.total(task, combine_all)
