"""What a client that does otherwise than its script brings about, and how the error says so."""

from __future__ import annotations

from typing import cast

import anyio
import pytest
from anyio.abc import ByteStream, SocketStream

from zapros_websocket import CloseMessage, ConnectionClosed, HandshakeError, aconnect_ws
from zapros_websocket.testing import Script, ScriptFailed, scripted_server
from zapros_websocket.testing._peer import ClientLeft, Peer
from zapros_websocket.testing._recording import Log

pytestmark = pytest.mark.anyio


class BlockError(Exception):
    """What a block raises."""


async def test_the_error_says_what_was_expected_what_came_and_what_had_been_exchanged() -> None:
    script = Script().expect_text("one").send_binary(bytes(300)).expect_text("two")
    with pytest.raises(ScriptFailed) as caught:
        async with scripted_server(script) as server, aconnect_ws(server.url) as ws:
            await ws.send("one")
            await ws.recv()
            await ws.send(b"\x00")
            close = await ws.recv()
            assert close == CloseMessage(1011, "the script failed: binary base64:AA== came")
    first, heading, *lines = str(caught.value).splitlines()
    assert first == "connection 1, step 4 of 4: expect_text('two'), but binary base64:AA== came"
    assert heading.strip() == "what had been exchanged (connection, seconds, > client or < server):"
    said = [line.split(maxsplit=2)[2] for line in lines]
    assert said[:3] == ['> request "/"', "< accept", '> text "one"']
    assert said[3].startswith("< binary base64:AAAA")
    assert said[3].endswith("... (300 bytes)")
    assert said[4:] == ["> binary base64:AA=="]


async def test_the_failure_takes_the_place_of_what_the_client_ran_into() -> None:
    with pytest.raises(ScriptFailed) as caught:
        async with scripted_server(Script().expect_text("this")) as server, aconnect_ws(server.url) as ws:
            await ws.send("that")
            await ws.recv()
            await ws.recv()
    assert isinstance(caught.value.__context__, ConnectionClosed)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (Script().expect_text("x"), "expect_text('x'), but close 1000 came"),
        (Script().expect_binary(b"x"), "expect_binary(b'x'), but close 1000 came"),
        (Script().expect_json({"a": 1}), "expect_json({'a': 1}), but close 1000 came"),
        (Script().expect_ping(), "expect_ping(), but close 1000 came"),
        (Script().expect_pong(b"x"), "expect_pong(b'x'), but close 1000 came"),
        (Script().expect_close(1001), "expect_close(1001), but close 1000 came"),
        (Script().expect_close(1000, "bye"), "expect_close(1000, 'bye'), but close 1000 came"),
        (Script().expect_end(), "expect_end(), but close 1000 came"),
        (Script().expect_close().send_text("x"), "send_text('x'), but the client was gone"),
    ],
)
async def test_a_client_that_closes_too_early(script: Script, message: str) -> None:
    with pytest.raises(ScriptFailed) as caught:
        async with scripted_server(script) as server, aconnect_ws(server.url):
            pass
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("script", "sent", "message"),
    [
        (Script().expect_text("x"), "y", 'text "y" came'),
        (Script().expect_text("x"), b"x", "binary base64:eA== came"),
        (Script().expect_json(1), "no json", 'text "no json" came'),
        (Script().expect_binary(b"x"), b"y", "binary base64:eQ== came"),
        (Script().expect_ping(), "y", 'text "y" came'),
        (Script(), "surplus", 'the script of connection 1 was done, but text "surplus" came'),
        (Script().expect_text(lambda text: 1 / 0), "y", "ZeroDivisionError"),
    ],
)
async def test_a_client_that_says_something_else(script: Script, sent: str | bytes, message: str) -> None:
    with pytest.raises(ScriptFailed) as caught:
        async with scripted_server(script) as server, aconnect_ws(server.url) as ws:
            await ws.send(sent)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (Script().expect_request("/other"), "the request was for '/feed'"),
        (Script().expect_request(subprotocols=("v1",)), "the subprotocols () were offered"),
        (Script().expect_request(headers={"X-A": "b"}), "the header X-A was 'a'"),
        (Script().expect_request("/feed", headers={"X-B": "b"}), "the header X-B was not there"),
    ],
)
async def test_a_request_that_is_not_as_expected_is_refused(script: Script, message: str) -> None:
    with pytest.raises(ScriptFailed) as caught:
        async with scripted_server(script) as server:
            async with aconnect_ws(f"{server.url}feed", headers={"X-A": "a"}):
                pytest.fail("it was to be refused")
    assert message in str(caught.value)
    error = caught.value.__context__
    assert isinstance(error, HandshakeError)
    assert error.response is not None
    assert error.response.status == 500
    assert error.response.text == f"the script failed: {message}\n"


async def test_nothing_comes_in_time() -> None:
    with pytest.raises(ScriptFailed, match=r"expect_text\('x'\), but that did not happen within 0.5 seconds"):
        async with scripted_server(Script().expect_text("x"), timeout=0.5) as server, aconnect_ws(server.url) as ws:
            assert await ws.recv() == CloseMessage(1011, "the script failed: that did not happen within 0.5 seconds")


