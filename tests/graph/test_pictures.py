"""The pictures: what each sign stands for is there, hostile input stays text, and equal input gives equal bytes."""

import random
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.base import Edge, Window
from graph.pictures import finding_chart, topology_picture
from graph.pictures.amounts import amount, steps, ticks
from graph.pictures.chart import BOTTOM, LEFT, RIGHT, TOP
from graph.pictures.layout import layered
from graph.pictures.words import ENGLISH, KOREAN
from graph.state import Evidence, Finding, Hop, LookedAt, Suspect

AT = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
EVIL = "<script>alert(1)</script>]]><!--\"'&\x00\x07\u202egnp.exe\ud800\uffff https://evil.example/" + "w" * 5000
SVG = "{http://www.w3.org/2000/svg}"
KNOWN_TAGS = {"svg", "title", "desc", "style", "g", "rect", "path", "circle", "text"}
bounded = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])


def looked_at(*baseline: Window) -> LookedAt:
    return LookedAt(
        incident=window(-10, 20),
        baseline=baseline or (window(-60, -10),),
    )


def window(start: float, end: float) -> Window:
    """In minutes from AT."""
    return Window(start=AT + timedelta(minutes=start), end=AT + timedelta(minutes=end))


def points(*minutes: float, value: float = 1.0) -> tuple[tuple[float, float], ...]:
    return tuple((AT.timestamp() + 60 * m, value + m % 7) for m in minutes)


def finding(**changes: object) -> Finding:
    base = {
        "id": "E1",
        "kind": "metric",
        "component": "payment-service",
        "signal": "latency_p95",
        "at": AT,
        "unit": "ms",
        "summary": "p95 rose",
        "points": points(*range(-60, 20)),
        "band": (1.0, 3.0),
    }
    return Finding.model_validate(base | changes)


def change(eid: str, minute: float, component: str = "shop", signal: str = "Deployed v2") -> Finding:
    at = AT + timedelta(minutes=minute)
    return Finding(id=eid, kind="change", component=component, signal=signal, at=at, summary="s")


def drawn(svg: str) -> ET.Element:
    """The parsed picture; asserts that it is inert and accessible."""
    root = ET.fromstring(svg)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= KNOWN_TAGS
    for element in root.iter():
        assert not {name for name in element.attrib if name.startswith("on") or "href" in name or name == "id"}
        assert "style" not in element.attrib
    style = "".join(element.text or "" for element in root.iter(f"{SVG}style"))
    assert "url(" not in style
    assert "@import" not in style
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert [root[0].tag, root[1].tag] == [f"{SVG}title", f"{SVG}desc"]
    return root


def classed(root: ET.Element, name: str) -> list[ET.Element]:
    return [e for e in root.iter() if name in e.get("class", "").split()]


def words(root: ET.Element) -> list[str]:
    """What is written, without tooltips."""
    return ["".join([e.text or "", *(child.tail or "" for child in e)]) for e in root.iter(f"{SVG}text")]


def description(root: ET.Element) -> str:
    return root[1].text or ""


def values_path(root: ET.Element) -> str:
    return classed(root, "values")[0].get("d", "")


# --- the chart ---


def test_every_sign_of_a_chart_is_there() -> None:
    root = drawn(finding_chart(finding(), looked_at(), (change("E7", -20), finding(id="E8"))))
    assert len(classed(root, "window")) == 2  # in the plot and in the legend
    assert len(classed(root, "band")) == 2
    assert len(classed(root, "onset")) == 1
    assert "payment-service latency_p95" in words(root)
    assert "onset 09:15" in words(root)
    assert "E7" in words(root)
    assert "E8" not in words(root)
    assert "09:00" in words(root)
    assert "UTC" in words(root)
    assert {"usual", "incident", "change"} <= set(words(root))
    assert f"{amount(points(19)[0][1], 'ms')}" in words(root)
    tooltips = [e.text for e in root.iter(f"{SVG}title")]
    assert "E7 08:55 shop: Deployed v2" in tooltips
    for said in ("p95 rose", "2024-12-20 08:15 - 09:35 UTC", "usual 1 ms - 3 ms", "E7 08:55 shop: Deployed v2"):
        assert said in description(root)


