"""Cells drawn: what is on an edge is there to read, what is not stays faint, and the file stands alone."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.report.cell import Drawn, Wire, as_text, draw, standalone

EDGES = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]


@pytest.fixture
def cell():
    """Node 1 is reached by nothing, so what leaves it is faint; nodes 2 and 3 live."""
    return Drawn(
        "2 equal cells, one after the other",
        3,
        [
            Wire(0, 1, "none", "none", 0.62),
            Wire(0, 2, "cau_cnn_3_d1", "conv", 0.5, "a convolution"),
            Wire(1, 2, "skip_connect", "skip", 0.4),
            Wire(0, 3, "cau_max_pool", "pool", 0.22),
            Wire(1, 3, "none", "none", 0.3),
            Wire(2, 3, "cau_cnn_5_d4", "conv", 0.31),
        ],
        (0.25, 0.35, 0.4),
    )


def parsed(text):
    return ElementTree.fromstring(str(text))  # noqa: S314


def of(root, name):
    return [node for node in root.iter() if name in (node.get("class") or "").split()]


def test_every_operator_is_named_on_its_edge_with_its_chance_and_none_is_dotted(cell):
    root = parsed(draw([cell], label="cells"))
    assert [node.text for node in of(root, "operator")] == [
        "skip_connect",  # what leaves a dead node is drawn first, below the others
        "cau_cnn_3_d1",
        "cau_max_pool",
        "cau_cnn_5_d4",
    ]
    assert [node.text for node in of(root, "chance")] == ["40 %", "50 %", "22 %", "31 %"]
    assert len(of(root, "none")) == 2
    assert len(of(root, "pill")) == 4


def test_colours_are_by_kind(cell):
    wires = of(parsed(draw([cell], label="cells")), "wire")
    styles = {wire.find("title").text.split(": ")[1].split(",")[0]: wire.get("class").split()[1] for wire in wires}
    assert styles == {
        "none": "faint", "skip_connect": "s1", "cau_cnn_3_d1": "s2", "cau_max_pool": "s4", "cau_cnn_5_d4": "s2",
    }  # fmt: skip


def test_a_node_that_nothing_reaches_is_faint_and_has_no_part_in_the_sum(cell):
    assert cell.live == {0, 2, 3}
    root = parsed(draw([cell], label="cells"))
    assert [node.find("text").text for node in of(root, "node") if "faint" in node.get("class")] == ["1"]
    assert [node.text for node in of(root, "share") if node.text] == ["0.35", "0.40", "the input is added"]


def test_pointing_at_an_edge_says_what_it_does(cell):
    titles = [node.text for node in parsed(draw([cell], label="cells")).iter("title")]
    assert "input \u2192 2: cau_cnn_3_d1, a convolution" in titles


def test_several_cells_stand_below_each_other(cell):
    one, two = parsed(draw([cell], label="c")), parsed(draw([cell, cell], label="c"))
    height = [float(root.get("viewBox").split()[3]) for root in (one, two)]
    assert height[1] == 2 * height[0] + 18
    assert len(of(two, "pill")) == 8


@given(
    st.lists(st.sampled_from(["conv", "pool", "skip", "none"]), min_size=6, max_size=6),
    st.text(alphabet=st.characters(blacklist_categories=("Cc", "Cs")), max_size=12),
)
def test_any_cell_is_well_formed_and_stays_inside(kinds, name):
    wires = [Wire(source, target, name, kind) for (source, target), kind in zip(EDGES, kinds, strict=True)]
    root = parsed(standalone([Drawn(name, 3, wires)], label=name))
    _, _, width, height = (float(value) for value in root.get("viewBox").split())
    for node in root.iter():
        if "x" in node.attrib and "y" in node.attrib:
            assert 0 <= float(node.attrib["x"]) <= width
            assert 0 <= float(node.attrib["y"]) <= height
        for x, y in re.findall(r"[MLC ]([\d.-]+) ([\d.-]+)", node.attrib.get("d", "")):
            assert -1 <= float(x) <= width
            assert -1 <= float(y) <= height


def test_the_file_stands_alone_and_names_are_escaped(cell):
    hostile = replace(cell, title="<script>alert(1)</script>")
    text = standalone([hostile], label='a "cell" & more')
    root = parsed(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{http://www.w3.org/2000/svg}title").text == 'a "cell" & more'
    assert "<script" not in text
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text


def test_the_file_says_every_colour_itself_for_viewers_that_know_neither_variables_nor_themes(cell):
    text = standalone([cell], label="cells")
    assert "var(" not in text
    style = parsed(text).find("{http://www.w3.org/2000/svg}style").text
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for rules in (light, dark):  # the same rules, so that those of the dark theme hold over the light ones
        for painted in (".ground", ".pill", ".node circle", ".s2 .edge", ".s2 .operator", ".head", ".flow", ".none"):
            assert re.search(rf"{re.escape(painted)}\b[^}}]*(fill|stroke): #[0-9a-f]{{6}};", rules), painted
    assert "#0b6bcb" in light
    assert "#0b6bcb" not in dark


def test_the_cell_in_letters(cell):
    assert as_text(cell).splitlines() == [
        "2 equal cells, one after the other",
        "   input \u00b7\u00b7 none         \u00b7\u00b7> node 1    62%",
        "   input \u2500\u2500 cau_cnn_3_d1 \u2500\u2500> node 2    50%",
        "  node 1 \u2500\u2500 skip_connect \u2500\u2500> node 2    40%",
        "   input \u2500\u2500 cau_max_pool \u2500\u2500> node 3    22%",
        "  node 1 \u00b7\u00b7 none         \u00b7\u00b7> node 3    30%",
        "  node 2 \u2500\u2500 cau_cnn_5_d4 \u2500\u2500> node 3    31%",
        "  output = input + ReLU(norm(0.35 node 2 + 0.40 node 3))",
    ]


def test_without_shares_and_chances_nothing_is_made_up(cell):
    bare = replace(cell, shares=None, wires=[replace(wire, chance=None) for wire in cell.wires])
    root = parsed(draw([bare], label="c"))
    assert of(root, "chance") == []
    assert as_text(bare).endswith("output = input + ReLU(norm(node 2 + node 3))")
    nothing = replace(bare, wires=[Wire(s, t, "none", "none") for s, t in EDGES])
    assert as_text(nothing).endswith("output = input + ReLU(norm(constants))")
