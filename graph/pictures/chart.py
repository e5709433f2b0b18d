"""One finding's values over time, against what is usual. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import isfinite
from statistics import median
from xml.etree import ElementTree as ET

from collectors.base import Window
from graph.pictures import svg
from graph.pictures.amounts import LIMIT, amount, steps, ticks
from graph.pictures.words import Words, words
from graph.ranking.windows import moment as on_calendar
from graph.state import Finding, LookedAt

WIDTH, HEIGHT = 560, 160
LEFT, RIGHT, TOP, BOTTOM = 74, 482, 42, 132  # the plot; values are written left and right of it, times below
MAX_POINTS = 240  # more than one in two pixels of the plot says nothing more
MAX_CHANGES = 8
MAX_MOMENT = 1e11  # epoch seconds, year 5138: beyond it, it is no time
USUAL_STEPS = 3.0  # a step of more than so many usual intervals is a gap
ONSET_ROOM = 62.0  # pixels either side of the onset that its own label takes
MOST_BASELINE = 4.0  # times the incident: it is never less than a fifth of the picture
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """Where a moment (epoch seconds) and a value are in the picture."""

    start: float
    end: float
    levels: tuple[float, float, float]

    def x(self, moment: float) -> float:
        """Within the plot, whatever the moment."""
        share = (moment - self.start) / (self.end - self.start)
        return LEFT + (RIGHT - LEFT) * min(max(share, 0.0), 1.0)

    def y(self, value: float) -> float:
        """Within the plot, whatever the value."""
        low, _, high = self.levels
        share = value / (high - low) - low / (high - low)
        return BOTTOM - (BOTTOM - TOP) * min(max(share, 0.0), 1.0)

    def shows(self, moment: float) -> bool:
        """Whether that moment is in the picture."""
        return self.start <= moment <= self.end


def finding_chart(
    finding: Finding,
    looked_at: LookedAt | None,
    changes: Sequence[Finding] = (),
    *,
    language: str = "en",
    inline: bool = False,
) -> str:
    """The finding's points as SVG: what is usual, the incident's window, the onset, and the changes around it.

    Time is clipped to the incident and the baseline next to it. Of ``changes`` only findings of kind change are
    marked. ``inline`` leaves ``STYLE`` to the page.
    """
    t = words(language)
    points = _sane(finding.points)
    start, end = _range(points, looked_at)
    points = _thinned([p for p in points if start <= p[0] <= end])
    plot = Plot(start, end, ticks(_extent(points, finding)))
    marked = _marked(changes, plot)
    root = svg.picture(WIDTH, HEIGHT, _title(finding), _told(finding, points, marked, plot, t))
    incident = looked_at.incident if looked_at else None
    legend = _legend(root, finding, incident, marked, t)
    unit = "" if _units_fit(plot, finding.unit) else f", {svg.clean(finding.unit, 16)}"
    svg.write(root, 12, 18, svg.fit(_title(finding) + unit, legend - 20, 12), "strong", _title(finding) + unit)
    if incident:
        _draw_incident(root, plot, incident)
    _draw_usual(root, plot, finding)
    _draw_axes(root, plot, finding)
    _draw_changes(root, plot, marked)
    if points:
        _draw_values(root, plot, points, finding)
    else:
        svg.write(root, (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2, t["no_values"], "soft middle")
    _draw_onset(root, plot, finding, t)
    return svg.serialised(root, inline=inline)


def _title(finding: Finding) -> str:
    return f"{finding.component} {finding.signal}"


def _sane(points: Iterable[tuple[float, float]]) -> Points:
    """In order of time; what is no moment, or no number, is left out."""
    kept = (p for p in points if abs(p[0]) <= MAX_MOMENT and isfinite(p[1]))
    return sorted((at, min(max(value, -LIMIT), LIMIT)) for at, value in kept)


def _range(points: Points, looked_at: LookedAt | None) -> tuple[float, float]:
    """The incident with the baseline next to it; without either, all the points."""
    if looked_at is None:
        moments = [at for at, _ in points] or [0.0]
        return (moments[0], moments[-1]) if moments[-1] > moments[0] else (moments[0] - 300, moments[0] + 300)
    incident = looked_at.incident
    start, end = incident.start.timestamp(), incident.end.timestamp()
    start, end = min(start, end), max(start + 60, end)
    before = _start_of_baseline(start, end, looked_at.baseline)
    return before, end


def _start_of_baseline(start: float, end: float, baseline: Iterable[Window]) -> float:
    """Where to begin. With a baseline of another day most of the axis would be empty: only its band is shown."""
    earlier = [(w.start.timestamp(), w.end.timestamp()) for w in baseline if w.start.timestamp() < start]
    if not earlier:
        return start
    first, last = max(earlier, key=lambda w: (w[1], w[0]))
    if start - last > (last - first) + (end - start):
        return start
    return max(first, start - MOST_BASELINE * (end - start))


def _thinned(points: Points) -> Points:
    """Lowest and highest of each stretch: no peak is lost."""
    if len(points) <= MAX_POINTS:
        return points
    size = -(-len(points) // (MAX_POINTS // 2))
    stretches = (points[i : i + size] for i in range(0, len(points), size))
    return [
        p for s in stretches for p in sorted({min(s, key=lambda p: (p[1], p[0])), max(s, key=lambda p: (p[1], p[0]))})
    ]


def _extent(points: Points, finding: Finding) -> list[float]:
    """All values that the axis has to hold."""
    band = finding.band or (() if finding.baseline is None else (finding.baseline,))
    return [value for _, value in points] + [min(max(v, -LIMIT), LIMIT) for v in band if isfinite(v)]


def _marked(changes: Iterable[Finding], plot: Plot) -> list[Finding]:
    """The changes within the picture, in order of time; the first listed if they are too many."""
    inside = [c for c in changes if c.kind == "change" and plot.shows(c.at.timestamp())]
    return sorted(inside[:MAX_CHANGES], key=lambda c: (c.at, c.id))


def _told(finding: Finding, points: Points, marked: Sequence[Finding], plot: Plot, t: Words) -> str:
    """What the picture shows, for those who cannot see it."""
    said = [svg.clean(finding.summary, 400), f"{_clock(plot.start, date=True)} - {_clock(plot.end)} UTC"]
    said += [f"{t['usual']} {' - '.join(amount(v, finding.unit) for v in finding.band)}"] if finding.band else []
    said += [f"{t['onset']} {finding.at:%H:%M}"]
    said += [f"{t['last']} {amount(points[-1][1], finding.unit)}"] if points else [t["no_values"]]
    return "; ".join(said + [_change(c) for c in marked])


def _change(change: Finding) -> str:
    return f"{change.id} {change.at:%H:%M} {svg.clean(change.component, 60)}: {svg.clean(change.signal, 100)}"


def _clock(epoch_s: float, *, date: bool = False) -> str:
    return f"{on_calendar(epoch_s):{'%Y-%m-%d %H:%M' if date else '%H:%M'}}"


def _legend(root: ET.Element, finding: Finding, incident: Window | None, marked: Sequence[Finding], t: Words) -> float:
    """What the signs mean, from right to left; returns where it begins."""
    shown = [("change", bool(marked)), ("incident", incident is not None)]
    shown.append(("usual", bool(finding.band) or finding.baseline is not None))
    group = svg.add(root, "g", "legend")
    right = float(WIDTH - 12)
    for name, present in shown:
        if present:
            left = right - 0.9 * svg.width(t[name], 11) - 18  # written thin
            _sign(group, name, left, banded=finding.band is not None)
            svg.write(group, left + 16, 18, t[name], "small soft")
            right = left - 8
    return right


def _sign(group: ET.Element, name: str, left: float, *, banded: bool) -> None:
    if name == "incident":
        svg.add(group, "rect", "window", x=left, y=9, width=12, height=10)
        svg.add(group, "path", "edge-of-window", d=f"M{svg.number(left)} 9h12")
    elif name == "change":
        svg.add(group, "path", "change", d=f"M{svg.number(left + 8)} 8v12")
    elif banded:
        svg.add(group, "rect", "band", x=left, y=9, width=12, height=10)
    else:
        svg.add(group, "path", "usual", d=f"M{svg.number(left)} 14h13")


def _draw_incident(root: ET.Element, plot: Plot, incident: Window) -> None:
    left, right = plot.x(incident.start.timestamp()), plot.x(incident.end.timestamp())
    left, right = min(left, right), max(left, right)
    svg.add(root, "rect", "window", x=left, y=TOP, width=right - left, height=BOTTOM - TOP)
    svg.add(root, "path", "edge-of-window", d=f"M{svg.number(left)} {TOP}H{svg.number(right)}")


def _draw_usual(root: ET.Element, plot: Plot, finding: Finding) -> None:
    if finding.band and all(map(isfinite, finding.band)):
        low, high = sorted(map(plot.y, finding.band))
        thick = max(high - low, 2.0)  # a band of no width is still to be seen
        low = min(low, BOTTOM - thick)
        told = " - ".join(amount(v, finding.unit) for v in finding.band)
        svg.add(root, "rect", "band", told, x=LEFT, y=low, width=RIGHT - LEFT, height=thick)
    elif finding.baseline is not None and isfinite(finding.baseline):
        level = svg.number(plot.y(finding.baseline))
        svg.add(root, "path", "usual", amount(finding.baseline, finding.unit), d=f"M{LEFT} {level}H{RIGHT}")


def _units_fit(plot: Plot, unit: str) -> bool:
    """Whether there is room for the unit beside each value; else it stands in the title."""
    largest = max(map(abs, plot.levels))
    return all(svg.width(amount(level, unit, largest), 11) <= LEFT - 10 for level in plot.levels)


def _draw_axes(root: ET.Element, plot: Plot, finding: Finding) -> None:
    largest = max(map(abs, plot.levels))
    unit = finding.unit if _units_fit(plot, finding.unit) else ""
    for level in plot.levels:
        y = plot.y(level)
        svg.add(root, "path", "grid", d=f"M{LEFT} {svg.number(y)}H{RIGHT}")
        told = svg.fit(amount(level, unit, largest), LEFT - 12, 11)
        svg.write(root, LEFT - 6, y + 4, told, "small soft end")
    onset = plot.x(finding.at.timestamp()) if plot.shows(finding.at.timestamp()) else -100.0
    for moment in steps(plot.start, plot.end, 7):
        x = plot.x(moment)
        svg.add(root, "path", "grid", d=f"M{svg.number(x)} {BOTTOM}v4")
        if abs(x - onset) > ONSET_ROOM:
            svg.write(root, x, BOTTOM + 17, _clock(moment), "small soft middle")
    svg.write(root, WIDTH - 12, BOTTOM + 17, "UTC", "small soft end")


def _draw_changes(root: ET.Element, plot: Plot, marked: Sequence[Finding]) -> None:
    for _, same_time in groupby(marked, key=lambda c: c.at):
        together = list(same_time)
        x = svg.number(plot.x(together[0].at.timestamp()))
        svg.add(root, "path", "change", " · ".join(map(_change, together)), d=f"M{x} {TOP - 2}V{BOTTOM}")
    for left, near in _clusters([(plot.x(c.at.timestamp()), c) for c in marked]):
        svg.write(root, left - 2, TOP - 6, _ids(near), "small warn", " · ".join(map(_change, near)))


def _clusters(placed: Sequence[tuple[float, Finding]]) -> list[tuple[float, list[Finding]]]:
    """Changes whose labels would overlap, together at the first one's place."""
    clusters: list[tuple[float, list[Finding]]] = []
    for x, change in placed:
        if clusters and x < clusters[-1][0] + svg.width(_ids(clusters[-1][1]), 11) + 4:
            clusters[-1][1].append(change)
        else:
            clusters.append((x, [change]))
    return clusters


