"""The servers in a thread of their own, for synchronous tests, and the fixtures that start them."""

from __future__ import annotations

import pytest

from zapros_websocket import ConnectionClosed, TextMessage, aconnect_ws, connect_ws
from zapros_websocket.testing import EchoServer, Script, ScriptFailed, echo_server, scripted_server
from zapros_websocket.testing.fixtures import ServeScripts


def test_a_script_without_an_event_loop() -> None:
    script = Script().expect_request("/x").expect_text("hi").pause("p").send_text("there")
    with scripted_server(script) as server:
        with connect_ws(f"{server.url}x") as ws:
            ws.send("hi")
            server.reached("p")
            server.check()
            server.resume("p")
            assert ws.recv_text() == "there"
        assert [request.target for request in server.requests] == ["/x"]
        assert server.transcript[2].data == "hi"
        assert server.url == f"ws://127.0.0.1:{server.port}/"


def test_a_pause_that_is_not_reached_in_time() -> None:
    with pytest.raises(ScriptFailed, match="never opened"), scripted_server(Script().pause("p")) as server:
        with pytest.raises(TimeoutError, match=r"no script came to the pause 'p' within 0.05 seconds"):
            server.reached("p", timeout=0.05)


def test_a_failure_comes_out_of_the_block() -> None:
    with pytest.raises(ScriptFailed, match='text "that" came') as caught:
        with scripted_server(Script().expect_text("this")) as server, connect_ws(server.url) as ws:
            ws.send("that")
            ws.recv_text()
    assert isinstance(caught.value.__context__, ConnectionClosed)


def test_an_echo_server_without_an_event_loop() -> None:
    with echo_server(subprotocols=["chat"]) as server, connect_ws(server.url) as ws:
        ws.send("hello")
        assert ws.recv_text() == "hello"
        assert server.traffic.received > 0


def test_the_fixtures_without_an_event_loop(websocket_echo_server: EchoServer, websocket_script: ServeScripts) -> None:
    with connect_ws(websocket_echo_server.url) as ws:
        ws.send("hello")
        assert ws.recv_text() == "hello"
    first = websocket_script(Script().send_text("first"))
    second = websocket_script(Script().send_text("second"), afterwards=Script())
    for server, text in ((first, "first"), (second, "second")):
        with connect_ws(server.url) as ws:
            assert ws.recv_text() == text


@pytest.mark.anyio
async def test_the_fixtures_in_an_event_loop(websocket_echo_server: EchoServer, websocket_script: ServeScripts) -> None:
    async with aconnect_ws(websocket_echo_server.url) as ws:
        await ws.send("hello")
        assert await ws.recv() == TextMessage("hello")
    async with aconnect_ws(websocket_script(Script().send_text("hi")).url) as ws:
        assert await ws.recv() == TextMessage("hi")


def test_a_script_that_fails_fails_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from zapros_websocket import connect_ws
        from zapros_websocket.testing import Script

        pytest_plugins = ["zapros_websocket.testing.fixtures"]

        def test_that_is_wrong(websocket_script):
            with connect_ws(websocket_script(Script().expect_text("this")).url) as ws:
                ws.send("that")

        def test_that_is_right(websocket_script):
            with connect_ws(websocket_script(Script().expect_text("this")).url) as ws:
                ws.send("this")

        def test_that_is_told(websocket_script):
            with connect_ws(websocket_script(Script().expect_text("this")).url) as ws:
                ws.send("that")
                ws.recv_text()

        def test_that_judges(websocket_script):
            with connect_ws(websocket_script(Script().expect_text(lambda text: 1 / 0)).url) as ws:
                ws.send("that")

        def test_that_raises(websocket_script):
            websocket_script(Script().expect_text("this"))
            raise LookupError("of the test")

        def test_that_is_skipped(websocket_script):
            websocket_script(Script().expect_text("this"))
            pytest.skip("not today")
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:anyio", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=4, skipped=1, errors=0)
    message = "connection 1, step 2 of 2: expect_text('this'), but text \"that\" came"
    result.stdout.fnmatch_lines(
        [
            "*test_that_is_wrong*",
            message,
            "*test_that_is_told*",
            "*ConnectionClosed*1011*",
            f"E *{message}",
            "*test_that_judges*",
            "E *ZeroDivisionError*",
            "*test_that_raises*",
            "E *LookupError: of the test",
        ]
    )
