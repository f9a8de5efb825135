"""TLS that asks for the client's certificate in the middle of a connection (RFC 8446, section 4.6.2).

The client has to answer, beside what it sends and though it may be in the middle of that.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator

import anyio
import pytest
import trustme

from tests.raw_frames import BINARY, TEXT, frame, header
from zapros_websocket import SocketTransport, TextMessage, aconnect_ws

from .clients import client_over

# More than all buffers between the two take.
PAYLOAD = bytes(range(256)) * 64 * 1024


class AskingServer:
    """Asks who the client is when it is told to, and only then reads on; in the end it says who that was."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.url = f"wss://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.ask = threading.Event()
        self.go_on = threading.Event()
        self.received = hashlib.sha256()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with self._listener, self._context.wrap_socket(sock, server_side=True) as tls:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += tls.recv(65536)
            key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
            digest = hashlib.sha1(key.partition(b":")[2].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            tls.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
            )
            self.ask.wait()
            tls.verify_client_post_handshake()
            tls.do_handshake()
            tls.sendall(frame(TEXT, b"who are you?"))
            self.go_on.wait()
            whole = len(header(BINARY, len(PAYLOAD))) + 4 + len(PAYLOAD)
            got = bytearray()
            while len(got) < whole:
                got += tls.recv(65536)
            masked = got[whole - len(PAYLOAD) :]
            mask = got[whole - len(PAYLOAD) - 4 : whole - len(PAYLOAD)] * (len(PAYLOAD) // 4)
            plain = int.from_bytes(masked, "big") ^ int.from_bytes(mask, "big")
            self.received.update(plain.to_bytes(len(PAYLOAD), "big"))
            # The answer stands behind what was encrypted before it, and in front of what is sent next.
            tls.recv(65536)
            certificate = tls.getpeercert() or {}
            tls.sendall(frame(TEXT, repr(certificate.get("subjectAltName")).encode()))
            # A close frame, to which the end is an answer.
            tls.recv(65536)

    def end(self) -> None:
        self.ask.set()
        self.go_on.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def asking(authority: trustme.CA, server_context: ssl.SSLContext) -> Iterator[AskingServer]:
    authority.configure_trust(server_context)  # pyright: ignore[reportUnknownMemberType]
    server_context.verify_mode = ssl.CERT_OPTIONAL
    server_context.post_handshake_auth = True
    server = AskingServer(server_context)
    yield server
    server.end()


@pytest.fixture
def somebody(authority: trustme.CA, client_context: ssl.SSLContext) -> ssl.SSLContext:
    """A context of a client that says who it is, when it is asked."""
    authority.issue_cert("somebody.example").configure_cert(client_context)  # pyright: ignore[reportUnknownMemberType]
    client_context.post_handshake_auth = True
    return client_context


@pytest.mark.anyio
async def test_the_client_answers_while_it_is_blocked_in_a_send(asking: AskingServer, somebody: ssl.SSLContext) -> None:
    # Over the transport of Zapros, on trio, an answer waits for the send that is in the way.
    transport = SocketTransport(ssl_context=somebody)
    async with client_over(transport) as client, aconnect_ws(asking.url, client=client) as ws:
        is_sent = False

        async def send() -> None:
            nonlocal is_sent
            await ws.send(PAYLOAD)
            is_sent = True

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            asking.ask.set()
            assert await ws.recv() == TextMessage("who are you?")
            assert not is_sent
            asking.go_on.set()
        await ws.send("next")
        answer = await ws.recv_text()
        assert "somebody.example" in answer
    assert asking.received.digest() == hashlib.sha256(PAYLOAD).digest()
