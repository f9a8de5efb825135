"""A server of plain sockets and threads, which does what a trial wants of it."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from wsproto.connection import SERVER, Connection
from wsproto.events import CloseConnection, Event, Ping

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A frame as a server sends it (RFC 6455, section 5.2)."""
    first = bytes([fin << 7 | rsv1 << 6 | opcode])
    size = len(payload)
    if size < 126:
        return first + bytes([size]) + payload
    if size < 1 << 16:
        return first + b"\x7e" + size.to_bytes(2, "big") + payload
    return first + b"\x7f" + size.to_bytes(8, "big") + payload


class Side:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._protocol = Connection(SERVER)
        self._writing = threading.Lock()
        request = b""
        while b"\r\n\r\n" not in request:
            request += sock.recv(65536)
        lines = request.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}

    def accept(self, *, deflate: bool = False, key: bytes | None = None) -> None:
        """Answer with 101."""
        digest = hashlib.sha1(self.headers[b"sec-websocket-key"] + GUID).digest()
        self.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + (b"Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else b"")
            + b"Sec-WebSocket-Accept: "
            + (base64.b64encode(digest) if key is None else key)
            + b"\r\n\r\n"
        )

    def write(self, data: bytes) -> None:
        """Write all of it."""
        with self._writing:
            self.sock.sendall(data)

    def receive(self) -> list[Event]:
        """What the client has sent; nothing at the end."""
        data = self.sock.recv(1 << 20)
        if data:
            self._protocol.receive_data(data)
        return list(self._protocol.events()) if data else []

    def serve_in_a_thread(self, heard: Callable[[Event], object] = lambda event: None) -> None:
        """The same, beside what else there is to do."""

        def serve() -> None:
            with suppress(OSError):
                self.serve(heard)

        threading.Thread(target=serve, daemon=True).start()

    def serve(self, heard: Callable[[Event], object] = lambda event: None) -> None:
        """Answer pings and the close, up to the end."""
        while events := self.receive():
            for event in events:
                heard(event)
                if isinstance(event, Ping):
                    self.write(frame(10, bytes(event.payload)))
                elif isinstance(event, CloseConnection):
                    self.write(frame(8, event.code.to_bytes(2, "big") if event.code != 1005 else b""))
                    self.sock.shutdown(socket.SHUT_WR)

    def read_on(self) -> None:
        """Read whatever comes, and understand nothing of it."""
        while self.sock.recv(1 << 20):
            pass


def listen(behave: Callable[[Side], None]) -> str:
    """Have one connection served in a thread; the URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listener.accept()
        # The client may end it as it likes: what it makes of it is looked at on its side.
        with listener, sock, suppress(OSError):
            behave(Side(sock))

    threading.Thread(target=serve, daemon=True).start()
    return f"ws://127.0.0.1:{listener.getsockname()[1]}/"
