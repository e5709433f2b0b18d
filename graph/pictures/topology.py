"""Who calls whom around an incident, and how the failure spread. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Protocol
from xml.etree import ElementTree as ET

from collectors.base import Edge
from graph.pictures import svg
from graph.pictures.layout import Layout, Pair, Spot, layered
from graph.pictures.words import Words, words
from graph.state import Hop, Suspect

MAX_NODES, MAX_LINES = 30, 50  # more of either cannot be read
MAX_NEIGHBOURS = 14  # boxes that only show where the others stand
BOX, TALL = 172.0, 38.0
GAP, ROW, WAYPOINT = 78.0, 54.0, 18.0  # between layers; from box to box; what a line takes that passes a layer
MARGIN = 16.0
CHECKS = ("structural", "statistical", "temporal")


class Explained(Protocol):
    """The parts of Evidence that the picture shows."""

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """In order."""

    @property
    def causes(self) -> tuple[str, ...]:
        """Suspects that explain the trouble only together."""

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Who calls whom."""


@dataclass(frozen=True)
class Scene:
    """What is drawn: boxes by name, the pairs that call, and the hops along which the failure spread."""

    names: tuple[str, ...]
    calls: Mapping[Pair, bool]  # (caller, callee) -> asynchronous
    hops: Mapping[Pair, Hop]  # (cause, effect)
    rank: Mapping[str, int]
    blamed: frozenset[str]
    affected: frozenset[str]
    alerted: str
    kinds: Mapping[str, str]
    left_out: int

    @property
    def joined(self) -> list[Pair]:
        """The pairs that a line joins, callers left."""
        spread = {(h.effect, h.cause) for h in self.hops.values() if (h.cause, h.effect) not in self.calls}
        return sorted({*self.calls, *spread})

    def reached(self, call: Pair) -> bool:
        """Whether the trouble of the callee may have reached its caller: both are part of it."""
        caller, callee = call
        return call in self.calls and caller in self.affected and (callee in self.affected or callee in self.blamed)


def topology_picture(evidence: Explained, alerted: str, *, language: str = "en", inline: bool = False) -> str:
    """Callers left of callees, with the path of the first suspect, or of all causes, in the direction of the failure.

    At most ``MAX_NODES`` boxes: path, suspects, affected ones, then their nearest neighbours; the rest is counted.
    ``inline`` leaves ``STYLE`` to the page.
    """
    t = words(language)
    scene = _scene(evidence, alerted)
    layout = layered(scene.names, scene.joined, ROW, WAYPOINT)
    columns = max(layout.layer.values(), default=0) + 1
    breadth = max(2 * MARGIN + columns * BOX + (columns - 1) * GAP, 420.0)
    body = max((h + (WAYPOINT if spot[1] else ROW) / 2 for spot, h in layout.height.items()), default=ROW)
    rows = _legend_rows(scene, breadth, t)
    root = svg.picture(breadth, MARGIN + body + 18 * len(rows) + 8, t["topology"].format(alerted), _told(scene, t))
    canvas = Canvas(root, layout, t)
    spread = {pair for hop in scene.hops.values() for pair in ((hop.cause, hop.effect), (hop.effect, hop.cause))}
    for pair in layout.lines:
        if pair not in spread:
            canvas.call(pair, scene)
    for hop in scene.hops.values():
        canvas.hop(hop)
    for name in scene.names:
        canvas.box(name, scene)
    for hop in scene.hops.values():
        canvas.checks(hop)
    _draw_legend(root, rows, MARGIN + body + 12)
    return svg.serialised(root, inline=inline)


def blamed(evidence: Explained) -> tuple[Suspect, ...]:
    """The causes, if there are any that are suspects; else the first suspect; empty if there is none."""
    causes = set(evidence.causes)
    return tuple(s for s in evidence.suspects if s.component in causes) or evidence.suspects[:1]


# --- what is drawn ---


