"""The policy of reconnecting and its state machine, without a task, a socket or a clock."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
import zapros

from zapros_websocket import ConnectionClosed, HandshakeError, HandshakeTimeoutError, ReconnectPolicy
from zapros_websocket._retries import Retries, lost_connections, retry_after


def refused(status: int, headers: Mapping[str, str] | None = None) -> HandshakeError:
    return HandshakeError("refused", response=zapros.Response(status, dict(headers or {})))


def tls_error(cause: Exception | None) -> zapros.SSLError:
    error = zapros.SSLError("TLS failed")
    error.__cause__ = cause
    return error


LOST = ConnectionClosed(1006, "lost")


CASES: list[tuple[Exception, bool]] = [
    *((ConnectionClosed(code), True) for code in (1001, 1006, 1011, 1012, 1013, 1014)),
    *((ConnectionClosed(code), False) for code in (1000, 1002, 1003, 1005, 1007, 1008, 1009, 1010, 3000, 4999)),
    *((refused(status), True) for status in (429, 500, 502, 503, 504, 599)),
    *((refused(status), False) for status in (101, 200, 301, 400, 401, 403, 404, 408, 426)),
    (HandshakeError("not HTTP"), False),
    (HandshakeTimeoutError("late"), True),
    (zapros.StatusCodeError(zapros.Response(503)), True),
    (zapros.StatusCodeError(zapros.Response(404)), False),
    (zapros.ConnectionError("refused"), True),
    (zapros.ConnectTimeoutError("late"), True),
    (zapros.ReadError("reset"), True),
    (zapros.WriteError("reset"), True),
    (zapros.TooManyRedirectsError("round and round"), False),
    (tls_error(ssl.SSLCertVerificationError("unknown authority")), False),
    (tls_error(ssl.SSLEOFError("EOF occurred in violation of protocol")), True),
    (tls_error(None), False),
    (ValueError("a mistake"), False),
]


@pytest.mark.parametrize(("error", "expected"), CASES, ids=repr)
def test_the_policy_names_what_is_retried(error: Exception, expected: bool) -> None:
    assert ReconnectPolicy().retries(error) is expected


def test_close_codes_and_statuses_can_be_chosen() -> None:
    policy = ReconnectPolicy(close_codes=frozenset({4000}), statuses=frozenset({404}))
    assert policy.retries(ConnectionClosed(4000))
    assert not policy.retries(LOST)
    assert policy.retries(refused(404))
    assert not policy.retries(refused(503))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"first_pause": -1}, ValueError),
        ({"longest_pause": float("nan")}, ValueError),
        ({"lived_after": "1"}, TypeError),
        ({"longest_retry_after": None}, TypeError),
        ({"max_time": True}, TypeError),
        ({"max_time": -0.1}, ValueError),
        ({"max_attempts": 0}, ValueError),
        ({"max_attempts": 1.5}, TypeError),
        ({"max_attempts": True}, TypeError),
        ({"close_codes": 1001}, TypeError),
        ({"close_codes": {"1001"}}, TypeError),
        ({"close_codes": "1001"}, TypeError),
        ({"statuses": 503}, TypeError),
        ({"random": 5}, TypeError),
    ],
)
def test_a_policy_that_cannot_be_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        ReconnectPolicy(**arguments)


def pauses(policy: ReconnectPolicy, failures: int) -> list[float]:
    retries = Retries(policy)
    found: list[float] = []
    for n in range(failures):
        retries.begin(n)
        retries.failed(LOST, n)
        found.append(retries.pause)
    return found


def test_pauses_double_up_to_a_bound() -> None:
    policy = ReconnectPolicy(first_pause=1, longest_pause=10, random=lambda: 1.0)
    assert pauses(policy, 7) == [1, 2, 4, 8, 10, 10, 10]
    assert pauses(policy, 5000)[-1] == 10


def test_a_pause_is_a_random_part_of_the_bound() -> None:
    parts = iter([0.0, 0.5, 0.25])
    policy = ReconnectPolicy(first_pause=1, random=lambda: next(parts))
    assert pauses(policy, 3) == [0, 1, 1]
    spread = {pauses(ReconnectPolicy(first_pause=1), 1)[0] for _ in range(50)}
    assert len(spread) > 40
    assert all(0 <= pause <= 1 for pause in spread)


def test_a_connection_that_lived_begins_the_count_anew() -> None:
    policy = ReconnectPolicy(first_pause=1, lived_after=10, max_attempts=2, random=lambda: 1.0)
    retries = Retries(policy)
    retries.begin(0)
    assert retries.failed(LOST, 0)
    retries.begin(1)
    retries.opened(1)
    assert retries.failed(LOST, 11)
    assert retries.pause == 1
    retries.begin(12)
    assert retries.failed(LOST, 12)
    assert retries.pause == 1
    retries.begin(13)
    assert not retries.failed(LOST, 13)
    assert retries.number == 4


def test_a_connection_that_was_accepted_and_dropped_does_not() -> None:
    policy = ReconnectPolicy(first_pause=1, lived_after=10, max_attempts=3, random=lambda: 1.0)
    retries = Retries(policy)
    going_on: list[tuple[bool, float]] = []
    for n in (0, 20, 40):
        retries.begin(n)
        retries.opened(n)
        going_on.append((retries.failed(LOST, n + 9.9), retries.pause))
    assert going_on == [(True, 1), (True, 2), (False, 4)]


def test_no_attempt_begins_when_the_time_is_over() -> None:
    policy = ReconnectPolicy(first_pause=1, longest_pause=1, max_time=5, lived_after=10, random=lambda: 1.0)
    retries = Retries(policy)
    retries.begin(100)
    assert retries.failed(LOST, 104)
    retries.begin(105)
    assert not retries.failed(LOST, 104.1)
    # The loss of one that lived begins the time anew.
    retries.opened(105)
    assert retries.failed(LOST, 205)
    retries.begin(206)
    assert retries.failed(LOST, 209)
    retries.begin(210)
    assert not retries.failed(LOST, 210)


def test_what_went_before_is_remembered_and_the_pause_is_taken_once() -> None:
    retries = Retries(ReconnectPolicy(random=lambda: 1.0))
    assert (retries.number, retries.previous, retries.pause) == (0, None, 0)
    retries.begin(0)
    retries.failed(LOST, 1)
    assert (retries.number, retries.previous, retries.pause) == (1, LOST, 0.5)
    retries.begin(2)
    assert (retries.number, retries.previous, retries.pause) == (2, LOST, 0)


# Retry-After

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
HTTP_NOW = "Wed, 02 Jan 2030 03:04:05 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry-After": "120"}, 120),
        ({"retry-after": " 7 "}, 7),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "-1"}, 0),
        ({"Retry-After": "1.5"}, 0),
        ({"Retry-After": "٣"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({"Retry-After": "Wed, 02 Jan 2030 03:05:05 GMT", "Date": HTTP_NOW}, 60),
        ({"Retry-After": "Wednesday, 02-Jan-30 03:05:05 GMT", "Date": HTTP_NOW}, 60),
        ({"Retry-After": "Wed Jan  2 03:05:05 2030", "Date": HTTP_NOW}, 60),
        ({"Retry-After": "Wed, 02 Jan 2030 03:03:05 GMT", "Date": HTTP_NOW}, 0),
        ({"Retry-After": "Wed, 02 Jan 2030 03:03:05 GMT", "Date": "yesterday"}, None),
        # Numbers that no date has room for.
        ({"Retry-After": "Wed, 02 Jan 99999999999999999999 03:05:05 GMT"}, 0),
        ({"Retry-After": "Wed, 02 Jan 2030 03:05:05 +99999999999999999999"}, 0),
        ({"Retry-After": f"Wed, 02 Jan {'9' * 5000} 03:05:05 GMT"}, 0),
        (
            {"Retry-After": "Fri, 31 Dec 9999 23:59:59 -2359", "Date": "Mon, 01 Jan 0001 00:00:00 +2359"},
            None,
        ),
        (
            {"Retry-After": "Wed, 02 Jan 2030 03:05:05 GMT", "Date": "Wed, 02 Jan 2030 03:04:05 +99999999999999999999"},
            None,
        ),
        ({"Retry-After": "9" * 5000}, float("inf")),
    ],
)
def test_retry_after_is_in_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    found = retry_after(refused(503, headers))
    if seconds is None:
        assert found > 0
    else:
        assert found == seconds


def test_without_the_clock_of_the_server_a_date_is_measured_by_ours() -> None:
    until = datetime.now(timezone.utc) + timedelta(seconds=100)
    found = retry_after(refused(503, {"Retry-After": format_datetime(until, usegmt=True)}))
    assert 50 < found <= 100


def test_only_an_answer_can_ask_for_time() -> None:
    assert retry_after(LOST) == 0
    assert retry_after(HandshakeError("no answer")) == 0


def test_what_the_server_asks_for_comes_on_top_of_the_pause_up_to_a_bound() -> None:
    retries = Retries(ReconnectPolicy(first_pause=2, longest_retry_after=300, random=lambda: 0.5))
    retries.begin(0)
    assert retries.failed(refused(429, {"Retry-After": "30"}), 0)
    assert retries.pause == 31
    assert retries.failed(refused(503, {"Retry-After": "99999999"}), 0)
    assert retries.pause == 302


# Groups


class Group(Exception):
    """Has the one attribute by which exception groups are known: Python 3.10 has none of its own."""

    def __init__(self, *exceptions: BaseException) -> None:
        self.exceptions = exceptions


def test_a_group_of_nothing_but_lost_connections_is_one() -> None:
    other = ConnectionClosed(1001)
    assert lost_connections(LOST) == [LOST]
    assert lost_connections(Group(LOST, Group(other))) == [LOST, other]
    assert lost_connections(ValueError()) == []
    assert lost_connections(KeyboardInterrupt()) == []
    assert lost_connections(Group(LOST, Group(ValueError()))) == []
    assert lost_connections(Group()) == []