def test_the_onset_and_the_window_stand_at_their_time() -> None:
    root = drawn(finding_chart(finding(), looked_at()))
    share = 60 / 80  # of the axis from 08:15 to 09:35
    assert classed(root, "onset")[0].get("d") == f"M{LEFT + (RIGHT - LEFT) * share:g} {TOP}V{BOTTOM}"
    incident = next(e for e in classed(root, "window") if e.get("height") == str(BOTTOM - TOP))
    assert float(incident.get("x", "0")) == LEFT + (RIGHT - LEFT) * 50 / 80
    assert float(incident.get("x", "0")) + float(incident.get("width", "0")) == RIGHT


def test_without_a_band_the_baseline_is_a_line() -> None:
    root = drawn(finding_chart(finding(band=None, baseline=2.0), looked_at()))
    assert not classed(root, "band")
    assert len(classed(root, "usual")) == 2
    bare = drawn(finding_chart(finding(band=None), looked_at()))
    assert not classed(bare, "usual")
    assert "usual" not in words(bare)


def test_a_gap_in_the_data_is_a_gap_in_the_line() -> None:
    whole = values_path(drawn(finding_chart(finding(points=points(*range(-30, 10))), looked_at())))
    assert whole.count("M") == 1
    apart = (*range(-30, -20), *range(-10, -2), 6)
    gaps = values_path(drawn(finding_chart(finding(points=points(*apart)), looked_at())))
    assert gaps.count("M") == 3
    assert gaps.endswith("h0")  # the last value is alone: a dot
    assert gaps.count("h0") == 1


@pytest.mark.parametrize(("missing", "lines"), [(2, 1), (3, 2)])
def test_more_than_three_usual_intervals_are_a_gap(missing: int, lines: int) -> None:
    course = (*range(-30, -9), *range(-9 + missing, 0))
    assert values_path(drawn(finding_chart(finding(points=points(*course)), looked_at()))).count("M") == lines


def test_a_baseline_of_another_day_is_not_on_the_axis() -> None:
    yesterday = points(*range(-1500, -1450))
    near = points(*range(-10, 20))
    far = LookedAt(incident=window(-10, 20), baseline=(window(-1500, -1450),))
    root = drawn(finding_chart(finding(points=yesterday + near), far))
    assert "2024-12-20 09:05 - 09:35 UTC" in description(root)
    assert values_path(root).startswith(f"M{LEFT} ")
    assert values_path(root).count("L") == len(near) - 1
    both = looked_at(window(-1500, -1450), window(-60, -10))
    assert "2024-12-20 08:15 - 09:35 UTC" in description(drawn(finding_chart(finding(), both)))


def test_a_long_baseline_leaves_the_incident_a_fifth() -> None:
    root = drawn(finding_chart(finding(), looked_at(window(-3000, -10))))
    incident = next(e for e in classed(root, "window") if e.get("height") == str(BOTTOM - TOP))
    assert float(incident.get("width", "0")) == pytest.approx((RIGHT - LEFT) / 5, abs=0.1)


def test_no_values_is_said_and_one_is_a_dot() -> None:
    none = drawn(finding_chart(finding(points=(), band=None), None))
    assert "No values were kept" in words(none)
    assert not classed(none, "values")
    one = drawn(finding_chart(finding(points=points(5)), None))
    assert values_path(one).endswith("h0")
    assert len(classed(one, "dot")) == 1


def test_changes_that_are_near_share_a_label_and_are_bounded() -> None:
    many = [change(f"E{n}", -5 + n / 100) for n in range(50)]
    root = drawn(finding_chart(finding(), looked_at(), many))
    assert len([e for e in classed(root, "change") if e.get("d", "").endswith(f"V{BOTTOM}")]) == 8
    assert "E0 E1 +6" in words(root)
    apart = drawn(finding_chart(finding(), looked_at(), (change("E2", -40), change("E3", 3), change("E4", -500))))
    assert {"E2", "E3"} <= set(words(apart))
    assert "E4" not in words(apart)


def test_a_long_unit_moves_to_the_title() -> None:
    root = drawn(finding_chart(finding(unit="connections/min"), looked_at()))
    assert any(word.startswith("payment-service") and word.endswith("ons/min") for word in words(root))
    assert "10" in words(root)