async def test_a_client_that_ends_tcp_too_early() -> None:
    with pytest.raises(ScriptFailed, match=r"expect_text\(\), but the client ended TCP"):
        async with scripted_server(Script().expect_text()) as server:
            await say(server.port, HANDSHAKE)


async def test_a_client_that_is_gone_is_told_with_the_name_of_an_error_that_says_nothing() -> None:
    class Gone:
        async def send(self, _: bytes) -> None:
            raise anyio.BrokenResourceError

    peer = Peer(1, cast("SocketStream", Gone()), cast("ByteStream", Gone()), Log(anyio.current_time, str))
    with pytest.raises(ClientLeft, match=r"the client was gone \(BrokenResourceError\)"):
        await peer.send_raw(b"x")


async def test_long_messages_are_cut_short() -> None:
    with pytest.raises(ScriptFailed) as caught:
        async with scripted_server(Script().expect_binary(bytes(100_000))) as server, aconnect_ws(server.url) as ws:
            await ws.send(b"x" * 100_000)
    assert len(str(caught.value)) < 2000
    assert "(400003 characters)" in str(caught.value)


async def test_a_request_may_come_in_pieces() -> None:
    async with scripted_server(Script().accept().expect_end()) as server:
        await say(server.port, HANDSHAKE[:40], HANDSHAKE[40:])


async def test_a_close_frame_that_is_not_answered() -> None:
    with pytest.raises(ScriptFailed, match="ended TCP without a close frame"):
        async with scripted_server(Script().close()) as server:
            await say(server.port, HANDSHAKE)


async def test_the_first_failure_is_the_one_that_is_told() -> None:
    with pytest.raises(ScriptFailed, match=r'connection 1, .* but text "first" came'):
        async with scripted_server(afterwards=Script().expect_text("x")) as server:
            for text in ("first", "second"):
                async with aconnect_ws(server.url) as ws:
                    await ws.send(text)
            async with aconnect_ws(server.url):
                pass


async def test_a_connection_that_never_comes() -> None:
    with pytest.raises(ScriptFailed, match="connection 2 was never opened: there are scripts for 2"):
        async with scripted_server(Script(), Script()) as server, aconnect_ws(server.url):
            pass
    with pytest.raises(ScriptFailed, match=r"connection 1 was never opened.*\n *nothing had been exchanged"):
        async with scripted_server(Script()):
            pass


async def test_a_connection_too_many() -> None:
    with pytest.raises(ScriptFailed, match="scripts for 1 connections, and this is one more"):
        async with scripted_server(Script()) as server:
            for _ in range(2):
                async with aconnect_ws(server.url):
                    pass


async def test_a_pause_that_is_not_resumed() -> None:
    with pytest.raises(ScriptFailed, match=r"pause\('p'\), but the test ended and did not resume it"):
        async with scripted_server(Script().accept().pause("p")) as server, aconnect_ws(server.url, close_timeout=0.05):
            pass


async def test_waiting_for_a_pause_ends_with_the_failure_of_the_script() -> None:
    with pytest.raises(ScriptFailed):
        async with scripted_server(Script().expect_text("x").pause("p")) as server, aconnect_ws(server.url) as ws:
            await ws.send("y")
            with pytest.raises(ScriptFailed, match='text "y" came'):
                await server.reached("p")
            with pytest.raises(ScriptFailed):
                server.check()


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b""])
async def test_a_request_that_is_no_handshake(request_line: bytes) -> None:
    with pytest.raises(ScriptFailed, match=r"no opening handshake|ended TCP"):
        async with scripted_server(Script()) as server:
            await say(server.port, request_line)


@pytest.mark.parametrize(
    "frame", [b"\x81\x01a", b"\x83\x80\0\0\0\0", b"\x89\xfe\x00\x7e\0\0\0\0", b"\x88\x82\0\0\0\0\x03\xed"]
)
async def test_a_violation_of_the_protocol(frame: bytes) -> None:
    with pytest.raises(ScriptFailed, match=r"the client broke the protocol: .* \(1002\)"):
        async with scripted_server(Script().expect_text("x")) as server:
            await say(server.port, HANDSHAKE + frame)


async def test_what_the_block_raises_comes_out_as_itself_when_no_script_has_failed() -> None:
    with pytest.raises(BlockError):
        async with scripted_server(Script().expect_text("never sent"), Script()) as server, aconnect_ws(server.url):
            raise BlockError


async def test_a_block_that_is_cancelled_is_not_held_up() -> None:
    with anyio.move_on_after(0.05) as scope:
        async with scripted_server(Script().pause("p")), anyio.create_task_group():
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_cancellation_does_not_hide_a_failure() -> None:
    with pytest.raises(ScriptFailed), anyio.move_on_after(1):
        async with scripted_server(Script().expect_text("x")) as server, aconnect_ws(server.url) as ws:
            await ws.send("y")
            await anyio.sleep_forever()


async def test_an_interrupt_is_not_hidden_by_a_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        async with scripted_server(Script().expect_text("x")) as server:
            async with aconnect_ws(server.url) as ws:
                await ws.send("y")
            raise KeyboardInterrupt


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def say(port: int, *pieces: bytes) -> None:
    """Send these bytes, end TCP, and read what comes to its end."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        for data in pieces:
            await stream.send(data)
            await anyio.wait_all_tasks_blocked()
        await stream.send_eof()
        async for _ in stream:
            pass
