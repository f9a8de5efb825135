"""Looking on: what goes over a connection and how it fares, told to whoever wants to know.

Invariants:

- An observer cannot break the connection: what it raises is logged, once, and goes no further.
- Nothing here is in the way of a connection that nobody observes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from zapros import Response

    from ._errors import ConnectionClosed
    from ._protocol.headers import FrameHeader
    from ._protocol.messages import Message
    from ._protocol.options import PerMessageDeflateExtension

logger: Final = logging.getLogger("zapros_websocket")


class Observer:
    """Derive from it, and override what you want to hear of; the methods of this class do nothing.

    Give one to ``aconnect_ws``, ``open_ws``, ``connect_ws``, ``reconnecting`` or ``reconnecting_sync``. It hears of one
    connection after the other in a loop that reconnects; for connections at the same time make one each.

    All methods are called in the event loop of the connection, one at a time, and have to return soon: the connection
    stands still meanwhile. For ``connect_ws`` that is the event loop in the background, so in its thread and never in
    yours. What a method raises is logged to the logger ``zapros_websocket``, the first time with each connection; the
    connection goes on, and so do the calls.
    """

    def opened(
        self, response: Response, *, subprotocol: str | None, permessage_deflate: PerMessageDeflateExtension | None
    ) -> None:
        """The opening handshake has succeeded: the answer, and what was agreed to."""

    def bytes_sent(self, count: int) -> None:
        """So many bytes of frames are handed to the transport, before TLS; the write may still fail."""

    def bytes_received(self, count: int) -> None:
        """So many bytes of frames came from the transport, after TLS."""

    def frame_sent(self, frame: FrameHeader) -> None:
        """A frame is handed to the transport (RFC 6455, section 5.2)."""

    def frame_received(self, frame: FrameHeader) -> None:
        """A frame has come, whole."""

    def message_sent(self, message: Message) -> None:
        """A message, or a ping, pong or close, is handed to the transport: as it was before compression.

        Of a message that is sent in chunks each chunk is told of as a message.
        Who overrides it pays for making the message, which was bytes already.
        """

    def message_received(self, message: Message) -> None:
        """A message, or a ping, pong or close, has come: also one that ``recv`` will not give out.

        Of a message that comes in parts each part is told of as a message.
        """

    def queue_depth(self, depth: int) -> None:
        """After each read: how many messages wait for ``recv``. At 1,024, or one MiB, reading stops until some are
        taken."""

    def round_trip(self, seconds: float) -> None:
        """The pong to a ping of this library came, of keepalive or of ``ping``, so many seconds after it."""

    def closed(self, end: ConnectionClosed, *, by: Literal["client", "server"] | None) -> None:
        """The connection has ended, and its transport is closed; it is the last call.

        ``end`` has the code and the reason, what was ``received`` and ``sent``, whether it was ``clean``, and as its
        ``__cause__`` the error of the transport. ``by`` says who closed first: the ``"client"``, also by failing the
        connection (section 7.1.7), or the ``"server"``; None when the connection was lost.
        """


class Observers:
    """The observers of one connection."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._has_raised = False
        # Whether anybody asks for the messages that are sent, which have to be made.
        self.want_sent_messages = any(type(one).message_sent is not Observer.message_sent for one in observers)

    def tell(self, what: Callable[[Observer], None]) -> None:
        """Call a method of each."""
        for observer in self._observers:
            try:
                what(observer)
            except Exception:
                if not self._has_raised:
                    self._has_raised = True
                    logger.exception(
                        "%s raised; further errors of this connection's observers are not logged", observer
                    )


def check_observer(observer: object) -> None:
    """Raise TypeError unless it is an observer, or None."""
    if observer is not None and not isinstance(observer, Observer):
        raise TypeError(f"observer is a zapros_websocket.Observer, not {type(observer).__name__}")
