"""The embedded server, driven by wsproto's client half over a plain socket."""

from __future__ import annotations

import socket
import ssl
import struct
from collections import deque
from random import Random
from types import TracebackType
from typing import NoReturn

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from zapros_websocket.testing import MAX_MESSAGE_SIZE, EchoServer, echo_server

pytestmark = pytest.mark.anyio


class Client:
    """A connection to the server, event by event. Nothing is answered by itself."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.sent = 0
        self.received = 0
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: deque[Event] = deque()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stream.aclose()

    async def send(self, *events: Event) -> None:
        data = b"".join(self._protocol.send(event) for event in events)
        self.sent += len(data)
        await self.stream.send(data)

    async def receive(self) -> Event:
        while not self._events:
            data = await self.stream.receive()
            self.received += len(data)
            self._protocol.receive_data(data)
            self._events.extend(self._protocol.events())
        return self._events.popleft()

    async def at_end(self) -> bool:
        """Whether the server has nothing more to say and closes the stream."""
        try:
            await self.stream.receive()
        except anyio.EndOfStream:
            return not self._events
        return False


async def request(
    server: EchoServer,
    target: str = "/",
    *,
    deflate: PerMessageDeflate | None = None,
    subprotocols: tuple[str, ...] = (),
) -> Client:
    client = Client(await anyio.connect_tcp("127.0.0.1", server.port))
    extensions = [] if deflate is None else [deflate]
    await client.send(Request("127.0.0.1", target, extensions=extensions, subprotocols=[*subprotocols]))
    return client


async def connect(server: EchoServer, target: str = "/", *, deflate: PerMessageDeflate | None = None) -> Client:
    client = await request(server, target, deflate=deflate)
    assert isinstance(await client.receive(), AcceptConnection)
    return client


async def answer_to(server: EchoServer, data: bytes) -> bytes:
    """All that the server says to these bytes before it closes the stream."""
    answer = bytearray()
    async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        await stream.send(data)
        async for chunk in stream:
            answer += chunk
    return bytes(answer)


def request_with(*headers: bytes) -> bytes:
    lines = [
        b"GET / HTTP/1.1",
        b"Host: 127.0.0.1",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    ]
    return b"\r\n".join([*lines, b"", b""])


async def drain(stream: ByteStream) -> NoReturn:
    while True:
        await stream.receive()


async def say_and_drain(stream: ByteStream, data: bytes) -> NoReturn:
    await stream.send(data)
    await stream.send_eof()
    await drain(stream)


def random_frame(random: Random) -> bytes:
    head = random.choice([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x83, 0x88, 0x89, 0x8A, 0xC1, 0xC8])
    payload = random.randbytes(random.randrange(6))
    return bytes([head, 0x80 | len(payload)]) + bytes(4) + payload


async def assert_serves(server: EchoServer) -> None:
    async with await connect(server) as client:
        await client.send(TextMessage("still there?"))
        assert await client.receive() == TextMessage("still there?")


async def test_echoes_text_and_binary() -> None:
    async with echo_server() as server, await connect(server, "/echo?a=query") as client:
        assert server.url == f"ws://127.0.0.1:{server.port}/"
        for message in (TextMessage("grüße"), BytesMessage(b"\x00\xff"), TextMessage(""), BytesMessage(b"")):
            await client.send(message)
            assert await client.receive() == message


async def test_assembles_fragments() -> None:
    async with echo_server() as server, await connect(server) as client:
        await client.send(
            TextMessage("one ", message_finished=False),
            TextMessage("two ", message_finished=False),
            TextMessage("three"),
        )
        assert await client.receive() == TextMessage("one two three")
        await client.send(BytesMessage(b"1", message_finished=False), BytesMessage(b"2"))
        assert await client.receive() == BytesMessage(b"12")


async def test_a_message_of_many_reads_comes_back_whole() -> None:
    data = bytes(range(256)) * 4096
    async with echo_server() as server, await connect(server) as client:
        await client.send(BytesMessage(data))
        received = bytearray()
        while len(received) < len(data):
            event = await client.receive()
            assert isinstance(event, BytesMessage)
            received += event.data
        assert received == data


async def test_answers_pings_and_ignores_pongs() -> None:
    async with echo_server() as server, await connect(server) as client:
        await client.send(Pong(b"nobody asked"), Ping(b"once"), Ping(b""))
        assert await client.receive() == Pong(b"once")
        assert await client.receive() == Pong(b"")


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (3456, "ein Gruß"), (1005, "")])
async def test_answers_a_close_with_the_same_code_and_ends_the_stream(code: int, reason: str) -> None:
    async with echo_server() as server, await connect(server) as client:
        # A frame without a code is what 1005 stands for.
        frame = CloseConnection(code, reason) if code != 1005 else CloseConnection(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await client.send(frame)
        assert await client.receive() == CloseConnection(code, reason)
        assert await client.at_end()


@pytest.mark.parametrize(("offered", "chosen"), [(("c", "b", "a"), "b"), (("a", "b"), "a"), (("c",), None), ((), None)])
async def test_chooses_the_first_offered_subprotocol_that_it_speaks(
    offered: tuple[str, ...], chosen: str | None
) -> None:
    async with (
        echo_server(subprotocols=["a", "b"]) as server,
        await request(server, subprotocols=offered) as client,
    ):
        accept = await client.receive()
        assert isinstance(accept, AcceptConnection)
        assert accept.subprotocol == chosen


async def test_adds_the_headers_given() -> None:
    async with echo_server(headers=[("X-Served-By", "caf\xe9")]) as server, await request(server) as client:
        accept = await client.receive()
        assert isinstance(accept, AcceptConnection)
        assert accept.extra_headers == [(b"x-served-by", b"caf\xe9")]


async def test_agrees_to_permessage_deflate_and_counts_what_is_on_the_wire() -> None:
    text = "the same words again " * 1000
    async with echo_server() as server, await connect(server, deflate=PerMessageDeflate()) as client:
        before = client.received
        for _ in range(2):
            await client.send(TextMessage(text))
            assert await client.receive() == TextMessage(text)
        assert client.received - before < len(text) / 10
        assert server.traffic.received == client.sent
        assert server.traffic.sent == client.received


async def test_leaves_permessage_deflate_out_when_told_to() -> None:
    async with (
        echo_server(permessage_deflate=False) as server,
        await request(server, deflate=PerMessageDeflate()) as client,
    ):
        accept = await client.receive()
        assert isinstance(accept, AcceptConnection)
        assert accept.extensions == []


async def test_counts_and_closes() -> None:
    async with echo_server() as server, await connect(server, "/count/3") as client:
        for number in ("1", "2", "3"):
            assert await client.receive() == TextMessage(number)
        assert await client.receive() == CloseConnection(1000, "counted")
        await client.send(CloseConnection(1000))
        assert await client.at_end()


@pytest.mark.parametrize(
    ("target", "code", "reason"),
    [
        ("/close/1001/back%20at%20noon", 1001, "back at noon"),
        ("/close/4000/a/b", 4000, "a/b"),
        ("/close/1013", 1013, ""),
    ],
)
async def test_closes_as_the_path_says(target: str, code: int, reason: str) -> None:
    async with echo_server() as server, await connect(server, target) as client:
        assert await client.receive() == CloseConnection(code, reason)
        await client.send(CloseConnection(code))
        assert await client.at_end()


async def test_what_comes_between_the_two_close_frames_is_ignored() -> None:
    async with echo_server() as server, await connect(server, "/close/1000/bye") as client:
        # Not even a client that has not seen the close frame yet gets an answer to these.
        text, ping, close = b"\x81\x81\0\0\0\0a", b"\x89\x80\0\0\0\0", b"\x88\x80\0\0\0\0"
        await client.stream.send(text + ping)
        await client.stream.send(close)
        assert await client.receive() == CloseConnection(1000, "bye")
        assert await client.at_end()


async def test_a_violation_after_the_close_frame_of_the_server_ends_the_stream() -> None:
    async with echo_server() as server, await connect(server, "/close/1000/bye") as client:
        await client.stream.send(b"\x83\x80\0\0\0\0")
        assert await client.receive() == CloseConnection(1000, "bye")
        assert await client.at_end()


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/status/403", 403, b"refused on request\n"),
        ("/status/200", 200, b"refused on request\n"),
        ("/status/204", 204, b""),
        ("/status/304", 304, b""),
        ("/status/199", 404, b"there is nothing at /status/199\n"),
        ("/status/600?query", 404, b"there is nothing at /status/600\n"),
        ("/close/1006/never-sent", 404, b"there is nothing at /close/1006/never-sent\n"),
        ("/count/1000000", 404, b"there is nothing at /count/1000000\n"),
        ("/count/-1", 404, b"there is nothing at /count/-1\n"),
        ("/elsewhere", 404, b"there is nothing at /elsewhere\n"),
    ],
)
async def test_refuses_with_a_status_and_a_text(target: str, status: int, body: bytes) -> None:
    async with echo_server() as server, await request(server, target) as client:
        refusal = await client.receive()
        assert isinstance(refusal, RejectConnection)
        assert refusal.status_code == status
        assert (b"content-type", b"text/plain; charset=utf-8") in refusal.headers
        received = b""
        while True:
            part = await client.receive()
            assert isinstance(part, RejectData)
            received += part.data
            if part.body_finished:
                break
        assert received == body
        assert await client.at_end()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n", b"400"),
        (b"\x16\x03\x01 this is not HTTP\r\n\r\n", b"400"),
        # One byte over the bound, so that no byte is left unread, which would reset the connection.
        ((b"GET / HTTP/1.1\r\n" + b"X: endless\r\n" * 2000)[: 16 * 1024 + 1], b"400"),
        (request_with(b"Sec-WebSocket-Version: 8"), b"426"),
        (request_with(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Protocol: \xff"), b"400"),
        (
            request_with(
                b"Sec-WebSocket-Version: 13",
                b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=many",
            ),
            b"400",
        ),
    ],
)
async def test_refuses_a_request_that_is_no_handshake(data: bytes, status: bytes) -> None:
    async with echo_server() as server:
        answer = await answer_to(server, data)
        assert answer.startswith(b"HTTP/1.1 " + status + b" ")
        await assert_serves(server)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # an opcode that does not exist
        (b"\x81\x01a", 1002),  # not masked
        (b"\x81\x81\x00\x00\x00\x00\xff", 1007),  # not UTF-8
    ],
)
async def test_closes_on_a_violation_of_the_protocol(frame: bytes, code: int) -> None:
    async with echo_server() as server, await connect(server) as client:
        await client.stream.send(frame)
        close = await client.receive()
        assert isinstance(close, CloseConnection)
        assert close.code == code
        assert await client.at_end()


async def test_refuses_a_message_over_the_limit_and_reads_on_to_the_close() -> None:
    async with echo_server() as server, await connect(server, deflate=PerMessageDeflate()) as client:
        await client.send(BytesMessage(bytes(MAX_MESSAGE_SIZE + 1)), TextMessage("too late"))
        assert await client.receive() == CloseConnection(1009, f"over {MAX_MESSAGE_SIZE} bytes")
        await client.send(CloseConnection(1009))
        assert await client.at_end()


async def test_takes_a_message_at_the_limit() -> None:
    async with echo_server() as server, await connect(server, deflate=PerMessageDeflate()) as client:
        await client.send(BytesMessage(bytes(MAX_MESSAGE_SIZE)), CloseConnection(1000))
        size = 0
        while isinstance(event := await client.receive(), BytesMessage):
            size += len(event.data)
        assert size == MAX_MESSAGE_SIZE
        assert event == CloseConnection(1000, "")


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost:", request_with(b"Sec-WebSocket-Version: 13")])
async def test_a_client_that_vanishes_ends_its_own_connection_only(said: bytes) -> None:
    async with echo_server() as server:
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(said)
        await assert_serves(server)


@pytest.mark.parametrize("target", ["/", "/count/2", "/close/1000/bye"])
async def test_whatever_frames_a_client_sends_it_ends_its_own_connection_only(target: str) -> None:
    random = Random(6455)
    async with echo_server() as server:
        for _ in range(100):
            async with await connect(server, target, deflate=PerMessageDeflate()) as client:
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError, OSError)):
                    await say_and_drain(client.stream, b"".join(random_frame(random) for _ in range(4)))
        await assert_serves(server)


async def test_a_client_that_resets_while_the_server_writes_ends_its_own_connection_only() -> None:
    async with echo_server() as server:
        client = await connect(server, "/count/999999")
        raw = client.stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.stream.aclose()
        await assert_serves(server)


async def test_leaving_the_block_ends_every_connection() -> None:
    async with echo_server() as server:
        idle = await connect(server)
        unread = await connect(server, "/count/999999")
        silent = await anyio.connect_tcp("127.0.0.1", server.port)
    for stream in (idle.stream, unread.stream, silent):
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await drain(stream)
    with pytest.raises(OSError, match=r"connect|refused"):
        await anyio.connect_tcp("127.0.0.1", server.port)
    for stream in (idle.stream, unread.stream, silent):
        await stream.aclose()


async def test_an_exception_of_the_block_comes_out_as_itself() -> None:
    error = LookupError("of the block")
    with pytest.raises(LookupError) as caught:
        async with echo_server() as server, await connect(server):
            raise error
    assert caught.value is error


async def test_an_exception_of_the_block_survives_a_cancelled_outer_scope() -> None:
    error = LookupError("of the block")

    async def fail_when_cancelled() -> None:
        with anyio.CancelScope() as outer:
            async with echo_server():
                outer.cancel()
                raise error

    with pytest.raises(LookupError) as caught:
        await fail_when_cancelled()
    assert caught.value is error


async def test_serves_on_while_a_cancelled_block_cleans_up() -> None:
    served = False
    with anyio.CancelScope() as outer:
        async with echo_server() as server:
            try:
                outer.cancel()
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await assert_serves(server)
                    served = True
    assert served
    assert outer.cancelled_caught


async def test_speaks_tls(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    async with echo_server(tls=server_context) as server:
        assert server.url == f"wss://127.0.0.1:{server.port}/"
        stream = await anyio.connect_tcp("127.0.0.1", server.port, ssl_context=client_context)
        async with Client(stream) as client:
            await client.send(Request("127.0.0.1", "/"))
            assert isinstance(await client.receive(), AcceptConnection)
            await client.send(TextMessage("in secret"), CloseConnection(1000))
            assert await client.receive() == TextMessage("in secret")
            assert await client.receive() == CloseConnection(1000, "")
            assert await client.at_end()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_client_that_speaks_no_tls_ends_its_own_connection_only(
    server_context: ssl.SSLContext, said: bytes
) -> None:
    async with echo_server(tls=server_context) as server:
        for _ in range(2):
            async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
                await stream.send(said)
                await stream.send_eof()
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await drain(stream)


async def test_leaving_the_block_ends_tls_connections_that_do_not_answer(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with echo_server(tls=server_context) as server:
        stream = await anyio.connect_tcp("127.0.0.1", server.port, ssl_context=client_context)
        silent = await anyio.connect_tcp("127.0.0.1", server.port)
        client = Client(stream)
        await client.send(Request("127.0.0.1", "/close/1000/bye"))
        assert isinstance(await client.receive(), AcceptConnection)
    await anyio.aclose_forcefully(stream)
    await silent.aclose()
