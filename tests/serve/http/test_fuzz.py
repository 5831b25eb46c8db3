"""Requests made from the OpenAPI document, right and wrong ones: answers are as it says, none is a fault of ours."""

from __future__ import annotations

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.specs.openapi.checks import ignored_auth  # noqa: E402

TOKEN = "correct-horse-battery"  # noqa: S105
HEALTH = list(HealthCheck)


@pytest.fixture
def api(tiny, app_of, tmp_path):
    pytest.importorskip("polars")
    from recdistill.ledger import Ledger
    from recdistill.stream.stream import Stream

    with Stream.create(tmp_path / "stream", "") as stream:
        rule = stream.settings.rule
    with app_of(tiny, token=TOKEN, ledger=lambda: Ledger(tmp_path / "stream", rule)) as client:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{client.port}/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_as_the_document_says(api, mode):
    count = 0
    for found in api.get_all_operations():
        operation = found.ok()

        @settings(max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=HEALTH)
        @given(case=operation.as_strategy(generation_mode=mode))
        def asked(case):
            nonlocal count
            count += 1
            # whether a token is asked for is tested by itself: the check would send this one again
            case.call_and_validate(headers={"authorization": f"Bearer {TOKEN}"}, excluded_checks=[ignored_auth])

        try:
            asked()
        except Unsatisfiable:  # nothing wrong can be said to a route that takes nothing
            assert mode is GenerationMode.NEGATIVE
            assert not operation.body
    assert count >= 100
