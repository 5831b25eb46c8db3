"""Designs as something to draw: what each operator is called, and its kind."""

from __future__ import annotations

import pytest

from recdistill.recipes.drawing import described, drawn, legend
from recdistill.report.cell import standalone
from recdistill.search.derive import named
from recdistill.search.space import SPACES


@pytest.mark.parametrize("space", ["causal", "attentive", "published"])
def test_every_operator_is_described_in_words(space):
    for operator in SPACES[space].operators:
        assert " " in described(operator) or operator.name == "none"


def test_a_cell_of_attention_is_drawn_in_its_own_colour():
    design = named("sasrec", SPACES["attentive"], width=8)
    (cell,) = drawn(design)
    kinds = {wire.operator: wire.kind for wire in cell.wires}
    assert kinds == {"attention": "attention", "skip_connect": "skip", "cnn_1": "conv", "none": "none"}
    assert legend(design)["attention"] == "self-attention of 2 heads up to the present item; a norm"
    assert legend(design)["cnn_1"] == "convolution over the present item alone; a norm"
    svg = str(standalone([cell], label="a cell"))
    assert "attention" in svg
    assert "s5" in svg.partition("</style>")[2]