def _scene(evidence: Explained, alerted: str) -> Scene:
    known = _calls(evidence.edges)
    accused = blamed(evidence)
    hops = {(h.cause, h.effect): h for s in accused for h in s.path[:MAX_NODES] if h.cause != h.effect}
    affected = list(dict.fromkeys(name for s in accused for name in s.affected))
    first = [n for h in hops.values() for n in (h.cause, h.effect)]
    wanted = dict.fromkeys(
        [*(s.component for s in accused), *first, alerted, *(s.component for s in evidence.suspects), *affected]
    )
    names = [n for n in islice(wanted, MAX_NODES) if n]
    room = min(MAX_NEIGHBOURS, MAX_NODES - len(names))
    names += islice(_nearest(names, known), room)
    drawn = set(names)
    mentioned = drawn | {n for n in wanted if n} | {n for pair in known for n in pair}
    hops = {pair: h for pair, h in hops.items() if drawn.issuperset(pair)}
    return Scene(
        names=tuple(names),
        calls=_bounded({pair: a for pair, a in known.items() if drawn.issuperset(pair)}, names),
        hops=hops,
        rank={s.component: n for n, s in reversed(list(enumerate(evidence.suspects, start=1)))},
        blamed=frozenset(s.component for s in accused),
        affected=frozenset(affected),
        alerted=alerted,
        kinds=_kinds(evidence),
        left_out=len(mentioned) - len(drawn),
    )


def _calls(edges: Iterable[Edge]) -> dict[Pair, bool]:
    """Each pair once; asynchronous if any source knows it to be."""
    calls: dict[Pair, bool] = {}
    for edge in edges:
        if edge.caller != edge.callee and edge.caller and edge.callee:
            pair = (edge.caller, edge.callee)
            calls[pair] = calls.get(pair, False) or edge.asynchronous
    return calls


def _bounded(calls: dict[Pair, bool], names: Sequence[str]) -> dict[Pair, bool]:
    """The lines between the most important boxes."""
    place = {name: i for i, name in enumerate(names)}
    order = sorted(calls, key=lambda pair: (max(place[n] for n in pair), pair))
    return {pair: calls[pair] for pair in sorted(order[:MAX_LINES])}


def _nearest(names: Sequence[str], calls: Iterable[Pair]) -> Iterable[str]:
    """All others, nearest first."""
    neighbours: dict[str, list[str]] = {}
    for caller, callee in calls:
        neighbours.setdefault(caller, []).append(callee)
        neighbours.setdefault(callee, []).append(caller)
    seen, queue = set(names), deque(names)
    while queue:
        for other in sorted(neighbours.get(queue.popleft(), ())):
            if other not in seen:
                seen.add(other)
                queue.append(other)
                yield other


def _kinds(evidence: Explained) -> dict[str, str]:
    """What each component is, where a source knows; the word that sorts first if they disagree."""
    said = [(e.callee, e.callee_kind) for e in evidence.edges] + [(s.component, s.kind) for s in evidence.suspects]
    return dict(sorted({(name, kind) for name, kind in said if kind}, reverse=True))


def _told(scene: Scene, t: Words) -> str:
    """What the picture shows, for those who cannot see it."""
    said = [f"{t['suspect']} {n}: {_named(name)}" for name, n in sorted(scene.rank.items(), key=lambda r: r[1])][:3]
    said += [f"{t['alerted']}: {_named(scene.alerted)}"]
    said += [f"{t['spreads']}: {_named(h.cause)} → {_named(h.effect)} ({_checked(h, t)})" for h in scene.hops.values()]
    if scene.affected:
        said.append(f"{t['affected']}: {', '.join(map(_named, sorted(scene.affected)))}")
    if not scene.calls:
        said.append(t["nothing_known"])
    return "; ".join([*said, *([t["more"].format(scene.left_out)] if scene.left_out else [])])


def _named(name: str) -> str:
    return svg.clean(name, 60)


def _checked(hop: Hop, t: Words) -> str:
    return ", ".join(f"{t[check]}: {t['holds' if getattr(hop, check) else 'fails']}" for check in CHECKS)


# --- how it is drawn ---


