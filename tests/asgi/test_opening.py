"""The opening handshake with an application in process."""

from __future__ import annotations

import pytest
import zapros

from zapros_websocket import HandshakeError, TextMessage, aconnect_ws

from .applications import ACCEPT, URL, Echo, Event, Raises, Returns, Says, client_of, close, text

pytestmark = pytest.mark.anyio


class AddsHeader(zapros.AsyncBaseMiddleware):
    def __init__(self, following: zapros.AsyncBaseHandler) -> None:
        self.async_next = following

    async def ahandle(self, request: zapros.Request) -> zapros.Response:
        request.headers["X-Middleware"] = "took part"
        return await self.async_next.ahandle(request)


def headers_of(scope: Event) -> dict[bytes, bytes]:
    headers = scope["headers"]
    assert isinstance(headers, list)
    return dict(headers)  # pyright: ignore[reportUnknownArgumentType]


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("ws://testserver/rooms/7?a=1&a=2&b=%20", "ws"),
        ("wss://testserver/rooms/7?a=1&a=2&b=%20", "wss"),
        ("http://testserver/rooms/7?a=1&a=2&b=%20", "ws"),
    ],
)
async def test_the_application_sees_the_request(url: str, scheme: str) -> None:
    application = Echo()
    async with client_of(application) as client, aconnect_ws(url, client=client, headers={"X-Own": "1"}) as ws:
        assert ws.response.status == 101
    (scope,) = application.scopes
    assert (scope["type"], scope["scheme"], scope["path"]) == ("websocket", scheme, "/rooms/7")
    assert scope["query_string"] == b"a=1&a=2&b=%20"
    assert headers_of(scope)[b"x-own"] == b"1"
    assert headers_of(scope)[b"sec-websocket-version"] == b"13"


async def test_headers_auth_and_middlewares_of_the_client_take_part() -> None:
    application = Echo()
    async with zapros.AsgiHandler(application, enable_lifespan=False) as handler:
        client = zapros.AsyncClient(
            handler, default_headers={"X-Default": "yes"}, auth="token", base_url="ws://testserver/api/"
        )
        client.wrap_with_middleware(AddsHeader)
        async with client, aconnect_ws("room", client=client):
            pass
    (scope,) = application.scopes
    assert scope["path"] == "/api/room"
    headers = headers_of(scope)
    assert headers[b"x-default"] == b"yes"
    assert headers[b"authorization"] == b"Bearer token"
    assert headers[b"x-middleware"] == b"took part"


async def test_the_application_chooses_a_subprotocol() -> None:
    application = Says({**ACCEPT, "subprotocol": "b"})
    async with (
        client_of(application) as client,
        aconnect_ws(URL, client=client, subprotocols=["a", "b"]) as ws,
    ):
        assert ws.subprotocol == "b"
    assert application.scopes[0]["subprotocols"] == ["a", "b"]


async def test_the_application_need_not_choose_a_subprotocol() -> None:
    async with client_of(Echo()) as client, aconnect_ws(URL, client=client, subprotocols=["a"]) as ws:
        assert ws.subprotocol is None


@pytest.mark.parametrize("offered", [None, ["a"]])
async def test_a_subprotocol_that_was_not_offered_is_refused(offered: list[str] | None) -> None:
    application = Says({**ACCEPT, "subprotocol": "z"})
    async with client_of(application) as client:
        with pytest.raises(HandshakeError, match="'z', which was not offered"):
            async with aconnect_ws(URL, client=client, subprotocols=offered):
                pytest.fail("nobody asked for that subprotocol")
        await application.ended.wait()


async def test_the_headers_of_the_accept_are_those_of_the_response() -> None:
    headers = [(b"x-first", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    async with (
        client_of(Says({**ACCEPT, "headers": headers})) as client,
        aconnect_ws(URL, client=client) as ws,
    ):
        assert ws.response.headers["X-First"] == "1"
        assert ws.response.headers.getall("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("extension", ["permessage-deflate", "nonsense"])
async def test_an_extension_that_the_application_names_means_nothing(extension: str) -> None:
    accept = {**ACCEPT, "headers": [(b"sec-websocket-extensions", extension.encode())]}
    async with (
        client_of(Says(accept, text("plain"))) as client,
        aconnect_ws(URL, client=client, permessage_deflate=True) as ws,
    ):
        assert ws.permessage_deflate is None
        assert await ws.recv() == TextMessage("plain")


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        pytest.param(Returns, [close()], id="closes"),
        pytest.param(Returns, [close(code=4000, reason="no")], id="closes-with-a-code"),
        pytest.param(Returns, [], id="returns"),
        pytest.param(Raises, [], id="raises"),
        pytest.param(Returns, [text("too early")], id="sends"),
        pytest.param(Returns, [{"type": "nonsense"}], id="talks-nonsense"),
    ],
)
async def test_an_application_that_does_not_accept_refuses_with_403(kind: type[Returns], script: list[Event]) -> None:
    async with client_of(kind(*script)) as client:
        with pytest.raises(HandshakeError, match="status 403") as caught:
            async with aconnect_ws(URL, client=client):
                pytest.fail("the application did not accept")
    assert caught.value.response is not None
    assert caught.value.response.status == 403
    assert caught.value.response.text == ""
