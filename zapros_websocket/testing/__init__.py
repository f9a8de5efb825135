"""Servers, an ASGI handler and a recorder, for the tests of what talks WebSocket."""

from ._echo import MAX_MESSAGE_SIZE as MAX_MESSAGE_SIZE
from ._echo import EchoServer as EchoServer
from ._echo import Traffic as Traffic
from ._echo import echo_server as echo_server
