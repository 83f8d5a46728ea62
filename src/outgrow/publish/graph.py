"""Which files depend on each other in a circle, and in which order files can be named.

A file that refers to others has their final names in it, so theirs are needed first. Files
that refer to each other in a circle get their names together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping


def components(edges: Mapping[str, Collection[str]]) -> list[tuple[str, ...]]:
    """The strongly connected components of a graph, dependencies first.

    `edges` holds for each name those that it refers to; these need no entry of their own. Each
    component is in order. The result depends on the graph alone, not on the order of its
    parts. R. Tarjan, "Depth-first search and linear graph algorithms" (1972), with a stack of
    its own: chains of files may be longer than Python's.
    """
    search = _Search(edges)
    for name in sorted(edges):
        if name not in search.index:
            search.visit(name)
    return search.found


class _Search:
    """The state of the depth-first search."""

    def __init__(self, edges: Mapping[str, Collection[str]]) -> None:
        self.found: list[tuple[str, ...]] = []
        self.index: dict[str, int] = {}  # in which order names were met
        self._edges = edges
        self._low: dict[str, int] = {}  # the earliest name that can be reached
        self._open: list[str] = []  # met, and in no component yet
        self._is_open: set[str] = set()

    def visit(self, root: str) -> None:
        """Everything that can be reached from a name that was not met before."""
        path = [(root, self._enter(root))]
        while path:
            name, rest = path[-1]
            following = next(rest, None)
            if following is None:
                path.pop()
                self._leave(name)
                if path:
                    above = path[-1][0]
                    self._low[above] = min(self._low[above], self._low[name])
            elif following not in self.index:
                path.append((following, self._enter(following)))
            elif following in self._is_open:
                self._low[name] = min(self._low[name], self.index[following])

    def _enter(self, name: str) -> Iterator[str]:
        self.index[name] = self._low[name] = len(self.index)
        self._open.append(name)
        self._is_open.add(name)
        return iter(sorted(self._edges.get(name, ())))

    def _leave(self, name: str) -> None:
        """Close the component that begins with this name, if one does."""
        if self._low[name] != self.index[name]:
            return
        members = [self._open.pop()]
        while members[-1] != name:
            members.append(self._open.pop())
        self._is_open.difference_update(members)
        self.found.append(tuple(sorted(members)))