@dataclass(frozen=True)
class Canvas:
    """Draws boxes and lines where the layout puts them."""

    root: ET.Element
    layout: Layout
    t: Words

    def box(self, name: str, scene: Scene) -> None:
        """One component: its name, and what is to be said of it."""
        spot = (name, "", self.layout.layer[name])
        left, middle = self._left(spot), self._height(spot)
        classes = ["node"]
        classes += ["affected"] if name in scene.affected else []
        classes += ["suspected"] if name in scene.rank else []
        classes += ["blamed"] if name in scene.blamed else []
        group = svg.add(self.root, "g", "vertex", name)
        y = middle - TALL / 2
        svg.add(group, "rect", " ".join(classes), x=left, y=y, width=BOX, height=TALL, rx=6)
        roles = self._roles(name, scene)
        svg.write(group, left + 10, middle + (-2 if roles else 4), svg.fit(name, BOX - 20, 12), "strong")
        if roles:
            svg.write(group, left + 10, middle + 12, svg.fit(roles, BOX - 20, 11), "small soft")
        if name == scene.alerted:
            svg.add(group, "circle", "badge", self.t["alerted"], cx=left + BOX - 2, cy=y + 2, r=8)
            svg.write(group, left + BOX - 2, y + 6, "!", "on-badge middle")

    def _roles(self, name: str, scene: Scene) -> str:
        said = [f"{self.t['suspect']} {scene.rank[name]}"] if name in scene.rank else []
        said += [self.t["alerted"]] if name == scene.alerted else []
        said += [self.t["affected"]] if name in scene.affected and name != scene.alerted else []
        kind = scene.kinds.get(name, "")
        said += [self.t.get(kind, kind)] if kind and kind != "service" else []
        return " · ".join(said)

    def call(self, pair: Pair, scene: Scene) -> None:
        """A thin line with a head at the callee, at both ends if they call each other."""
        left, right = pair
        asynchronous = scene.calls.get(pair, False) or scene.calls.get((right, left), False)
        reached = scene.reached(pair) or scene.reached((right, left))
        points = self._points(pair)
        told = f"{_named(left)} → {_named(right)}" + (f" ({self.t['asynchronous']})" if asynchronous else "")
        classes = "call" + " asynchronous" * asynchronous + " reach" * reached
        svg.add(self.root, "path", classes, told, d=_curve(points))
        head = "reach-head" if reached else "head"
        if pair in scene.calls:
            self._head(points[-1], head, 4.0, rightwards=True)
        if (right, left) in scene.calls:
            self._head(points[0], head, 4.0, rightwards=False)

    def hop(self, hop: Hop) -> None:
        """A thick line from cause to effect."""
        points, rightwards = self._way(hop)
        classes = "spread" + " asynchronous" * hop.asynchronous
        svg.add(self.root, "path", classes, f"{_named(hop.cause)} → {_named(hop.effect)}", d=_curve(points))
        self._head(points[-1] if rightwards else points[0], "spread-head", 7.0, rightwards=rightwards)

    def checks(self, hop: Hop) -> None:
        """Which of the checks hold, on the middle of the line."""
        points, _ = self._way(hop)
        x, y = _middle(points)
        y -= 13  # above the line: it would hide most of it
        group = svg.add(self.root, "g", "checks", _checked(hop, self.t))
        svg.add(group, "rect", "plate", x=x - 20, y=y - 8, width=40, height=16, rx=8)
        for i, check in enumerate(CHECKS):
            held = getattr(hop, check)
            svg.write(group, x + 12 * (i - 1), y + 4, "✓" if held else "✗", f"small strong middle {_colour(held)}")

    def _way(self, hop: Hop) -> tuple[list[tuple[float, float]], bool]:
        """The line's points from left to right, and whether the failure goes that way."""
        rightwards = (hop.cause, hop.effect) in self.layout.lines
        return self._points((hop.cause, hop.effect) if rightwards else (hop.effect, hop.cause)), rightwards

    def _points(self, pair: Pair) -> list[tuple[float, float]]:
        spots = self.layout.lines[pair]
        begin = (self._left(spots[0]) + BOX, self._height(spots[0]))
        through = [(self._left(s) + x, self._height(s)) for s in spots[1:-1] for x in (0.0, BOX)]
        return [begin, *through, (self._left(spots[-1]), self._height(spots[-1]))]

    def _left(self, spot: Spot) -> float:
        return MARGIN + spot[2] * (BOX + GAP)

    def _height(self, spot: Spot) -> float:
        return MARGIN / 2 + self.layout.height[spot]

    def _head(self, tip: tuple[float, float], kind: str, size: float, *, rightwards: bool) -> None:
        x, y = tip
        back = -1.6 * size if rightwards else 1.6 * size
        n = svg.number
        svg.add(self.root, "path", kind, d=f"M{n(x)} {n(y)}L{n(x + back)} {n(y - size)}V{n(y + size)}z")


