"""An observer that remembers all that it was told."""

from __future__ import annotations

import threading
from typing import Literal

from zapros import Response

from zapros_websocket import ConnectionClosed, FrameHeader, Message, Observer, PerMessageDeflateExtension


class Witness(Observer):
    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []
        self.threads: set[int] = set()

    def _tell(self, what: str, value: object) -> None:
        self.threads.add(threading.get_ident())
        self.told.append((what, value))

    def of(self, what: str) -> list[object]:
        """The values that came under that name."""
        return [value for name, value in self.told if name == what]

    def total(self, what: str) -> int:
        """Their sum."""
        return sum(value for value in self.of(what) if isinstance(value, int))

    def opened(
        self, response: Response, *, subprotocol: str | None, permessage_deflate: PerMessageDeflateExtension | None
    ) -> None:
        self._tell("opened", (response.status, subprotocol, permessage_deflate is not None))

    def bytes_sent(self, count: int) -> None:
        self._tell("bytes_sent", count)

    def bytes_received(self, count: int) -> None:
        self._tell("bytes_received", count)

    def frame_sent(self, frame: FrameHeader) -> None:
        self._tell("frame_sent", frame)

    def frame_received(self, frame: FrameHeader) -> None:
        self._tell("frame_received", frame)

    def message_sent(self, message: Message) -> None:
        self._tell("message_sent", message)

    def message_received(self, message: Message) -> None:
        self._tell("message_received", message)

    def queue_depth(self, depth: int) -> None:
        self._tell("queue_depth", depth)

    def round_trip(self, seconds: float) -> None:
        self._tell("round_trip", seconds)

    def closed(self, end: ConnectionClosed, *, by: Literal["client", "server"] | None) -> None:
        self._tell("closed", (end.code, end.reason, by))
