"""The handshake goes through the client: what the client adds, repeats or follows, the server sees."""

from __future__ import annotations

import base64
import ssl
import uuid
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
import zapros

from zapros_websocket import HandshakeError, TextMessage, aconnect_ws

from .clients import client_that_trusts, described
from .processes import ServerProcess, Servers

pytestmark = pytest.mark.anyio


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


async def test_default_headers_and_headers_of_the_call_are_sent(aiohttp_server: ServerProcess) -> None:
    async with (
        zapros.AsyncClient(default_headers={"X-Default": "one", "X-Both": "client"}) as client,
        aconnect_ws(
            f"{aiohttp_server.address()}/describe", client=client, headers={"X-Call": "two", "X-Both": "call"}
        ) as ws,
    ):
        seen = await described(ws)
    assert seen.header("X-Default") == "one"
    assert seen.header("X-Call") == "two"
    assert seen.header("X-Both") == "call"
    assert seen.header("Host") == f"127.0.0.1:{aiohttp_server.port}"
    assert seen.header("Upgrade") == "websocket"
    assert seen.header("Sec-WebSocket-Version") == "13"
    assert seen.header("Sec-WebSocket-Extensions") is None


@pytest.mark.parametrize(
    ("auth", "expected"),
    [(("user", "pässword"), basic("user:pässword")), ("token", "Bearer token")],
    ids=["basic", "bearer"],
)
async def test_the_auth_of_the_client_is_sent(
    aiohttp_server: ServerProcess, auth: str | tuple[str, str], expected: str
) -> None:
    async with (
        zapros.AsyncClient(auth=auth) as client,
        aconnect_ws(f"{aiohttp_server.address()}/members", client=client) as ws,
    ):
        await ws.send(TextMessage("admitted"))
        assert await ws.recv() == TextMessage("admitted")
    async with (
        zapros.AsyncClient(auth=auth) as client,
        aconnect_ws(f"{aiohttp_server.address()}/describe", client=client) as ws,
    ):
        assert (await described(ws)).header("Authorization") == expected


async def test_without_auth_the_server_may_refuse(aiohttp_server: ServerProcess) -> None:
    with pytest.raises(HandshakeError) as caught:
        async with aconnect_ws(f"{aiohttp_server.address()}/members"):
            pytest.fail("the server refused")
    response = caught.value.response
    assert response is not None
    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == 'Basic realm="members"'
    assert response.text == "who are you?"


@pytest.mark.parametrize("given_client", [False, True], ids=["own-client", "given-client"])
async def test_user_and_password_in_the_url_become_basic_auth(
    aiohttp_server: ServerProcess, given_client: bool
) -> None:
    async with zapros.AsyncClient() as client:
        url = f"ws://user:p%40ss%3Aword@127.0.0.1:{aiohttp_server.port}/describe"
        async with aconnect_ws(url, client=client if given_client else None) as ws:
            seen = await described(ws)
    assert seen.header("Authorization") == basic("user:p@ss:word")
    assert seen.target == "/describe"
    assert seen.header("Host") == f"127.0.0.1:{aiohttp_server.port}"


async def test_auth_given_otherwise_goes_before_the_url(aiohttp_server: ServerProcess) -> None:
    url = f"ws://user:password@127.0.0.1:{aiohttp_server.port}/describe"
    async with zapros.AsyncClient(auth="token") as client:
        async with aconnect_ws(url, client=client) as ws:
            assert (await described(ws)).header("Authorization") == "Bearer token"
        async with aconnect_ws(url, client=client, headers={"Authorization": "Custom call"}) as ws:
            assert (await described(ws)).header("Authorization") == "Custom call"


async def test_cookies_of_an_earlier_response_are_sent(aiohttp_server: ServerProcess) -> None:
    async with zapros.AsyncClient() as client:
        client.wrap_with_middleware(lambda following: zapros.CookieMiddleware(following))
        async with aconnect_ws(f"{aiohttp_server.address()}/describe", client=client) as ws:
            assert (await described(ws)).header("Cookie") is None
        response = await client.request("GET", f"{aiohttp_server.address('http')}/login")
        assert response.status == 200
        async with aconnect_ws(f"{aiohttp_server.address()}/describe", client=client) as ws:
            assert (await described(ws)).header("Cookie") == "session=chocolate"


