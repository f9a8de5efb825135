"""SPEC "Entry points" and "Handshake": what goes through the client, and what comes back, without a network."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial

import anyio
import anyio.lowlevel
import h11
import pytest
import trio
import zapros
from zapros import URL, AsyncBaseHandler, AsyncClient, Request, Response, ResponseContext

from tests.memory import MemoryServer
from zapros_websocket import (
    HandshakeError,
    HandshakeTimeoutError,
    PerMessageDeflateExtension,
    TextMessage,
    WebsocketError,
    aconnect_ws,
    open_ws,
)

pytestmark = pytest.mark.anyio


class Handler(AsyncBaseHandler):
    """Answers with what ``answer`` makes of a request."""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.is_closed = False

    async def ahandle(self, request: Request) -> Response:
        self.requests.append(request)
        return self.answer(request)

    async def aclose(self) -> None:
        self.is_closed = True


async def connect(client: AsyncClient, url: str | URL = "ws://test/", **options: object) -> None:
    async with aconnect_ws(url, client=client, close_timeout=0, **options):  # type: ignore[arg-type]
        pass


async def refused(client: AsyncClient, url: str = "ws://test/", **options: object) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        await connect(client, url, **options)
    return caught.value


# The request


async def test_the_handshake_is_one_get_with_the_headers_of_rfc_6455(server: MemoryServer) -> None:
    await connect(server.client, "ws://test/a%20b?x=1", subprotocols=["b", "a"], headers={"X-Mine": "1"})
    [request] = server.requests
    assert request.method == "GET"
    assert request.url.to_string() == "ws://test/a%20b?x=1"
    assert request.headers["Upgrade"] == "websocket"
    assert request.headers["Connection"] == "Upgrade"
    assert request.headers["Sec-WebSocket-Version"] == "13"
    assert request.headers["Sec-WebSocket-Protocol"] == "b, a"
    assert request.headers["X-Mine"] == "1"
    assert "Sec-WebSocket-Extensions" not in request.headers


@pytest.mark.parametrize("url", ["ws://test/", "wss://test/", "http://test/", "https://test/", URL("ws://test/x")])
async def test_ws_wss_http_https_and_url_objects_are_taken(server: MemoryServer, url: str | URL) -> None:
    before = str(url)
    await connect(AsyncClient(handler=server, default_params={"k": "v"}), url)
    assert str(url) == before


async def test_a_relative_url_is_resolved_by_the_clients_base_url(server: MemoryServer) -> None:
    await connect(AsyncClient(handler=server, base_url="http://host:81/api/"), "feed?x=1")
    assert server.requests[0].url.to_string() == "http://host:81/api/feed?x=1"


@pytest.mark.parametrize(
    ("params", "url", "search"),
    [
        (None, "ws://test/?a=1&a=2&b=%20+x", "?a=1&a=2&b=%20+x"),
        ({"k": "v", "a": "default"}, "ws://test/?a=1&a=2", "?k=v&a=1&a=2"),
        ({"k": "a b"}, "ws://test/", "?k=a+b"),
        (None, "ws://test/", ""),
    ],
)
async def test_the_query_reaches_the_server_as_it_was_given(
    server: MemoryServer, params: dict[str, str] | None, url: str, search: str
) -> None:
    await connect(AsyncClient(handler=server, default_params=params), url)
    assert server.requests[0].url.search == search


async def test_the_handshakes_own_headers_replace_those_of_the_client_whatever_their_case(server: MemoryServer) -> None:
    client = AsyncClient(handler=server, default_headers={"connection": "keep-alive", "upgrade": "h2c", "x-a": "b"})
    await connect(client, headers=zapros.Headers({"X-B": "c"}))
    headers = server.requests[0].headers
    assert headers.getall("Connection") == ["Upgrade"]
    assert headers.getall("Upgrade") == ["websocket"]
    assert (headers["X-A"], headers["X-B"]) == ("b", "c")


@pytest.mark.parametrize(
    ("client", "headers", "authorization"),
    [
        ({}, {}, "Basic dUA6cDo="),
        ({}, {"authorization": "Mine"}, "Mine"),
        ({"default_headers": {"AUTHORIZATION": "Theirs"}}, {}, "Theirs"),
        ({"auth": "token"}, {}, "Bearer token"),
        ({"auth": ("a", "b")}, {}, "Basic YTpi"),
    ],
)
async def test_credentials_in_the_url_become_basic_auth_unless_the_request_carries_authorization(
    server: MemoryServer, client: dict[str, object], headers: dict[str, str], authorization: str
) -> None:
    await connect(AsyncClient(handler=server, **client), "ws://u%40:p%3A@test/", headers=headers)  # type: ignore[call-overload]
    [request] = server.requests
    assert request.headers.getall("Authorization") == [authorization]
    assert request.url.to_string() == "ws://test/"


async def test_the_context_reaches_the_handlers_and_is_not_changed(server: MemoryServer) -> None:
    context: zapros.RequestContext = {"caching": {"ttl": 3.0}, "timeouts": {"connect": 3.0}}
    await connect(server.client, context=context)
    [request] = server.requests
    assert request.context.get("caching") == {"ttl": 3.0}
    assert request.context.get("timeouts", {}).get("connect") == 3.0
    assert context == {"caching": {"ttl": 3.0}, "timeouts": {"connect": 3.0}}


async def test_a_client_given_by_the_caller_is_never_closed() -> None:
    class Server(MemoryServer):
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    server = Server()
    async with server.client as client:
        await connect(client)
        await connect(client)
        assert not server.closed
    assert server.closed


BAD_ARGUMENTS: list[tuple[dict[str, object], type[Exception]]] = [
    ({"url": "ftp://test/"}, ValueError),
    ({"url": "localhost:8000/ws"}, ValueError),
    ({"url": "/relative"}, ValueError),
    ({"url": "ws://"}, ValueError),
    ({"url": "ws://test/#fragment"}, ValueError),
    ({"url": 3}, TypeError),
    ({"url": b"ws://test/"}, TypeError),
    ({"headers": {"X": "a\r\nY: b"}}, ValueError),
    ({"headers": {"X\n": "a"}}, ValueError),
    ({"headers": {"X": "\u20ac"}}, ValueError),
    ({"headers": {"Sec-WebSocket-Key": "mine"}}, ValueError),
    ({"headers": {"upgrade": "h2c"}}, ValueError),
    ({"headers": {"X": 1}}, TypeError),
    ({"headers": {"X": b"bytes"}}, TypeError),
    ({"headers": {1: "a"}}, TypeError),
    ({"headers": "X: a"}, TypeError),
    ({"headers": 3}, TypeError),
    ({"headers": {"Content-Length": "5"}}, ValueError),
    ({"headers": {"transfer-encoding": "chunked"}}, ValueError),
    ({"context": "proxy"}, TypeError),
    ({"context": [("network", {})]}, TypeError),
    ({"client": object()}, TypeError),
    ({"client": zapros.Client()}, TypeError),
    ({"subprotocols": "chat"}, TypeError),
    ({"subprotocols": [b"chat"]}, TypeError),
    ({"subprotocols": ["a\r\nb"]}, ValueError),
    ({"subprotocols": ["a,b"]}, ValueError),
    ({"subprotocols": ["a", "a"]}, ValueError),
    ({"subprotocols": [""]}, ValueError),
    ({"permessage_deflate": "yes"}, TypeError),
    ({"max_message_size": 0}, ValueError),
    ({"max_message_size": 1.5}, TypeError),
    ({"max_message_size": None}, TypeError),
    ({"ping_interval": -1}, ValueError),
    ({"ping_interval": 0}, ValueError),
    ({"ping_timeout": -0.1}, ValueError),
    ({"ping_timeout": "20"}, TypeError),
    ({"open_timeout": -1}, ValueError),
    ({"open_timeout": float("nan")}, ValueError),
    ({"close_timeout": -1}, ValueError),
    ({"close_timeout": None}, TypeError),
    ({"close_timeout": 10**400}, ValueError),
    ({"open_timeout": 10**400}, ValueError),
]


@pytest.mark.parametrize(("arguments", "error"), BAD_ARGUMENTS)
async def test_bad_arguments_raise_before_anything_is_sent(
    server: MemoryServer, arguments: dict[str, object], error: type[Exception]
) -> None:
    given: dict[str, object] = {"url": "ws://test/", "client": server.client, **arguments}
    with pytest.raises(error):
        async with aconnect_ws(**given):  # type: ignore[arg-type]
            pass
    async with anyio.create_task_group() as tasks:
        with pytest.raises(error):
            await open_ws(tasks, **given)  # type: ignore[arg-type]
    assert server.requests == []


async def test_a_line_break_in_a_default_header_of_the_client_raises_before_anything_is_sent(
    server: MemoryServer,
) -> None:
    with pytest.raises(ValueError, match="X-Bad") as caught:
        await connect(AsyncClient(handler=server, default_headers={"X-Bad": "secret\r\nX: y"}))
    assert "secret" not in str(caught.value)
    assert server.requests == []


# The answer


async def test_the_agreement_stands_on_the_connection() -> None:
    server = MemoryServer(deflate=True)
    async with aconnect_ws(
        "ws://test/",
        client=server.client,
        close_timeout=0,
        permessage_deflate=PerMessageDeflateExtension(client_max_window_bits=12, server_no_context_takeover=True),
    ) as ws:
        assert ws.response.status == 101
        assert ws.subprotocol is None
        assert ws.permessage_deflate == PerMessageDeflateExtension(
            client_max_window_bits=12, server_no_context_takeover=True
        )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([("Connection", "keep-alive"), ("Upgrade", "foo")], None),
        ([("Sec-WebSocket-Accept", "wrong")], "Sec-WebSocket-Accept"),
        ([("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "b")], "a, b"),
        ([("Sec-WebSocket-Extensions", "foo")], "foo"),
    ],
)
async def test_every_line_of_a_header_counts(lines: list[tuple[str, str]], words: str | None) -> None:
    class Wordy(MemoryServer):
        async def ahandle(self, request: Request) -> Response:
            response = await super().ahandle(request)
            own = response.headers.list()
            response.headers = zapros.Headers([*own, *lines] if words else [*lines, *own])
            return response

    client = Wordy().client
    if words is None:
        await connect(client)
    else:
        assert words in str(await refused(client, subprotocols=["a", "b"]))


async def test_an_invalid_url_does_not_repeat_its_credentials(server: MemoryServer) -> None:
    with pytest.raises(ValueError, match="not valid") as caught:
        await connect(server.client, "ws://user:secret@test:99999/")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_the_headers_of_a_call_replace_those_of_the_client_whatever_their_case(server: MemoryServer) -> None:
    client = AsyncClient(handler=server, default_headers={"Authorization": "Bearer default", "X-A": "a"})
    await connect(client, headers={"authorization": "Bearer mine"})
    assert server.requests[0].headers.getall("Authorization") == ["Bearer mine"]
    assert server.requests[0].headers["X-A"] == "a"


async def test_open_ws_wants_a_task_group_before_anything_is_sent(server: MemoryServer) -> None:
    with pytest.raises(TypeError, match="task_group"):
        await open_ws(None, "ws://test/", client=server.client)  # type: ignore[arg-type]
    assert server.requests == []


@pytest.mark.parametrize("status", [200, 301, 401, 403, 404, 426, 500])
async def test_any_answer_but_a_101_raises_handshake_error_with_the_response(status: int) -> None:
    handler = Handler(lambda request: Response(status, {"X-Why": "no"}, content=b"body", request=request))
    error = await refused(AsyncClient(handler=handler))
    assert isinstance(error, WebsocketError)
    assert str(status) in str(error)
    assert error.response is not None
    assert (error.response.status, error.response.headers["X-Why"], error.response.text) == (status, "no", "body")
    assert not handler.is_closed


def answer_with(body: AsyncIterator[bytes], request: Request) -> Response:
    return Response(500, content=body, request=request)


def stream(*chunks: bytes, endless: bool = False, error: Exception | None = None) -> AsyncIterator[bytes]:
    class Body(zapros.AsyncClosableStream):
        def __init__(self) -> None:
            self.left = list(chunks)
            self.is_closed = False
            self.is_exhausted = False

        async def __anext__(self) -> bytes:
            await anyio.lowlevel.checkpoint()
            if self.is_closed:
                raise StopAsyncIteration
            if self.left:
                return self.left.pop(0)
            if error is not None:
                raise error
            if endless:
                await anyio.sleep_forever()
            self.is_exhausted = True
            raise StopAsyncIteration

        async def aclose(self) -> None:
            self.is_closed = True

    return Body()


async def test_the_body_of_the_answer_is_read_up_to_64_kib() -> None:
    for body in (stream(*[bytes(10_000)] * 20, endless=True), stream(*[bytes(10_000)] * 5)):
        client = AsyncClient(handler=Handler(partial(answer_with, body)))
        error = await refused(client)
        assert error.response is not None
        assert error.response.text in ("\0" * 65536, "\0" * 50_000)


async def test_a_body_that_never_ends_or_fails_is_left_soon_and_what_came_is_kept() -> None:
    for body in (stream(b"some", endless=True), stream(b"some", error=zapros.ReadError("reset"))):
        client = AsyncClient(handler=Handler(partial(answer_with, body)))
        began = anyio.current_time()
        error = await refused(client, open_timeout=1)
        assert error.response is not None
        assert error.response.text == "some"
        assert anyio.current_time() - began <= 1.1


async def test_a_compressed_body_is_inflated() -> None:
    import gzip

    handler = Handler(
        lambda request: Response(
            403, {"Content-Encoding": "gzip"}, content=stream(gzip.compress(b"why not")), request=request
        )
    )
    error = await refused(AsyncClient(handler=handler))
    assert error.response is not None
    assert error.response.text == "why not"


async def test_a_compressed_body_is_inflated_no_further_than_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip
    import zlib

    inflated = 0

    class Counting:
        def __init__(self, window: int) -> None:
            self._inflater = decompressobj(window)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal inflated
            out = self._inflater.decompress(data, most)
            inflated += len(out)
            return out

        def __getattr__(self, name: str) -> object:
            return getattr(self._inflater, name)

    decompressobj = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    bomb = gzip.compress(gzip.compress(bytes(50_000_000)))
    body = stream(bomb)
    handler = Handler(lambda request: Response(403, {"Content-Encoding": "gzip, gzip"}, content=body, request=request))
    error = await refused(AsyncClient(handler=handler))
    assert error.response is not None
    assert error.response.text == "\0" * 65536
    assert inflated < 1_000_000


async def test_a_body_that_is_not_encoded_as_it_says_does_not_hide_the_answer() -> None:
    body = stream(b"plain", b"words")
    handler = Handler(lambda request: Response(403, {"Content-Encoding": "gzip"}, content=body, request=request))
    error = await refused(AsyncClient(handler=handler))
    assert error.response is not None
    assert (error.response.status, error.response.text) == (403, "")
    # It was read to its end, and no generator is left to the garbage collector.
    assert body.is_exhausted  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Upgrade": "h2c"}, "Upgrade"),
        ({"Connection": "keep-alive"}, "Connection"),
        ({"Sec-WebSocket-Accept": "wrong"}, "Sec-WebSocket-Accept"),
        ({"Sec-WebSocket-Protocol": "chat"}, "chat"),
        ({"Sec-WebSocket-Extensions": "permessage-deflate"}, "not offered"),
    ],
)
async def test_a_101_that_is_not_valid_is_refused_and_its_stream_closed(change: dict[str, str], words: str) -> None:
    class Wrong(MemoryServer):
        async def ahandle(self, request: Request) -> Response:
            response = await super().ahandle(request)
            for name, value in change.items():
                response.headers[name] = value
            return response

    server = Wrong()
    error = await refused(server.client, subprotocols=["other"])
    assert words in str(error)
    assert error.response is not None
    assert error.response.status == 101
    assert server.stream.is_closed


async def test_a_101_without_a_stream_is_refused() -> None:
    error = await refused(AsyncClient(handler=Handler(lambda request: Response(101, request=request))))
    assert "handed no network stream over" in str(error)


async def test_a_redirect_from_wss_to_ws_is_refused() -> None:
    class Redirecting(MemoryServer):
        async def ahandle(self, request: Request) -> Response:
            response = await super().ahandle(request)
            response.request = Request(URL("ws://elsewhere/"), "GET")
            return response

    server = Redirecting()
    error = await refused(server.client, "wss://test/")
    assert "not encrypted" in str(error)
    assert server.stream.is_closed
    await connect(server.client, "http://test/")


class Elsewhere(MemoryServer):
    """Redirects ``/`` to ``elsewhere``, that to ``back``, and accepts the rest."""

    def __init__(self, elsewhere: str, back: str) -> None:
        super().__init__()
        self.locations = {"/": elsewhere, "/elsewhere": back}

    async def ahandle(self, request: Request) -> Response:
        if location := self.locations.get(request.url.pathname):
            self.requests.append(request)
            return Response(302, {"Location": location}, request=request)
        return await super().ahandle(request)


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_a_redirect_from_wss_to_ws_is_refused_before_anything_is_sent_there(scheme: str) -> None:
    server = Elsewhere(f"{scheme}://test/elsewhere", "wss://test/back")
    client = server.client
    for wrap in (zapros.RedirectMiddleware, zapros.RetryMiddleware, zapros.CookieMiddleware):
        client.wrap_with_middleware(wrap)
    error = await refused(client, "wss://test/")
    assert "not encrypted" in str(error)
    assert [request.url.protocol for request in server.requests] == ["wss:"]


@pytest.mark.parametrize("begin", ["wss://test/", "ws://test/", "http://test/"])
async def test_other_redirects_are_followed(begin: str) -> None:
    server = Elsewhere("wss://test/elsewhere" if begin.startswith("wss") else "/elsewhere", "https://test/back")
    client = server.client.wrap_with_middleware(zapros.RedirectMiddleware)
    await connect(client, begin)
    assert server.requests[-1].url.to_string() == "https://test/back"
    # The client's own handlers are as they were.
    assert isinstance(client.handler, zapros.RedirectMiddleware)
    assert isinstance(client.handler.async_next, Elsewhere)


async def test_the_credentials_of_a_socks_proxy_are_not_for_the_server_behind_it(server: MemoryServer) -> None:
    class Proxying(MemoryServer):
        async def ahandle(self, request: Request) -> Response:
            request.headers["Proxy-Authorization"] = "Basic secret"
            return await super().ahandle(request)

    for url, sent in (("socks5://u:p@proxy:1080", False), ("http://u:p@proxy:3128", True)):
        proxying = Proxying()
        await connect(proxying.client, context={"network": {"proxy": {"url": url}}})
        assert ("Proxy-Authorization" in proxying.requests[0].headers) is sent


async def test_an_ipv6_host_has_no_brackets_for_a_resolver(server: MemoryServer) -> None:
    await connect(server.client, "ws://[::1]:81/")
    [request] = server.requests
    assert request.url.hostname == "::1"
    assert request.headers["Host"] == "[::1]:81"


async def test_the_url_of_any_other_host_is_the_one_that_the_client_was_given(server: MemoryServer) -> None:
    urls: list[URL] = []

    class Client(AsyncClient):
        def _merge_url(self, url: str | URL, params: object = None) -> URL:
            merged = super()._merge_url(url)
            urls.append(merged)
            return merged

    await connect(Client(handler=server), "ws://test:81/path")
    [request], [url] = server.requests, urls
    assert request.url is url


async def test_a_handler_that_does_not_name_the_request_is_believed(server: MemoryServer) -> None:
    class Nameless(MemoryServer):
        async def ahandle(self, request: Request) -> Response:
            response = await super().ahandle(request)
            response.request = None
            return response

    await connect(Nameless().client, "wss://test/")


@pytest.mark.parametrize("open_timeout", [0.25, 10.0])
async def test_open_timeout_covers_everything_up_to_the_101(open_timeout: float) -> None:
    class Silent(AsyncBaseHandler):
        async def ahandle(self, request: Request) -> Response:
            await anyio.sleep_forever()
            raise AssertionError

    began = anyio.current_time()
    with pytest.raises(HandshakeTimeoutError) as caught:
        await connect(AsyncClient(handler=Silent()), open_timeout=open_timeout)
    assert open_timeout <= anyio.current_time() - began <= open_timeout + 0.1
    assert isinstance(caught.value, HandshakeError)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.response is None


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (zapros.ConnectionError("refused"), zapros.ConnectionError),
        (zapros.ConnectTimeoutError("slow"), zapros.ConnectTimeoutError),
        (ConnectionResetError("reset"), zapros.ConnectionError),
        (ssl.SSLError("bad certificate"), zapros.SSLError),
        (trio.BrokenResourceError("broken"), zapros.ConnectionError),
        (anyio.EndOfStream(), zapros.ConnectionError),
        (h11.RemoteProtocolError("illegal status line"), HandshakeError),
        (h11.LocalProtocolError("illegal header"), HandshakeError),
        (KeyError("a bug of a handler"), KeyError),
    ],
)
async def test_network_errors_stay_zapros_own_and_nothing_of_h11_or_anyio_comes_out(
    raised: Exception, expected: type[Exception]
) -> None:
    def answer(request: Request) -> Response:
        raise raised

    with pytest.raises(expected) as caught:
        await connect(AsyncClient(handler=Handler(answer)))
    assert caught.value is raised or caught.value.__cause__ is raised


@pytest.mark.parametrize("with_cause", [True, False])
async def test_a_network_error_that_says_nothing_is_explained_by_its_cause_or_its_kind(*, with_cause: bool) -> None:
    silent = BrokenPipeError()

    def answer(request: Request) -> Response:
        raise silent from (OSError("the cable was cut") if with_cause else None)

    with pytest.raises(zapros.ConnectionError, match="the cable was cut" if with_cause else "BrokenPipeError"):
        await connect(AsyncClient(handler=Handler(answer)))


async def test_trailing_data_may_be_missing(server: MemoryServer) -> None:
    class Terse(MemoryServer):
        async def ahandle(self, request: Request) -> Response:
            response = await super().ahandle(request)
            context: ResponseContext = {"handoff": {"network_stream": self.stream}}
            response.context = context
            return response

    terse = Terse()
    async with aconnect_ws("ws://test/", client=terse.client, close_timeout=0) as ws:
        await terse.peer.write(b"\x81\x02hi")
        assert await ws.recv() == TextMessage("hi")


async def test_each_handshake_has_a_key_of_its_own(server: MemoryServer) -> None:
    connecting = aconnect_ws("ws://test/", client=server.client, close_timeout=0, subprotocols=iter(["a", "b"]))  # type: ignore[arg-type]
    for _ in range(2):
        async with connecting:
            pass
    first, second = server.requests
    assert first.headers["Sec-WebSocket-Key"] != second.headers["Sec-WebSocket-Key"]
    assert first.headers["Sec-WebSocket-Protocol"] == second.headers["Sec-WebSocket-Protocol"] == "a, b"
