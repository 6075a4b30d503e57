"""Connected components of items that share links."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence


def connected_components(links: Sequence[Iterable[Hashable]]) -> list[list[int]]:
    """Return the connected components of items as lists of their indices; items that share a link are connected.

    Parameters
    ----------
    links : sequence of iterable
        Links of each item.
    """
    parent = list(range(len(links)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[Hashable, int] = {}
    for index, item_links in enumerate(links):
        for link in item_links:
            lower, higher = sorted((root(index), root(first.setdefault(link, index))))
            parent[higher] = lower
    components: dict[int, list[int]] = defaultdict(list)
    for index in range(len(links)):
        components[root(index)].append(index)
    return list(components.values())
