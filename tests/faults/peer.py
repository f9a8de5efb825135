"""A peer that misbehaves as it is asked to: ``python -m tests.faults.peer``.

Handshake and frames are written by hand, and each connection has a thread and a blocking socket of its own: what
happens on the wire is what the script says (see ``steps``). When the client has left, the peer reports what it saw of
it, as one line: the request, every frame, how TCP ended, and when.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from math import inf
from typing import ClassVar, Final, cast

from tests.integration.servers.hosting import Arguments, announce, write_line
from tests.integration.servers.raw_server import Handshake
from tests.raw_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT, frame

from .steps import ENDLESS, Step, pattern, script_of

# Generous: it only bounds what a client that never leaves costs.
PATIENCE: Final = 60.0
MOST_EVENTS: Final = 50_000
KEPT_OF_A_PAYLOAD: Final = 125
_HAS_LEFT: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class ClientLeftError(Exception):
    """The client has ended or reset TCP."""


class Performance:
    """One connection, and the script that is followed on it."""

    _all_released: ClassVar[defaultdict[str, threading.Event]] = defaultdict(threading.Event)

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._name = ""
        self._released = threading.Event()
        self._began = time.monotonic()
        self._events: list[list[object]] = []
        self._buffer = bytearray()
        self._ended = ""
        self._has_ended_tcp = False
        self._accept_value = b""

    def play(self) -> None:
        """Read the request, follow its script, and report."""
        self._connection.settimeout(PATIENCE)
        shake = Handshake(self._connection)
        self._accept_value = shake.accept_value()
        name, script = script_of(shake.path)
        self._name, self._released = name, self._all_released[name]
        self._log("request", shake.head.decode("latin-1"))
        write_line({"asked": name})
        try:
            self._follow(script)
        except (ClientLeftError, OSError) as error:
            if not self._ended:
                self._log("stopped", type(error).__name__)
        self._see_the_client_off()
        del self._all_released[name]
        write_line({"left": name, "events": self._events})

    def _follow(self, script: list[Step]) -> None:
        for name, *arguments in script:
            step = cast("Callable[..., None]", getattr(self, f"do_{name}"))
            step(*arguments)

    def _see_the_client_off(self) -> None:
        with contextlib.suppress(ClientLeftError, OSError, ValueError):
            if not self._has_ended_tcp:
                self._end_tcp()
        with contextlib.suppress(ClientLeftError, OSError, ValueError):
            while not self._ended:
                self._read_frame()
        self._connection.close()
        self._log("end", self._ended or "nothing")

    # The steps

    def do_answer(self, head: str, body: str) -> None:
        text = head.replace("{accept}", self._accept_value.decode())
        self._send(text.encode("latin-1") + bytes.fromhex(body))

    def do_drip(self, head: str, pause: float) -> None:
        for byte in head.replace("{accept}", self._accept_value.decode()).encode("latin-1"):
            self._send(bytes([byte]))
            time.sleep(pause)

    def do_write(self, data: str, times: int, pause: float) -> None:
        plain = bytes.fromhex(data)
        # In large pieces where there is no pause, so that it is the client that has to keep up.
        most = 1 if pause or not plain else max(65536 // len(plain), 1)
        left: float = inf if times == ENDLESS else times
        while left > 0:
            now = int(min(left, most))
            self._send(plain * now)
            left -= now
            if pause:
                time.sleep(pause)

    def do_large(self, opcode: int, size: int, times: int) -> None:
        message = frame(opcode, pattern(size))
        for _ in range(times):
            self._send(message)

    def do_bomb(self, size: int, fragment: int) -> None:
        compressor = zlib.compressobj(wbits=-15)
        piece = bytes(1024 * 1024)
        compressed = b"".join(compressor.compress(piece) for _ in range(size // len(piece)))
        compressed += compressor.flush(zlib.Z_SYNC_FLUSH)
        compressed = compressed.removesuffix(b"\x00\x00\xff\xff")
        fragment = fragment or len(compressed)
        for start in range(0, len(compressed), fragment):
            opcode, reserved = (CONTINUATION, 0) if start else (BINARY, RSV1)
            final = start + fragment >= len(compressed)
            self._send(frame(opcode, compressed[start : start + fragment], final=final, reserved=reserved))

    def do_count(self, number: int, size: int, pause: float) -> None:
        for n in range(number):
            self._send(frame(TEXT, f"{n + 1} ".ljust(size).encode()))
            if pause:
                time.sleep(pause)

    def do_read(self, frames: int) -> None:
        for _ in range(frames):
            self._read_frame()

    def do_read_pong(self, payload: str) -> None:
        while self._read_frame() != (PONG, True, bytes.fromhex(payload)):
            pass

    def do_read_close(self) -> None:
        while self._read_frame()[0] != CLOSE:
            pass

    def do_answer_close(self) -> None:
        while True:
            opcode, _, payload = self._read_frame()
            if opcode == CLOSE:
                self._send(frame(CLOSE, payload))
                return

    def do_echo(self) -> None:
        while True:
            opcode, is_final, payload = self._read_frame()
            self._send(frame(PONG if opcode == PING else opcode, payload, final=is_final))
            if opcode == CLOSE:
                return

    def do_hold(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._connection, _HAS_LEFT)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._released.is_set():
            if any(happened & _HAS_LEFT for _, happened in poll.poll(50)):
                return

    def do_tell(self) -> None:
        write_line({"told": self._name})

    def do_let_go(self, name: str) -> None:
        self._all_released[name].set()

    def do_await_bytes(self) -> None:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.poll(PATIENCE * 1000)

    def do_stay(self) -> None:
        self._has_ended_tcp = True
        while True:
            self._read_frame()

    def do_fin(self) -> None:
        self._has_ended_tcp = True
        self._end_tcp()

    def do_rst(self) -> None:
        self._has_ended_tcp = True
        self._ended = "reset by the peer"
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    # The wire

    def _end_tcp(self) -> None:
        # That of the plain socket: the one of a TLS socket would go on to read without TLS.
        socket.socket.shutdown(self._connection, socket.SHUT_WR)

    def _send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def _read_frame(self) -> tuple[int, bool, bytes]:
        """The opcode, whether it is final, and the payload without its mask."""
        first, second = self._take(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(self._take(2 if length == 126 else 8), "big")
        is_masked = bool(second & 0x80)
        mask = self._take(4) if is_masked else bytes(4)
        try:
            payload = self._take(length)
        except ClientLeftError:
            self._log("half a frame", first & 0x0F, length)
            raise
        keys = (mask * (length // 4 + 1))[:length]
        plain = (int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")).to_bytes(length, "little")
        facts = (first & 0x0F, bool(first & 0x80), first & 0x70, mask.hex() if is_masked else "", length)
        self._log("frame", *facts, plain[:KEPT_OF_A_PAYLOAD].hex(), zlib.crc32(plain))
        return first & 0x0F, bool(first & 0x80), plain

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                data = self._connection.recv(max(65536, min(size - len(self._buffer), 1 << 20)))
            except ConnectionResetError:
                self._ended = "RST"
                raise ClientLeftError from None
            except ssl.SSLError:
                self._ended = "a failure of TLS"
                raise ClientLeftError from None
            if not data:
                self._ended = "FIN"
                raise ClientLeftError
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _log(self, kind: str, *facts: object) -> None:
        if len(self._events) < MOST_EVENTS:
            self._events.append([round(time.monotonic() - self._began, 3), kind, *facts])


def serve(connection: socket.socket, tls: ssl.SSLContext | None) -> None:
    with contextlib.suppress(OSError, ConnectionAbortedError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            connection = tls.wrap_socket(connection, server_side=True)
        with connection:
            Performance(connection).play()


def main() -> None:
    arguments = Arguments.from_command_line()
    listener = arguments.listen()
    listener.listen(1024)
    tls = arguments.tls()
    # A thousand of them at once.
    threading.stack_size(256 * 1024)
    announce(listener)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=[connection, tls], daemon=True).start()


if __name__ == "__main__":
    main()
