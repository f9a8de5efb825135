"""Keepalive: a ping every interval, and the verdict on a peer of which nothing is heard (RFC 6455, section 5.5.2).

It is no task: who keeps the time calls ``look`` when something is ``due_at`` that time.

Invariants:

- Any byte is a sign of life, not only a pong.
- Time in which this side does not listen is not held against the peer; what has arrived by the time of the verdict,
  while the event loop was busy with something else, is heard before.
- A ping that cannot be written yet, because a message is in the way, does not hold the verdict up.
"""

from __future__ import annotations

from math import inf
from typing import Final, Protocol

# Turns of the scheduler that the verdict is put off, for those who take in what has arrived.
_TURNS: Final = 3


class Listener(Protocol):
    """What keepalive wants to know of a connection, and to have done."""

    has_heard: bool
    """Whether the peer was heard, or began to be listened to again, since keepalive has put this back."""

    @property
    def is_deaf(self) -> bool:
        """Whether nobody listens, because too much is unread."""
        ...

    def send_ping(self) -> None:
        """Have a ping written, when that can be done."""

    def give_up(self, reason: str) -> None:
        """Fail the connection: the peer is not there."""


class Keepalive:
    """Ping every ``interval`` seconds until nothing was heard for ``timeout`` seconds after a ping."""

    __slots__ = ("_give_up_at", "_interval", "_ping_at", "_timeout", "_turns_left")

    def __init__(self, interval: float, timeout: float | None, now: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._ping_at = now + interval
        self._give_up_at = inf
        self._turns_left = 0

    @property
    def due_at(self) -> float:
        """When to ``look`` next; a time that is over stands for the next turn of the scheduler."""
        return min(self._ping_at, self._give_up_at)

    def look(self, listener: Listener, now: float) -> None:
        """Do what is due."""
        if listener.is_deaf or listener.has_heard:
            self._give_up_at = inf
        if now >= self._give_up_at:
            self._turns_left -= 1
            if self._turns_left >= 0:
                return
            self._ping_at = self._give_up_at = inf
            listener.give_up(f"ping timeout: nothing was heard for {self._timeout:g} seconds after a ping")
        elif now >= self._ping_at:
            self._ping_at = now + self._interval
            listener.send_ping()
            if self._give_up_at == inf and self._timeout is not None:
                listener.has_heard = False
                self._give_up_at = now + self._timeout
                self._turns_left = _TURNS
