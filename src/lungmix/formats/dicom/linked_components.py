"""What belongs together because it shares something, directly or by others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence


def linked(links: Sequence[Iterable[Hashable]]) -> list[list[int]]:
    """Return the indices of items that share a link, directly or by others; each item once, in ascending order.

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
    for index, own in enumerate(links):
        for link in own:
            one, two = sorted((root(index), root(first.setdefault(link, index))))
            parent[two] = one
    found: dict[int, list[int]] = defaultdict(list)
    for index in range(len(links)):
        found[root(index)].append(index)
    return list(found.values())
