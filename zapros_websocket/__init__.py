"""A WebSocket client on top of the Zapros HTTP client: trio, asyncio, threads, and ASGI applications in process."""

from typing import TYPE_CHECKING

from ._base import AsyncBaseWebSocket as AsyncBaseWebSocket
from ._base import BaseWebSocket as BaseWebSocket
from ._byte_stream import WebSocketByteStream as WebSocketByteStream
from ._errors import ConnectionClosed as ConnectionClosed
from ._errors import HandshakeError as HandshakeError
from ._errors import HandshakeTimeoutError as HandshakeTimeoutError
from ._errors import LargeMessageError as LargeMessageError
from ._errors import UnexpectedMessageError as UnexpectedMessageError
from ._errors import WebsocketError as WebsocketError
from ._observer import Observer as Observer
from ._payloads import JsonValue as JsonValue
from ._protocol.headers import FrameHeader as FrameHeader
from ._protocol.messages import BinaryMessage as BinaryMessage
from ._protocol.messages import CloseCode as CloseCode
from ._protocol.messages import CloseMessage as CloseMessage
from ._protocol.messages import Message as Message
from ._protocol.messages import PingMessage as PingMessage
from ._protocol.messages import PongMessage as PongMessage
from ._protocol.messages import TextMessage as TextMessage
from ._protocol.options import PerMessageDeflateExtension as PerMessageDeflateExtension
from ._retries import ReconnectPolicy as ReconnectPolicy
from ._streams.transport import SocketTransport as SocketTransport

try:
    import wsproto as _wsproto
except ImportError:
    _wsproto = None  # type: ignore[assignment]

if TYPE_CHECKING or _wsproto is not None:
    from ._connect import aconnect_ws as aconnect_ws
    from ._connect import open_ws as open_ws
    from ._connection import AsyncWebSocket as AsyncWebSocket
    from ._incoming import AsyncIncomingMessage as AsyncIncomingMessage
    from ._incoming_for_threads import IncomingMessage as IncomingMessage
    from ._reconnecting import Attempt as Attempt
    from ._reconnecting import reconnecting as reconnecting
    from ._reconnecting_sync import SyncAttempt as SyncAttempt
    from ._reconnecting_sync import reconnecting_sync as reconnecting_sync
    from ._sync import WebSocket as WebSocket
    from ._sync import connect_ws as connect_ws
else:
    from ._without_wsproto import AsyncWebSocket as AsyncWebSocket
    from ._without_wsproto import WebSocket as WebSocket
    from ._without_wsproto import aconnect_ws as aconnect_ws
    from ._without_wsproto import connect_ws as connect_ws
    from ._without_wsproto import open_ws as open_ws
    from ._without_wsproto import reconnecting as reconnecting
    from ._without_wsproto import reconnecting_sync as reconnecting_sync
