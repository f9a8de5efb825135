"""Keepalive: a ping every interval, and the verdict on a peer of which nothing is heard (RFC 6455, section 5.5.2).

Invariants:

- Any byte is a sign of life, not only a pong.
- Time in which this side does not listen is not held against the peer.
- A ping that cannot be written yet, because a message is in the way, does not hold the verdict up.
"""

from __future__ import annotations

from math import inf
from typing import Protocol

from anyio import current_time, sleep_until


class Listener(Protocol):
    """What keepalive wants to know of a connection, and to have done. Times are of the event loop's clock."""

    @property
    def heard_at(self) -> float:
        """When the peer was last heard, or began to be listened to again."""
        ...

    @property
    def is_deaf(self) -> bool:
        """Whether nobody listens, because too much is unread."""
        ...

    def send_ping(self) -> None:
        """Have a ping written, when that can be done."""

    def give_up(self, reason: str) -> None:
        """Fail the connection: the peer is not there."""


async def keep_alive(listener: Listener, interval: float, timeout: float | None) -> None:
    """Ping every ``interval`` seconds until nothing was heard for ``timeout`` seconds after a ping."""
    ping_at = current_time() + interval
    asked_at = give_up_at = inf
    while True:
        await sleep_until(min(ping_at, give_up_at))
        now = current_time()
        if listener.is_deaf or listener.heard_at >= asked_at:
            asked_at = give_up_at = inf
        if now >= give_up_at:
            listener.give_up(f"ping timeout: nothing was heard for {timeout:g} seconds after a ping")
            return
        if now >= ping_at:
            ping_at = now + interval
            listener.send_ping()
            if give_up_at == inf and timeout is not None:
                asked_at, give_up_at = now, now + timeout
