"""Remove tasks that only forward data from graphs, because each task costs scheduler and worker about a millisecond.

Graphs consist of nodes of dask's task specification: https://docs.dask.org/en/stable/spec.html.
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
    """Optimized graph of all tasks that compute given delayed values.

    Attributes
    ----------
    keys : list
        Keys of the values.
    graph : dict
        Nodes by key.
    """

    keys: list[Any]
    graph: Graph

    @property
    def values(self) -> list[Delayed]:
        """The delayed values, based on the optimized graph."""
        return [Delayed(key, self.graph) for key in self.keys]


def fuse_and_inline(values: Sequence[Delayed]) -> OptimizedGraph:
    """Return the graph of delayed values, with aliases resolved, data inlined, and each chain fused into one task."""
    keys = [value.key for value in values]
    outputs = set(keys)
    graph = _resolve_aliases(_nodes_of(values), outputs)
    return OptimizedGraph(keys, _fuse_chains(graph, outputs))


def _nodes_of(values: Iterable[Delayed]) -> Graph:
    # Blocks of one array share a graph.
    graphs = {id(graph): graph for graph in (value.__dask_graph__() for value in values)}
    nodes: Graph = {}
    for graph in graphs.values():
        nodes.update(convert_legacy_graph(ensure_dict(graph)))
    return nodes


def _resolve_aliases(graph: Graph, outputs: set[Any]) -> Graph:
    """Replace references to aliases by their targets, and references to data that is used once by the data."""
    uses = _count_uses(graph)
    replacements: dict[Any, Any] = {}
    for key, node in graph.items():
        if key not in outputs:
            if isinstance(node, Alias) and node.target in graph:
                replacements[key] = node.target
            elif isinstance(node, DataNode) and uses[key] == 1:
                replacements[key] = node
    for key, replacement in replacements.items():
        while not isinstance(replacement, GraphNode) and replacement in replacements:
            replacement = replacements[replacement]
        replacements[key] = replacement
    resolved = {key: node.substitute(replacements) for key, node in graph.items() if key not in replacements}
    uses = _count_uses(resolved)
    for key in outputs:
        node = resolved[key]
        if isinstance(node, Alias) and uses[node.target] == 1 and node.target in resolved.keys() - outputs:
            resolved[key] = resolved.pop(node.target).substitute({}, key=key)
    return resolved


def _fuse_chains(graph: Graph, outputs: set[Any]) -> Graph:
    """Fuse two tasks into one if the second is the only one that uses the first, and uses nothing else."""
    uses = _count_uses(graph)
    fused = dict(graph)
    for key in graph:
        while key in fused and (dependency := _only_dependency(fused[key])) in fused:
            node, first = fused[key], fused[dependency]
            if (
                dependency in outputs
                or uses[dependency] != 1
                or not (isinstance(node, Task) and isinstance(first, Task))
            ):
                break
            fused[key] = Task.fuse(first, node, key=key)
            del fused[dependency]
    return fused


def _only_dependency(node: GraphNode) -> Any:
    dependencies = node.dependencies
    return next(iter(dependencies)) if len(dependencies) == 1 else None


def _count_uses(graph: Graph) -> Counter[Any]:
    return Counter(dependency for node in graph.values() for dependency in node.dependencies)
