"""The ways to a server: proxies, TLS, Unix sockets, IPv6 and transports of the caller."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
import zapros

from zapros_websocket import (
    AsyncBaseWebSocket,
    BinaryMessage,
    TextMessage,
    aconnect_ws,
)

from .clients import (
    ForeignTransport,
    UnixTransport,
    client_over,
    client_that_trusts,
    described,
    through,
)
from .processes import ServerProcess, Servers

pytestmark = pytest.mark.anyio

CREDENTIALS = "user:secret"
MEBIBYTE_OF_BYTES = BinaryMessage(bytes(range(256)) * 4096)
MEBIBYTE_OF_TEXT = TextMessage("0123456789abcdef" * 65536)


@pytest.fixture(params=["ws", "wss"])
def destination(servers: Servers, request: pytest.FixtureRequest) -> str:
    """The address of the server at the far end, plain or secure."""
    server = servers.secure() if request.param == "wss" else servers.websocket("aiohttp")
    return server.address(request.param)


async def exchange_mebibytes(ws: AsyncBaseWebSocket) -> None:
    for message in (MEBIBYTE_OF_BYTES, MEBIBYTE_OF_TEXT):
        await ws.send(message)
        assert await ws.recv() == message


@pytest.mark.parametrize("secure_proxy", [False, True], ids=["http-proxy", "https-proxy"])
async def test_an_http_proxy_forwards_ws_and_tunnels_wss(
    servers: Servers, destination: str, client_context: ssl.SSLContext, secure_proxy: bool
) -> None:
    proxy = servers.secure_proxy() if secure_proxy else servers.start("http_proxy")
    context = through(proxy.address("https" if secure_proxy else "http"))
    async with (
        client_that_trusts(client_context) as client,
        aconnect_ws(f"{destination}/describe?a=1&a=2", client=client, context=context) as ws,
    ):
        seen = await described(ws)
        await exchange_mebibytes(ws)
    assert seen.target == "/describe?a=1&a=2"
    line = await proxy.line("upstream_port", seen.client_port)
    if destination.startswith("wss:"):
        assert line["method"] == "CONNECT"
        assert line["target"] == destination.removeprefix("wss://")
    else:
        assert line["method"] == "GET"
        assert str(line["target"]).endswith(f"{destination.removeprefix('ws:')}/describe?a=1&a=2")


async def test_proxy_middleware_leaves_a_given_proxy_alone(servers: Servers, aiohttp_server: ServerProcess) -> None:
    proxy = servers.start("http_proxy")
    async with zapros.AsyncClient() as client:
        client.wrap_with_middleware(lambda following: zapros.ProxyMiddleware(following))
        context = through(proxy.address("http"))
        async with aconnect_ws(f"{aiohttp_server.address()}/describe", client=client, context=context) as ws:
            seen = await described(ws)
    assert (await proxy.line("upstream_port", seen.client_port))["method"] == "GET"


async def test_a_proxy_serves_a_call_without_a_client(servers: Servers, aiohttp_server: ServerProcess) -> None:
    proxy = servers.start("http_proxy")
    context = through(proxy.address("http"))
    async with aconnect_ws(f"{aiohttp_server.address()}/describe", context=context) as ws:
        seen = await described(ws)
    assert (await proxy.line("upstream_port", seen.client_port))["method"] == "GET"


async def test_the_credentials_are_for_the_proxy_alone(
    servers: Servers, destination: str, client_context: ssl.SSLContext
) -> None:
    proxy = servers.start("http_proxy", "--credentials", CREDENTIALS)
    context = through(proxy.address("http", f"{CREDENTIALS}@127.0.0.1"))
    async with (
        client_that_trusts(client_context) as client,
        aconnect_ws(f"{destination}/describe", client=client, context=context) as ws,
    ):
        seen = await described(ws)
    assert await proxy.line("upstream_port", seen.client_port)
    assert seen.header("Proxy-Authorization") is None
    assert seen.header("Authorization") is None


@pytest.mark.parametrize("credentials", ["", CREDENTIALS], ids=["open", "with-credentials"])
async def test_a_socks5_proxy_carries_ws_and_wss(
    servers: Servers, destination: str, client_context: ssl.SSLContext, credentials: str
) -> None:
    if credentials:
        proxy = servers.start("socks5_proxy", "--credentials", credentials)
        context = through(proxy.address("socks5", f"{credentials}@127.0.0.1"))
    else:
        proxy = servers.start("socks5_proxy")
        context = through(proxy.address("socks5"))
    async with (
        client_that_trusts(client_context) as client,
        aconnect_ws(f"{destination}/describe?a=1&a=2", client=client, context=context) as ws,
    ):
        seen = await described(ws)
        await exchange_mebibytes(ws)
    assert seen.header("Authorization") is None
    assert seen.header("Proxy-Authorization") is None
    if destination.startswith("wss:"):
        assert seen.target == "/describe?a=1&a=2"
    else:
        # Zapros 0.23 writes the absolute form, as if this were an HTTP proxy; servers have to take it
        # (RFC 9112, section 3.2.2).
        assert seen.target.endswith("/describe?a=1&a=2")
    assert (await proxy.line("upstream_port", seen.client_port))["target"] == destination.partition("//")[2]


async def test_a_socks5_proxy_resolves_the_name(servers: Servers, aiohttp_server: ServerProcess) -> None:
    proxy = servers.start("socks5_proxy")
    context = through(proxy.address("socks5h"))
    async with aconnect_ws(f"{aiohttp_server.address(host='localhost')}/describe", context=context) as ws:
        seen = await described(ws)
    assert (await proxy.line("upstream_port", seen.client_port))["target"] == f"localhost:{aiohttp_server.port}"


async def test_wss_with_a_private_authority(servers: Servers, client_context: ssl.SSLContext) -> None:
    async with (
        client_that_trusts(client_context) as client,
        aconnect_ws(f"{servers.secure().address('wss')}/echo", client=client) as ws,
    ):
        await exchange_mebibytes(ws)


async def test_a_unix_socket_given_as_a_transport(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = str(Path(tmp_path_factory.getbasetemp()) / "unix.socket")
    servers.start("aiohttp_server", "--unix", path)
    async with (
        client_over(UnixTransport(path)) as client,
        aconnect_ws("ws://unix.example/describe", client=client) as ws,
    ):
        assert (await described(ws)).header("Host") == "unix.example"
        await exchange_mebibytes(ws)


async def test_streams_of_another_make_given_by_a_transport(aiohttp_server: ServerProcess) -> None:
    async with (
        client_over(ForeignTransport()) as client,
        aconnect_ws(f"{aiohttp_server.address()}/describe", client=client) as ws,
    ):
        assert (await described(ws)).target == "/describe"
        await exchange_mebibytes(ws)


@pytest.mark.parametrize("given_client", [False, True], ids=["own-client", "given-client"])
async def test_an_ipv6_address(servers: Servers, given_client: bool) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    server = servers.start("aiohttp_server", "--host", "::1")
    async with (
        zapros.AsyncClient() as client,
        aconnect_ws(f"{server.address(host='[::1]')}/describe", client=client if given_client else None) as ws,
    ):
        assert (await described(ws)).header("Host") == f"[::1]:{server.port}"
        await exchange_mebibytes(ws)
