"""What the applications of all frameworks have in common.

``/echo`` sends back every message and keeps the disconnect, ``/reject`` does not accept, ``/close`` sends one message
and closes, ``/crash`` raises.
"""

from __future__ import annotations

from typing import Final, TypeAlias

Disconnects: TypeAlias = "list[tuple[int, str | None]]"
"""The code and the reason of each disconnect that ``/echo`` saw."""

SUBPROTOCOL: Final = "chat.v2"
HEADERS: Final = {"x-framework": "yes"}