async def test_the_client_retries_until_the_server_accepts(aiohttp_server: ServerProcess) -> None:
    url = f"{aiohttp_server.address()}/busy?key={uuid.uuid4().hex}"
    async with zapros.AsyncClient() as client:
        client.wrap_with_middleware(lambda following: zapros.RetryMiddleware(following, backoff_factor=0))
        async with aconnect_ws(url, client=client) as ws:
            await ws.send(TextMessage("third time"))
            assert await ws.recv() == TextMessage("third time")


async def test_a_client_without_retries_takes_the_first_answer(aiohttp_server: ServerProcess) -> None:
    url = f"{aiohttp_server.address()}/busy?key={uuid.uuid4().hex}"
    async with zapros.AsyncClient() as client:
        for _ in range(2):
            with pytest.raises(HandshakeError) as caught:
                async with aconnect_ws(url, client=client):
                    pytest.fail("the server is busy")
            assert caught.value.response is not None
            assert (caught.value.response.status, caught.value.response.text) == (503, "busy")
        async with aconnect_ws(url, client=client) as ws:
            assert ws.response.status == 101


def redirecting(client: zapros.AsyncClient) -> zapros.AsyncClient:
    return client.wrap_with_middleware(lambda following: zapros.RedirectMiddleware(following))


@pytest.mark.parametrize(
    "location", ["ws://{authority}/describe?x=1", "http://{authority}/describe?x=1", "/describe?x=1"]
)
async def test_the_client_follows_redirects(servers: Servers, aiohttp_server: ServerProcess, location: str) -> None:
    # An absolute location leads to another server, a relative one stays.
    other = servers.websocket("uvicorn-websockets")
    to = location.format(authority=f"127.0.0.1:{other.port}")
    async with (
        redirecting(zapros.AsyncClient(default_headers={"X-Kept": "yes"})) as client,
        aconnect_ws(f"{aiohttp_server.address()}/redirect?to={quote(to)}", client=client) as ws,
    ):
        seen = await described(ws)
    assert seen.target == "/describe?x=1"
    assert seen.header("X-Kept") == "yes"
    expected_port = aiohttp_server.port if location.startswith("/") else other.port
    assert seen.header("Host") == f"127.0.0.1:{expected_port}"


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_a_redirect_from_ws_to_wss_is_followed(
    servers: Servers, aiohttp_server: ServerProcess, client_context: ssl.SSLContext, scheme: str
) -> None:
    to = f"{servers.secure().address(scheme)}/describe"
    async with (
        redirecting(client_that_trusts(client_context)) as client,
        aconnect_ws(f"{aiohttp_server.address()}/redirect?to={to}", client=client) as ws,
    ):
        assert (await described(ws)).target == "/describe"


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_a_redirect_from_wss_to_wss_is_followed(
    servers: Servers, client_context: ssl.SSLContext, scheme: str
) -> None:
    secure = servers.secure()
    async with (
        redirecting(client_that_trusts(client_context)) as client,
        aconnect_ws(f"{secure.address('wss')}/redirect?to={secure.address(scheme)}/describe", client=client) as ws,
    ):
        assert (await described(ws)).target == "/describe"


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_a_redirect_from_wss_to_ws_is_refused(
    servers: Servers, aiohttp_server: ServerProcess, client_context: ssl.SSLContext, scheme: str
) -> None:
    to = f"{aiohttp_server.address(scheme)}/echo"
    async with redirecting(client_that_trusts(client_context)) as client:
        with pytest.raises(HandshakeError, match=r"(?i)redirect"):
            async with aconnect_ws(f"{servers.secure().address('wss')}/redirect?to={to}", client=client):
                pytest.fail("the connection is not secure")


async def test_without_the_middleware_a_redirect_is_a_handshake_error(aiohttp_server: ServerProcess) -> None:
    with pytest.raises(HandshakeError) as caught:
        async with aconnect_ws(f"{aiohttp_server.address()}/redirect?to=/echo"):
            pytest.fail("nobody follows")
    assert caught.value.response is not None
    assert caught.value.response.status == 302
    assert caught.value.response.headers["Location"] == "/echo"


