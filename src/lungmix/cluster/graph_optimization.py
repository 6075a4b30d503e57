"""Graphs without the tasks that only pass something on: each task costs scheduler and worker about a millisecond.

Uses nodes of dask's task specification: https://docs.dask.org/en/stable/spec.html.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dask._task_spec import Alias, DataNode, GraphNode, Task, convert_legacy_graph
from dask.delayed import Delayed
from dask.utils import ensure_dict

Graph = dict[Any, GraphNode]


@dataclass(frozen=True)
class OptimizedGraph:
    """Some values, and the tasks that make them.

    Attributes
    ----------
    keys : list
        Of the values.
    graph : dict
        Nodes by key.
    """

    keys: list[Any]
    graph: Graph

    @property
    def values(self) -> list[Delayed]:
        """For dask to compute."""
        return [Delayed(key, self.graph) for key in self.keys]


def fuse_and_inline(values: Sequence[Delayed]) -> OptimizedGraph:
    """The graph of delayed values without other names of tasks, without data as tasks, and with chains as one task."""
    keys = [value.key for value in values]
    wanted = set(keys)
    graph = _settle_names(_nodes_of(values), wanted)
    return OptimizedGraph(keys, _join_chains(graph, wanted))


def _nodes_of(values: Iterable[Delayed]) -> Graph:
    # Blocks of one array share a graph.
    graphs = {id(graph): graph for graph in (value.__dask_graph__() for value in values)}
    nodes: Graph = {}
    for graph in graphs.values():
        nodes.update(convert_legacy_graph(ensure_dict(graph)))
    return nodes


def _settle_names(graph: Graph, wanted: set[Any]) -> Graph:
    """Put what other names and data stand for where they are used."""
    uses = _uses(graph)
    stand_for: dict[Any, Any] = {}
    for key, node in graph.items():
        if key not in wanted:
            if isinstance(node, Alias) and node.target in graph:
                stand_for[key] = node.target
            elif isinstance(node, DataNode) and uses[key] == 1:
                stand_for[key] = node
    for key, other in stand_for.items():
        while not isinstance(other, GraphNode) and other in stand_for:
            other = stand_for[other]
        stand_for[key] = other
    left = {key: node.substitute(stand_for) for key, node in graph.items() if key not in stand_for}
    uses = _uses(left)
    for key in wanted:
        node = left[key]
        if isinstance(node, Alias) and uses[node.target] == 1 and node.target in left.keys() - wanted:
            left[key] = left.pop(node.target).substitute({}, key=key)
    return left


def _join_chains(graph: Graph, wanted: set[Any]) -> Graph:
    """Make one task of each task and the only one that needs it, where that needs nothing else."""
    uses = _uses(graph)
    joined = dict(graph)
    for key in graph:
        while key in joined and (before := _only_need(joined[key])) in joined:
            node, first = joined[key], joined[before]
            if before in wanted or uses[before] != 1 or not (isinstance(node, Task) and isinstance(first, Task)):
                break
            joined[key] = Task.fuse(first, node, key=key)
            del joined[before]
    return joined


def _only_need(node: GraphNode) -> Any:
    needs = node.dependencies
    return next(iter(needs)) if len(needs) == 1 else None


def _uses(graph: Graph) -> Counter[Any]:
    return Counter(need for node in graph.values() for need in node.dependencies)
