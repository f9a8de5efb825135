"""What a caller can ask of a connection, checked when it is asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PerMessageDeflateExtension:
    """Parameters of permessage-deflate (RFC 7692, section 7.1): what is offered, or what was agreed to.

    A window of 15 bits (32 KiB) is the default and puts no constraint on the server.

    Raises:
        ValueError: a window is not between 8 and 15 bits.
    """

    client_no_context_takeover: bool = False
    server_no_context_takeover: bool = False
    client_max_window_bits: int = 15
    server_max_window_bits: int = 15

    def __post_init__(self) -> None:
        for name in ("client_max_window_bits", "server_max_window_bits"):
            bits: object = getattr(self, name)
            if not isinstance(bits, int) or not 8 <= bits <= 15:
                raise ValueError(f"{name} must be a whole number from 8 to 15, not {bits!r}")
