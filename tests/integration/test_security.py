"""What a peer, a network or a careless caller must not get at. The documentation names these tests line by line."""

from __future__ import annotations

import base64
import logging
import ssl
import traceback
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import quote

import anyio
import pytest
import zapros

from tests.faults.stage import Peer, Seen
from tests.faults.steps import Step, answer, answer_close, fin, read, stay, switch, write
from tests.raw_frames import PING, TEXT, close_frame, frame
from zapros_websocket import (
    CloseMessage,
    ConnectionClosed,
    HandshakeError,
    SocketTransport,
    TextMessage,
    aconnect_ws,
    connect_ws,
)

from .clients import client_over, described, through
from .processes import ServerProcess, Servers

pytestmark = pytest.mark.anyio

SECRET = "hunter2"
HOSTILE = "\x1b[31m\r\nINFO: all is well\x00\x7f"


@pytest.fixture
def peers(servers: Servers) -> ServerProcess:
    return servers.start("tests.faults.peer")


def peer(process: ServerProcess, *script: Step) -> Peer:
    return Peer(process, "ws", script)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All that anybody logs, of whatever level."""
    with caplog.at_level(logging.DEBUG):
        yield caplog


def printed(error: BaseException) -> str:
    """An error as a program that does not catch it prints it, with all its causes; and as others may show it."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    return "".join([*traceback.format_exception(error), *map(repr, causes), *map(str, causes)])


# The wire


async def test_no_mask_is_used_twice_and_none_is_missing(peers: ServerProcess) -> None:
    there = peer(peers, switch(), write(frame(PING, b"?"), times=20), answer_close())
    async with aconnect_ws(there.url) as ws:
        for n in range(200):
            await ws.send("the same" if n % 2 else b"the same")
        for _ in range(20):
            await ws.recv()
    # That there is none missing is asserted with every report of a peer.
    masks = [seen_frame.mask for seen_frame in (await there.seen()).frames]
    assert len(masks) > 200
    assert len(set(masks)) == len(masks)
    assert "00000000" not in masks


async def test_every_handshake_has_a_key_of_16_random_bytes(peers: ServerProcess) -> None:
    keys: list[str] = []
    for _ in range(20):
        there = peer(peers, switch(), answer_close())
        async with aconnect_ws(there.url):
            pass
        keys += [line for line in lines_of(await there.seen()) if line.lower().startswith("sec-websocket-key:")]
    assert len(set(keys)) == len(keys) == 20
    assert {len(base64.b64decode(key.partition(": ")[2])) for key in keys} == {16}


# Header injection


def client_with(*, auth: str | tuple[str, str] | None, default_headers: dict[str, str]) -> zapros.AsyncClient:
    if auth is None:
        return zapros.AsyncClient(default_headers=default_headers)
    return zapros.AsyncClient(default_headers=default_headers, auth=auth)


def lines_of(seen: Seen) -> list[str]:
    return seen.request.removesuffix("\r\n\r\n").split("\r\n")


@pytest.mark.parametrize("text", ["a\r\nX-Injected: b", "a\nX-Injected: b", "a\rX-Injected: b", "a\0b"])
@pytest.mark.parametrize("place", ["header", "name", "default", "token", "password", "cookie", "subprotocol"])
async def test_nothing_can_be_injected_into_the_handshake(peers: ServerProcess, text: str, place: str) -> None:
    """It is refused before anything is sent; or it arrives as the one value that it is."""
    there = peer(peers, switch(), answer_close())
    async with client_with(
        auth=text if place == "token" else ("user", text) if place == "password" else None,
        default_headers={"X-Default": text} if place == "default" else {},
    ) as client:
        headers = {"X-Call": text} if place == "header" else {text: "x"} if place == "name" else {}
        headers |= {"Cookie": text} if place == "cookie" else {}
        subprotocols = [text] if place == "subprotocol" else None
        try:
            async with aconnect_ws(there.url, client=client, headers=headers, subprotocols=subprotocols):
                pass
        except ValueError:
            return
    assert place == "password"
    lines = lines_of(await there.seen())
    assert f"Authorization: Basic {base64.b64encode(f'user:{text}'.encode()).decode()}" in lines
    assert not [line for line in lines if line.startswith("X-Injected")]


@pytest.mark.parametrize("part", ["query", "user"])
@pytest.mark.parametrize("text", ["a\r\nX-Injected: b", "a%0d%0aX-Injected: b", "a b HTTP%2f1.1"])
async def test_nothing_can_be_injected_by_the_url(peers: ServerProcess, part: str, text: str) -> None:
    there = peer(peers, switch(), answer_close())
    url = f"{there.url}?{text}" if part == "query" else there.url.replace("127.0.0.1", f"{text}@127.0.0.1")
    async with aconnect_ws(url):
        pass
    lines = lines_of(await there.seen())
    assert not [line for line in lines if line.startswith("X-Injected")]
    assert lines[0].count(" ") == 2


# Redirects


AnyClient = TypeVar("AnyClient", zapros.AsyncClient, zapros.Client)


