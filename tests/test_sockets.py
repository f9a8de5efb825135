"""The transport of our own, over real sockets: plain, TLS, TLS inside TLS, and every way in which that fails."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import ClassVar

import anyio
import anyio.lowlevel
import pytest
import zapros
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream
from wsproto.connection import SERVER, Connection
from wsproto.events import TextMessage as WsprotoText
from zapros import AsyncClient, AsyncStdNetworkHandler

from tests.memory import StreamHandler
from zapros_websocket import BinaryMessage, HandshakeError, SocketTransport, TextMessage, aconnect_ws
from zapros_websocket._streams import direct, sockets, transport
from zapros_websocket.testing import echo_server

pytestmark = pytest.mark.anyio


def client_of(transport: SocketTransport) -> AsyncClient:
    return AsyncClient(handler=AsyncStdNetworkHandler(transport=transport))


Serve = Callable[[SocketStream], Awaitable[None]]


class Listening:
    """A raw server on loopback for the length of a block."""

    def __init__(self, serve: Serve, host: str = "127.0.0.1") -> None:
        self._serve = serve
        self._host = host

    async def __aenter__(self) -> int:
        self._listener = await anyio.create_tcp_listener(local_host=self._host)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._listener.serve, self._handle)
        port: int = self._listener.extra(SocketAttribute.local_port)
        return port

    async def _handle(self, stream: SocketStream) -> None:
        async with stream:
            await self._serve(stream)

    async def __aexit__(self, *exc_info: object) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self._listener.aclose()


async def hold(stream: SocketStream) -> None:
    await anyio.sleep_forever()


async def test_a_client_that_is_made_here_stands_on_it() -> None:
    async with echo_server() as server, aconnect_ws(server.url) as ws:
        await ws.send(bytes(1 << 20))
        assert await ws.recv() == BinaryMessage(bytes(1 << 20))


@pytest.mark.parametrize("way", ["cancelled", "refused"])
async def test_the_sockets_of_a_client_that_is_made_here_end_with_its_handshake(way: str) -> None:
    ended: list[Exception] = []

    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        if way == "cancelled":
            tasks.cancel_scope.cancel()
        else:
            await stream.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        try:
            await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError) as end:
            ended.append(end)

    async def connect() -> None:
        with pytest.raises(HandshakeError, match="403"):
            async with aconnect_ws(f"ws://127.0.0.1:{port}/"):
                pytest.fail("nobody agrees")

    async with Listening(serve) as port:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect)
        with anyio.fail_after(5):
            while not ended:
                await anyio.wait_all_tasks_blocked()


async def test_a_client_of_the_caller_can_stand_on_it(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with (
        echo_server(tls=server_context) as server,
        client_of(SocketTransport(ssl_context=client_context)) as client,
    ):
        async with aconnect_ws(server.url, client=client) as ws:
            for size in (0, 1, 1 << 14, 1 << 20):
                await ws.send(bytes(size))
                assert await ws.recv() == BinaryMessage(bytes(size))
            assert await ws.ping() > 0


async def test_it_carries_ordinary_requests_over_connections_that_are_kept() -> None:
    connections = 0

    async def serve(stream: SocketStream) -> None:
        nonlocal connections
        connections += 1
        with suppress(anyio.EndOfStream):
            while True:
                await stream.receive()
                await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async with Listening(serve) as port, client_of(SocketTransport()) as client:
        for _ in range(3):
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "hi"
        assert connections == 1


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"], ids=["answer", "body"])
async def test_a_request_that_is_cancelled_leaves_no_socket_open(begins: bytes) -> None:
    asked, ended = anyio.Event(), anyio.Event()

    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        if begins:
            await stream.send(begins)
        asked.set()
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await stream.receive()
        ended.set()

    async with Listening(serve) as port, client_of(SocketTransport()) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.get, f"http://127.0.0.1:{port}/")
            await asked.wait()
            tasks.cancel_scope.cancel()
        # Whoever has forgotten it, and with the client still open.
        with anyio.fail_after(10):
            await ended.wait()


async def test_a_cancelled_read_of_http_2_leaves_the_connection_to_the_others(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    server_context.set_alpn_protocols(["h2"])

    async def serve(stream: SocketStream) -> None:
        tls = await TLSStream.wrap(stream, server_side=True, ssl_context=server_context)
        await tls.send(await tls.receive())
        await anyio.sleep_forever()

    try:
        async with Listening(serve) as port:
            transport = SocketTransport(ssl_context=client_context)
            stream = await transport.aconnect("127.0.0.1", port, "127.0.0.1", True, alpn_protocols=["h2"])
            with anyio.move_on_after(0.05):
                await stream.read(1)
            await stream.write_all(b"still there")
            assert await stream.read(100) == b"still there"
            await stream.close()
    finally:
        server_context.set_alpn_protocols(["http/1.1"])


async def test_certificates_are_verified_by_default(server_context: ssl.SSLContext) -> None:
    async with echo_server(tls=server_context) as server:
        with pytest.raises(zapros.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            async with aconnect_ws(server.url):
                pass


async def test_the_name_of_the_server_is_verified(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with echo_server(tls=server_context) as server:
        transport = SocketTransport(ssl_context=client_context)
        with pytest.raises(zapros.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            await transport.aconnect("127.0.0.1", server.port, server_hostname="elsewhere", tls=True)


@pytest.mark.parametrize("alpn", [None, ["http/1.1"]])
async def test_alpn_is_offered(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, alpn: list[sockets.Alpn] | None
) -> None:
    async with echo_server(tls=server_context) as server:
        transport = SocketTransport(ssl_context=client_context)
        stream = await transport.aconnect(
            "localhost", server.port, server_hostname="localhost", tls=True, alpn_protocols=alpn
        )
        assert stream.selected_alpn_protocol() == (alpn[0] if alpn else None)
        await stream.close()
        plain = await transport.aconnect("127.0.0.1", server.port)
        assert plain.selected_alpn_protocol() is None
        await plain.close()


async def test_ipv6_addresses_stand_in_brackets() -> None:
    async def greet(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nsix!")

    async with Listening(greet, "::1") as port, client_of(SocketTransport()) as client:
        response = await client.get(f"http://[::1]:{port}/")
        assert response.text == "six!"


async def test_tls_inside_the_tls_of_a_proxy(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    async with echo_server(tls=server_context) as server:

        async def proxy(raw: SocketStream) -> None:
            outer = await TLSStream.wrap(raw, server_side=True, ssl_context=server_context, standard_compatible=False)
            request = await outer.receive()
            assert request.startswith(f"CONNECT localhost:{server.port} ".encode())
            await outer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            async with await anyio.connect_tcp("127.0.0.1", server.port) as target, anyio.create_task_group() as tasks:

                async def pump(source: ByteStream, sink: ByteStream) -> None:
                    try:
                        while True:
                            await sink.send(await source.receive())
                    except (anyio.EndOfStream, anyio.BrokenResourceError):
                        tasks.cancel_scope.cancel()

                tasks.start_soon(pump, outer, target)
                tasks.start_soon(pump, target, outer)

        async with Listening(proxy) as port, client_of(SocketTransport(ssl_context=client_context)) as client:
            async with aconnect_ws(
                f"wss://localhost:{server.port}/",
                client=client,
                context={"network": {"proxy": {"url": f"https://localhost:{port}"}}},
            ) as ws:
                await ws.send("through two layers")
                assert await ws.recv() == TextMessage("through two layers")
                await ws.send(bytes(1 << 20))
                assert await ws.recv() == BinaryMessage(bytes(1 << 20))


async def test_tls_that_fails_inside_a_tunnel_closes_the_stream(client_context: ssl.SSLContext) -> None:
    async def nonsense(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"this is not TLS, and never was")
        await anyio.sleep_forever()

    async with Listening(nonsense) as port:
        stream = await SocketTransport(ssl_context=client_context).aconnect("127.0.0.1", port)
        with pytest.raises(zapros.SSLError):
            await stream.start_tls(server_hostname="localhost")
        assert stream.is_readable()
        await stream.close()


async def test_a_refused_connection_is_zapros_own_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(zapros.ConnectionError, match="no address of 127"):
            async with aconnect_ws(f"ws://127.0.0.1:{unused.getsockname()[1]}/"):
                pass


async def test_a_name_that_does_not_resolve_is_zapros_own_error() -> None:
    with pytest.raises(zapros.ConnectionError):
        async with aconnect_ws("ws://does-not-exist.invalid/"):
            pass


async def test_timeouts_are_zapros_own_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(sock: object) -> None:
        await anyio.sleep_forever()

    async with Listening(hold) as port:
        stream = await SocketTransport().aconnect("127.0.0.1", port, timeout=60)
        with pytest.raises(zapros.ReadTimeoutError):
            await stream.read(10, timeout=0)
        with pytest.raises(zapros.WriteTimeoutError):
            await stream.write_all(bytes(1 << 26), timeout=0)
        await stream.close()
        monkeypatch.setattr(transport, "until_writable", never)
        with pytest.raises(zapros.ConnectTimeoutError):
            await SocketTransport().aconnect("127.0.0.1", port, timeout=0)


async def test_closing_wakes_who_reads_and_is_idempotent() -> None:
    async with Listening(hold) as port:
        stream = await SocketTransport().aconnect("127.0.0.1", port)
        assert not stream.is_readable()
        outcomes: list[type[Exception]] = []

        async def read() -> None:
            try:
                await stream.read(10)
            except zapros.ReadError as error:
                outcomes.append(type(error))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await stream.close()
            await stream.close()
        assert outcomes == [zapros.ReadError]
        with pytest.raises(zapros.WriteError):
            await stream.write_all(b"x")
        assert stream.is_readable()


async def test_the_end_of_the_stream_is_no_bytes(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async def leave(stream: SocketStream) -> None:
        await stream.send(b"bye")

    async with Listening(leave) as port:
        stream = await SocketTransport().aconnect("127.0.0.1", port)
        assert await stream.read(10) == b"bye"
        assert await stream.read(10) == b""
        await stream.close()


@pytest.mark.parametrize("addresses", [1, 2])
async def test_cancelling_a_connection_attempt_closes_every_socket(
    monkeypatch: pytest.MonkeyPatch, addresses: int
) -> None:
    made: list[socket.socket] = []

    class Socket(socket.socket):
        def __init__(self, *args: int) -> None:
            super().__init__(*args)
            made.append(self)

        def connect(self, address: object) -> None:
            raise BlockingIOError(errno.EINPROGRESS, "in progress")

    async def never(sock: object) -> None:
        if len(made) == addresses:
            scope.cancel()
        await anyio.sleep_forever()

    async def resolve(host: str, port: int, *, type: int) -> list[transport.AddressInfo]:
        return [(socket.AF_INET, type, 0, "", ("127.0.0.1", port)) for _ in range(addresses)]

    monkeypatch.setattr(socket, "socket", Socket)
    monkeypatch.setattr(transport, "getaddrinfo", resolve)
    monkeypatch.setattr(transport, "until_writable", never)
    monkeypatch.setattr(transport, "ATTEMPT_DELAY", 0)
    with anyio.CancelScope() as scope:
        await SocketTransport().aconnect("some.addresses", 9)
    assert scope.cancelled_caught
    assert len(made) == addresses
    assert all(sock.fileno() == -1 for sock in made)


async def test_a_socket_that_is_connected_in_the_moment_of_a_cancellation_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[socket.socket] = []

    async def resolve(host: str, port: int, *, type: int) -> list[transport.AddressInfo]:
        return [(socket.AF_INET, type, 0, "", ("127.0.0.1", port)) for _ in range(2)]

    async def until_writable(sock: socket.socket) -> None:
        made.append(sock)
        await anyio.wait_writable(sock)
        scope.cancel()

    monkeypatch.setattr(transport, "getaddrinfo", resolve)
    monkeypatch.setattr(transport, "until_writable", until_writable)
    async with Listening(hold) as port:
        with anyio.CancelScope() as scope:
            await SocketTransport().aconnect("two.addresses", port)
    assert scope.cancelled_caught
    assert [sock.fileno() for sock in made] == [-1]


async def test_the_next_address_is_tried_when_one_fails_or_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Listening(hold) as port:
        with socket.socket() as unused, socket.socket() as full:
            unused.bind(("127.0.0.1", 0))
            # A listener whose queue is full answers no more connections.
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting = [socket.socket() for _ in range(4)]
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            addresses = [unused.getsockname(), full.getsockname(), ("127.0.0.1", port)]

            async def resolve(host: str, port: int, *, type: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
                return [(socket.AF_INET, type, 0, "", address) for address in addresses]

            monkeypatch.setattr(transport, "getaddrinfo", resolve)
            stream = await SocketTransport().aconnect("three.addresses", 80)
            await stream.close()
            for sock in waiting:
                sock.close()


async def test_an_address_that_the_system_has_no_socket_for_is_one_less(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket(socket.socket):
        def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, type, proto, fileno)

    async def resolve(host: str, port: int, *, type: int) -> list[transport.AddressInfo]:
        both: list[transport.AddressInfo] = [(socket.AF_INET6, type, 0, "", ("::1", port, 0, 0))]
        return both if host == "no.socket" else [*both, (socket.AF_INET, type, 0, "", ("127.0.0.1", port))]

    async with Listening(hold) as port:
        monkeypatch.setattr(transport, "getaddrinfo", resolve)
        monkeypatch.setattr(socket, "socket", Socket)
        stream = await SocketTransport().aconnect("two.addresses", port)
        await stream.close()
        with pytest.raises(zapros.ConnectionError, match="not supported"):
            await SocketTransport().aconnect("no.socket", port)


async def test_of_two_addresses_that_answer_at_once_one_is_taken_and_one_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accepted: list[SocketStream] = []
    both = anyio.Event()
    waiting = 0

    async def accept(stream: SocketStream) -> None:
        accepted.append(stream)
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await stream.receive()
        accepted.remove(stream)

    async def resolve(host: str, port: int, *, type: int) -> list[transport.AddressInfo]:
        return [(socket.AF_INET, type, 0, "", ("127.0.0.1", port)) for _ in range(2)]

    async def until_both(sock: socket.socket) -> None:
        nonlocal waiting
        waiting += 1
        await anyio.wait_writable(sock)
        if waiting == 2:
            both.set()
        else:
            await both.wait()

    monkeypatch.setattr(transport, "getaddrinfo", resolve)
    monkeypatch.setattr(transport, "until_writable", until_both)
    monkeypatch.setattr(transport, "ATTEMPT_DELAY", 0)
    async with Listening(accept) as port:
        stream = await SocketTransport().aconnect("two.addresses", port)
        await stream.close()


async def test_an_address_is_connected_to_without_a_resolver_or_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int, *, type: int) -> list[transport.AddressInfo]:
        assert host == "one.address"
        return [(socket.AF_INET, type, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(transport, "getaddrinfo", resolve)
    monkeypatch.delattr(transport, "create_task_group")
    async with Listening(hold) as port:
        for host in ("127.0.0.1", "one.address"):
            stream = await SocketTransport().aconnect(host, port)
            await stream.close()
    with pytest.raises(zapros.ConnectionError, match="could be connected to"):
        await SocketTransport().aconnect("127.0.0.1", port)


async def test_a_name_that_cannot_be_one_is_a_network_error() -> None:
    with pytest.raises(zapros.ConnectionError):
        await SocketTransport().aconnect("two..dots", 80)


def test_addresses_change_their_family_each_time() -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    infos: list[transport.AddressInfo] = [
        (six, 1, 6, "", ("::1", 80, 0, 0)),
        (six, 1, 6, "", ("::2", 80, 0, 0)),
        (four, 1, 6, "", ("1.2.3.4", 80)),
    ]
    assert [family for family, _ in transport.interleaved(infos)] == [six, four, six]


async def test_a_server_that_shakes_hands_anew_holds_up_no_write_and_no_read() -> None:
    """TLS 1.2 lets a server do so at any time: then a write has to wait for a read, and a read for a write."""

    class Renegotiating(socket.socket):
        wants: ClassVar[list[Exception]] = []

        def send(self, data: memoryview, flags: int = 0) -> int:  # type: ignore[override]
            if self.wants:
                raise self.wants.pop()
            return super().send(data, flags)

        def recv(self, size: int, flags: int = 0) -> bytes:
            if self.wants:
                raise self.wants.pop()
            return super().recv(size, flags)

    ours, theirs = socket.socketpair()
    with theirs:
        sock = Renegotiating(fileno=ours.detach())
        sock.setblocking(False)
        stream = sockets.SocketStream(sock, ssl.create_default_context())
        async with anyio.create_task_group() as tasks:
            # At once, and when it is tried again.
            Renegotiating.wants += [ssl.SSLWantReadError(), ssl.SSLWantReadError()]
            tasks.start_soon(stream.write_all, b"waits")
            await anyio.wait_all_tasks_blocked()
            theirs.send(b"hello")
            Renegotiating.wants.append(ssl.SSLWantWriteError())
            assert await stream.read(10) == b"hello"
        assert theirs.recv(10) == b"waits"
        await stream.close()


async def test_a_write_that_waits_ends_when_the_stream_is_closed() -> None:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    stream = sockets.SocketStream(ours)
    with theirs:
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                with pytest.raises(zapros.WriteError):
                    await stream.write_all(bytes(1 << 24))

            tasks.start_soon(write)
            await anyio.wait_all_tasks_blocked()
            await stream.close()


async def test_cancelling_a_send_before_its_first_byte_is_written_has_no_effect() -> None:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    client = AsyncClient(handler=StreamHandler(sockets.SocketStream(ours, ssl.create_default_context())))
    with theirs:
        async with aconnect_ws("ws://test/", client=client, close_timeout=0) as ws:
            filling = 0
            with suppress(BlockingIOError):
                while True:
                    filling += ours.send(bytes(1 << 16))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ws.send, "never")
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            while filling:
                filling -= len(theirs.recv(filling))
            await ws.send("next")
            protocol = Connection(SERVER)
            protocol.receive_data(theirs.recv(100))
            assert list(protocol.events()) == [WsprotoText("next")]


@pytest.mark.parametrize("has_poll", [True, False])
async def test_what_the_socket_does_not_take_at_once_is_left(has_poll: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_poll:
        monkeypatch.setattr(direct, "_new_poll", None)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = sockets.SocketStream(ours, ssl.create_default_context())
    with theirs:
        assert not stream.is_readable()
        assert stream.is_writable()
        assert not stream.send_now(b"all of it")
        large = bytes(1 << 24)
        left = stream.send_now(large)
        assert 0 < len(left) < len(large)
        assert not stream.is_writable()
        assert stream.send_now(b"nothing of it") == b"nothing of it"
        theirs.send(b"something")
        assert stream.is_readable()
        await stream.close()
        assert not stream.is_writable()


async def test_a_stream_that_never_runs_dry_gives_others_their_turn() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.send(bytes(1000))
        ours.setblocking(False)
        stream = sockets.SocketStream(ours, ssl.create_default_context())
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            for _ in range(1000):
                assert await stream.read(1) == b"\0"
            tasks.cancel_scope.cancel()
        assert turns > 50
        await stream.close()
