"""The scripted server, against the client: what it expects, sends, and does to a connection."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from typing import cast
from unittest.mock import ANY

import anyio
import pytest
import trustme
from zapros import AsyncClient, AsyncStdNetworkHandler, ConnectionError, ReadError

from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    HandshakeError,
    PerMessageDeflateExtension,
    PingMessage,
    PongMessage,
    SocketTransport,
    TextMessage,
    aconnect_ws,
    open_ws,
)
from zapros_websocket.testing import Script, scripted_server

pytestmark = pytest.mark.anyio

MEBIBYTE = bytes(range(256)) * 4096


async def test_a_conversation_goes_as_the_script_says() -> None:
    script = (
        Script()
        .expect_text("subscribe")
        .send_text("grüße")
        .send_json({"price": 1})
        .send_binary(b"\x00\xff")
        .expect_binary(MEBIBYTE)
        .expect_close(3000, "enough")
    )
    async with scripted_server(script) as server, aconnect_ws(server.url) as ws:
        await ws.send("subscribe")
        received = [await ws.recv() for _ in range(3)]
        assert received == [TextMessage("grüße"), TextMessage('{"price": 1}'), BinaryMessage(b"\x00\xff")]
        await ws.send(MEBIBYTE)
        await ws.close(3000, "enough")
        assert (ws.close_code, ws.close_reason) == (3000, "enough")


async def test_an_empty_script_accepts_and_answers_the_close() -> None:
    async with scripted_server(Script()) as server, aconnect_ws(server.url) as ws:
        await ws.close(4000, "bye")
        assert (ws.close_code, ws.close_reason) == (4000, "bye")


async def test_what_is_expected_can_be_a_pattern_a_function_or_anything() -> None:
    script = (
        Script()
        .expect_text(re.compile(r"id-\d+"))
        .expect_text(str.isupper)
        .expect_text()
        .expect_json({"op": "subscribe", "id": ANY})
        .expect_json((2).__eq__)
        .expect_binary(lambda data: len(data) == 3)
        .expect_binary()
        .expect_anything()
        .expect_anything()
        .expect_anything()
    )
    async with scripted_server(script) as server, aconnect_ws(server.url) as ws:
        for message in ("id-12", "LOUD", "", '{"id": 7, "op": "subscribe"}', "2", b"123", b"", "a text", b"bytes"):
            await ws.send(message)


async def test_the_client_may_send_in_fragments() -> None:
    async with scripted_server(Script().expect_binary(b"whole")) as server, aconnect_ws(server.url) as ws:
        await ws.send(b"whole")


async def test_the_request_is_checked_and_kept() -> None:
    script = Script().expect_request(
        "/feed?x=1", headers={"Authorization": "Bearer a", "X-More": re.compile("[ab]")}, subprotocols=("v2", "v1")
    )
    async with scripted_server(script.accept("v1", headers=[("X-Served", "yes")])) as server:
        headers = {"Authorization": "Bearer a", "x-more": "b"}
        url = f"{server.url}feed?x=1"
        async with aconnect_ws(url, headers=headers, subprotocols=["v2", "v1"], permessage_deflate=True) as ws:
            assert ws.subprotocol == "v1"
            assert ws.response.headers["X-Served"] == "yes"
        (request,) = server.requests
        assert request.target == "/feed?x=1"
        assert request.subprotocols == ("v2", "v1")
        assert request.headers["authorization"] == "Bearer a"
        assert request.headers["host"] == f"127.0.0.1:{server.port}"
        assert request.headers["sec-websocket-protocol"] == "v2, v1"
        assert request.headers["sec-websocket-extensions"] == "permessage-deflate; client_max_window_bits"


@pytest.mark.parametrize(
    "offer",
    [
        True,
        PerMessageDeflateExtension(client_no_context_takeover=True, server_no_context_takeover=True),
        PerMessageDeflateExtension(client_max_window_bits=9, server_max_window_bits=10),
    ],
)
async def test_compression_is_agreed_to_and_used_both_ways(offer: bool | PerMessageDeflateExtension) -> None:
    text = "the same words again " * 100
    script = Script().expect_text(text).send_text(text).expect_text(text).send_fragments(text, text, "").send_text("")
    async with scripted_server(script) as server, aconnect_ws(server.url, permessage_deflate=offer) as ws:
        assert ws.permessage_deflate is not None
        if isinstance(offer, PerMessageDeflateExtension):
            assert ws.permessage_deflate == offer
        for expected in (text, text + text):
            await ws.send(text)
            assert await ws.recv() == TextMessage(expected)
        assert await ws.recv() == TextMessage("")


async def test_compression_can_be_declined() -> None:
    script = Script().accept(permessage_deflate=False).send_text("plain")
    async with scripted_server(script) as server, aconnect_ws(server.url, permessage_deflate=True) as ws:
        assert ws.permessage_deflate is None
        assert await ws.recv() == TextMessage("plain")


async def test_a_window_that_the_server_does_not_have_is_not_agreed_to() -> None:
    offer = PerMessageDeflateExtension(server_max_window_bits=8)
    async with scripted_server(Script()) as server, aconnect_ws(server.url, permessage_deflate=offer) as ws:
        assert ws.permessage_deflate is None


async def test_pings_of_the_client_are_answered_wherever_something_else_is_expected() -> None:
    async with scripted_server(Script().expect_text("after")) as server, aconnect_ws(server.url) as ws:
        assert await ws.ping() > 0
        await ws.send(PongMessage(b"nobody asked"))
        await ws.send("after")
        assert await ws.ping() > 0


async def test_a_ping_can_be_expected_and_left_unanswered() -> None:
    script = Script().expect_ping(b"one").expect_ping(b"two", answer=False).expect_ping()
    async with scripted_server(script) as server, aconnect_ws(server.url) as ws:
        for payload in (b"one", b"two", b"three"):
            await ws.send(PingMessage(payload))
        assert [await ws.recv(), await ws.recv()] == [PongMessage(b"one"), PongMessage(b"three")]


async def test_a_server_that_answers_no_ping_is_found_out_by_keepalive() -> None:
    script = Script(answers_pings=False).expect_text("never comes")
    with pytest.raises(AssertionError, match="never comes"):
        async with (
            scripted_server(script) as server,
            aconnect_ws(server.url, ping_interval=0.01, ping_timeout=0.02) as ws,
        ):
            with pytest.raises(ConnectionClosed, match="ping timeout"):
                await ws.recv()


async def test_the_server_pings() -> None:
    script = Script().send_ping(b"there?").expect_pong(b"there?").send_pong(b"unasked").send_ping()
    async with scripted_server(script) as server, aconnect_ws(server.url) as ws:
        assert [await ws.recv() for _ in range(3)] == [
            PingMessage(b"there?"),
            PongMessage(b"unasked"),
            PingMessage(b""),
        ]


async def test_fragments_with_a_ping_in_between() -> None:
    script = (
        Script()
        .send_fragments("he", PingMessage(b"p"), "l", "lo")
        .send_fragments(b"wh", b"", PongMessage(b"q"), b"ole")
        .expect_pong(b"p")
        .send_text("it came")
    )
    for deflate in (False, True):
        async with (
            scripted_server(script) as server,
            aconnect_ws(server.url, permessage_deflate=deflate) as ws,
        ):
            received = [await ws.recv() for _ in range(4)]
            assert received == [PingMessage(b"p"), TextMessage("hello"), PongMessage(b"q"), BinaryMessage(b"whole")]
            assert await ws.recv() == TextMessage("it came")


@pytest.mark.parametrize("pieces", [(), (PingMessage(),), ("text", b"bytes")])
def test_fragments_are_of_one_kind(pieces: tuple[str | bytes | PingMessage, ...]) -> None:
    with pytest.raises(TypeError, match="fragments of one message"):
        Script().send_fragments(*pieces)


WRITTEN: list[tuple[Callable[[Script], object], type[Exception]]] = [
    (lambda script: script.send_text("\ud800"), ValueError),
    (lambda script: script.send_text(cast("str", b"bytes")), TypeError),
    (lambda script: script.send_binary(cast("bytes", "text")), TypeError),
    (lambda script: script.send_ping(bytes(126)), ValueError),
    (lambda script: script.close(1 << 16), ValueError),
    (lambda script: script.send_close(-1), ValueError),
    (lambda script: script.close(1000, "x" * 124), ValueError),
    (lambda script: script.accept(headers=[("X-A", "line\r\nbreak")]), ValueError),
    (lambda script: script.refuse(403, headers=[("X A", "")]), ValueError),
    (lambda script: script.refuse(101), ValueError),
    (lambda script: script.refuse(cast("int", "403")), TypeError),
    (lambda script: script.refuse(403, body=cast("bytes", 5)), TypeError),
    (lambda script: script.accept(cast("str", 5)), TypeError),
    (lambda script: script.send_raw(cast("bytes", "text")), TypeError),
    (lambda script: script.send_fragments("text", cast("str", 5)), TypeError),
    (lambda script: script.expect_text(cast("str", 5)), TypeError),
    (lambda script: script.expect_text(cast("str", b"bytes")), TypeError),
    (lambda script: script.expect_text(cast("str", re.compile(b"bytes"))), TypeError),
    (lambda script: script.expect_binary(cast("bytes", "text")), TypeError),
    (lambda script: script.expect_binary(cast("bytes", re.compile("text"))), TypeError),
    (lambda script: script.expect_ping(cast("bytes", None)), TypeError),
    (lambda script: script.expect_pong(cast("bytes", "text")), TypeError),
    (lambda script: script.expect_close(cast("int", "1000")), TypeError),
    (lambda script: script.expect_close(1000, cast("str", 5)), TypeError),
    (lambda script: scripted_server(script, cast("Script", "no script")), TypeError),
    (lambda script: scripted_server(script, timeout=-1), ValueError),
    (lambda script: scripted_server(script, timeout=cast("float", "5")), TypeError),
]


@pytest.mark.parametrize(("write", "error"), WRITTEN)
def test_what_no_server_could_do_is_said_where_it_is_written(
    write: Callable[[Script], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        write(Script())


async def test_a_close_code_that_may_not_be_sent_fails_the_client() -> None:
    async with scripted_server(Script().send_close(1006).expect_close(1002)) as server, aconnect_ws(server.url) as ws:
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.code == 1002


async def test_bytes_that_are_no_frame_fail_the_client() -> None:
    script = Script().accept().send_raw(b"\x83\x00").expect_close(1002, ANY)
    async with scripted_server(script) as server, aconnect_ws(server.url) as ws:
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.code == 1002


async def test_bytes_that_are_no_http() -> None:
    async with scripted_server(Script().send_raw(b"SSH-2.0-OpenSSH\r\n\r\n")) as server:
        with pytest.raises(HandshakeError, match="not HTTP"):
            async with aconnect_ws(server.url):
                pytest.fail("that was no answer")


async def test_the_server_closes() -> None:
    script = Script().accept().pause("until something is under way").close(1013, "come back")
    async with scripted_server(script) as server, aconnect_ws(server.url) as ws:
        await ws.send("this is under way when the server closes")
        server.resume("until something is under way")
        assert await ws.recv() == CloseMessage(1013, "come back")


async def test_a_close_frame_without_a_code() -> None:
    async with scripted_server(Script().close(1005)) as server, aconnect_ws(server.url) as ws:
        assert await ws.recv() == CloseMessage(1005, "")


async def test_a_close_frame_that_waits_for_no_answer() -> None:
    script = Script().send_close(4001, "that is all").expect_close(4001)
    async with scripted_server(script) as server, aconnect_ws(server.url) as ws:
        assert [message async for message in ws] == []
        assert (ws.close_code, ws.close_reason) == (4001, "that is all")


async def test_a_close_that_is_never_answered() -> None:
    script = Script().expect_close(answer=False).stall()
    async with scripted_server(script) as server, aconnect_ws(server.url, close_timeout=0.05) as ws:
        await ws.close()
        assert ws.close_code == 1006


async def test_the_codes_that_others_do_not_know() -> None:
    script = Script().expect_close(1014, "bad gateway")
    async with scripted_server(script) as server, aconnect_ws(server.url) as ws:
        await ws.close(1014, "bad gateway")


async def test_a_refusal_with_headers_and_a_body() -> None:
    script = Script().refuse(403, headers=[("X-Why", "no"), ("Content-Type", "text/plain")], body="not for you")
    async with scripted_server(script, Script().refuse(503, body=b"\x00")) as server:
        with pytest.raises(HandshakeError) as caught:
            async with aconnect_ws(server.url):
                pytest.fail("it was refused")
        response = caught.value.response
        assert response is not None
        assert (response.status, response.headers["X-Why"], response.text) == (403, "no", "not for you")
        with pytest.raises(HandshakeError):
            async with aconnect_ws(server.url):
                pytest.fail("it was refused")


@pytest.mark.parametrize("script", [Script().send_text("too early"), Script().accept()])
def test_the_answer_to_the_handshake_comes_first(script: Script) -> None:
    with pytest.raises(ValueError, match="put it first"):
        script.accept()
    with pytest.raises(ValueError, match="put it first"):
        script.refuse(403)


async def test_a_reset_in_the_middle() -> None:
    async with scripted_server(Script().expect_text("go").drop()) as server, aconnect_ws(server.url) as ws:
        await ws.send("go")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.code == 1006
        assert isinstance(caught.value.__cause__, (ReadError, OSError))


async def test_an_end_in_the_middle() -> None:
    async with scripted_server(Script().send_text("last words").end()) as server, aconnect_ws(server.url) as ws:
        assert await ws.recv() == TextMessage("last words")
        with pytest.raises(ConnectionClosed, match="without a close frame"):
            await ws.recv()


@pytest.mark.parametrize("script", [Script().drop(), Script().end()])
async def test_an_end_in_the_place_of_an_answer(script: Script) -> None:
    async with scripted_server(script) as server:
        with pytest.raises((ConnectionError, HandshakeError, ReadError)):
            async with aconnect_ws(server.url):
                pytest.fail("there was no answer")


async def test_a_server_that_never_answers_the_handshake() -> None:
    async def connect() -> None:
        async with aconnect_ws(server.url):
            pytest.fail("there was no answer")

    script = Script().pause("asked").stall()
    async with scripted_server(script) as server, anyio.create_task_group() as tasks:
        tasks.start_soon(connect)
        await server.reached("asked")
        server.resume("asked")
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


async def test_the_test_says_when_a_script_goes_on() -> None:
    script = Script().pause("before").accept().send_text("one").pause("between").send_text("two")
    async with scripted_server(script) as server, anyio.create_task_group() as tasks:

        async def direct() -> None:
            await server.reached("before")
            server.resume("before")
            await server.reached("between")
            server.resume("between")

        tasks.start_soon(direct)
        async with aconnect_ws(server.url) as ws:
            assert [await ws.recv(), await ws.recv()] == [TextMessage("one"), TextMessage("two")]
        await server.reached("between")


async def test_a_pause_can_be_resumed_before_it_is_reached() -> None:
    async with scripted_server(Script().accept().pause("p").send_text("one")) as server:
        server.resume("p")
        async with aconnect_ws(server.url) as ws:
            assert await ws.recv() == TextMessage("one")


async def test_a_stall_reads_nothing_although_the_request_was_there_before_the_server() -> None:
    async with scripted_server(Script().accept().stall()) as server:
        host, port = server.url.removeprefix("ws://").strip("/").split(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(
                b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            sock.setblocking(False)
            await anyio.wait_readable(sock)
            taken = 0
            for _ in range(200):
                try:
                    taken += sock.send(MEBIBYTE)
                except BlockingIOError:
                    await anyio.wait_all_tasks_blocked()
            # What the kernel keeps, and no more.
            assert taken < 64 * len(MEBIBYTE)


async def test_a_pause_that_no_script_has() -> None:
    async with scripted_server(afterwards=Script().pause("there")) as server:
        with pytest.raises(ValueError, match="'nowhere'; there is 'there'"):
            server.resume("nowhere")
    async with scripted_server() as server:
        with pytest.raises(ValueError, match="none at all"):
            await server.reached("nowhere")


async def test_several_connections_in_sequence() -> None:
    first, second = Script().accept().drop(), Script().expect_text("again").send_text("welcome back")
    async with scripted_server(first, second, afterwards=Script().echo()) as server:
        async with aconnect_ws(server.url) as ws:
            with pytest.raises(ConnectionClosed):
                await ws.recv()
        async with aconnect_ws(server.url) as ws:
            await ws.send("again")
            assert await ws.recv() == TextMessage("welcome back")
        for _ in range(2):
            async with aconnect_ws(server.url) as ws:
                await ws.send("echo")
                assert await ws.ping() > 0
                assert await ws.recv() == TextMessage("echo")
        assert len(server.requests) == 4


async def test_an_echo_that_is_still_open_misses_nothing() -> None:
    async with anyio.create_task_group() as tasks:
        async with scripted_server(Script().echo()) as server:
            ws = await open_ws(tasks, server.url)
            await ws.send("hi")
            assert await ws.recv() == TextMessage("hi")
        with pytest.raises(ConnectionClosed):
            await ws.recv()


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: 1\r\nX-A: 2\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize("script", [Script().accept().expect_end(), Script().echo(), Script()])
async def test_the_client_ends_tcp_without_a_close_frame(script: Script) -> None:
    async with scripted_server(script) as server:
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(HANDSHAKE)
            assert (await stream.receive()).startswith(b"HTTP/1.1 101 ")
            await stream.send(b"\x89\x80\0\0\0\0")
            assert await stream.receive() == b"\x8a\x00"
            await stream.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        assert server.requests[0].headers["x-a"] == "1, 2"


async def test_the_transcript_says_it_all() -> None:
    script = Script().expect_text("hi").send_binary(b"\x00\x01").send_raw(b"\x8a\x00")
    async with scripted_server(script) as server:
        async with aconnect_ws(f"{server.url}x") as ws:
            await ws.send("hi")
            assert await ws.recv() == BinaryMessage(b"\x00\x01")
        lines = [f"{entry.sender} {entry.said()}" for entry in server.transcript]
    assert lines == [
        'client request "/x"',
        "server accept",
        'client text "hi"',
        "server binary base64:AAE=",
        "server raw base64:igA=",
        "client close 1000",
        "server close 1000",
        "server end",
    ]


async def test_over_tls() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    trusting = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    handler = AsyncStdNetworkHandler(transport=SocketTransport(ssl_context=trusting))
    scripts = Script().expect_text("hi").send_text("secret").end(), Script().accept().drop()
    async with scripted_server(*scripts, tls=context) as server, AsyncClient(handler) as client:
        assert server.url == f"wss://127.0.0.1:{server.port}/"
        async with aconnect_ws(server.url, client=client) as ws:
            await ws.send("hi")
            assert await ws.recv() == TextMessage("secret")
            with pytest.raises(ConnectionClosed, match="without a close frame"):
                await ws.recv()
        async with aconnect_ws(server.url, client=client) as ws:
            with pytest.raises(ConnectionClosed):
                await ws.recv()