def redirecting(client: AnyClient) -> AnyClient:
    return client.wrap_with_middleware(lambda following: zapros.RedirectMiddleware(following))


@pytest.fixture
def other(servers: Servers) -> ServerProcess:
    """Another origin: the port is not the same."""
    return servers.websocket("uvicorn-websockets")


@pytest.mark.parametrize("given", ["auth", "url", "default", "call", "cookie"])
async def test_no_credential_follows_a_redirect(
    aiohttp_server: ServerProcess, other: ServerProcess, given: str
) -> None:
    to = quote(f"{other.address()}/describe")
    user = f"user:{SECRET}@127.0.0.1" if given == "url" else "127.0.0.1"
    async with redirecting(
        client_with(
            auth=("user", SECRET) if given == "auth" else None,
            default_headers={"Authorization": SECRET} if given == "default" else {},
        )
    ) as client:
        headers = {"Authorization": SECRET} if given == "call" else {"Cookie": SECRET} if given == "cookie" else None
        url = f"{aiohttp_server.address(host=user)}/redirect?to={to}"
        async with aconnect_ws(url, client=client, headers=headers) as ws:
            seen = await described(ws)
    assert seen.header("Host") == f"127.0.0.1:{other.port}"
    assert not [header for header in seen.headers if header[0] in ("authorization", "cookie", "proxy-authorization")]
    assert SECRET not in str(seen)


async def test_the_credentials_of_a_socks_proxy_do_not_follow_a_redirect_to_the_server(
    servers: Servers, aiohttp_server: ServerProcess
) -> None:
    proxy = servers.start("socks5_proxy", "--credentials", f"user:{SECRET}")
    context = through(proxy.address("socks5", f"user:{SECRET}@127.0.0.1"))
    url = f"{aiohttp_server.address()}/redirect?to={quote(f'{aiohttp_server.address()}/describe')}"
    async with redirecting(zapros.AsyncClient()) as client, aconnect_ws(url, client=client, context=context) as ws:
        seen = await described(ws)
    assert seen.header("Proxy-Authorization") is None
    assert seen.header("Authorization") is None


LEADS_NOWHERE = [
    "ws://[::1",
    "ws://[\x1b[2Jforged",
    "http://",
    "ws://host:99999/",
    "ws://a..b/",
    f"ws://{'a' * 300}/",
    "ftp://host/",
    "javascript:alert(1)",
    "data:,x",
]


@pytest.mark.parametrize("location", LEADS_NOWHERE)
async def test_a_redirect_to_what_is_no_url_of_a_websocket_is_an_answer_that_refuses(
    peers: ServerProcess, location: str
) -> None:
    there = peer(peers, answer("HTTP/1.1 302 Found", f"Location: {location}", "Content-Length: 0"))
    async with redirecting(zapros.AsyncClient()) as client:
        with pytest.raises(HandshakeError, match="redirects to what is not the URL of a WebSocket") as caught:
            async with aconnect_ws(there.url, client=client):
                pass
    assert caught.value.response is not None
    assert caught.value.response.status == 302
    assert "\x1b" not in printed(caught.value)
    with redirecting(zapros.Client()) as blocking:
        with pytest.raises(HandshakeError, match="redirects to what is not the URL of a WebSocket"):
            await anyio.to_thread.run_sync(lambda: connect_ws(there.url, client=blocking).__enter__())


# What is printed


async def failure(
    url: str,
    headers: dict[str, str] | None = None,
    context: zapros.RequestContext | None = None,
    open_timeout: float = 10.0,
) -> zapros.ZaprosError:
    """What the attempt to connect, or the connection, ends with."""
    with pytest.raises(zapros.ZaprosError) as caught:
        async with aconnect_ws(url, headers=headers, context=context, open_timeout=open_timeout) as ws:
            while True:
                await ws.recv()
    return caught.value


@pytest.mark.parametrize(
    "script",
    [
        [answer("HTTP/1.1 403 Forbidden" + HOSTILE.replace("\r\n", ""), "Content-Length: 0")],
        [answer("HTTP/1.1 403 Forbidden", "X: " + HOSTILE.replace("\r\n", " "), "Content-Length: 0")],
        [answer(HOSTILE)],
        [switch("Sec-WebSocket-Protocol: " + "\x1b[31m")],
        [switch("Sec-WebSocket-Protocol: chat\x85\x9b31m")],
        [switch("Sec-WebSocket-Extensions: x\x9b31m")],
        [switch(), write(close_frame(1002, HOSTILE.encode())), answer_close()],
        [switch(), write(frame(TEXT, b"\xff\x1b[31m")), answer_close()],
        [switch(), write(frame(0x3, HOSTILE.encode())), answer_close()],
        [switch(), read(0), fin()],
    ],
    ids=["phrase", "header", "no-http", "subprotocol", "subprotocol-c1", "extension", "close", "text", "opcode", "fin"],
)
async def test_what_the_peer_wrote_is_escaped_in_errors_and_logs(
    peers: ServerProcess, script: list[Step], logged: pytest.LogCaptureFixture
) -> None:
    there = peer(peers, *script)
    text = printed(await failure(there.url)) + logged.text
    assert not [character for character in text if not character.isprintable() and character != "\n"]
    assert "\nINFO: all is well" not in text


