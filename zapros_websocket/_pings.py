"""The library's own pings: which pong answers which, and how long that took.

Invariants:

- A pong that answers a ping of the library is known as such, even when nobody waits for it any more.
- A pong answers all pings before it: a peer may answer only the newest (RFC 6455, section 5.5.3).
- What is kept is bounded by the pings that are waited for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ._waiting import NewWaiter, Signal

_PREFIX_SIZE: Final = 4
_NUMBER_SIZE: Final = 8


@dataclass(eq=False, slots=True)
class PingInFlight:
    """A ping that was not answered yet. Times are in seconds of ``clock``; the number is 0 until it is sent."""

    answered: Signal
    number: int = 0
    payload: bytes = b""
    sent_at: float = 0.0
    round_trip: float | None = None


class Pings:
    """The pings of one connection."""

    def __init__(self, clock: Callable[[], float], new_waiter: NewWaiter) -> None:
        self.latency: float | None = None
        self._clock = clock
        self._new_waiter = new_waiter
        self._prefix = os.urandom(_PREFIX_SIZE)
        self._number = 0
        self._in_flight: dict[int, PingInFlight] = {}

    def new(self) -> PingInFlight:
        """Another ping, which waits to be sent: it has no number yet, and no pong answers it."""
        return PingInFlight(Signal(self._new_waiter))

    def sent(self, ping: PingInFlight) -> None:
        """It is sent in this moment: the numbers have the order of the wire, whoever has waited longer."""
        self._number += 1
        ping.number = self._number
        ping.payload = self._prefix + self._number.to_bytes(_NUMBER_SIZE, "big")
        ping.sent_at = self._clock()
        self._in_flight[ping.number] = ping

    def is_answer(self, payload: bytes) -> bool:
        """Whether a pong answers a ping of the library; if so, who waits for it is woken."""
        if len(payload) != _PREFIX_SIZE + _NUMBER_SIZE or not payload.startswith(self._prefix):
            return False
        number = int.from_bytes(payload[_PREFIX_SIZE:], "big")
        now = self._clock()
        for ping in [ping for ping in self._in_flight.values() if ping.number <= number]:
            self.latency = ping.round_trip = now - ping.sent_at
            ping.answered.set()
            self.forget(ping)
        return True

    def forget(self, ping: PingInFlight) -> None:
        """Nobody waits for it any more; its pong is still known for what it is."""
        self._in_flight.pop(ping.number, None)

    def end(self) -> None:
        """No pong comes any more: wake who waits, without a round trip."""
        for ping in self._in_flight.values():
            ping.answered.set()
        self._in_flight.clear()


def round_trip_clock(clock: Callable[[], float], *, is_uvloop: bool) -> Callable[[], float]:
    """The clock of the event loop; but that of uvloop counts whole milliseconds, which is no use here."""
    return time.monotonic if is_uvloop else clock