def test_thinning_keeps_the_peak() -> None:
    many = tuple((AT.timestamp() - 600 + n / 10, 1000.0 if n == 4321 else 1.0) for n in range(9000))
    root = drawn(finding_chart(finding(points=many, unit=""), looked_at()))
    assert values_path(root).count("L") < 240
    assert f" {TOP}" in values_path(root)


def test_korean_labels() -> None:
    root = drawn(finding_chart(finding(), looked_at(), language="ko"))
    assert {"평소", "장애 구간", "시작 09:15"} <= set(words(root))
    assert set(ENGLISH) == set(KOREAN)
    assert drawn(finding_chart(finding(), looked_at(), language="xx")) is not None


def test_inline_leaves_the_style_to_the_page() -> None:
    assert "<style" in finding_chart(finding(), looked_at())
    assert "<style" not in finding_chart(finding(), looked_at(), inline=True)
    assert "prefers-color-scheme:dark" in finding_chart(finding(), looked_at())


@given(
    course=st.lists(
        st.tuples(
            st.one_of(st.floats(), st.floats(AT.timestamp() - 4000, AT.timestamp() + 2000)),
            st.floats(),
        ),
        max_size=40,
    ),
    band=st.none() | st.tuples(st.floats(), st.floats()),
    baseline=st.none() | st.floats(),
    unit=st.sampled_from(["", "ms", "%", "bytes", "req/s", "furlongs per fortnight"]),
    known=st.sampled_from([None, looked_at(), looked_at(window(-60, -10), window(-9000, -8000))]),
)
@bounded
def test_any_values_make_a_bounded_picture_in_its_frame(
    course: list[tuple[float, float]],
    band: tuple[float, float] | None,
    baseline: float | None,
    unit: str,
    known: LookedAt | None,
) -> None:
    made = finding_chart(finding(points=tuple(course), band=band, baseline=baseline, unit=unit), known)
    assert len(made) < 20_000
    root = drawn(made)
    assert "nan" not in made.lower()
    for path in classed(root, "values"):
        numbers = [float(n) for n in re.findall(r"[-\d.e]+", path.get("d", "").replace("h0", ""))]
        assert all(LEFT <= x <= RIGHT for x in numbers[::2])
        assert all(TOP <= y <= BOTTOM for y in numbers[1::2])


def test_the_order_of_points_does_not_matter() -> None:
    course = list(points(*range(-60, 20)))
    shuffled = random.Random(1).sample(course, len(course))
    assert finding_chart(finding(points=tuple(shuffled)), looked_at()) == finding_chart(finding(), looked_at())


# --- numbers ---


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1234.0, "", "1.23k"),
        (340.0, "ms", "340 ms"),
        (32370.0, "ms", "32.4 s"),
        (0.25, "s", "250 ms"),
        (2.4e9, "bytes", "2.4 GB"),
        (1.5e6, "bytes/s", "1.5 MB/s"),
        (97.94, "%", "97.9 %"),
        (0.0, "ms", "0 ms"),
        (-0.0, "", "0"),
        (-1500.0, "req/s", "-1.5k req/s"),
        (999.7, "", "1k"),
        (1e-9, "", "1e-09"),
        (7200.0, "s", "2 h"),
    ],
)
def test_amounts_read_well(value: float, unit: str, shown: str) -> None:
    assert amount(value, unit) == shown


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 97.9], (0.0, 50.0, 100.0)),
        ([98.0, 99.9], (98.0, 99.0, 100.0)),
        ([5.0], (0.0, 2.5, 5.0)),
        ([0.0], (0.0, 0.5, 1.0)),
        ([], (0.0, 0.5, 1.0)),
        ([-30.0, -5.0], (-40.0, -20.0, 0.0)),
    ],
)
def test_ticks_are_round(values: list[float], expected: tuple[float, float, float]) -> None:
    assert ticks(values) == pytest.approx(expected)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=9))
@bounded
def test_ticks_enclose_all_values(values: list[float]) -> None:
    low, middle, high = ticks(values)
    assert low < middle < high
    slack = 1e-6 * max(abs(high), abs(low))
    assert low - slack <= min(values)
    assert max(values) <= high + slack


@given(st.floats(0, 4e9), st.floats(60, 4e9))
@bounded
def test_times_on_the_axis_are_few(start: float, length: float) -> None:
    assert len(steps(start, start + length, 7)) <= 7


# --- the topology ---