async def test_a_close_reason_is_escaped_when_printed_and_whole_when_asked_for(peers: ServerProcess) -> None:
    there = peer(peers, switch(), write(close_frame(4000, HOSTILE.encode())), answer_close())
    async with aconnect_ws(there.url) as ws:
        assert await ws.recv() == CloseMessage(4000, HOSTILE)
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
    assert caught.value.reason == HOSTILE
    assert str(caught.value).isprintable()
    assert repr(caught.value).isprintable()
    assert repr(ws).isprintable()


async def test_no_credential_is_printed_or_logged(
    peers: ServerProcess,
    servers: Servers,
    closed_port: int,
    aiohttp_server: ServerProcess,
    logged: pytest.LogCaptureFixture,
) -> None:
    secure = servers.secure()
    proxy = servers.start("http_proxy", "--credentials", "user:another")
    socks = servers.start("socks5_proxy", "--credentials", "user:another")
    user = f"user:{SECRET}@127.0.0.1"
    tokens = {"Authorization": f"Bearer {SECRET}", "Cookie": f"session={SECRET}"}
    silent, refusing = peer(peers, stay()), peer(peers, answer("HTTP/1.1 401 No", "Content-Length: 0"))
    wrong, lost = peer(peers, switch("Sec-WebSocket-Protocol: x")), peer(peers, switch(), read(0), fin())
    by_proxy, by_socks = (through(each) for each in (proxy.address("http", user), socks.address("socks5", user)))
    errors = [
        await failure(f"ws://user:{SECRET}@127.0.0.1:{closed_port}/"),
        await failure(f"ws://user:{SECRET}@nobody-is-here.invalid/"),
        await failure(secure.address("wss", user)),
        await failure(aiohttp_server.address("wss", user)),
        await failure(silent.url.replace("127.0.0.1", user), open_timeout=0.2),
        *[await failure(there.url.replace("127.0.0.1", user)) for there in (refusing, wrong, lost)],
        *[await failure(there.url, tokens) for there in (refusing, wrong, lost)],
        await failure(secure.address("wss"), context=by_proxy),
        await failure(aiohttp_server.address(), context=by_proxy),
        await failure(aiohttp_server.address(), context=by_socks),
        await failure(aiohttp_server.address(), context=through(f"http://user:{SECRET}@127.0.0.1:{closed_port}")),
        await failure(f"{aiohttp_server.address(host=user)}/redirect?to=%2Fnowhere"),
    ]
    shown = "".join(map(printed, errors))
    assert SECRET not in shown
    assert SECRET not in logged.text
    encoded = base64.b64encode(f"user:{SECRET}".encode()).decode()
    assert encoded not in shown + logged.text


async def test_no_credential_is_in_what_a_connection_shows_of_itself(
    peers: ServerProcess, logged: pytest.LogCaptureFixture
) -> None:
    there = peer(peers, switch(), answer_close())
    url = there.url.replace("127.0.0.1", f"user:{SECRET}@127.0.0.1")
    connecting = aconnect_ws(url, headers={"X-Token": SECRET})
    shown = repr(connecting)
    async with connecting as ws:
        shown += repr(ws) + repr(ws.response) + repr(ws.response.request) + str(ws)
    shown += repr(ws) + logged.text
    assert SECRET not in shown
    assert base64.b64encode(f"user:{SECRET}".encode()).decode() not in shown


async def test_a_value_that_is_refused_is_not_repeated(peers: ServerProcess) -> None:
    with pytest.raises(ValueError, match="Authorization") as caught:
        async with aconnect_ws(peer(peers, stay()).url, headers={"Authorization": f"{SECRET}\n"}):
            pytest.fail("HTTP cannot carry that")
    assert SECRET not in printed(caught.value)
    assert str(caught.value).isprintable()


# TLS


async def test_an_ssl_context_that_verifies_nothing_has_to_be_given(servers: Servers) -> None:
    careless = ssl.create_default_context()
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    url = f"{servers.secure().address('wss')}/echo"
    with pytest.raises(zapros.SSLError):
        async with aconnect_ws(url):
            pytest.fail("nobody vouches for that certificate")
    async with (
        client_over(SocketTransport(ssl_context=careless)) as client,
        aconnect_ws(url, client=client) as ws,
    ):
        await ws.send("hello")
        assert await ws.recv() == TextMessage("hello")


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_the_certificate_of_an_https_proxy_is_verified(
    servers: Servers, aiohttp_server: ServerProcess, scheme: str
) -> None:
    server = servers.secure() if scheme == "wss" else aiohttp_server
    context = through(servers.secure_proxy().address("https", f"user:{SECRET}@127.0.0.1"))
    with pytest.raises(zapros.SSLError):
        async with aconnect_ws(f"{server.address(scheme)}/echo", context=context):
            pytest.fail("nobody vouches for that proxy")
