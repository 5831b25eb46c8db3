"""The page at / in a real browser: typed, chosen by keys, seen side by side; nothing is fetched from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.serve.http.version import opened

from . import browser

pytestmark = pytest.mark.skipif(browser.found() is None, reason="no Chromium is installed (apt-get install chromium)")
LIST = "[...document.querySelectorAll('#{}list .id')].map(e => e.textContent).join(' ')"


@pytest.fixture(scope="module")
def page():
    with browser.Browser() as opened_page:
        yield opened_page


@pytest.fixture
def teacher(tmp_path, save):
    user = np.array([[-1], [-1], [2]], np.float32)  # a thinks the other way round
    return opened(save(tmp_path / "t", arrays={"user": user, "item": np.arange(6, dtype=np.float32)[:, None]}))


def lists(page):
    return page.run(LIST.format("s")), page.run(LIST.format("t"))


def test_a_person_types_a_user_and_sees_two_lists_and_their_times(tiny, teacher, app_of, page):
    with app_of(tiny, teacher=teacher) as client:
        page.open(f"http://127.0.0.1:{client.port}/")
        page.until("document.getElementById('about').textContent.includes('3 users')")
        page.type("a")
        page.press("Enter")
        page.until("!document.getElementById('shown').hidden")
        assert lists(page) == ("i4 i3 i2 i1", "i1 i2 i3 i4")
        assert "ms against" in page.run("document.getElementById('time').textContent")
        assert page.run("document.getElementById('over').textContent") == "4 of 4"
        assert page.run("document.querySelector('#slist .d').textContent") == "▼ 3"
        assert page.run("document.getElementById('swhy').textContent") == "known user"
        assert page.run("location.hash") == "#user=a"
    assert page.errors == []
    assert all(url.startswith((f"http://127.0.0.1:{client.port}/", "about:", "data:")) for url in page.asked)


def test_items_are_searched_and_chosen_without_a_mouse(tiny, teacher, app_of, page):
    with app_of(tiny, teacher=teacher) as client:
        page.open(f"http://127.0.0.1:{client.port}/")
        page.until("document.getElementById('about').textContent.includes('3 users')")
        page.run("document.querySelector('[value=items]').click()")
        page.type("i")
        page.until("document.querySelectorAll('#found li').length === 6")
        page.press("ArrowDown")
        page.press("ArrowDown")
        assert page.run("document.querySelector('[aria-selected=true]').textContent") == "i1"
        page.press("Enter")
        page.until("document.querySelectorAll('.chip').length === 1 && !document.getElementById('shown').hidden")
        assert page.run("document.getElementById('swhy').textContent") == "folded in"
        assert "i1" not in lists(page)[0].split()
        page.press("Backspace")
        page.until("document.querySelectorAll('.chip').length === 0 && document.getElementById('shown').hidden")
    assert page.errors == []


def test_a_link_to_a_question_asks_it_and_what_is_typed_cannot_run(tiny, app_of, page):
    with app_of(tiny) as client:
        page.open(f"http://127.0.0.1:{client.port}/#user=b&k=5")
        page.until("!document.getElementById('shown').hidden")
        assert lists(page) == ("i0 i1 i2 i3 i4", "")  # no teacher: one list
        assert page.run("getComputedStyle(document.getElementById('tcard')).display") == "none"
        page.open(f"http://127.0.0.1:{client.port}/#items=<img src=x onerror=document.title='bad'>")
        page.until("document.querySelectorAll('.chip').length === 1")
        page.until("document.getElementById('swhy').textContent === 'popular list'")
        assert page.run("document.title") == "recdistill"


def test_a_server_with_a_token_is_asked_for_it(tiny, app_of, page):
    with app_of(tiny, token="correct-horse-battery") as client:  # noqa: S106
        page.open(f"http://127.0.0.1:{client.port}/")
        page.until("!document.getElementById('lock').hidden")
        page.run("document.getElementById('token').focus()")
        page.type("correct-horse-battery")
        page.press("Tab")
        page.until("document.getElementById('about').textContent.includes('3 users')")
        assert page.run("document.getElementById('lock').hidden")
    page.errors.clear()  # the browser logs the 401 that asked


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_is_readable_by_day_and_by_night(tiny, teacher, app_of, page, dark):
    with app_of(tiny, teacher=teacher) as client:
        page.dark(dark)
        page.open(f"http://127.0.0.1:{client.port}/#user=a")
        page.until("!document.getElementById('shown').hidden")
        pick = "(e => {const s = getComputedStyle(e); return s.color})(document.querySelector('{}'))"
        grounds = "getComputedStyle(document.body).backgroundColor"
        ground = luminance(page.run(grounds))
        for place in ("body", "#about", "#slist .v", "#slist .d", "footer"):
            one = luminance(page.run(pick.replace("{}", place)))
            light, low = max(one, ground), min(one, ground)
            assert (light + 0.05) / (low + 0.05) >= 4.5, place  # WCAG 2.2, 1.4.3


def luminance(color: str) -> float:
    channels = np.array([float(part) for part in color[color.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_page_of_the_api_lists_every_route_and_sends_a_request(tiny, app_of, page):
    with app_of(tiny) as client:
        page.open(f"http://127.0.0.1:{client.port}/docs")
        page.until("document.querySelectorAll('details').length >= 12")
        names = page.run("[...document.querySelectorAll('summary code')].map(e => e.textContent).join(' ')").split()
        assert set(names) == set(client.get("/openapi.json").json()["paths"])
        page.run("document.getElementById('recommend').open = true")
        page.run('document.querySelector(\'#recommend textarea\').value = \'{"user": "a", "k": 2}\'')
        page.run("document.querySelector('#recommend button').click()")
        page.until("document.querySelector('#recommend pre.told').textContent.includes('\"i4\"')")
    assert page.errors == []