def hop(cause: str, effect: str, **checks: bool) -> Hop:
    return Hop.model_validate(
        {"cause": cause, "effect": effect, "structural": True, "statistical": True, "temporal": True} | checks
    )


def edge(caller: str, callee: str, *, asynchronous: bool = False, kind: str = "") -> Edge:
    return Edge.model_validate(
        {"caller": caller, "callee": callee, "source": "traces", "asynchronous": asynchronous, "callee_kind": kind}
    )


def evidence(*edges: Edge, suspects: tuple[Suspect, ...] = (), causes: tuple[str, ...] = ()) -> Evidence:
    return Evidence(digest="d", findings=(), suspects=suspects, causes=causes, edges=edges)


def suspect(name: str, *path: Hop, affected: tuple[str, ...] = ()) -> Suspect:
    return Suspect(component=name, score=0.9, findings=("E1",), path=path, affected=affected)


SHOP = evidence(
    edge("web", "checkout"),
    edge("checkout", "payment"),
    edge("payment", "db", kind="database"),
    edge("checkout", "mails", asynchronous=True, kind="queue"),
    suspects=(
        suspect("db", hop("db", "payment"), hop("payment", "checkout", temporal=False), affected=("payment", "web")),
        suspect("mails"),
    ),
)


def boxes(root: ET.Element) -> dict[str, ET.Element]:
    """By full name."""
    return {str(e[0].text): e for e in classed(root, "vertex")}


def left(box: ET.Element) -> float:
    return float(box[1].get("x", "0"))


def test_every_sign_of_a_topology_is_there() -> None:
    root = drawn(topology_picture(SHOP, "checkout"))
    assert set(boxes(root)) == {"web", "checkout", "payment", "db", "mails"}
    assert len([e for e in classed(root, "spread") if e[:1]]) == 2  # hops; the legend's has no tooltip
    assert len([e for e in classed(root, "call") if e[:1]]) == 2
    assert words(root).count("✗") == 1
    assert words(root).count("✓") == 5
    assert "suspect 1 · database" in "|".join(words(root))
    assert "suspect 2 · queue" in words(root)
    assert "alerted" in words(root)
    assert "affected" in words(root)
    assert "!" in words(root)
    assert "blamed" in (boxes(root)["db"][1].get("class") or "")
    assert "affected" in (boxes(root)["payment"][1].get("class") or "")
    assert "asynchronous" in words(root)
    for said in ("suspect 1: db", "alerted: checkout", "db → payment", "the cause does not start later: no"):
        assert said in description(root)


def test_callers_stand_left_of_what_they_call() -> None:
    at = {name: left(box) for name, box in boxes(drawn(topology_picture(SHOP, "checkout"))).items()}
    assert at["web"] < at["checkout"] < at["payment"] < at["db"]
    assert at["mails"] == at["payment"]


def test_the_arrow_of_a_hop_points_at_its_effect() -> None:
    root = drawn(topology_picture(SHOP, "checkout"))
    here = boxes(root)
    tips = {float(e.get("d", "M0").removeprefix("M").split()[0]) for e in classed(root, "spread-head")}
    width = float(here["payment"][1].get("width", "0"))
    assert {left(here["payment"]) + width, left(here["checkout"]) + width} <= tips


def test_an_asynchronous_hop_is_dashed() -> None:
    waits = evidence(edge("web", "q"), suspects=(suspect("q", hop("q", "web", asynchronous=True)),))
    spread = next(e for e in classed(drawn(topology_picture(waits, "web")), "spread") if e[:1])
    assert "asynchronous" in (spread.get("class") or "")


def test_causes_that_act_together_all_have_their_path() -> None:
    two = (suspect("a", hop("a", "web")), suspect("b", hop("b", "web")), suspect("c", hop("c", "web")))
    root = drawn(topology_picture(evidence(edge("web", "a"), edge("web", "b"), suspects=two, causes=("a", "b")), "web"))
    assert len([e for e in classed(root, "spread") if e[:1]]) == 2
    assert len(classed(root, "blamed")) == 2


def test_cycles_and_calls_of_oneself_do_not_matter() -> None:
    ring = [edge("a", "b"), edge("b", "c"), edge("c", "a"), edge("a", "a"), edge("b", "a")]
    root = drawn(topology_picture(evidence(*ring, suspects=(suspect("c", hop("c", "b")),)), "a"))
    assert set(boxes(root)) == {"a", "b", "c"}
    assert len({left(box) for box in boxes(root).values()}) == 3


