"""The synchronous client on the same servers, through ``zapros.Client``: the ways there, and every kind of answer."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Literal

import anyio
import pytest
import zapros
from zapros import BaseNetworkStream, Client, StdNetworkHandler, SyncStream, SyncTransport

from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    HandshakeError,
    HandshakeTimeoutError,
    PingMessage,
    TextMessage,
    WebSocket,
    connect_ws,
)

from .clients import Description, through
from .processes import ServerProcess, Servers

CREDENTIALS = "user:secret"
MEBIBYTE = BinaryMessage(bytes(range(256)) * 4096)
WEBSOCKET_SERVERS = (
    "websockets",
    "uvicorn-websockets",
    "uvicorn-wsproto",
    "hypercorn-asyncio",
    "hypercorn-trio",
    "aiohttp",
)


def client_that_trusts(ssl_context: ssl.SSLContext) -> Client:
    return Client(StdNetworkHandler(transport=SyncTransport(ssl_context=ssl_context)))


def described(ws: WebSocket) -> Description:
    message = ws.recv()
    assert isinstance(message, TextMessage)
    return Description.from_json(message.data)


def line(server: ServerProcess, key: str, value: object) -> None:
    anyio.run(server.line, key, value)


def exchange_mebibytes(ws: WebSocket) -> None:
    for _ in range(2):
        ws.send(MEBIBYTE)
        assert ws.recv() == MEBIBYTE


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


@pytest.fixture(params=WEBSOCKET_SERVERS)
def server(servers: Servers, request: pytest.FixtureRequest) -> ServerProcess:
    return servers.websocket(request.param)


@pytest.fixture(params=["own-client", "given-client"])
def client(request: pytest.FixtureRequest) -> Iterator[Client | None]:
    if request.param == "own-client":
        yield None
        return
    with Client() as client:
        yield client


@pytest.fixture(params=["ws", "wss"])
def destination(servers: Servers, request: pytest.FixtureRequest) -> str:
    server = servers.secure() if request.param == "wss" else servers.websocket("aiohttp")
    return server.address(request.param)


# Messages


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflated"])
def test_messages_of_all_sizes_come_back(server: ServerProcess, client: Client | None, deflate: bool) -> None:
    messages: list[TextMessage | BinaryMessage] = [
        TextMessage("Grüße, 世界"),
        TextMessage(""),
        BinaryMessage(b"x" * 126),
        BinaryMessage(b"x" * 65536),
        BinaryMessage(bytes(range(256)) * 16384),
    ]
    with connect_ws(f"{server.address()}/echo", client=client, permessage_deflate=deflate) as ws:
        for message in messages:
            ws.send(message)
            assert ws.recv() == message
        for message in messages:
            ws.send(message)
        assert [ws.recv() for _ in messages] == messages
        assert ws.ping() >= 0


def test_iteration_and_the_close_of_the_server(server: ServerProcess) -> None:
    with connect_ws(f"{server.address()}/count/1000") as ws:
        assert [message.data for message in ws] == [str(n + 1) for n in range(1000)]
        assert ws.close_code == 1000
    with connect_ws(f"{server.address()}/close/4001/going home") as ws:
        assert ws.recv() == CloseMessage(4001, "going home")


def test_the_server_learns_how_the_client_closed(servers: Servers) -> None:
    server = servers.websocket("websockets")
    name = uuid.uuid4().hex
    with connect_ws(f"{server.address()}/echo?name={name}") as ws:
        ws.close(4002, "had enough")
    assert anyio.run(server.line, "name", name)["code"] == 4002


def test_a_ping_of_the_server_is_answered_and_returned(servers: Servers) -> None:
    with connect_ws(f"{servers.websocket('websockets').address()}/ping/marco") as ws:
        assert ws.recv() == PingMessage(b"marco")
        assert ws.recv() == TextMessage("the pong came")


def test_subprotocols(server: ServerProcess, client: Client | None) -> None:
    with connect_ws(f"{server.address()}/echo", client=client, subprotocols=["unknown", "chat.v2"]) as ws:
        assert ws.subprotocol == "chat.v2"
        assert ws.response.headers["X-Accepted"] == "gladly"


# The ways to a server


def test_ws_and_wss(destination: str, client_context: ssl.SSLContext) -> None:
    before = threads()
    with client_that_trusts(client_context) as client, connect_ws(f"{destination}/describe", client=client) as ws:
        assert described(ws).target == "/describe"
        exchange_mebibytes(ws)
        assert threads() - before <= {"zapros_websocket"}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_http_proxy_forwards_ws_and_tunnels_wss(
    servers: Servers, destination: str, client_context: ssl.SSLContext, scheme: str
) -> None:
    # Through an HTTPS proxy, wss is TLS inside TLS.
    proxy = servers.secure_proxy() if scheme == "https" else servers.start("http_proxy")
    context = through(proxy.address(scheme))
    before = threads()
    with (
        client_that_trusts(client_context) as client,
        connect_ws(f"{destination}/describe", client=client, context=context) as ws,
    ):
        seen = described(ws)
        exchange_mebibytes(ws)
        ws.ping()
        # Also TLS in a tunnel, and TLS inside TLS, needs no thread.
        assert threads() - before <= {"zapros_websocket"}
    line(proxy, "upstream_port", seen.client_port)


@pytest.mark.parametrize("credentials", ["", CREDENTIALS], ids=["open", "with-credentials"])
def test_a_socks5_proxy_carries_ws_and_wss(
    servers: Servers, destination: str, client_context: ssl.SSLContext, credentials: str
) -> None:
    if credentials:
        proxy = servers.start("socks5_proxy", "--credentials", credentials)
        context = through(proxy.address("socks5", f"{credentials}@127.0.0.1"))
    else:
        proxy = servers.start("socks5_proxy")
        context = through(proxy.address("socks5"))
    with (
        client_that_trusts(client_context) as client,
        connect_ws(f"{destination}/describe", client=client, context=context) as ws,
    ):
        seen = described(ws)
        exchange_mebibytes(ws)
    assert seen.header("Proxy-Authorization") is None
    line(proxy, "upstream_port", seen.client_port)


class UnixTransport:
    """Every connection goes to one Unix socket, whatever the host in the URL."""

    def __init__(self, path: str) -> None:
        self._path = path

    def connect(
        self,
        host: str,
        port: int,
        server_hostname: str | None = None,
        tls: bool = False,
        *,
        alpn_protocols: list[Literal["http/1.1", "h2"]] | None = None,
        timeout: float | None = None,
    ) -> BaseNetworkStream:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._path)
        return SyncStream(sock, upgrade_ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


class ForeignTransport(SyncTransport):
    """Its streams are none of Zapros's classes: they can be read, written and closed, and nothing else."""

    def connect(
        self,
        host: str,
        port: int,
        server_hostname: str | None = None,
        tls: bool = False,
        *,
        alpn_protocols: list[Literal["http/1.1", "h2"]] | None = None,
        timeout: float | None = None,
    ) -> BaseNetworkStream:
        return ForeignStream(super().connect(host, port, server_hostname, tls, timeout=timeout))


