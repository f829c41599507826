"""Which names have to be saved together. Pure: names and ids in, groups of names out."""

from collections.abc import Iterable, Mapping, Sequence

type Names = tuple[str, ...]


class Partition:
    """Names, joined step by step (union-find)."""

    def __init__(self, names: Iterable[str]) -> None:
        """Start with every name for itself."""
        self._parent = {name: name for name in names}

    def find(self, name: str) -> str:
        """Give the name that stands for a name's group."""
        parent = self._parent
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(self, one: str, other: str) -> None:
        """Put two groups together."""
        self._parent[self.find(one)] = self.find(other)

    def groups(self) -> list[Names]:
        """Give the groups, in the order of the first names; the names in theirs."""
        found: dict[str, list[str]] = {}
        for name in self._parent:
            found.setdefault(self.find(name), []).append(name)
        return [tuple(names) for names in found.values()]


def groups_sharing_objects(
    objects: Mapping[str, Iterable[int]], needs: Mapping[str, Iterable[str]]
) -> list[Names]:
    """Give the groups of names that share objects, or that need each other in a circle.

    Args:
        objects: by name, the ids of the objects that it holds and whose identity matters.
        needs: by name, the names that are saved on their own and that it refers to.
    """
    partition = Partition(objects)
    first: dict[int, str] = {}
    for name, ids in objects.items():
        for identity in ids:
            other = first.setdefault(identity, name)
            if other is not name:
                partition.join(other, name)
    for circle in _circles(partition, needs):
        for name in circle[1:]:
            partition.join(circle[0], name)
    return partition.groups()


def _circles(partition: Partition, needs: Mapping[str, Iterable[str]]) -> list[Sequence[str]]:
    """Give the strongly connected parts of the groups' needs (Tarjan's algorithm, without recursion)."""
    edges: dict[str, set[str]] = {}
    for name, needed in needs.items():
        own = partition.find(name)
        others = {partition.find(other) for other in needed}
        edges.setdefault(own, set()).update(others - {own})
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    circles: list[Sequence[str]] = []
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
                    circle = path[at:]
                    del path[at:]
                    on_path.difference_update(circle)
                    if len(circle) > 1:
                        circles.append(circle)
            elif following not in index:
                index[following] = low[following] = len(index)
                path.append(following)
                on_path.add(following)
                work.append((following, iter(sorted(edges.get(following, ())))))
            elif following in on_path:
                low[node] = min(low[node], index[following])
    return circles