def test_it_is_bounded_and_counts_the_rest() -> None:
    wide = [edge("web", f"s{n:03}") for n in range(500)] + [edge(f"s{n:03}", f"t{n:03}") for n in range(500)]
    first = suspect("s400", hop("s400", "web"), affected=tuple(f"a{n}" for n in range(100)))
    made = topology_picture(evidence(*wide, suspects=(first,)), "web")
    root = drawn(made)
    assert len(boxes(root)) == 30
    assert {"s400", "web"} <= set(boxes(root))
    assert "+1071 more" in words(root)
    assert len(made) < 40_000
    dense = [edge(f"n{a}", f"n{b}") for a in range(60) for b in range(60)]
    assert len(classed(drawn(topology_picture(evidence(*dense), "n0")), "call")) <= 51


def test_without_any_edge_it_says_so() -> None:
    root = drawn(topology_picture(evidence(), "web"))
    assert set(boxes(root)) == {"web"}
    assert "Nobody knows who calls whom here" in words(root)
    assert boxes(drawn(topology_picture(evidence(), ""))) == {}


def test_the_order_of_edges_does_not_matter() -> None:
    edges = [edge(f"n{a}", f"n{b}", asynchronous=a % 3 == 0) for a in range(9) for b in range(12) if (a * b) % 5 == 1]
    pictures = set()
    for seed in range(5):
        shuffled = random.Random(seed).sample(edges, len(edges))
        pictures.add(topology_picture(evidence(*shuffled, suspects=SHOP.suspects), "n1"))
    assert len(pictures) == 1


def test_boxes_of_one_layer_do_not_overlap() -> None:
    edges = [edge(f"n{a}", f"n{b}") for a in range(8) for b in range(20) if (a + b) % 3 == 0]
    at: dict[float, list[float]] = {}
    for box in boxes(drawn(topology_picture(evidence(*edges), "n1"))).values():
        at.setdefault(left(box), []).append(float(box[1].get("y", "0")))
    for column in at.values():
        near = sorted(column)
        assert all(b - a >= 40 for a, b in pairwise(near))


def test_few_crossings_where_none_are_needed() -> None:
    layout = layered(("a", "b", "x", "y"), [("a", "y"), ("b", "x")], 50, 20)
    a, b, x, y = (layout.height[(name, "", layout.layer[name])] for name in "abxy")
    assert (a - b) * (y - x) > 0


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=60), st.text(max_size=3))
@bounded
def test_any_graph_is_drawn(pairs: list[tuple[str, str]], alerted: str) -> None:
    chain = tuple(hop(a, b) for a, b in pairs[:5])
    first = (suspect(pairs[0][0], *chain, affected=tuple(b for _, b in pairs[5:9])),) if pairs else ()
    drawn(topology_picture(evidence(*(edge(a, b) for a, b in pairs), suspects=first), alerted))


@pytest.mark.parametrize("language", ["en", "ko"])
def test_hostile_texts_stay_short_texts(language: str) -> None:
    hostile = finding(component=EVIL, signal=EVIL, unit=EVIL, summary=EVIL)
    bad = change(EVIL, -3, EVIL, EVIL)
    path = (hop(EVIL, EVIL + "2"), hop(EVIL + "2", "web"))
    guilty = Suspect(component=EVIL, score=1, findings=(), path=path, affected=(EVIL,), kind=EVIL)
    graph = evidence(edge(EVIL + "2", EVIL), edge("web", EVIL + "2"), suspects=(guilty,), causes=(EVIL,))
    for made in (
        finding_chart(hostile, looked_at(), (bad,), language=language),
        topology_picture(graph, EVIL, language=language),
    ):
        drawn(made)
        assert "<script" not in made
        assert "]]>" not in made
        assert not set(made) & set("\x00\x07\u202e\ud800\uffff")
        assert len(made) < 30_000
        assert "alert(1)" in made  # shown, as text


def test_names_in_other_scripts_are_kept() -> None:
    root = drawn(topology_picture(evidence(edge("결제-서비스", "خدمة-الدفع")), "결제-서비스"))
    assert {"결제-서비스", "خدمة-الدفع"} == set(boxes(root))