class ForeignStream(BaseNetworkStream):
    def __init__(self, stream: BaseNetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, timeout)

    def write_all(self, data: bytes, timeout: float | None = None) -> int:
        return self._stream.write_all(data, timeout)

    def close(self) -> None:
        self._stream.close()


def test_a_unix_socket_given_as_a_transport(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = str(Path(tmp_path_factory.getbasetemp()) / "unix.socket")
    servers.start("aiohttp_server", "--unix", path)
    with Client(StdNetworkHandler(transport=UnixTransport(path))) as client:
        with connect_ws("ws://unix.example/describe", client=client) as ws:
            assert described(ws).header("Host") == "unix.example"
            exchange_mebibytes(ws)


def test_streams_of_another_make_given_by_a_transport(aiohttp_server: ServerProcess) -> None:
    with Client(StdNetworkHandler(transport=ForeignTransport())) as client:
        with connect_ws(f"{aiohttp_server.address()}/describe", client=client) as ws:
            assert described(ws).target == "/describe"
            exchange_mebibytes(ws)


# What the handlers of the client do


def test_default_headers_auth_and_base_url(aiohttp_server: ServerProcess) -> None:
    base_url = f"{aiohttp_server.address('http')}/api/"
    headers = {"X-Default": "one", "X-Both": "client"}
    with Client(base_url=base_url, default_headers=headers, default_params={"k": "v"}, auth="token") as client:
        with connect_ws("describe?room=1", client=client, headers={"X-Both": "call"}) as ws:
            seen = described(ws)
    assert seen.target == "/api/describe?k=v&room=1"
    assert (seen.header("X-Default"), seen.header("X-Both")) == ("one", "call")
    assert seen.header("Authorization") == "Bearer token"


def test_user_and_password_in_the_url_become_basic_auth(aiohttp_server: ServerProcess, client: Client | None) -> None:
    url = f"ws://user:p%40ss@127.0.0.1:{aiohttp_server.port}/describe?a=1&a=2"
    with connect_ws(url, client=client) as ws:
        seen = described(ws)
    assert seen.header("Authorization") == "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert seen.target == "/describe?a=1&a=2"


def test_cookies_of_an_earlier_response_are_sent(aiohttp_server: ServerProcess) -> None:
    with Client() as client:
        client.wrap_with_middleware(lambda following: zapros.CookieMiddleware(following))
        client.request("GET", f"{aiohttp_server.address('http')}/login")
        with connect_ws(f"{aiohttp_server.address()}/describe", client=client) as ws:
            assert described(ws).header("Cookie") == "session=chocolate"


def test_the_client_retries_until_the_server_accepts(aiohttp_server: ServerProcess) -> None:
    with Client() as client:
        client.wrap_with_middleware(lambda following: zapros.RetryMiddleware(following, backoff_factor=0))
        with connect_ws(f"{aiohttp_server.address()}/busy?key={uuid.uuid4().hex}", client=client) as ws:
            ws.send("third time")
            assert ws.recv() == TextMessage("third time")


def redirecting(client: Client) -> Client:
    return client.wrap_with_middleware(lambda following: zapros.RedirectMiddleware(following))


def test_the_client_follows_redirects(aiohttp_server: ServerProcess) -> None:
    to = f"{aiohttp_server.address()}/describe"
    with redirecting(Client()) as client:
        with connect_ws(f"{aiohttp_server.address()}/redirect?to={to}", client=client) as ws:
            assert described(ws).target == "/describe"


def test_a_redirect_from_wss_to_ws_is_refused(
    servers: Servers, aiohttp_server: ServerProcess, client_context: ssl.SSLContext
) -> None:
    secure = servers.secure().address("wss")
    with redirecting(client_that_trusts(client_context)) as client:
        with pytest.raises(HandshakeError, match=r"(?i)redirect"):
            connect_ws(f"{secure}/redirect?to={aiohttp_server.address()}/echo", client=client).__enter__()
        with connect_ws(f"{secure}/redirect?to={secure}/describe", client=client) as ws:
            assert described(ws).target == "/describe"


def test_a_middleware_of_the_caller_takes_part(aiohttp_server: ServerProcess) -> None:
    class Stamp(zapros.BaseMiddleware):
        def __init__(self, following: zapros.BaseHandler) -> None:
            self.next = following

        def handle(self, request: zapros.Request) -> zapros.Response:
            request.headers["X-Stamp"] = threading.current_thread().name
            return self.next.handle(request)

    with Client().wrap_with_middleware(Stamp) as client:
        with connect_ws(f"{aiohttp_server.address()}/describe", client=client) as ws:
            assert described(ws).header("X-Stamp") == threading.current_thread().name


# Answers


@pytest.mark.usefixtures("leaks_show")
@pytest.mark.parametrize("status", [200, 401, 403, 404, 500])
def test_another_status_is_a_handshake_error_with_headers_and_body(
    raw_server: ServerProcess, client: Client | None, status: int
) -> None:
    with pytest.raises(HandshakeError) as caught:
        connect_ws(f"{raw_server.address()}/status/{status}", client=client).__enter__()
    response = caught.value.response
    assert response is not None
    assert (response.status, response.headers["X-Reason"]) == (status, "because")
    assert response.text == f"refused with {status}"


@pytest.mark.usefixtures("leaks_show")
@pytest.mark.parametrize("path", ["/wrong-accept", "/no-accept", "/no-upgrade", "/subprotocol", "/deflate"])
def test_a_101_that_is_not_valid_is_a_handshake_error(raw_server: ServerProcess, path: str) -> None:
    name = uuid.uuid4().hex
    with Client() as client:
        with pytest.raises(HandshakeError) as caught:
            connect_ws(f"{raw_server.address()}{path}?{name}", client=client).__enter__()
        # The client stays open: it is not its end that ends the connection.
        line(raw_server, "left", name)
    assert caught.value.response is not None
    assert caught.value.response.status == 101


@pytest.mark.usefixtures("leaks_show")
@pytest.mark.parametrize("path", ["/early", "/early-hints", "/lenient-case"])
def test_frames_in_the_segment_of_the_101_are_delivered(
    raw_server: ServerProcess, client: Client | None, path: str
) -> None:
    with connect_ws(f"{raw_server.address()}{path}", client=client) as ws:
        assert [ws.recv(), ws.recv()] == [TextMessage("hello"), BinaryMessage(b"world")]


@pytest.mark.usefixtures("leaks_show")
@pytest.mark.parametrize(("path", "status"), [("/large-body", 500), ("/endless-body", 200), ("/gzip-bomb", 500)])
def test_of_a_large_body_64_kib_are_kept(
    raw_server: ServerProcess, client: Client | None, path: str, status: int
) -> None:
    with pytest.raises(HandshakeError) as caught:
        connect_ws(f"{raw_server.address()}{path}", client=client).__enter__()
    response = caught.value.response
    assert response is not None
    assert response.status == status
    assert response.text == "x" * 64 * 1024


@pytest.mark.usefixtures("leaks_show")
@pytest.mark.parametrize("path", ["/broken-off-body", "/broken-chunk", "/half-a-body"])
def test_a_body_that_breaks_off_or_stalls_does_not_hide_the_status(
    raw_server: ServerProcess, client: Client | None, path: str
) -> None:
    began = monotonic()
    with pytest.raises(HandshakeError) as caught:
        connect_ws(f"{raw_server.address()}{path}", client=client, open_timeout=0.3).__enter__()
    assert monotonic() - began < 5
    assert caught.value.response is not None
    assert caught.value.response.status == 403
    assert "the beginning".startswith(caught.value.response.text)


@pytest.mark.usefixtures("leaks_show")
@pytest.mark.parametrize("path", ["/garbage", "/endless-headers", "/endless-status-line"])
def test_an_answer_that_is_not_http_is_a_handshake_error(
    raw_server: ServerProcess, client: Client | None, path: str
) -> None:
    with pytest.raises(HandshakeError):
        connect_ws(f"{raw_server.address()}{path}", client=client).__enter__()


@pytest.mark.usefixtures("leaks_show")
@pytest.mark.parametrize("path", ["/status/404", "/wrong-accept", "/endless-body", "/garbage", "/early"])
def test_a_handshake_gives_its_place_in_the_pool_back(raw_server: ServerProcess, path: str) -> None:
    with Client(StdNetworkHandler(http1={"max_connections_per_host": 1})) as client:
        with contextlib.suppress(HandshakeError):
            with connect_ws(f"{raw_server.address()}{path}", client=client):
                pass
        with connect_ws(f"{raw_server.address()}/early", client=client) as ws:
            assert ws.recv() == TextMessage("hello")


# Where there is no answer


@pytest.mark.usefixtures("leaks_show")
@pytest.mark.parametrize("path", ["/silence", "/slow-headers"])
def test_a_server_that_takes_too_long_runs_into_the_open_timeout(
    raw_server: ServerProcess, client: Client | None, path: str
) -> None:
    name = uuid.uuid4().hex
    began = monotonic()
    with pytest.raises(HandshakeTimeoutError) as caught:
        connect_ws(f"{raw_server.address()}{path}?{name}", client=client, open_timeout=0.3).__enter__()
    assert monotonic() - began < 5
    assert isinstance(caught.value, TimeoutError)
    line(raw_server, "left", name)


@pytest.mark.usefixtures("leaks_show")
def test_silence_in_tls_runs_into_the_open_timeout(raw_server: ServerProcess, client: Client | None) -> None:
    with pytest.raises(HandshakeTimeoutError):
        connect_ws(f"{raw_server.address('wss')}/", client=client, open_timeout=0.3).__enter__()


@pytest.mark.usefixtures("leaks_show")
@pytest.mark.parametrize("scheme", ["https", "socks5"])
@pytest.mark.parametrize("destination_scheme", ["ws", "wss"])
def test_a_silent_proxy_runs_into_the_open_timeout(
    raw_server: ServerProcess, client: Client | None, scheme: str, destination_scheme: str
) -> None:
    context = through(raw_server.address(scheme))
    with pytest.raises(HandshakeTimeoutError):
        url = f"{destination_scheme}://127.0.0.1/"
        connect_ws(url, client=client, context=context, open_timeout=0.3).__enter__()


@pytest.mark.usefixtures("leaks_show")
def test_silence_in_tls_behind_a_tunnel_runs_into_the_open_timeout(
    servers: Servers, raw_server: ServerProcess, client: Client | None
) -> None:
    context = through(servers.start("http_proxy").address("http"))
    with pytest.raises(HandshakeTimeoutError):
        connect_ws(f"{raw_server.address('wss')}/", client=client, context=context, open_timeout=0.3).__enter__()


@pytest.mark.usefixtures("leaks_show")
def test_errors_of_the_network_stay_those_of_zapros(
    servers: Servers, raw_server: ServerProcess, client: Client | None, closed_port: int
) -> None:
    for url in (
        f"ws://127.0.0.1:{closed_port}/",
        "ws://nobody-is-here.invalid/",
        f"{raw_server.address()}/hang-up",
        f"{raw_server.address()}/half-an-answer",
    ):
        with pytest.raises(zapros.ConnectionError):
            connect_ws(url, client=client).__enter__()
    with pytest.raises(zapros.SSLError):
        connect_ws(f"{servers.secure().address('wss')}/echo", client=client).__enter__()
    proxy = through(servers.start("http_proxy").address("http"))
    with pytest.raises(zapros.SSLError):
        connect_ws(f"{servers.secure().address('wss')}/echo", client=client, context=proxy).__enter__()


def test_a_handshake_of_tls_without_an_answer_is_too_late_whoever_notices_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(_: object, __: float) -> None:
        await anyio.sleep_forever()

    # The timeout that Zapros was told is the one that ends it.
    monkeypatch.setattr("zapros_websocket._blocking.Deadline.wait", never)
    with socket.create_server(("127.0.0.1", 0)) as silent, zapros.Client() as client:
        url = f"wss://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(HandshakeTimeoutError), connect_ws(url, client=client, open_timeout=0.2):
            pass
