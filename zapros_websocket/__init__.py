"""A WebSocket client on top of the Zapros HTTP client: trio, asyncio, and ASGI applications in process."""

from ._base import AsyncBaseWebSocket as AsyncBaseWebSocket
from ._connect import AsyncWebSocket as AsyncWebSocket
from ._connect import aconnect_ws as aconnect_ws
from ._connect import open_ws as open_ws
from ._errors import ConnectionClosed as ConnectionClosed
from ._errors import HandshakeError as HandshakeError
from ._errors import HandshakeTimeoutError as HandshakeTimeoutError
from ._errors import WebsocketError as WebsocketError
from ._protocol.messages import BinaryMessage as BinaryMessage
from ._protocol.messages import CloseCode as CloseCode
from ._protocol.messages import CloseMessage as CloseMessage
from ._protocol.messages import Message as Message
from ._protocol.messages import PingMessage as PingMessage
from ._protocol.messages import PongMessage as PongMessage
from ._protocol.messages import TextMessage as TextMessage
from ._protocol.options import PerMessageDeflateExtension as PerMessageDeflateExtension
