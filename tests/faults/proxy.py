"""A network that misbehaves as it is asked to: ``python -m tests.faults.proxy``.

It carries TCP to a real server, and does not look at what it carries: plain or TLS is the same to it. A test asks for a
``Line`` to a port, and says what is to happen to the bytes that go up (from the client) and down (from the server).
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from asyncio import StreamReader, StreamWriter
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Final

from tests.integration.servers.hosting import Arguments, announce
from tests.integration.servers.relay import relay

ENDS: Final = ("stall", "drop", "fin", "rst")


@dataclass(frozen=True)
class Plan:
    """What happens to the bytes of one direction.

    ``piece`` bytes at most are written at once, with a pause of ``pause`` seconds behind each. With ``gather`` all that
    comes within so many seconds is written at once. When ``at`` bytes have passed, ``then`` happens: a ``stall`` of
    ``seconds``, after which it goes on; or a ``drop`` of all that follows, in silence; or the end of this direction
    (``fin``), or a reset of both (``rst``). ``seed`` draws all of this anew for each connection.
    """

    piece: int = 65536
    pause: float = 0.0
    gather: float = 0.0
    at: int = -1
    then: str = ""
    seconds: float = 0.0
    seed: int = -1


def drawn(plan: Plan, connection: int, direction: str) -> Plan:
    """The plan of one connection: that of the line, or what its seed gives."""
    if plan.seed < 0:
        return plan
    dice = random.Random(f"{plan.seed} {connection} {direction}")
    then = dice.choice(("", *ENDS))
    # In silence only a ping finds out: that takes long, and need not be often.
    if then == "drop" and dice.random() < 0.75:
        then = "stall"
    return Plan(
        piece=dice.choice((1, 7, 1000, 65536, 65536, 65536)) if dice.random() < 0.5 else 65536,
        pause=dice.choice((0.0, 0.0, 0.001)),
        gather=dice.choice((0.0, 0.0, 0.02)),
        at=int(10 ** dice.uniform(1.5, 6)),
        then=then,
        seconds=dice.uniform(0, 1),
    )


class Line:
    """A way to a port through the proxy, for as long as the block lasts."""

    def __init__(self, proxy: int, to: int, up: Plan, down: Plan) -> None:
        self._proxy = proxy
        self._wish = {"to": to, "up": asdict(up), "down": asdict(down)}

    def __enter__(self) -> int:
        """The port to connect to."""
        self._control = socket.create_connection(("127.0.0.1", self._proxy))
        with self._control.makefile("rw", encoding="ascii") as file:
            file.write(json.dumps(self._wish) + "\n")
            file.flush()
            port: int = json.loads(file.readline())
        return port

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._control.close()


class Reset(Exception):
    """The plan says that both directions end here."""


async def carry(plan: Plan, reader: StreamReader, writer: StreamWriter) -> None:
    """Carry one direction to its end, as planned."""
    left = plan.at if plan.then else -1
    while data := await _next(plan, reader):
        kept = data if left < 0 else data[:left]
        await _write(plan, writer, kept)
        if left < 0:
            continue
        left -= len(kept)
        if left:
            continue
        left = -1
        if plan.then == "rst":
            raise Reset
        if plan.then == "fin":
            writer.write_eof()
        if plan.then in ("fin", "drop"):
            while await reader.read(65536):
                pass
            if plan.then == "drop":
                # Who was not told that it ended is told that it broke.
                raise Reset
            return
        await asyncio.sleep(plan.seconds)
        await _write(plan, writer, data[len(kept) :])
    writer.write_eof()


async def _next(plan: Plan, reader: StreamReader) -> bytes:
    data = await reader.read(65536)
    if plan.gather and data:
        await asyncio.sleep(plan.gather)
        while True:
            try:
                more = await asyncio.wait_for(reader.read(65536), 0.001)
            except asyncio.TimeoutError:
                break
            if not more:
                break
            data += more
    return data


async def _write(plan: Plan, writer: StreamWriter, data: bytes) -> None:
    for start in range(0, len(data), plan.piece):
        writer.write(data[start : start + plan.piece])
        await writer.drain()
        if plan.pause:
            await asyncio.sleep(plan.pause)


class Proxy:
    """The lines that were asked for."""

    def __init__(self) -> None:
        self._connections = 0

    async def serve_control(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Open a line, and close it when it is not wanted any more."""
        wish = json.loads(await reader.readline())
        up, down = Plan(**wish["up"]), Plan(**wish["down"])

        serving: set[asyncio.Task[None]] = set()

        async def serve(client_reader: StreamReader, client_writer: StreamWriter) -> None:
            # The line knows its connections: nobody else may, when neither side of one reads any more.
            task = asyncio.current_task()
            assert task is not None
            serving.add(task)
            try:
                await self._serve(client_reader, client_writer, wish["to"], up, down)
            finally:
                serving.discard(task)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
        writer.write(json.dumps(server.sockets[0].getsockname()[1]).encode() + b"\n")
        await reader.read()
        server.close()
        for task in serving:
            task.cancel()
        writer.close()

    async def _serve(self, reader: StreamReader, writer: StreamWriter, to: int, up: Plan, down: Plan) -> None:
        self._connections += 1
        number = self._connections
        up, down = drawn(up, number, "up"), drawn(down, number, "down")
        server: tuple[StreamReader, StreamWriter] | None = None
        try:
            server = await asyncio.open_connection("127.0.0.1", to)
            for stream in (writer, server[1]):
                sock: socket.socket = stream.get_extra_info("socket")
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await relay(
                (reader, writer),
                server,
                up=lambda source, target: carry(up, source, target),
                down=lambda source, target: carry(down, source, target),
            )
        except (Reset, OSError, asyncio.CancelledError):
            for stream in [writer, *([] if server is None else [server[1]])]:
                _reset(stream)
        finally:
            writer.close()
            if server is not None:
                server[1].close()


def _reset(writer: StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    if not writer.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main() -> None:
    listener = Arguments.from_command_line().listen()
    server = await asyncio.start_server(Proxy().serve_control, sock=listener)
    announce(listener)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
