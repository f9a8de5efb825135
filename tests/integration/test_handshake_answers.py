"""Every answer to the handshake that is not a valid 101, and the odd ones that are."""

from __future__ import annotations

import contextlib
import uuid

import anyio
import pytest
import zapros

from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    HandshakeError,
    HandshakeTimeoutError,
    TextMessage,
    aconnect_ws,
)

from .processes import ServerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("leaks_show")]

LARGEST_BODY = 64 * 1024
INVALID_101 = [
    "/wrong-accept",
    "/no-accept",
    "/no-upgrade",
    "/no-connection",
    "/subprotocol",
    "/extension",
    "/deflate",
]
EARLY_MESSAGES = [TextMessage("hello"), BinaryMessage(b"world")]


@pytest.fixture(params=[False, True], ids=["own-client", "given-client"])
def client(request: pytest.FixtureRequest) -> zapros.AsyncClient | None:
    """No client, and one of the caller: where the library chooses the transport they may differ."""
    return zapros.AsyncClient() if request.param else None


async def refused(url: str, client: zapros.AsyncClient | None, **options: bool | float | list[str]) -> HandshakeError:
    """The error that connecting ends with."""
    with pytest.raises(HandshakeError) as caught:
        async with aconnect_ws(url, client=client):
            pytest.fail("this is no valid answer")
    if client is not None:
        await client.aclose()
    return caught.value


async def test_frames_in_the_segment_of_the_101_are_delivered(
    raw_server: ServerProcess, client: zapros.AsyncClient | None
) -> None:
    async with aconnect_ws(f"{raw_server.address()}/early", client=client) as ws:
        assert [await ws.recv(), await ws.recv()] == EARLY_MESSAGES


async def test_a_close_in_the_segment_of_the_101_is_delivered_after_the_messages(
    raw_server: ServerProcess, client: zapros.AsyncClient | None
) -> None:
    async with aconnect_ws(f"{raw_server.address()}/early-close", client=client) as ws:
        assert [await ws.recv(), await ws.recv()] == EARLY_MESSAGES
        assert await ws.recv() == CloseMessage(1001, "bye")
    assert (ws.close_code, ws.close_reason) == (1001, "bye")


@pytest.mark.parametrize("path", ["/lenient-case", "/early-hints"])
async def test_unusual_but_valid_answers_are_accepted(
    raw_server: ServerProcess, client: zapros.AsyncClient | None, path: str
) -> None:
    async with aconnect_ws(f"{raw_server.address()}{path}", client=client) as ws:
        assert [await ws.recv(), await ws.recv()] == EARLY_MESSAGES


@pytest.mark.parametrize("status", [200, 401, 403, 404, 426, 500])
async def test_another_status_is_a_handshake_error_with_headers_and_body(
    raw_server: ServerProcess, client: zapros.AsyncClient | None, status: int
) -> None:
    error = await refused(f"{raw_server.address()}/status/{status}", client)
    assert str(status) in str(error)
    assert error.response is not None
    assert error.response.status == status
    assert error.response.headers["X-Reason"] == "because"
    assert error.response.text == f"refused with {status}"


@pytest.mark.parametrize(("path", "status"), [("/large-body", 500), ("/endless-body", 200), ("/gzip-bomb", 500)])
async def test_of_a_large_body_64_kib_are_kept(
    raw_server: ServerProcess, client: zapros.AsyncClient | None, path: str, status: int
) -> None:
    error = await refused(f"{raw_server.address()}{path}", client)
    assert error.response is not None
    assert error.response.status == status
    assert error.response.text == "x" * LARGEST_BODY


@pytest.mark.parametrize("path", ["/broken-off-body", "/broken-chunk"])
async def test_a_body_that_breaks_off_does_not_hide_the_status(
    raw_server: ServerProcess, client: zapros.AsyncClient | None, path: str
) -> None:
    error = await refused(f"{raw_server.address()}{path}", client)
    assert error.response is not None
    assert error.response.status == 403
    assert "the beginning".startswith(error.response.text)


async def test_a_body_that_stalls_is_bounded_by_the_open_timeout(
    raw_server: ServerProcess, client: zapros.AsyncClient | None
) -> None:
    with pytest.raises(HandshakeError):
        async with aconnect_ws(f"{raw_server.address()}/half-a-body", client=client, open_timeout=0.2):
            pytest.fail("the server refused")