async def test_too_many_redirects_end_with_the_error_of_the_client(aiohttp_server: ServerProcess) -> None:
    to = "/redirect?to=" * 3 + "/echo"
    async with zapros.AsyncClient() as client:
        client.wrap_with_middleware(lambda following: zapros.RedirectMiddleware(following, max_redirects=2))
        with pytest.raises(zapros.TooManyRedirectsError):
            async with aconnect_ws(f"{aiohttp_server.address()}{to}", client=client):
                pytest.fail("there were too many redirects")


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_a_relative_url_is_resolved_by_the_base_url(aiohttp_server: ServerProcess, scheme: str) -> None:
    base_url = f"{aiohttp_server.address(scheme)}/api/"
    async with zapros.AsyncClient(base_url=base_url, default_params={"token": "abc", "room": "0"}) as client:
        async with aconnect_ws("describe?room=1", client=client) as ws:
            target = urlsplit((await described(ws)).target)
        async with aconnect_ws("/describe", client=client) as ws:
            other_target = urlsplit((await described(ws)).target)
    assert target.path == "/api/describe"
    assert sorted(parse_qsl(target.query)) == [("room", "1"), ("token", "abc")]
    assert other_target.path == "/describe"
    assert sorted(parse_qsl(other_target.query)) == [("room", "0"), ("token", "abc")]


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_an_http_url_is_taken_for_a_ws_url(aiohttp_server: ServerProcess, scheme: str) -> None:
    async with aconnect_ws(zapros.URL(f"{aiohttp_server.address(scheme)}/describe")) as ws:
        assert (await described(ws)).target == "/describe"


@pytest.mark.parametrize("given_client", [False, True], ids=["own-client", "given-client"])
@pytest.mark.parametrize(
    "target",
    [
        "/describe?a=1&a=2",
        "/describe?a=%20+%2B%2F%3D&b=%26",
        "/describe?plain",
        "/describe?empty=&&twice=?&=",
        "/describe?caf%C3%A9=%e2%98%83",
        "/%7Euser/a%2Fb/describe",
    ],
)
async def test_the_target_reaches_the_server_unchanged(
    aiohttp_server: ServerProcess, target: str, given_client: bool
) -> None:
    async with (
        zapros.AsyncClient() as client,
        aconnect_ws(f"{aiohttp_server.address()}{target}", client=client if given_client else None) as ws,
    ):
        assert (await described(ws)).target == target


async def test_default_params_leave_repeated_keys_alone(aiohttp_server: ServerProcess) -> None:
    async with (
        zapros.AsyncClient(default_params={"token": "abc", "a": "0"}) as client,
        aconnect_ws(f"{aiohttp_server.address()}/describe?a=1&a=2", client=client) as ws,
    ):
        target = urlsplit((await described(ws)).target)
    assert sorted(parse_qsl(target.query)) == [("a", "1"), ("a", "2"), ("token", "abc")]


class Stamp(zapros.AsyncBaseMiddleware):
    """A middleware as a user may write it."""

    def __init__(self, following: zapros.AsyncBaseHandler) -> None:
        self.async_next = following

    async def ahandle(self, request: zapros.Request) -> zapros.Response:
        request.headers["X-Stamp"] = f"{request.method} stamped"
        return await self.async_next.ahandle(request)


async def test_a_middleware_can_add_a_header(aiohttp_server: ServerProcess) -> None:
    async with (
        zapros.AsyncClient().wrap_with_middleware(Stamp) as client,
        aconnect_ws(f"{aiohttp_server.address()}/describe", client=client) as ws,
    ):
        assert (await described(ws)).header("X-Stamp") == "GET stamped"


async def test_a_client_that_was_given_stays_open(aiohttp_server: ServerProcess) -> None:
    async with zapros.AsyncClient() as client:
        for _ in range(2):
            async with aconnect_ws(f"{aiohttp_server.address()}/echo", client=client) as ws:
                await ws.send(TextMessage("again"))
                assert await ws.recv() == TextMessage("again")
        response = await client.request("GET", f"{aiohttp_server.address('http')}/login")
        assert response.text == "welcome"


async def test_every_handshake_has_a_key_of_its_own(aiohttp_server: ServerProcess) -> None:
    keys: set[str | None] = set()
    for _ in range(3):
        async with aconnect_ws(f"{aiohttp_server.address()}/describe") as ws:
            keys.add((await described(ws)).header("Sec-WebSocket-Key"))
    assert len(keys) == 3
    assert all(key is not None and len(base64.b64decode(key)) == 16 for key in keys)
