"""Optimized graphs, without tasks that only forward data, compute the same values with fewer tasks."""

import operator

import dask
import dask.array as da
import numpy as np
from dask._task_spec import Alias, DataNode
from dask.delayed import Delayed
from hypothesis import given
from hypothesis import strategies as st

from lungmix.cluster.graph_optimization import fuse_and_inline
from lungmix.graphs.overlap import map_with_halo


def sums_of_three(window, core):
    padded = np.pad(window, ((1, 1), (0, 0), (0, 0)))
    return (padded[:-2] + padded[1:-1] + padded[2:])[core]


def computed(values):
    with dask.config.set(scheduler="synchronous"):
        return dask.compute(*values)


@given(
    chunks=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    rounds=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_optimization_keeps_the_values_of_blocks_with_halos(chunks, rounds, seed):
    volume = np.random.default_rng(seed).integers(0, 99, (sum(chunks), 2, 3))
    array = da.from_array(volume, chunks=(tuple(chunks), -1, -1))
    limit = len(chunks) + 1  # the array that blocks are cut from, and the joining and cutting of blocks
    for _ in range(rounds):
        array = map_with_halo(sums_of_three, array, [(1, 1), (0, 0), (0, 0)])
        padded = np.pad(volume, ((1, 1), (0, 0), (0, 0)))
        volume = padded[:-2] + padded[1:-1] + padded[2:]
        limit += 3 * array.numblocks[0] - 2  # one task per block and one per halo; a round may join blocks
    values = list(array.to_delayed().reshape(-1))
    tasks = fuse_and_inline(values)
    assert np.array_equal(np.concatenate(computed(tasks.values)), volume)
    assert not any(isinstance(node, Alias) for node in tasks.graph.values())
    assert len(tasks.graph) <= limit


def test_value_that_is_another_name_of_one_that_others_need_keeps_both():
    graph = {"sum": (operator.add, 1, 2), "name": Alias("name", "sum"), "more": (operator.add, "sum", 10)}
    tasks = fuse_and_inline([Delayed(key, graph) for key in graph])
    assert computed(tasks.values) == (3, 3, 13)


def test_name_of_a_value_is_the_value():
    graph = {"sum": (operator.add, 1, 2), "name": Alias("name", "sum"), "top": Alias("top", "name")}
    tasks = fuse_and_inline([Delayed("top", graph)])
    assert list(tasks.graph) == ["top"]
    assert computed(tasks.values) == (3,)


def test_data_go_into_the_only_task_that_needs_them_and_stay_apart_where_more_do():
    data = DataNode("data", np.arange(3))
    graph = {"data": data, "one": (np.sum, "data"), "two": (np.max, "data")}
    both = fuse_and_inline([Delayed("one", graph), Delayed("two", graph)])
    assert set(both.graph) == {"data", "one", "two"}
    assert computed(both.values) == (3, 2)
    alone = fuse_and_inline([Delayed("one", {"data": data, "one": (np.sum, "data")})])
    assert set(alone.graph) == {"one"}
    assert computed(alone.values) == (3,)


def test_chain_becomes_one_task_but_not_across_a_value_or_a_fork():
    add = dask.delayed(operator.add)
    first = add(1, 1)
    second = add(first, 1)
    third = add(second, 1)
    fourth = add(third, 1)
    assert len(fuse_and_inline([fourth]).graph) == 1
    assert len(fuse_and_inline([second, fourth]).graph) == 2
    assert len(fuse_and_inline([add(third, third), fourth]).graph) == 3
    assert computed(fuse_and_inline([second, fourth]).values) == (3, 5)