@pytest.mark.parametrize("path", INVALID_101)
async def test_a_101_that_is_not_valid_is_a_handshake_error(
    raw_server: ServerProcess, client: zapros.AsyncClient | None, path: str
) -> None:
    error = await refused(f"{raw_server.address()}{path}", client)
    assert error.response is not None
    assert error.response.status == 101


async def test_a_subprotocol_other_than_those_offered_is_a_handshake_error(raw_server: ServerProcess) -> None:
    with pytest.raises(HandshakeError, match="surprise"):
        async with aconnect_ws(f"{raw_server.address()}/subprotocol", subprotocols=["chat.v1"]):
            pytest.fail("nobody offered that")


@pytest.mark.parametrize("path", ["/deflate-7-bits", "/extension"])
async def test_extension_parameters_that_are_not_legal_are_a_handshake_error(
    raw_server: ServerProcess, path: str
) -> None:
    with pytest.raises(HandshakeError):
        async with aconnect_ws(f"{raw_server.address()}{path}", permessage_deflate=True):
            pytest.fail("nobody offered that")


@pytest.mark.parametrize("path", ["/garbage", "/endless-headers", "/endless-status-line"])
async def test_an_answer_that_is_not_http_is_a_handshake_error(
    raw_server: ServerProcess, client: zapros.AsyncClient | None, path: str
) -> None:
    await refused(f"{raw_server.address()}{path}", client)


async def test_a_silent_server_runs_into_the_open_timeout(
    raw_server: ServerProcess, client: zapros.AsyncClient | None
) -> None:
    with pytest.raises(HandshakeTimeoutError) as caught:
        async with aconnect_ws(f"{raw_server.address()}/silence", client=client, open_timeout=0.2):
            pytest.fail("nobody answered")
    assert isinstance(caught.value, HandshakeError)
    assert isinstance(caught.value, TimeoutError)


# Not of "/gzip-bomb": what is short on the wire is read to its end, and the client may keep its connection.
@pytest.mark.parametrize("path", [*INVALID_101, "/endless-body", "/garbage"])
async def test_after_a_handshake_error_the_connection_is_closed(raw_server: ServerProcess, path: str) -> None:
    name = uuid.uuid4().hex
    # The client stays open: it is not the end of the client that ends the connection.
    async with zapros.AsyncClient() as client:
        with pytest.raises(HandshakeError):
            async with aconnect_ws(f"{raw_server.address()}{path}?{name}", client=client):
                pytest.fail("this is no valid answer")
        assert await raw_server.line("left", name)


async def test_a_cancelled_handshake_closes_its_connection(raw_server: ServerProcess) -> None:
    name = uuid.uuid4().hex

    async def connect() -> None:
        async with aconnect_ws(f"{raw_server.address()}/silence?{name}"):
            pytest.fail("nobody answered")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connect)
        await raw_server.line("asked", name)
        tasks.cancel_scope.cancel()
    assert await raw_server.line("left", name)


@pytest.mark.parametrize("path", ["/status/404", "/wrong-accept", "/endless-body", "/garbage", "/early"])
async def test_a_handshake_gives_its_place_in_the_pool_back(raw_server: ServerProcess, path: str) -> None:
    handler = zapros.AsyncStdNetworkHandler(http1={"max_connections_per_host": 1})
    async with zapros.AsyncClient(handler) as client:
        with contextlib.suppress(HandshakeError):
            async with aconnect_ws(f"{raw_server.address()}{path}", client=client):
                pass
        async with aconnect_ws(f"{raw_server.address()}/early", client=client) as ws:
            assert await ws.recv() == EARLY_MESSAGES[0]


@pytest.mark.parametrize("path", ["/hang-up", "/half-an-answer"])
async def test_an_end_before_the_answer_is_an_error_of_the_client(
    raw_server: ServerProcess, client: zapros.AsyncClient | None, path: str
) -> None:
    with pytest.raises(zapros.ConnectionError):
        async with aconnect_ws(f"{raw_server.address()}{path}", client=client):
            pytest.fail("the server hung up")
