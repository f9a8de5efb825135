"""The gate itself: nothing but an accepted result of every case may pass for success."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .cases import Case
from .results import Entry, judge, read_report

AGENT = "zapros_websocket-trio"


def entry(behavior: str = "OK", closing: str = "OK") -> Entry:
    return {"behavior": behavior, "behaviorClose": closing}


@pytest.mark.parametrize("behavior", ["OK", "NON-STRICT", "INFORMATIONAL"])
def test_accepted_behaviors_pass(behavior: str) -> None:
    verdict = judge(AGENT, [Case(1, "6.4.1")], {AGENT: {"6.4.1": entry(behavior)}}, {})
    assert verdict.failures == {}
    assert verdict.behaviors == {behavior: 1}


@pytest.mark.parametrize("behavior", ["FAILED", "UNIMPLEMENTED", "WRONG CODE", "UNCLEAN", "something new"])
def test_every_other_behavior_fails(behavior: str) -> None:
    cases = [Case(1, "1.1.1"), Case(2, "1.1.2"), Case(3, "1.1.3")]
    report = {AGENT: {"1.1.1": entry(behavior), "1.1.2": entry(closing=behavior), "1.1.3": entry()}}
    verdict = judge(AGENT, cases, report, {})
    assert verdict.failures == {"1.1.1": f"behavior {behavior}", "1.1.2": f"behaviorClose {behavior}"}


def test_a_case_without_a_result_fails() -> None:
    other = {"zapros_websocket-asyncio": {"1.1.1": entry()}}
    assert judge(AGENT, [Case(1, "1.1.1")], other, {}).failures == {"1.1.1": "the suite has no result for it"}


def test_an_error_on_our_side_fails_a_case_that_the_suite_accepts() -> None:
    verdict = judge(AGENT, [Case(1, "1.1.1")], {AGENT: {"1.1.1": entry()}}, {"1.1.1": "stuck after 120 seconds"})
    assert verdict.failures == {"1.1.1": "stuck after 120 seconds"}
    assert "  FAILED 1.1.1: stuck after 120 seconds" in verdict.lines()


def test_a_missing_report_is_an_empty_one(tmp_path: Path) -> None:
    assert read_report(tmp_path) == {}


def test_a_report_is_read_from_the_summary(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({AGENT: {"1.1.1": entry()}}))
    assert read_report(tmp_path) == {AGENT: {"1.1.1": entry()}}


def test_compression_is_offered_as_the_cases_are_written() -> None:
    assert Case(1, "9.1.1").offer is False
    assert Case(1, "12.3.4").offer is True
    offer = Case(1, "13.5.18").offer
    assert not isinstance(offer, bool)
    assert (offer.server_no_context_takeover, offer.server_max_window_bits) == (True, 9)
