"""A connection on a real socket that counts how often something is sent, and takes as little as a test says."""

from __future__ import annotations

import socket
import ssl
from functools import cached_property

from anyio.abc import TaskGroup
from zapros import AsyncClient

from tests.deflate import SteadyDeflate
from tests.memory import StreamHandler
from tests.protocol.wire import Server
from zapros_websocket import AsyncWebSocket, CloseMessage, Message, aconnect_ws, open_ws
from zapros_websocket._streams.sockets import SocketStream


class CountingSocket(socket.socket):
    """A socket that counts its sends, and takes no more than ``most`` bytes at once."""

    sends = 0
    most = 1 << 20
    error: OSError | None = None
    refuses_once = False

    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:  # type: ignore[override]
        self.sends += 1
        if self.error is not None:
            raise self.error
        if self.refuses_once:
            self.refuses_once = False
            raise BlockingIOError
        return super().send(data[: self.most], flags)


class Wire:
    """The client's socket, and the other end of it; with or without compression."""

    def __init__(self, *, deflates: bool = False) -> None:
        self.deflate = SteadyDeflate() if deflates else None
        ours, self.theirs = socket.socketpair()
        self.ours = CountingSocket(fileno=ours.detach())
        self.ours.setblocking(False)
        self.theirs.setblocking(False)

    @cached_property
    def peer(self) -> Server:
        # wsproto asks once whether an extension was agreed to: not before the handshake.
        return Server() if self.deflate is None else Server(self.deflate)

    @property
    def client(self) -> AsyncClient:
        return AsyncClient(handler=StreamHandler(SocketStream(self.ours, ssl.create_default_context()), self.deflate))

    def connect(self, ping_interval: float | None = 20) -> aconnect_ws:
        return aconnect_ws(
            "ws://test/",
            client=self.client,
            permessage_deflate=self.deflate is not None,
            ping_interval=ping_interval,
            close_timeout=1,
        )

    async def open(self, tasks: TaskGroup) -> AsyncWebSocket:
        deflates = self.deflate is not None
        return await open_ws(tasks, "ws://test/", client=self.client, permessage_deflate=deflates, ping_interval=None)

    def messages(self) -> list[Message]:
        """What has come out at the other end."""
        messages: list[Message] = []
        try:
            while data := self.theirs.recv(1 << 20):
                messages += self.peer.read(data)
        except BlockingIOError:
            pass
        return messages

    def read(self) -> list[object]:
        """The same, by what each message holds."""
        return [message if isinstance(message, CloseMessage) else message.data for message in self.messages()]

    def fill(self) -> int:
        """Let the socket take nothing more, and return how much that took."""
        filled = 0
        try:
            while True:
                filled += socket.socket.send(self.ours, bytes(1 << 16))
        except BlockingIOError:
            return filled

    def drain(self, filled: int) -> None:
        """Take out again what filled it."""
        while filled:
            filled -= len(self.theirs.recv(filled))
