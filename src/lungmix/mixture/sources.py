"""Where samples come from: arrays in memory or dask arrays, both seen as chunks that small results come back from."""

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
"""A function of the rows of a chunk, of their weights or None, of the chunk's number, and of what is sent along."""


class Source(Protocol):
    """Samples in chunks; what is asked of each chunk comes back, never the samples."""

    @property
    def n_features(self) -> int:
        """Columns of the samples."""

    def each(self, task: Task, sent: Sequence[Any] | None = None) -> list[Any]:
        """Results of ``task(x, weights, index, sent[index])`` of all chunks, in their order."""

    def total(self, task: Callable[[Any, Any], T], combine: Callable[[list[T]], T]) -> T:
        """Results of ``task(x, weights)`` of all chunks, combined in an order that is always the same."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Samples in memory.

    Attributes
    ----------
    x : ndarray, shape (n, d)
        Samples of any real dtype.
    weights : ndarray, shape (n,), or None
        Sample weights; None means 1 each.
    """

    x: npt.NDArray[Any]
    weights: npt.NDArray[Any] | None = None

    @property
    def n_features(self) -> int:
        """Columns."""
        return int(self.x.shape[1])

    @property
    def sizes(self) -> list[int]:
        """Rows of each part."""
        return [min(_PART, len(self.x) - start) for start in range(0, max(len(self.x), 1), _PART)]

    def each(self, task: Task, sent: Sequence[Any] | None = None) -> list[Any]:
        """See `Source`; parts of 256 Ki rows are worked on by threads."""
        parts = []
        for index, start in enumerate(range(0, max(len(self.x), 1), _PART)):
            rows = slice(start, start + _PART)
            weights = None if self.weights is None else self.weights[rows]
            parts.append((self.x[rows], weights, index, None if sent is None else sent[index]))
        return _in_threads(lambda part: task(*part), parts)

    def total(self, task: Callable[[Any, Any], T], combine: Callable[[list[T]], T]) -> T:
        """See `Source`."""
        return combine(self.each(partial(_alone, task)))


@dataclass(frozen=True, eq=False)
class Chunks:
    """A dask array, of any scheduler, persisted or streamed.

    Attributes
    ----------
    x : dask array, shape (n, d)
        One chunk along the features; the sizes of chunks along the rows may be unknown.
    weights : dask array, shape (n,), or None
        In the same chunks.
    """

    x: da.Array
    weights: da.Array | None = None

    @property
    def n_features(self) -> int:
        """Columns."""
        return int(self.x.shape[1])

    def each(self, task: Task, sent: Sequence[Any] | None = None) -> list[Any]:
        """See `Source`."""
        return [cell[0, 0] for cell in dask.compute(*self._cells(task, sent))]

    def total(self, task: Callable[[Any, Any], T], combine: Callable[[list[T]], T]) -> T:
        """See `Source`; results meet on the workers, eight at a time."""
        level = self._cells(partial(_alone, task), None)
        merge = dask.delayed(partial(_combine_cells, combine), pure=False)
        while True:
            level = [merge(level[i : i + _FAN_IN]) for i in range(0, len(level), _FAN_IN)]
            if len(level) == 1:
                return dask.compute(level[0])[0][0, 0]

    def block(self, index: int) -> tuple[Any, Any]:
        """Chunk number `index` and its weights, or None, as delayed values."""
        weights = None if self.weights is None else self.weights.blocks[index].to_delayed()[0]
        return self.x.blocks[index].to_delayed()[0, 0], weights

    def _cells(self, task: Task, sent: Sequence[Any] | None) -> list[Any]:
        # As one blockwise layer a task is fused with the reading of its chunk: no worker holds chunks in stock. What
        # is sent along is part of the layer, not a task of its own.
        count = self.x.numblocks[0]
        notes = np.empty(count, object)
        notes[:] = [(index, None if sent is None else sent[index]) for index in range(count)]
        arguments: list[Any] = [ArrayValuesDep(self.x.chunks[:1], notes), "i", self.x, "ij"]
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
            # Names are new in each pass: a scheduler must never answer with what an earlier state gave.
            name=f"mixture-{uuid4().hex}",
        )
        return list(cells.to_delayed().reshape(-1))


def _on_chunk(task: Task, note: tuple[int, Any], x: Any, weights: Any = None) -> npt.NDArray[Any]:
    return _cell(task(x, weights, *note))


def _combine_cells(combine: Callable[[list[Any]], Any], cells: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return _cell(combine([cell[0, 0] for cell in cells]))


def _cell(content: Any) -> npt.NDArray[Any]:
    out = np.empty((1, 1), object)
    out[0, 0] = content
    return out


def _alone(task: Callable[[Any, Any], Any], x: Any, weights: Any, index: int, sent: Any) -> Any:
    return task(x, weights)


def _in_threads(function: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    # numba's number of threads is what joblib and others lower where they run several processes on one machine.
    threads = min(numba.get_num_threads(), len(parts))
    if threads < 2:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(threads, thread_name_prefix="mixture") as pool:
        return list(pool.map(function, parts))


def e_step(source: Source, states: Sequence[State], covariance_type: str) -> Statistics:
    """Statistics of all samples under several states, in one pass over the data."""
    return source.total(partial(e_step_statistics, states=list(states), covariance_type=covariance_type), combine_all)


def hard_pass(source: Source, centres: Floats, covariance_type: str) -> Statistics:
    """Statistics of all samples where each belongs to the nearest centre, for centres of shape (s, k, d)."""
    return source.total(partial(assign, centres=centres, covariance_type=covariance_type), combine_all)


def random_pass(source: Source, seeds: Sequence[int], n_components: int, covariance_type: str) -> Statistics:
    """Return the statistics where each sample belongs to all components in random shares, for each seed."""
    task = partial(assign_randomly, seeds=seeds, n_components=n_components, covariance_type=covariance_type)
    return source.total(task, combine_all)