def _ids(changes: Sequence[Finding]) -> str:
    """The first two by name: there is no room for more at the right end."""
    rest = f" +{len(changes) - 2}" if len(changes) > 2 else ""
    return " ".join(svg.clean(c.id, 6) for c in changes[:2]) + rest


def _draw_values(root: ET.Element, plot: Plot, points: Points, finding: Finding) -> None:
    svg.add(root, "path", "values", d=_line(plot, points))
    moment, value = points[-1]
    x, y = plot.x(moment), plot.y(value)
    svg.add(root, "circle", "dot", amount(value, finding.unit), cx=x, cy=y, r=3)
    unit = finding.unit if _units_fit(plot, finding.unit) else ""
    told = svg.fit(amount(value, unit), WIDTH - RIGHT - 10, 12)
    svg.write(root, x + 7, min(max(y + 4, TOP + 8), BOTTOM), told, "strong")


def _line(plot: Plot, points: Points) -> str:
    """A path; a gap in the data is a gap in the line, and a lone value a dot."""
    intervals = [b[0] - a[0] for a, b in pairwise(points) if b[0] > a[0]]
    longest = USUAL_STEPS * median(intervals) if intervals else 0.0
    parts = []
    for i, (moment, value) in enumerate(points):
        apart = i == 0 or moment - points[i - 1][0] > longest
        parts.append(f"{'M' if apart else 'L'}{svg.number(plot.x(moment))} {svg.number(plot.y(value))}")
        if apart and (i + 1 == len(points) or points[i + 1][0] - moment > longest):
            parts.append("h0")
    return "".join(parts)


def _draw_onset(root: ET.Element, plot: Plot, finding: Finding, t: Words) -> None:
    moment = finding.at.timestamp()
    if not plot.shows(moment):
        return
    x, told = plot.x(moment), f"{t['onset']} {finding.at:%H:%M:%S}"
    svg.add(root, "path", "onset", told, d=f"M{svg.number(x)} {TOP}V{BOTTOM}")
    svg.add(root, "path", "ink", told, d=f"M{svg.number(x)} {BOTTOM - 1}l4.5 8h-9z")
    svg.write(root, x, BOTTOM + 19, f"{t['onset']} {finding.at:%H:%M}", "small strong middle", told)
