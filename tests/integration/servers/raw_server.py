"""A server that writes each answer to the handshake by hand, byte by byte as given, however wrong.

The path names the answer, see ``ANSWERS``; ``/status/CODE`` refuses with that status, and any other path gets an
answer that is no HTTP. A query is a name: when a client with that name has asked, and when it has left, the server
writes a line.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable

from .hosting import Arguments, announce, write_line

HELLO_AND_WORLD = b"\x81\x05hello" + b"\x82\x05world"
GOING_AWAY = b"\x88\x05" + struct.pack("!H", 1001) + b"bye"
MEBIBYTE = 1024 * 1024
GZIP_BOMB = gzip.compress(b"x" * 64 * MEBIBYTE)


class Handshake:
    """A request that was read, and the ways to answer it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.head = b""
        while not self.head.endswith(b"\r\n\r\n"):
            data = connection.recv(65536)
            if not data:
                raise ConnectionAbortedError
            self.head += data
        self.path, _, self.name = self.head.split(b" ")[1].decode().partition("?")

    def accept_value(self) -> bytes:
        key = re.search(rb"(?i)\r\nsec-websocket-key: *([^\r]*)\r\n", self.head)
        assert key is not None
        return base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())

    def switch(self, *extra: bytes, accept: bytes | None = None, frames: bytes = b"") -> None:
        """Write the 101 and the frames in one segment, then talk until the client closes."""
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + (accept or self.accept_value()),
            *extra,
        ]
        self.connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + frames)
        self.answer_close()

    def answer(self, *lines: bytes, body: bytes = b"") -> None:
        self.connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def answer_and_wait(self, *lines: bytes, body: bytes = b"") -> None:
        self.answer(*lines, body=body)
        self.wait_until_the_client_leaves()

    def answer_close(self) -> None:
        """Read small frames up to the client's close frame and send it back."""
        file = self.connection.makefile("rb")
        while len(start := file.read(2)) == 2:
            mask, payload = file.read(4), file.read(start[1] & 0x7F)
            if start[0] == 0x88:
                plain = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
                self.connection.sendall(bytes([0x88, len(plain)]) + plain)
                return

    def write_until_the_client_leaves(self, first: bytes, again: bytes) -> None:
        self.connection.sendall(first)
        while True:
            self.connection.sendall(again)

    def wait_until_the_client_leaves(self) -> None:
        while self.connection.recv(65536):
            pass

    def refuse(self, status: str) -> None:
        body = f"refused with {status}".encode()
        self.answer(
            f"HTTP/1.1 {status} Because".encode(),
            b"Connection: close",
            b"X-Reason: because",
            b"Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}".encode(),
            body=body,
        )


def early_close(shake: Handshake) -> None:
    shake.switch(frames=HELLO_AND_WORLD + GOING_AWAY)


def lenient_case(shake: Handshake) -> None:
    shake.answer(
        b"HTTP/1.1 101 Whatever",
        b"connection: keep-alive, UPGRADE",
        b"UPGRADE: WebSocket",
        b"sec-websocket-accept:  " + shake.accept_value() + b" ",
        body=HELLO_AND_WORLD,
    )
    shake.answer_close()


def early_hints(shake: Handshake) -> None:
    shake.answer(b"HTTP/1.1 103 Early Hints", b"Link: </style.css>; rel=preload")
    shake.switch(frames=HELLO_AND_WORLD)


def no_upgrade(shake: Handshake) -> None:
    shake.answer_and_wait(
        b"HTTP/1.1 101 Switching Protocols",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + shake.accept_value(),
    )


def no_connection(shake: Handshake) -> None:
    shake.answer_and_wait(
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Accept: " + shake.accept_value(),
    )


def no_accept(shake: Handshake) -> None:
    shake.answer_and_wait(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade")


def gzip_bomb(shake: Handshake) -> None:
    shake.answer_and_wait(
        b"HTTP/1.1 500 Oops",
        b"Content-Encoding: gzip",
        b"Content-Length: %d" % len(GZIP_BOMB),
        body=GZIP_BOMB,
    )


def slow_headers(shake: Handshake) -> None:
    """Each byte comes in time, and the answer never."""
    shake.connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
    while True:
        shake.connection.sendall(b"X")
        time.sleep(0.05)


def garbage(shake: Handshake) -> None:
    shake.answer_and_wait(b"SSH-2.0-OpenSSH_9.9")


ANSWERS: dict[str, Callable[[Handshake], None]] = {
    "/early": lambda shake: shake.switch(frames=HELLO_AND_WORLD),
    "/early-close": early_close,
    "/lenient-case": lenient_case,
    "/early-hints": early_hints,
    "/wrong-accept": lambda shake: shake.switch(accept=base64.b64encode(bytes(20))),
    "/no-accept": no_accept,
    "/no-upgrade": no_upgrade,
    "/no-connection": no_connection,
    "/subprotocol": lambda shake: shake.switch(b"Sec-WebSocket-Protocol: surprise"),
    "/extension": lambda shake: shake.switch(b"Sec-WebSocket-Extensions: surprise"),
    "/deflate": lambda shake: shake.switch(b"Sec-WebSocket-Extensions: permessage-deflate"),
    "/deflate-7-bits": lambda shake: shake.switch(
        b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7"
    ),
    "/large-body": lambda shake: shake.answer(
        b"HTTP/1.1 500 Oops", b"Content-Length: %d" % MEBIBYTE, body=b"x" * MEBIBYTE
    ),
    "/endless-body": lambda shake: shake.write_until_the_client_leaves(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
    "/half-a-body": lambda shake: shake.answer_and_wait(
        b"HTTP/1.1 403 Forbidden", b"Content-Length: 1000", body=b"the beginning"
    ),
    "/broken-off-body": lambda shake: shake.answer(
        b"HTTP/1.1 403 Forbidden", b"Content-Length: 1000", body=b"the beginning"
    ),
    "/broken-chunk": lambda shake: shake.answer_and_wait(
        b"HTTP/1.1 403 Forbidden", b"Transfer-Encoding: chunked", body=b"d\r\nthe beginning\r\nno number\r\n"
    ),
    "/gzip-bomb": gzip_bomb,
    "/endless-headers": lambda shake: shake.write_until_the_client_leaves(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 999),
    "/endless-status-line": lambda shake: shake.write_until_the_client_leaves(b"HTTP/1.1 200 ", b"O" * 9999),
    "/garbage": garbage,
    "/hang-up": lambda shake: None,
    "/half-an-answer": lambda shake: shake.connection.sendall(b"HTTP/1.1 101 Swi"),
    "/slow-headers": slow_headers,
    "/silence": Handshake.wait_until_the_client_leaves,
}


def serve(connection: socket.socket) -> None:
    with connection:
        name = ""
        try:
            shake = Handshake(connection)
            name = shake.name
            if name:
                write_line({"asked": name})
            if shake.path.startswith("/status/"):
                shake.refuse(shake.path.removeprefix("/status/"))
            else:
                ANSWERS.get(shake.path, garbage)(shake)
        except OSError:
            pass  # The client left in the middle, as it may.
        if name:
            write_line({"left": name})


def main() -> None:
    listener = Arguments.from_command_line().listen()
    announce(listener)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=[connection], daemon=True).start()


if __name__ == "__main__":
    main()