def _colour(held: bool) -> str:
    return "good" if held else "bad"


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Level at every point, so that heads lie flat and no box is crossed."""
    n = svg.number
    path = [f"M{n(points[0][0])} {n(points[0][1])}"]
    for (x, y), (to_x, to_y) in pairwise(points):
        half = n((x + to_x) / 2)
        path.append(f"H{n(to_x)}" if y == to_y else f"C{half} {n(y)} {half} {n(to_y)} {n(to_x)} {n(to_y)}")
    return "".join(path)


def _middle(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The middle of the middle gap between layers."""
    gaps = [(a, b) for a, b in pairwise(points) if b[0] - a[0] < BOX]
    (x, y), (to_x, to_y) = gaps[len(gaps) // 2]
    return (x + to_x) / 2, (y + to_y) / 2


def _legend_rows(scene: Scene, breadth: float, t: Words) -> list[list[tuple[str, str, float]]]:
    """The signs in use, (sign, words, place), in rows as wide as the picture."""
    signs = [
        ("call", t["calls"], bool(scene.calls)),
        ("asynchronous", t["asynchronous"], any(scene.calls.values())),
        ("spread", t["spreads"], bool(scene.hops)),
        ("checks", f"✓✗ {t['checks']}", bool(scene.hops)),
        ("affected", t["affected"], bool(scene.affected)),
        ("more", t["more"].format(scene.left_out), scene.left_out > 0),
        ("none", t["nothing_known"], not scene.calls),
    ]
    rows: list[list[tuple[str, str, float]]] = [[]]
    x = MARGIN
    for sign, said, present in signs:
        wide = 0.9 * svg.width(said, 11) + (16 if sign in _BARE else 42)  # written thin
        if present and x + wide > breadth and rows[-1]:
            rows.append([])
            x = MARGIN
        if present:
            rows[-1].append((sign, said, x))
            x += wide
    return rows


_BARE = {"checks", "more", "none"}  # words without a sign before them


def _draw_legend(root: ET.Element, rows: Sequence[Sequence[tuple[str, str, float]]], top: float) -> None:
    group = svg.add(root, "g", "legend")
    for n, row in enumerate(rows):
        y = top + 18 * n
        for sign, said, x in row:
            _draw_sign(group, sign, x, y - 4)
            svg.write(group, x if sign in _BARE else x + 28, y, said, "small soft")


def _draw_sign(group: ET.Element, sign: str, x: float, y: float) -> None:
    n = svg.number
    if sign in {"call", "asynchronous"}:
        svg.add(group, "path", "call" + " asynchronous" * (sign == "asynchronous"), d=f"M{n(x)} {n(y)}h18")
        svg.add(group, "path", "head", d=f"M{n(x + 22)} {n(y)}l-6.4 -4v8z")
    elif sign == "spread":
        svg.add(group, "path", "spread", d=f"M{n(x + 8)} {n(y)}h14")
        svg.add(group, "path", "spread-head", d=f"M{n(x)} {n(y)}l9 -5.5v11z")
    elif sign == "affected":
        svg.add(group, "rect", "node affected", x=x, y=y - 6, width=20, height=12, rx=3)
