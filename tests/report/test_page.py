"""The page: self-contained, escaped, and it says what was measured."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from recdistill.evaluation.card import Agreement, Card, Environment, Measured
from recdistill.evaluation.compare import Interval, PairedTest
from recdistill.evaluation.latency import Latency
from recdistill.report.page import Curve, Entry, Page, Role
from recdistill.report.words import amount, megabytes, milliseconds, times

VOID = {"meta", "br", "img", "hr", "link", "input"}


ENVIRONMENT = Environment(recdistill="0", python="3", numpy="2", cpu="c", cpus=2, threads=2, platform="p")


def entry(name: str, role: Role, value: float, size: int, **more: Any) -> Entry:
    """A system of that recall; `retention`, `overlap` and `latency` go onto its card."""
    values = {
        "recall@10": Interval(value, value - 0.01, value + 0.01, 512),
        "ndcg@10": Interval(value / 2, 0.1, 0.3, 512),
    }
    measured = Measured(
        split="test", protocol="full", cold="zero", users=512, unserved=0, fingerprint="f", values=values
    )
    share = more.pop("overlap", None)
    alike = (
        None if share is None else Agreement(k=10, overlap=Interval(share, share, share, 512), first=values["ndcg@10"])
    )
    card = Card(
        name=name,
        model="mf, 20 dims",
        metrics=(measured,),
        parameters=size // 4,
        bytes=size,
        latency=more.pop("latency", None),
        agreement=alike,
        retention=more.pop("retention", {}),
        environment=ENVIRONMENT,
    )
    return Entry(card, role, **more)


def kept(percent: float) -> dict[str, Interval]:
    return {"recall@10": Interval(percent, percent - 1, percent + 1, 512)}


@pytest.fixture
def page():
    curve = Curve([0, 1], [1.5, 3.0], {"base": [7.0, 5.0], "rrd": [2.0, 1.0]}, [1], {"ndcg@10": [0.2]}, {"ndcg@10": 1})
    return Page(
        "a run",
        "mf 200 to mf 20",
        [
            entry(
                "teacher", "teacher", 0.5, 24_000_000, latency=Latency(4.0, 5.0, 6.0, 2000.0, 10, 2, 100), curve=curve
            ),
            entry("plain", "plain", 0.4, 2_400_000, retention=kept(80), overlap=0.2),
            entry("rrd", "student", 0.44, 2_400_000, retention=kept(88), overlap=0.3),
            entry(
                "de-rrd",
                "student",
                0.45,
                2_400_000,
                latency=Latency(0.4, 0.5, 0.6, 9000.0, 10, 2, 100),
                retention=kept(90),
                overlap=0.4,
                curve=curve,
            ),
        ],
        "recall@10",
        "ndcg@10",
        data=["Read it."],
        environment={"python": "3.11"},
        citations=["@a{b}", "@c{d}"],
        settings="[data]",
    )


class Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "title"}:
            self.text.append(data)


def text_of(html: str) -> str:
    reader = Balance()
    reader.feed(html)
    assert reader.open == []
    return " ".join(" ".join(reader.text).split())


def test_every_tag_is_closed_and_the_headline_is_the_best_student(page):
    text = text_of(page.render())
    assert "The student de-rrd keeps 90.0 % of its teacher\u2019s recall@10 in 1/10 of the bytes" in text
    assert "the same student without a teacher keeps 80.0 %" in text
    assert "Means over 512 users" in text
    assert "10\u00d7 smaller" in text


def versus(difference: float, wins: int, losses: int) -> PairedTest:
    interval = Interval(difference, difference - 0.01, difference + 0.01, 512)
    return PairedTest(interval, 0.01, 0.01, 2.0, wins, losses, 512 - wins - losses)


@pytest.mark.parametrize(("p", "doubt"), [(0.32, True), (0.05, False), (0.0004, False)])
def test_the_tests_against_the_plain_student_are_shown_and_the_headline_says_when_they_show_nothing(page, p, doubt):
    tests = {"rrd": versus(0.04, 1201, 30), "de-rrd": versus(-0.05, 12, 34)}
    text = text_of(replace(page, tests=tests, corrected={"rrd": 0.0002, "de-rrd": p}).render())
    assert "Against the plain student" in text
    assert "rrd +0.0400 +0.0300 to +0.0500 1,201 30 0.0002" in text
    assert f"de-rrd -0.0500 -0.0600 to -0.0400 12 34 {p:.4f}" in text
    said = "The difference from the student without a teacher is not significant here (corrected p = 0.3200)."
    assert (said in text) == doubt
    assert ("not significant" in text) == doubt


def test_without_a_plain_student_no_test_is_shown(page):
    text = text_of(page.render())
    assert "Against the plain student" not in text
    assert "significant" not in text


def test_a_training_that_used_all_its_epochs_says_so(page):
    assert "epoch limit" not in page.render()
    entries = [replace(e, at_limit=e.name == "de-rrd") for e in page.entries]
    text = text_of(replace(page, entries=entries).render())
    assert text.count("stopped at the epoch limit") == 1
    assert "2 epochs; stopped at the epoch limit" in text


def test_the_page_loads_nothing(page):
    html = page.render()
    assert not re.search(r"""(src|href|url|@import)\s*[=(]\s*["']?(https?:)?//""", html)
    assert "<script" not in html
    assert "<link" not in html


def test_it_speaks_of_the_student_that_is_marked(page):
    entries = [e if e.name != "rrd" else entry("rrd", "student", 0.44, 2_400_000, best=True) for e in page.entries]
    assert Page("t", "", entries, "recall@10").student.name == "rrd"


def test_names_from_users_are_escaped(page):
    evil = "<script>alert(1)</script>"
    html = Page(
        evil,
        evil,
        [entry(evil, "teacher", 0.5, 100), entry(evil + "2", "student", 0.4, 10, retention=kept(80))],
        "recall@10",
        data=[evil],
        environment={evil: evil},
        citations=[evil],
        settings=evil,
        command=evil,
    ).render()
    assert "<script" not in html
    text_of(html)


def test_without_latency_curves_or_teacher_there_is_still_a_page():
    html = Page("t", "", [entry("only", "student", 0.4, 10)], "recall@10").render()
    assert "Training" not in text_of(html)
    assert html.count("<figure") == 1


def test_both_themes_and_every_style_have_colours(page):
    html = page.render()
    assert "prefers-color-scheme: dark" in html
    for n in range(8):
        assert html.count(f"--s{n}: #") == 2


def test_numbers_are_written_for_people():
    assert [megabytes(n) for n in (7, 999, 1234, 2_432_160, 24_321_600, 105e6, 1.6e9, None)] == [
        "7 B", "999 B", "1.2 kB", "2.4 MB", "24.3 MB", "105 MB", "1.6 GB", "\u2013",
    ]  # fmt: skip
    assert [milliseconds(n) for n in (0.434, 4.31, 12.6, None)] == ["0.43 ms", "4.3 ms", "13 ms", "\u2013"]
    assert (amount(6080400), times(9.96), times(9.8)) == ("6,080,400", "10\u00d7", "9.8\u00d7")
