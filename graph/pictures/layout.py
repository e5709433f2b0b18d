"""Where the boxes of a call graph go: layers from left to right, few crossings. Pure, and independent of any order.

The classic steps for layered drawings (Sugiyama, Tagawa, Toda 1981): break cycles, longest-path layers, barycentre
ordering with waypoints for lines that cross a layer, then places as near to the neighbours' as the order allows.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 8
Pair = tuple[str, str]
Spot = tuple[str, str, int]
"""A box («name», "", layer) or a waypoint («left», «right», layer) of a line between two boxes."""


@dataclass(frozen=True)
class Layout:
    """``layer`` of each box; ``height`` (its middle) of each spot; ``lines``: the spots of each pair, left to right."""

    layer: Mapping[str, int]
    height: Mapping[Spot, float]
    lines: Mapping[Pair, tuple[Spot, ...]]


def layered(nodes: Collection[str], edges: Iterable[Pair], tall: float, thin: float) -> Layout:
    """Boxes ``tall`` and waypoints ``thin`` pixels high, gaps included."""
    forward = _acyclic(sorted(nodes), sorted(set(edges)))
    layer = _layers(sorted(nodes), forward)
    lines = {pair: _spots(pair, layer) for pair in forward}
    order = _ordered(layer, lines)
    return Layout(layer, _heights(order, lines, tall, thin), lines)


def _acyclic(nodes: Sequence[str], edges: Sequence[Pair]) -> list[Pair]:
    """Each pair once, those that close a cycle turned round."""
    following: dict[str, list[str]] = {n: [] for n in nodes}
    for left, right in edges:
        following[left].append(right)
    incoming = {right for _, right in edges}
    place: dict[str, int] = {}
    for start in sorted(nodes, key=lambda n: (n in incoming, n)):
        _finish(start, following, place)
    return sorted({(a, b) if place[a] > place[b] else (b, a) for a, b in edges})


def _finish(start: str, following: Mapping[str, Sequence[str]], place: dict[str, int]) -> None:
    """Depth first; a box gets its place after all it leads to."""
    entered = {start} | set(place)
    way = [(start, iter(following[start]))] if start not in place else []
    while way:
        name, rest = way[-1]
        further = next((n for n in rest if n not in entered), None)
        if further is None:
            place[name] = len(place)
            way.pop()
        else:
            entered.add(further)
            way.append((further, iter(following[further])))


def _layers(nodes: Sequence[str], edges: Sequence[Pair]) -> dict[str, int]:
    """Longest path from the left; then what nobody leads to moves next to what it leads to."""
    after: dict[str, list[str]] = {n: [] for n in nodes}
    before: dict[str, int] = dict.fromkeys(nodes, 0)
    for left, right in edges:
        after[left].append(right)
        before[right] += 1
    layer, waiting = dict.fromkeys(nodes, 0), dict(before)
    ready = [n for n in nodes if not before[n]]
    for name in ready:  # grows while it is read
        for further in after[name]:
            layer[further] = max(layer[further], layer[name] + 1)
            waiting[further] -= 1
            if not waiting[further]:
                ready.append(further)
    for name in nodes:
        if not before[name] and after[name]:
            layer[name] = min(layer[n] for n in after[name]) - 1
    return layer


def _spots(pair: Pair, layer: Mapping[str, int]) -> tuple[Spot, ...]:
    left, right = pair
    between = range(layer[left] + 1, layer[right])
    return (left, "", layer[left]), *((left, right, n) for n in between), (right, "", layer[right])


def _ordered(layer: Mapping[str, int], lines: Mapping[Pair, Sequence[Spot]]) -> list[list[Spot]]:
    """The spots of each layer from top to bottom, of all sweeps those with the fewest crossings."""
    spots = {(name, "", n) for name, n in layer.items()}.union(*lines.values())
    order = [sorted(s for s in spots if s[2] == n) for n in range(max(layer.values(), default=0) + 1)]
    links = [link for line in lines.values() for link in pairwise(line)]
    best = [list(column) for column in order]
    fewest = _crossings(best, links)
    for sweep in range(SWEEPS):
        _sweep(order, links, leftwards=sweep % 2 == 1)
        crossings = _crossings(order, links)
        if crossings < fewest:
            best, fewest = [list(column) for column in order], crossings
    return best


def _sweep(order: list[list[Spot]], links: Sequence[tuple[Spot, Spot]], *, leftwards: bool) -> None:
    """Sort each layer by the mean place of the neighbours in the one before it."""
    neighbours: dict[Spot, list[Spot]] = {}
    for left, right in links:
        here, there = (left, right) if leftwards else (right, left)
        neighbours.setdefault(here, []).append(there)
    numbers = range(len(order) - 2, -1, -1) if leftwards else range(1, len(order))
    for n in numbers:
        order[n] = _by_neighbours(order[n], neighbours, {s: i for column in order for i, s in enumerate(column)})


def _by_neighbours(
    column: Iterable[Spot], neighbours: Mapping[Spot, Sequence[Spot]], place: Mapping[Spot, int]
) -> list[Spot]:
    return sorted(column, key=lambda s: (_mean([place[o] for o in neighbours.get(s, [s])]), place[s]))


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _crossings(order: Sequence[Sequence[Spot]], links: Sequence[tuple[Spot, Spot]]) -> int:
    place = {s: i for column in order for i, s in enumerate(column)}
    by_layer: dict[int, list[tuple[int, int]]] = {}
    for left, right in links:
        by_layer.setdefault(left[2], []).append((place[left], place[right]))
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for near in by_layer.values() for a in near for b in near) // 2


def _heights(
    order: Sequence[Sequence[Spot]], lines: Mapping[Pair, Sequence[Spot]], tall: float, thin: float
) -> dict[Spot, float]:
    """The middle of each spot: as near to its neighbours' as order and sizes allow; the topmost begins at 0."""
    neighbours: dict[Spot, list[Spot]] = {}
    for line in lines.values():
        for left, right in pairwise(line):
            neighbours.setdefault(left, []).append(right)
            neighbours.setdefault(right, []).append(left)
    size = {s: thin if s[1] else tall for column in order for s in column}
    height: dict[Spot, float] = {}
    for column in order:
        height |= dict(zip(column, _apart([0.0] * len(column), [size[s] for s in column]), strict=True))
    for sweep in range(2 * SWEEPS):
        for column in order if sweep % 2 else reversed(order):
            wanted = [_mean([height[o] for o in neighbours.get(s, [s])]) for s in column]
            height |= dict(zip(column, _apart(wanted, [size[s] for s in column]), strict=True))
    top = min((height[s] - size[s] / 2 for s in height), default=0.0)
    return {s: h - top for s, h in height.items()}


def _apart(wanted: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """The places nearest to those wanted that keep the order and do not overlap: pooled adjacent violators."""
    offsets = [0.0]
    for above, below in pairwise(sizes):
        offsets.append(offsets[-1] + (above + below) / 2)
    pools: list[tuple[float, int]] = []  # mean, members
    for want, offset in zip(wanted, offsets, strict=False):
        mean, members = want - offset, 1
        while pools and pools[-1][0] > mean:
            other, more = pools.pop()
            mean, members = (mean * members + other * more) / (members + more), members + more
        pools.append((mean, members))
    level = [mean for mean, members in pools for _ in range(members)]
    return [base + offset for base, offset in zip(level, offsets, strict=False)]
