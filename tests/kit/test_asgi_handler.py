"""The ASGI handler: an application in process sees and is seen as over a network."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from zapros import AsyncClient, Response

from tests.asgi.applications import (
    ACCEPT,
    URL,
    Application,
    Echo,
    Event,
    Raises,
    Receive,
    Returns,
    Says,
    Send,
    binary,
    close,
    text,
)
from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    HandshakeError,
    PingMessage,
    TextMessage,
    aconnect_ws,
    open_ws,
)
from zapros_websocket.testing import WebSocketAsgiHandler

pytestmark = pytest.mark.anyio

MEBIBYTE = bytes(range(256)) * 4096


@asynccontextmanager
async def client_of(application: Application, **options: object) -> AsyncGenerator[AsyncClient, None]:
    options.setdefault("enable_lifespan", False)
    async with WebSocketAsgiHandler(application, **options) as handler, AsyncClient(handler) as client:  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        yield client


# What goes over


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("frame_size", [None, 1000])
async def test_messages_there_and_back(deflate: bool, frame_size: int | None) -> None:
    async with (
        client_of(Echo(), frame_size=frame_size) as client,
        aconnect_ws(URL, client=client, permessage_deflate=deflate) as ws,
    ):
        assert (ws.permessage_deflate is not None) is deflate
        for message in ("grüße" * 1000, "", b"", MEBIBYTE):
            await ws.send(message)
            assert (await ws.recv()).data == message  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]


async def test_pings_are_real() -> None:
    async with client_of(Says(ACCEPT)) as client, aconnect_ws(URL, client=client) as ws:
        assert await ws.ping() > 0
        assert ws.latency is not None
        await ws.send(PingMessage(b"x"))
        assert (await ws.recv()).kind == "pong"


async def test_the_application_sees_the_request_and_its_answer_is_seen() -> None:
    application = Says({**ACCEPT, "subprotocol": "b", "headers": [(b"x-a", b"1"), (b"x-a", b"\xe9")]})
    async with (
        client_of(application, root_path="/root", client=("10.0.0.1", 7)) as client,
        aconnect_ws(
            "ws://testserver:81/rooms/a%20b?x=1&x=2", client=client, subprotocols=["a", "b"], headers={"X-Own": "1"}
        ) as ws,
    ):
        assert ws.subprotocol == "b"
        assert ws.response.status == 101
        assert ws.response.headers.getall("x-a") == ["1", "\xe9"]
    (scope,) = application.scopes
    headers = scope.pop("headers")
    assert isinstance(headers, list)
    assert (b"x-own", b"1") in headers
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/rooms/a b",
        "raw_path": b"/rooms/a%20b",
        "query_string": b"x=1&x=2",
        "root_path": "/root",
        "client": ("10.0.0.1", 7),
        "server": ("testserver", 81),
        "subprotocols": ["a", "b"],
        "extensions": {"websocket.http.response": {}},
    }


async def test_a_subprotocol_that_was_not_offered_is_refused_by_the_client() -> None:
    async with client_of(Says({**ACCEPT, "subprotocol": "b"})) as client:
        with pytest.raises(HandshakeError, match="'b', which was not offered"):
            async with aconnect_ws(URL, client=client):
                pytest.fail("it was not offered")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"accept_timeout": -1}, ValueError),
        ({"startup_timeout": "5"}, TypeError),
        ({"shutdown_timeout": float("nan")}, ValueError),
        ({"ping_interval": 0}, ValueError),
        ({"ping_interval": -1}, ValueError),
        ({"frame_size": 0}, ValueError),
        ({"frame_size": -1}, ValueError),
        ({"frame_size": 1.5}, TypeError),
    ],
)
def test_arguments_that_cannot_be_are_refused_at_once(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        WebSocketAsgiHandler(Echo(), **arguments)


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 426), ({"Sec-WebSocket-Version": "8"}, 426), ({"Sec-WebSocket-Version": "13"}, 426)],
)
async def test_a_request_that_is_no_handshake(headers: dict[str, str], status: int) -> None:
    async with client_of(Echo()) as client:
        response = await client.get("https://testserver/", headers={"Upgrade": "websocket", **headers})
        assert response.status == status
        assert response.headers["Sec-WebSocket-Version"] == "13"


# Refusals


async def test_a_denial_response_has_the_status_headers_and_body_of_the_application() -> None:
    start: Event = {"type": "websocket.http.response.start", "status": 429, "headers": [(b"retry-after", b"7")]}
    body: Event = {"type": "websocket.http.response.body", "body": b"slow ", "more_body": True}
    rest: Event = {"type": "websocket.http.response.body", "body": b"down"}
    application = Says(start, body, rest)
    async with client_of(application) as client:
        response = await refusal(client)
    assert (response.status, response.headers["Retry-After"], response.text) == (429, "7", "slow down")
    assert application.disconnects == [(1006, "")]


@pytest.mark.parametrize(
    ("application", "status"),
    [
        (Says(close(code=4000)), 403),
        (Says({"type": "websocket.http.response.start", "status": 404}, {"type": "websocket.http.response.body"}), 404),
        (Returns(), 500),
    ],
)
async def test_a_refusal(application: Echo, status: int) -> None:
    async with client_of(application) as client:
        assert (await refusal(client)).status == status


async def refusal(client: AsyncClient) -> Response:
    with pytest.raises(HandshakeError) as caught:
        async with aconnect_ws(URL, client=client):
            pytest.fail("it was refused")
    assert caught.value.response is not None
    return caught.value.response


# What the application raises


async def test_what_is_raised_before_the_accept_comes_out_of_the_handshake() -> None:
    async with client_of(Raises()) as client:
        with pytest.raises(RuntimeError, match="the application is broken"):
            async with aconnect_ws(URL, client=client):
                pytest.fail("it raised")


@pytest.mark.parametrize("events", [[ACCEPT], [ACCEPT, text("last words")]])
async def test_what_is_raised_after_it_comes_out_of_the_handler(events: list[Event]) -> None:
    with pytest.raises(RuntimeError, match="the application is broken"):
        async with client_of(Raises(*events)) as client, aconnect_ws(URL, client=client) as ws:
            async for message in ws:
                assert message == TextMessage("last words")
            assert (ws.close_code, ws.close_reason) == (1011, "")


async def test_it_is_raised_without_a_client_of_zapros_too_and_once() -> None:
    handler = WebSocketAsgiHandler(Raises(ACCEPT), enable_lifespan=False)
    client = AsyncClient(handler)
    async with aconnect_ws(URL, client=client) as ws:
        assert await ws.recv() == CloseMessage(1011, "")
    assert [str(error) for error in handler.exceptions] == ["the application is broken"]
    with pytest.raises(RuntimeError, match="the application is broken"):
        await client.aclose()
    await client.aclose()
    with pytest.raises(RuntimeError, match="the handler is closed"):
        async with aconnect_ws(URL, client=client):
            pytest.fail("it is closed")


@pytest.mark.parametrize(("events", "status"), [([], 500), ([ACCEPT], None)])
async def test_it_can_be_left_to_the_server_to_say(events: list[Event], status: int | None) -> None:
    async with (
        WebSocketAsgiHandler(Raises(*events), raise_app_exceptions=False, enable_lifespan=False) as handler,
        AsyncClient(handler) as client,
    ):
        if status is None:
            async with aconnect_ws(URL, client=client) as ws:
                assert await ws.recv() == CloseMessage(1011, "")
        else:
            assert (await refusal(client)).status == status
        assert len(handler.exceptions) == 1


class WebSocketDisconnect(Exception):
    """By this name frameworks raise the news of a disconnect."""


class OfAGroup(Exception):
    """Stands in for an exception group, which Python 3.10 does not have."""

    def __init__(self, *exceptions: Exception) -> None:
        self.exceptions = exceptions


@pytest.mark.parametrize(
    ("error", "is_raised"),
    [
        (WebSocketDisconnect(), False),
        (OfAGroup(WebSocketDisconnect(), OfAGroup(WebSocketDisconnect())), False),
        (OfAGroup(WebSocketDisconnect(), LookupError()), True),
        (LookupError(), True),
    ],
)
async def test_the_news_of_a_disconnect_is_no_error(error: Exception, is_raised: bool) -> None:
    class RaisesAtTheEnd(Echo):
        async def converse(self, receive: Receive, send: Send) -> None:
            await super().converse(receive, send)
            raise error

    async with WebSocketAsgiHandler(RaisesAtTheEnd(), raise_app_exceptions=False, enable_lifespan=False) as handler:
        async with aconnect_ws(URL, client=AsyncClient(handler)):
            pass
        assert handler.exceptions == ([error] if is_raised else [])


async def test_it_is_one_before_the_client_has_left() -> None:
    class RaisesAtOnce(Echo):
        async def converse(self, receive: Receive, send: Send) -> None:
            raise WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect):
        async with client_of(RaisesAtOnce()) as client, aconnect_ws(URL, client=client):
            pytest.fail("it raised")


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([text("x")], "websocket.send was sent before websocket.accept"),
        ([ACCEPT, ACCEPT], "websocket.accept was sent on an open connection"),
        ([ACCEPT, {"type": "websocket.send"}], "carries either text"),
        ([ACCEPT, {"type": "websocket.send", "text": "x", "bytes": b"x"}], "carries either text"),
        ([ACCEPT, {"type": "websocket.send", "text": 1}], "carries either text"),
        ([ACCEPT, close(), text("x")], "after websocket.close"),
        ([close(), text("x")], "after the connection was refused"),
        (
            [{"type": "websocket.http.response.start", "status": 404}, ACCEPT],
            "and not the websocket.http.response.body",
        ),
    ],
)
async def test_a_mistake_is_raised_where_it_is_made(events: list[Event], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        async with client_of(Returns(*events)) as client, aconnect_ws(URL, client=client) as ws:
            await ws.recv()


async def test_a_close_code_that_may_not_be_sent() -> None:
    with pytest.raises(ValueError, match="1006 may not be sent"):
        async with client_of(Returns(ACCEPT, close(code=1006))) as client, aconnect_ws(URL, client=client) as ws:
            assert await ws.recv() == CloseMessage(1011, "")


# The end


async def test_the_application_closes() -> None:
    application = Says(ACCEPT, binary(b"last"), close(code=4000, reason="that is all"))
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        assert [message async for message in ws] == [BinaryMessage(b"last")]
        assert (ws.close_code, ws.close_reason) == (4000, "that is all")
        await application.ended.wait()
    assert application.disconnects == [(4000, "that is all")]


async def test_an_application_that_returns_closes_with_1000() -> None:
    async with client_of(Returns(ACCEPT)) as client, aconnect_ws(URL, client=client) as ws:
        assert await ws.recv() == CloseMessage(1000, "")


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (3000, "enough"), (1014, "bad gateway")])
async def test_the_application_learns_how_it_was_closed_and_is_done_when_the_client_is(code: int, reason: str) -> None:
    application = Echo()
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        await ws.close(code, reason)
        assert (ws.close_code, ws.close_reason) == (code, reason)
        assert application.disconnects == [(code, reason)]
        assert application.ended.is_set()


async def test_the_disconnect_comes_again_to_whoever_asks_again() -> None:
    class AsksAgain(Echo):
        async def converse(self, receive: Receive, send: Send) -> None:
            await super().converse(receive, send)
            await receive()

    application = AsksAgain()
    async with client_of(application) as client, aconnect_ws(URL, client=client):
        pass
    assert application.disconnects == [(1000, "")] * 2


async def test_a_client_that_is_lost_is_a_disconnect_with_1006() -> None:
    application = Echo()
    async with client_of(application) as client:
        async with client.stream("GET", URL, headers=HANDSHAKE) as response:
            stream = response.context["handoff"]["network_stream"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
        await stream.close()  # type: ignore[misc]
        await application.ended.wait()
    assert application.disconnects == [(1006, "")]


HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


async def test_an_application_that_only_sends_finds_out_that_the_client_is_gone() -> None:
    class Sends(Echo):
        async def converse(self, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            while True:
                await send(text("again"))

    application = Sends()
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        assert await ws.recv() == TextMessage("again")
    assert application.ended.is_set()


async def test_a_violation_of_the_protocol_is_answered() -> None:
    application = Echo()
    async with client_of(application) as client:
        async with client.stream("GET", URL, headers=HANDSHAKE) as response:
            stream = response.context["handoff"]["network_stream"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
        await stream.write_all(b"\x8a\x80\0\0\0\0\x81\x01a")  # type: ignore[misc]
        assert (await stream.read(65536)).startswith(b"\x88")  # type: ignore[misc]
        assert await stream.read(65536) == b""  # type: ignore[misc]
    assert [code for code, _ in application.disconnects] == [1002]


async def test_connections_that_are_open_when_the_handler_ends_are_closed() -> None:
    application = Echo()
    async with anyio.create_task_group() as tasks:
        async with client_of(application) as client:
            ws = await open_ws(tasks, URL, client=client)
        assert await ws.recv() == CloseMessage(1001, "")
    assert application.disconnects == [(1001, "")]


# Lifespan, HTTP, and other tasks


class Lives:
    """An application with a lifespan that does as it is told, and one endpoint for everything."""

    def __init__(self, *answers: Event, error: BaseException | None = None) -> None:
        self.seen: list[object] = []
        self._answers = answers
        self._error = error

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        self.seen.append((scope["type"], scope.get("state")))
        if scope["type"] == "http":
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]})
            await send({"type": "http.response.body", "body": b"hello"})
        elif scope["type"] == "websocket":
            await receive()
            await send(ACCEPT)
            await receive()
        else:
            state = scope["state"]
            assert isinstance(state, dict)
            state["pool"] = "open"
            for answer in self._answers:
                self.seen.append((await receive())["type"])
                await send(answer)
            if self._error is not None:
                raise self._error


STARTED: Event = {"type": "lifespan.startup.complete"}
STOPPED: Event = {"type": "lifespan.shutdown.complete"}


@pytest.mark.parametrize("enter", [False, True])
async def test_the_lifespan_spans_the_handler(enter: bool) -> None:
    application = Lives(STARTED, STOPPED)
    handler = WebSocketAsgiHandler(application)
    if enter:
        await handler.__aenter__()
        assert application.seen[1] == "lifespan.startup"
    async with AsyncClient(handler) as client:
        response = await client.get("http://testserver/")
        assert (response.status, response.text, response.headers["x-a"]) == (200, "hello", "1")
        async with aconnect_ws(URL, client=client):
            pass
    await handler.__aexit__(None, None, None)
    state = {"pool": "open"}
    assert application.seen == [
        ("lifespan", state),
        "lifespan.startup",
        ("http", state),
        ("websocket", state),
        "lifespan.shutdown",
    ]


async def test_plain_http_without_a_lifespan() -> None:
    application = Lives()
    async with client_of(application) as client:
        assert (await client.get("http://testserver/")).text == "hello"
    assert application.seen == [("http", None)]


@pytest.mark.parametrize(
    "application",
    [Lives(error=LookupError("no lifespans here")), Lives(STARTED, error=None)],
)
async def test_an_application_need_not_know_lifespans_nor_stay_in_one(application: Lives) -> None:
    async with WebSocketAsgiHandler(application) as handler:
        assert (await AsyncClient(handler).get("http://testserver/")).text == "hello"


FAILED: Event = {"type": "lifespan.startup.failed", "message": "no database"}


@pytest.mark.parametrize(
    ("application", "error", "message"),
    [
        (Lives(FAILED), RuntimeError, "the lifespan.startup of the application failed: no database"),
        (Lives({"type": "lifespan.startup.failed"}), RuntimeError, "it did not say why"),
        (Lives(FAILED, error=LookupError("the database")), LookupError, "the database"),
    ],
)
async def test_a_startup_that_fails(application: Lives, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        async with WebSocketAsgiHandler(application):
            pytest.fail("it did not start")


async def test_a_shutdown_that_fails() -> None:
    with pytest.raises(RuntimeError, match=r"the lifespan.shutdown of the application failed: stuck"):
        async with WebSocketAsgiHandler(Lives(STARTED, {"type": "lifespan.shutdown.failed", "message": "stuck"})):
            pass
    with pytest.raises(LookupError):
        async with WebSocketAsgiHandler(Lives(STARTED, STOPPED, error=LookupError())):
            pass


async def test_an_event_that_lifespans_do_not_have() -> None:
    with pytest.raises(RuntimeError, match=r"lifespan\.paused is not an event of a lifespan"):
        async with WebSocketAsgiHandler(Lives(STARTED, {"type": "lifespan.paused"})):
            pass


async def test_the_handler_is_entered_in_one_task_and_left_in_another() -> None:
    application = Echo()
    handler = WebSocketAsgiHandler(application, enable_lifespan=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(handler.__aenter__)
    async with aconnect_ws(URL, client=AsyncClient(handler)) as ws:
        await ws.send("hello")
        assert await ws.recv() == TextMessage("hello")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(handler.__aexit__, None, None, None)
    assert application.ended.is_set()


@pytest.fixture
async def fixture_client() -> AsyncIterator[AsyncClient]:
    async with client_of(Echo()) as client:
        yield client


async def test_it_works_in_a_fixture(fixture_client: AsyncClient) -> None:
    async with aconnect_ws(URL, client=fixture_client) as ws:
        await ws.send("hello")
        assert await ws.recv() == TextMessage("hello")
