"""Finds the names that have to be pickled together. Pure: names and ids in, groups of names out."""

from collections.abc import Iterable, Mapping, Sequence

type Names = tuple[str, ...]


class UnionFind:
    """Names, united step by step into groups (the union-find structure)."""

    def __init__(self, names: Iterable[str]) -> None:
        """Start with every name in a group of its own."""
        self._parent = {name: name for name in names}

    def find(self, name: str) -> str:
        """Return the name that represents a name's group."""
        parent = self._parent
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def union(self, one: str, other: str) -> None:
        """Unite the groups of two names."""
        self._parent[self.find(one)] = self.find(other)

    def groups(self) -> list[Names]:
        """Return the groups in the order of their first names; each group's names keep their order."""
        found: dict[str, list[str]] = {}
        for name in self._parent:
            found.setdefault(self.find(name), []).append(name)
        return [tuple(names) for names in found.values()]


def groups_sharing_objects(
    objects: Mapping[str, Iterable[int]], dependencies: Mapping[str, Iterable[str]]
) -> list[Names]:
    """Return the groups of names that share objects, or that depend on each other in a cycle.

    Args:
        objects: by name, the ids of the objects that its value holds and whose identity matters.
        dependencies: by name, the other names that its value refers to by name.
    """
    partition = UnionFind(objects)
    first: dict[int, str] = {}
    for name, ids in objects.items():
        for identity in ids:
            other = first.setdefault(identity, name)
            if other is not name:
                partition.union(other, name)
    for cycle in _dependency_cycles(partition, dependencies):
        for name in cycle[1:]:
            partition.union(cycle[0], name)
    return partition.groups()


def _dependency_cycles(
    partition: UnionFind, dependencies: Mapping[str, Iterable[str]]
) -> list[Sequence[str]]:
    """Return the strongly connected components of the groups' dependencies.

    This is Tarjan's algorithm without recursion: chains of dependencies may be thousands of names long.
    """
    edges: dict[str, set[str]] = {}
    for name, needed in dependencies.items():
        own = partition.find(name)
        others = {partition.find(other) for other in needed}
        edges.setdefault(own, set()).update(others - {own})
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    cycles: list[Sequence[str]] = []
    for root, others in edges.items():
        if root in index:
            continue
        work = [(root, iter(sorted(others)))]
        index[root] = low[root] = len(index)
        path.append(root)
        on_path.add(root)
        while work:
            node, remaining = work[-1]
            following = next(remaining, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    at = path.index(node)
                    cycle = path[at:]
                    del path[at:]
                    on_path.difference_update(cycle)
                    if len(cycle) > 1:
                        cycles.append(cycle)
            elif following not in index:
                index[following] = low[following] = len(index)
                path.append(following)
                on_path.add(following)
                work.append((following, iter(sorted(edges.get(following, ())))))
            elif following in on_path:
                low[node] = min(low[node], index[following])
    return cycles
