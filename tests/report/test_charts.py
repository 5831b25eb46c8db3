"""Charts: well-formed, inside their frame, and every name escaped."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.report.charts import SHAPES, WIDTH, Line, Point, front, lines, scatter, ticks
from recdistill.report.heat import heat
from recdistill.report.picture import picture

finite = st.floats(1e-6, 1e12)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_evenly_spaced_and_inside(low, width):
    found = ticks(low, low + width)
    slack = width * 1e-6 + 4 * math.ulp(abs(low) + width)  # or what floats of this size can tell apart
    assert all(low - slack <= t <= low + width + slack for t in found)
    assert len(found) <= 10
    gaps = {round((b - a) / width, 6) for a, b in itertools.pairwise(found)}
    assert len(gaps) <= 1 or width < 1e-3 * abs(low)


def test_ticks_are_round():
    # 0.1 / 8 = 0.0125 -> the next of 1, 2, 5 times a power of ten is 0.02
    assert ticks(0.36, 0.46) == [0.36, 0.38, 0.4, 0.42, 0.44, 0.46]


@given(st.lists(st.tuples(finite, st.floats(0, 1), st.text(max_size=12)), min_size=1, max_size=9))
def test_any_scatter_is_well_formed_and_stays_inside(systems):
    points = [Point(name, x, y, max(y - 0.01, 0), y + 0.01, n) for n, (x, y, name) in enumerate(systems)]
    drawn = scatter(points, title="t", x_label="bytes", y_label="m", x_unit=("B", "kB", "MB"))
    root = parsed(drawn)
    heights = [float(node.attrib["y"]) for node in root.iter("text") if node.attrib.get("class") == "label"]
    assert len(heights) == len(points)
    assert all(0 <= h <= 320 for h in heights)


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]", "", svg))  # noqa: S314


def test_systems_of_equal_size_stand_side_by_side_and_their_names_do_not_touch():
    drawn = scatter([Point(str(n), 100, 0.5, 0.4, 0.6, n) for n in range(5)], title="", x_label="", y_label="")
    marks = sorted(float(x) for x in re.findall(r'class="mark" transform="translate\(([\d.]+)', drawn))
    assert [round(b - a, 1) for a, b in itertools.pairwise(marks)] == [9, 9, 9, 9]
    labels = sorted(float(y) for y in re.findall(r'class="label" x="[\d.]+" y="([\d.]+)"', drawn))
    assert min(b - a for a, b in itertools.pairwise(labels)) >= 16.9


def test_better_is_up_and_cheaper_is_left():
    drawn = scatter(
        [Point("big", 1e6, 0.5, 0.5, 0.5, 0), Point("small", 1e5, 0.4, 0.4, 0.4, 1)], title="", x_label="", y_label=""
    )
    (big_x, big_y), (small_x, small_y) = (
        tuple(map(float, place)) for place in re.findall(r"translate\(([\d.]+) ([\d.]+)\)", drawn)[::-1]
    )
    assert small_x < big_x
    assert small_y > big_y


def test_the_best_epoch_is_marked_on_its_line():
    drawn = lines([Line("a", [0, 1, 2], [0.1, 0.3, 0.2], 3, mark=1)], title="t", x_label="epoch", y_label="m")
    path = re.search(r'class="line d3" d="M([\d. L]+)"', drawn)[1].split("L")
    assert f"translate({path[1]})" in drawn
    assert SHAPES[3] in drawn


def test_a_loss_of_zero_is_left_out_of_a_log_scale():
    assert lines([Line("a", [0, 1], [0.0, 0.0], 0)], title="", x_label="", y_label="", log_y=True) == ""
    assert "NaN" not in lines([Line("a", [0, 1], [0.0, 2.0], 0)], title="", x_label="", y_label="", log_y=True)


def test_a_constant_line_can_be_drawn():
    parsed(lines([Line("a", [0], [0.5], 0), Line("b", [0, 1], [0.5, 0.5], 1)], title="", x_label="", y_label=""))


def test_long_runs_are_thinned_but_keep_their_ends():
    drawn = lines([Line("a", range(10_000), range(10_000), 0)], title="", x_label="", y_label="")
    assert drawn.count("L") < 500
    assert f"{WIDTH - 82:.1f} " in drawn


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=a>', "a & b"])
def test_names_are_escaped(name):
    drawn = scatter([Point(name, 1, 0.5, 0.4, 0.6, 0, name)], title=name, x_label=name, y_label=name)
    drawn += lines([Line(name, [0, 1], [1, 2], 0)], title=name, x_label=name, y_label=name)
    assert name not in drawn


def test_a_front_is_what_nothing_cheaper_or_as_cheap_beats():
    # (3, 0.5) is beaten by (2, 0.6); (2, 0.4) by (2, 0.6); (5, 0.6) is no better than (2, 0.6)
    places = [(3.0, 0.5), (1.0, 0.2), (2.0, 0.4), (2.0, 0.6), (5.0, 0.6), (9.0, 0.7)]
    assert front(places) == [(1.0, 0.2), (2.0, 0.6), (9.0, 0.7)]
    assert front([]) == []


def test_the_front_is_drawn_as_steps_and_the_many_of_a_kind_have_no_names():
    points = [
        Point("a", 1, 0.2, 0.1, 0.3, 2),
        Point("b", 10, 0.4, 0.3, 0.5, 3),
        Point("c", 5, 0.1, 0, 0.9, 7, quiet=True),
    ]
    root = parsed(scatter(points, title="t", x_label="x", y_label="y", fronted=True))
    (steps,) = [node for node in root.iter("path") if node.attrib.get("class") == "front"]
    assert re.fullmatch(r"M[\d.]+ [\d.]+H[\d.]+V[\d.]+H[\d.]+", steps.attrib["d"])
    assert [node.text for node in root.iter("text") if node.attrib.get("class") == "label"] == ["a", "b"]
    assert len([node for node in root.iter("line") if node.attrib.get("class") == "interval"]) == 2


def test_a_heat_map_writes_per_cents_and_frames_what_was_taken():
    drawn = heat([[0.6, 0.001], [0.4, 0.999]], rows=["<a>", "b"], columns=["x", "y"], title="t", marked=[0, 1])
    root = parsed(drawn)
    rects = list(root.iter("rect"))
    assert ["framed" in rect.attrib["class"] for rect in rects] == [True, False, False, True]
    shades = [float(rect.attrib["fill-opacity"]) for rect in rects]
    assert shades[3] == max(shades)
    assert [node.text for node in root.iter("text")][-3:] == ["b", "40", "100"]  # 0.1 % is not written
    assert "<a>" not in str(drawn)


def test_small_shares_stay_pale_where_all_are_small():
    rects = list(parsed(heat([[0.1] * 10], rows=["a"], columns=list("0123456789"), title="t")).iter("rect"))
    assert all(float(rect.attrib["fill-opacity"]) < 0.3 for rect in rects)


def test_a_limit_is_drawn_inside_the_chart_beside_points_that_are_all_cheaper():
    points = [Point(name, x, 0.5, 0.4, 0.6, 2) for name, x in (("a", 1e5), ("b", 2e5))]
    drawn = scatter(points, title="t", x_label="bytes", y_label="q", limit=(1e6, "budget <1 MB>"))
    place = float(re.search(r'<line class="limit" x1="([0-9.]+)"', drawn)[1])
    marks = [float(x) for x in re.findall(r'class="mark" transform="translate\(([0-9.]+) ', drawn)]
    assert max(marks) < place < WIDTH
    assert "budget &lt;1 MB&gt;" in drawn
    assert 'class="limit"' not in scatter(points, title="t", x_label="bytes", y_label="q")


def test_a_chart_as_a_file_of_its_own_has_its_size_and_every_colour_it_names():
    drawn = lines([Line("<a>", [0, 1], [1, 2], n) for n in range(8)], title='"t"', x_label="x", y_label="y")
    root = ElementTree.fromstring(picture(drawn))  # noqa: S314
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    style = root.find("{*}style").text
    names = {name for one in root.iter() for name in one.get("class", "").split()}
    assert {"grid", "tick", "label", "s7"} <= names
    for name in names - {"d2"}:  # the second dash is none
        assert f".{name} {{" in style or f".{name}." in style or f".{name}," in style, name
    assert "var(" not in style, "only browsers know variables"
    assert "--" not in style
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for part, colour in ((light, "#00788a"), (dark, "#4fd0e0")):
        assert f".s7.line, .s7 .line {{ stroke: {colour};" in part
