"""Whether to connect again, and after which pause: a policy, and the state of one loop. No task, no socket, no clock.

Invariants:

- What the policy does not name is not retried.
- Attempts in a row that come to nothing are apart by pauses that grow up to a bound, each cut to a random part, so that
  clients that lost their server together do not come back together.
- A connection that lived begins the count anew; one that was accepted and dropped does not.
- A server that asks for time (RFC 9110, section 10.2.3) gets it, up to a bound.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Final, cast

import zapros

from ._errors import ConnectionClosed, HandshakeError, HandshakeTimeoutError
from ._protocol.messages import CloseCode

RETRIED_CLOSE_CODES: Final = frozenset(
    {
        CloseCode.GOING_AWAY,
        CloseCode.ABNORMAL,
        CloseCode.INTERNAL_ERROR,
        CloseCode.SERVICE_RESTART,
        CloseCode.TRY_AGAIN_LATER,
        CloseCode.BAD_GATEWAY,
    }
)
RETRIED_STATUSES: Final = frozenset({429, *range(500, 600)})


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """After what to connect again, how often, and with which pauses. Times are in seconds.

    Attributes:
        first_pause: The pause after the first failure is a random part of this; that after the next one of twice as
            much, and so on.
        longest_pause: The most that the doubling leads to.
        longest_retry_after: The most of a Retry-After of the server that is waited for. It comes on top of the pause.
        lived_after: A connection that was open for so long begins the count of failures, and the time, anew.
        max_attempts: The number of attempts in a row that may fail; then the last error is raised. None sets no limit.
        max_time: The time in which attempts begin, from the first one or from the loss of a connection that lived; then
            the last error is raised. None sets no limit.
        close_codes: The close codes after which to connect again: those of the peer, 1006 for a connection that was
            lost, and 1011 for a peer of which nothing was heard.
        statuses: The HTTP statuses of an answer to the handshake after which to try again.
        random: Gives a number from 0 to 1 for each pause: ``lambda: 1.0`` takes the chance out.

    Raises:
        TypeError: a time or number is none, the codes or statuses are no set of numbers, or ``random`` is no function.
        ValueError: a time is negative, or no attempt is allowed.
    """

    first_pause: float = 0.5
    longest_pause: float = 30.0
    longest_retry_after: float = 300.0
    lived_after: float = 10.0
    max_attempts: int | None = None
    max_time: float | None = None
    close_codes: frozenset[int] = RETRIED_CLOSE_CODES
    statuses: frozenset[int] = RETRIED_STATUSES
    random: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        for name in ("first_pause", "longest_pause", "longest_retry_after", "lived_after", "max_time"):
            seconds: object = getattr(self, name)
            if seconds is None and name == "max_time":
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise TypeError(f"{name} must be a number of seconds, not {seconds!r}")
            if not seconds >= 0:
                raise ValueError(f"{name} must not be under 0, and is {seconds!r}")
        attempts = self.max_attempts
        if attempts is not None:
            if isinstance(attempts, bool) or not isinstance(attempts, int):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"max_attempts must be a whole number or None, not {attempts!r}")
            if attempts < 1:
                raise ValueError(f"max_attempts must be at least 1, and is {attempts!r}")
        for name in ("close_codes", "statuses"):
            numbers: object = getattr(self, name)
            if not isinstance(numbers, Collection) or not all(
                isinstance(number, int) for number in cast("Collection[object]", numbers)
            ):
                raise TypeError(f"{name} must be a set of whole numbers, not {numbers!r}")
        if not callable(self.random):
            raise TypeError(f"random must be a function, not {self.random!r}")

    def retries(self, error: Exception) -> bool:
        """Whether to connect again after this error of the handshake or of the connection.

        Override it to decide otherwise. It is not asked about other exceptions of the block: they come out.
        """
        if isinstance(error, ConnectionClosed):
            return error.code in self.close_codes
        response = _response_of(error)
        if response is not None:
            return response.status in self.statuses
        if isinstance(error, zapros.SSLError):
            # A certificate does not get better. But a server that is being stopped can end TCP in the middle of TLS.
            return any(isinstance(cause, ssl.SSLEOFError) for cause in _causes(error))
        return isinstance(
            error,
            (
                HandshakeTimeoutError,
                zapros.ConnectionError,
                zapros.TimeoutError,
                zapros.ReadError,
                zapros.WriteError,
            ),
        )


class Retries:
    """The state of one loop: how many attempts there were, why the last one ended, and what comes next.

    ``turn`` goes before each turn of the loop, ``enter`` before its block, and ``begin`` before each attempt;
    ``opened`` behind one that led to a connection, and ``failed`` behind the error that ended either. ``now`` is the
    time of any one clock that does not go backwards.
    """

    def __init__(self, policy: ReconnectPolicy) -> None:
        self._policy = policy
        self.number = 0
        self.previous: Exception | None = None
        self.last_closed: ConnectionClosed | None = None
        """How the last connection ended."""
        self.pause = 0.0
        """Seconds to wait before the next attempt."""
        self.is_over = False
        """Whether the loop has come to its end."""
        self._is_entered = True
        self._failures = 0
        self._failing_since: float | None = None
        self._opened_at: float | None = None

    def turn(self) -> None:
        """A turn of the loop begins.

        Raises:
            RuntimeError: the attempt of the turn before was not entered, so that the loop would not end, nor wait.
        """
        if not self._is_entered:
            raise RuntimeError("the attempt was not entered: each turn of the loop has a block on its attempt")
        self._is_entered = False

    def enter(self) -> None:
        """The attempt of this turn is entered.

        Raises:
            RuntimeError: it was entered before.
        """
        if self._is_entered:
            raise RuntimeError("the attempt was entered before: each turn of the loop has one block on its attempt")
        self._is_entered = True

    def begin(self, now: float) -> None:
        """An attempt begins."""
        self.number += 1
        self.pause = 0.0
        if self._failing_since is None:
            self._failing_since = now

    def opened(self, now: float) -> None:
        """The attempt has led to a connection."""
        self._opened_at = now

    def failed(self, error: Exception, now: float) -> bool:
        """The attempt, or its connection, came to an end: whether to go on, after ``pause``."""
        self.note(error, now)
        assert self._failing_since is not None
        policy = self._policy
        return (
            policy.retries(error)
            and (policy.max_attempts is None or self._failures < policy.max_attempts)
            and (policy.max_time is None or now + self.pause - self._failing_since <= policy.max_time)
        )

    def left(self, raised: BaseException | None, loss: ConnectionClosed | None, now: float) -> bool:
        """The block has ended, with what it raised, and with the loss of its connection: whether to go on in silence.

        Raises:
            ConnectionClosed: the loss, which the block did not raise, and which is not followed by another attempt.
        """
        if loss is not None:
            if self.failed(loss, now):
                return True
            if raised is None and self._policy.retries(loss):
                # It would go on, had it not been the last: an end without an error would look like being done.
                raise loss
        if raised is None:
            self.is_over = True
        elif loss is None and isinstance(raised, Exception):
            # It comes out. Should somebody catch it inside the loop, then the loop can go on.
            self.note(raised, now)
        return False

    def note(self, error: Exception, now: float) -> None:
        """Why the attempt, or its connection, came to an end."""
        self.previous = error
        if self._opened_at is not None and now - self._opened_at >= self._policy.lived_after:
            self._failures = 0
            self._failing_since = now
        else:
            self._failures += 1
        self._opened_at = None
        # Beyond 64 doublings there is nothing left to be grown, but a float that overflows.
        longest = self._policy.first_pause * 2 ** min(max(self._failures - 1, 0), 64)
        asked_for = min(retry_after(error), self._policy.longest_retry_after)
        self.pause = asked_for + min(longest, self._policy.longest_pause) * self._policy.random()


def policy_of(given: ReconnectPolicy | None) -> ReconnectPolicy:
    """The policy that was given, or the usual one.

    Raises:
        TypeError: it is no policy.
    """
    if given is None:
        return ReconnectPolicy()
    if not isinstance(given, ReconnectPolicy):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"policy is a ReconnectPolicy, not {given!r}")
    return given


def retry_after(error: Exception) -> float:
    """The seconds that the server asks to be left alone for (RFC 9110, section 10.2.3); 0 when it does not."""
    response = _response_of(error)
    if response is None:
        return 0.0
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value)
    until = _date(value)
    if until is None:
        return 0.0
    # By the clock of the server, where it says what that is.
    now = _date(response.headers.get("date", "")) or datetime.now(timezone.utc)
    return max((until - now).total_seconds(), 0.0)


def lost_connections(raised: BaseException) -> list[ConnectionClosed]:
    """The errors of connections that came out of a block: one, or all of a group; none if there were others too.

    Several tasks that use one connection all learn of its end, and a task group puts what they raise into one group.
    """
    if isinstance(raised, ConnectionClosed):
        return [raised]
    # Looked at by its attribute, because Python 3.10 has no exception groups of its own.
    inner: tuple[BaseException, ...] = getattr(raised, "exceptions", ())
    parts = [lost_connections(error) for error in inner]
    return [error for part in parts for error in part] if all(parts) else []


def _response_of(error: Exception) -> zapros.Response | None:
    return error.response if isinstance(error, (HandshakeError, zapros.StatusCodeError)) else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    # A date in the form of asctime has no zone, and means that of all dates of HTTP (section 5.6.7).
    return date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)
