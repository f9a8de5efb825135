"""What a caller can ask of a connection, checked when it is asked."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

# The largest whole number of seconds: far beyond any clock, and within what a float can be.
_MOST_SECONDS: Final = 10**100

# The least and the most that a parameter of compression can be.
_RANGES: Final = (
    ("client_max_window_bits", 8, 15),
    ("server_max_window_bits", 8, 15),
    ("level", -1, 9),
    ("memory_level", 1, 9),
    ("threshold", 0, sys.maxsize),
)


@dataclass(frozen=True, slots=True)
class PerMessageDeflateExtension:
    """Parameters of permessage-deflate (RFC 7692, section 7.1): what is offered, or what was agreed to.

    A window of 15 bits (32 KiB) is the default and puts no constraint on the server.

    The last three are a matter of this side alone and are not sent: how hard zlib tries (``level`` from 0 to 9, or -1
    for its own choice, which takes twice the time of 3 for messages that are a tenth smaller), how much memory it
    takes for it (``memory_level`` from 1 to 9: 8 takes 128 KiB, and each step down half of it), and the ``threshold``
    in bytes under which a message is sent as it is.

    Raises:
        TypeError: a flag is not a bool.
        ValueError: a window is not between 8 and 15 bits, or a level or the threshold is out of its range.
    """

    client_no_context_takeover: bool = False
    server_no_context_takeover: bool = False
    client_max_window_bits: int = 15
    server_max_window_bits: int = 15
    level: int = 3
    memory_level: int = 8
    threshold: int = 0

    def __post_init__(self) -> None:
        for name in ("client_no_context_takeover", "server_no_context_takeover"):
            if not isinstance(flag := getattr(self, name), bool):
                raise TypeError(f"{name} is a bool, not {flag!r}")
        for name, least, most in _RANGES:
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                end = "on" if most == sys.maxsize else f"to {most}"
                raise ValueError(f"{name} must be a whole number from {least} {end}, not {value!r}")


@dataclass(frozen=True, slots=True)
class Options:
    """The limits of one connection: seconds, and bytes. None switches a limit off where it may be.

    What is over ``max_message_size`` fails the connection, or with ``stream_large_messages`` comes in parts.

    Raises:
        TypeError: a value is not a number, or ``stream_large_messages`` not a bool.
        ValueError: a value is negative or not a number at all (NaN).
    """

    max_message_size: int = 16 * 1024 * 1024
    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    open_timeout: float | None = 10.0
    close_timeout: float = 10.0
    stream_large_messages: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.stream_large_messages, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"stream_large_messages is a bool, not {self.stream_large_messages!r}")
        check_number("max_message_size", self.max_message_size, int, least=1)
        check_number("close_timeout", self.close_timeout, (int, float))
        for name in ("ping_interval", "ping_timeout", "open_timeout"):
            value: object = getattr(self, name)
            if value is not None:
                check_number(name, value, (int, float))
        if self.ping_interval == 0:
            raise ValueError("ping_interval must be more than 0 seconds; None switches keepalive off")


def check_number(name: str, value: object, kinds: type | tuple[type, ...], least: int = 0) -> None:
    """Raise TypeError or ValueError for a number of seconds or bytes that cannot be."""
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not value >= least:  # type: ignore[operator]
        raise ValueError(f"{name} must not be under {least}, and is {value!r}")
    if kinds is not int and isinstance(value, int) and value > _MOST_SECONDS:
        # Time is counted in floats, and there is none for it.
        raise ValueError(f"{name} must not be over {_MOST_SECONDS:g} seconds: use None or math.inf for no limit")
