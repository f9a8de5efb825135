"""A server at the other end of a socket pair, plain or TLS, moved by hand, and a client that gets there."""

from __future__ import annotations

import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Literal

import trustme
import zapros
from wsproto.connection import SERVER, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.events import Event as WsprotoEvent
from wsproto.extensions import PerMessageDeflate
from zapros import BaseHandler, BaseNetworkStream, Client, Request, Response, ResponseContext, SyncStream

from tests.memory import accepting

# Where TLS is done: by an ``ssl.SSLSocket``, or above a plain socket.
Tls = Literal["socket", "memory"]

# Only bounds a failure.
PATIENCE = 30.0


class Peer:
    """The server's side: it reads and writes when it is told to."""

    def __init__(self, sock: socket.socket, extension: PerMessageDeflate | None) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.protocol = Connection(SERVER, extensions=[] if extension is None else [extension])
        self._events: deque[WsprotoEvent] = deque()

    def send(self, *events: WsprotoEvent) -> None:
        """Frames, in one write."""
        self.sock.sendall(b"".join(self.protocol.send(event) for event in events))

    def receive(self) -> WsprotoEvent | None:
        """The next frame of the client; None at the end of the stream."""
        while not self._events:
            data = b""
            # TLS of both ends has said farewell.
            with suppress(ssl.SSLZeroReturnError):
                data = self.sock.recv(65536)
            if not data:
                return None
            self.protocol.receive_data(data)
            self._events.extend(self.protocol.events())
        return self._events.popleft()

    def receive_message(self) -> str | bytes:
        """The next text or binary message of the client, whole, however wsproto cuts it."""
        pieces: list[str | bytes] = []
        while True:
            event = self.receive()
            assert isinstance(event, (TextMessage, BytesMessage)), event
            pieces.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
            if event.message_finished:
                return type(pieces[0])().join(pieces)  # type: ignore[arg-type]

    def serve(self) -> CloseConnection | None:
        """Answer pings and the close, and read everything else; the close, None when there was none."""
        while (event := self.receive()) is not None:
            if isinstance(event, CloseConnection):
                self.send(event.response())
                self.end()
                return event
            self.answer(event)
        return None

    def answer(self, event: WsprotoEvent | None) -> None:
        """Answer a ping, unless the close is read already."""
        if isinstance(event, Ping) and self.protocol.state is ConnectionState.OPEN:
            self.send(event.response())

    def end(self) -> None:
        """End the stream: the farewell of TLS, and a FIN."""
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.setblocking(False)
            # It would wait for an answer, and minds what was still on its way.
            with suppress(OSError):
                self.sock.unwrap()
            self.sock.settimeout(PATIENCE)
        self.break_off()

    def break_off(self) -> None:
        """End the stream without a farewell: a FIN."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)


class PairServer(BaseHandler):
    """A handler that accepts the handshake; each accepted one is a ``peer``."""

    def __init__(
        self,
        *,
        trailing: bytes = b"",
        deflate: bool = False,
        stream: Callable[[socket.socket], BaseNetworkStream] | None = None,
        buffer: int | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.peers: list[Peer] = []
        self._trailing = trailing
        self._deflate = deflate
        self._stream = stream or _stream
        self._buffer = buffer
        self._tls = tls

    @property
    def client(self) -> Client:
        return Client(handler=self)

    @property
    def peer(self) -> Peer:
        return self.peers[-1]

    def handle(self, request: Request) -> Response:
        self.requests.append(request)
        ours, theirs = socket.socketpair()
        if self._buffer is not None:
            for sock in (ours, theirs):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffer)
        if self._tls is not None:
            stream, theirs = over_tls(ours, theirs, in_memory=self._tls == "memory")
        else:
            stream = self._stream(ours)
        headers = accepting(request)
        extension: PerMessageDeflate | None = None
        if self._deflate:
            extension = PerMessageDeflate()
            offer = extension.accept(request.headers["Sec-WebSocket-Extensions"])
            headers["Sec-WebSocket-Extensions"] = f"permessage-deflate; {offer}"
        self.peers.append(Peer(theirs, extension))
        context: ResponseContext = {"handoff": {"network_stream": stream, "trailing_data": self._trailing}}
        return Response(101, headers, context=context, request=request)

    def close(self) -> None:
        for peer in self.peers:
            peer.sock.close()


@cache
def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with authority.issue_cert("test").private_key_and_cert_chain_pem.tempfile() as path:
        of_server.load_cert_chain(path)
    # A socket that is closed with something unread in it is reset, and tickets come when nobody waits for anything.
    of_server.num_tickets = 0
    return ssl.create_default_context(cadata=authority.cert_pem.bytes().decode()), of_server


def over_tls(ours: socket.socket, theirs: socket.socket, *, in_memory: bool) -> tuple[BaseNetworkStream, ssl.SSLSocket]:
    """TLS between the two ends, shaken hands."""
    of_client, of_server = _contexts()
    accepted: list[ssl.SSLSocket] = []
    accepting = Background(lambda: accepted.append(of_server.wrap_socket(theirs, server_side=True)))
    if in_memory:
        stream = SyncStream(ours, upgrade_ssl_context=of_client).start_tls(server_hostname="test")
    else:
        stream = _stream(of_client.wrap_socket(ours, server_hostname="test"))
    accepting.result()
    return stream, accepted[0]


def _stream(sock: socket.socket) -> BaseNetworkStream:
    return SyncStream(sock, upgrade_ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


class Background(threading.Thread):
    """A function in another thread; ``result`` waits for it, and raises what it raised."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._value: object = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error

    def result(self) -> object:
        self.join(PATIENCE)
        assert not self.is_alive(), "the thread is stuck"
        if self._error is not None:
            raise self._error
        return self._value


def is_zapros_error(error: BaseException) -> bool:
    return isinstance(error, zapros.ZaprosError)
