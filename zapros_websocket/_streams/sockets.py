"""Non-blocking sockets, plain and TLS, driven by readiness; and a transport that makes them for a Zapros client.

A read and a write are tried first and wait only when the socket says so. TLS that is begun here is in memory, see
``tls``; a socket that was handed over may have TLS of its own, an ``ssl.SSLSocket``.

Invariants:

- Cancelling a read loses nothing: what was received is returned in the same step.
- A socket is closed on every path, also when a connection attempt is cancelled or loses to another.
- Certificates are verified unless the SSL context of the caller says otherwise.
- Every error that comes out is Zapros's own.
- Once threads share the socket, whatever touches TLS holds the mutex: see ``direct``.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from itertools import zip_longest
from sys import maxsize
from threading import Lock
from typing import ClassVar, Final, Literal, TypeVar, cast
from weakref import WeakSet

import anyio
import trio
import zapros
from anyio import (
    Event,
    create_task_group,
    fail_after,
    get_cancelled_exc_class,
    getaddrinfo,
    move_on_after,
    notify_closing,
)
from anyio import wait_readable as until_readable
from anyio import wait_writable as until_writable
from anyio.lowlevel import checkpoint
from zapros import AsyncBaseNetworkStream, AsyncBaseTransport

from .._waiting import is_uvloop_here
from .base import READ_SIZE, Sink, pump
from .direct import Direct, SharedTls, direct, until_ready
from .tls import Below, TlsSocket, buffer_here, has_tls
from .watch import READS_IN_A_ROW, Next, Watch

# Seconds between two connection attempts (RFC 8305, section 5).
ATTEMPT_DELAY: Final = 0.25

# Seconds after which a write that waits for a read tries again, where it is a thread that may have read.
_PATIENCE: Final = 0.02

# What a socket raises that would have to wait.
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError)

_T = TypeVar("_T")
Alpn = Literal["http/1.1", "h2"]
Address = tuple[str, int] | tuple[str, int, int, int]
AddressInfo = tuple[int, int, int, str, Address]


# The most bytes of a record (RFC 8446, section 5.1).
_RECORD: Final = 16 * 1024


class SocketTransport(AsyncBaseTransport):
    """A transport for ``zapros.AsyncStdNetworkHandler``, on trio and asyncio; the one of a client that is made here.

    Args:
        ssl_context: The context for TLS. By default the certificates are verified against those of the system.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self._streams: WeakSet[SocketStream] = WeakSet()

    def close_all_but(self, kept: object) -> None:
        """Close what was opened and is still open, at once and whoever has forgotten it."""
        for stream in list(self._streams):
            if stream is not kept:
                stream.close_now()

    async def aconnect(
        self,
        host: str,
        port: int,
        server_hostname: str | None = None,
        tls: bool = False,
        *,
        alpn_protocols: list[Alpn] | None = None,
        timeout: float | None = None,
    ) -> AsyncBaseNetworkStream:
        """Connect to the first address that answers (RFC 8305); cancelling it closes every socket.

        Raises:
            zapros.ConnectTimeoutError: it took longer than ``timeout`` seconds.
            zapros.SSLError: TLS failed, such as a certificate that cannot be verified.
            zapros.ConnectionError: no address could be connected to.
        """
        context = self._ssl_context or _default_context()
        with _mapped(zapros.ConnectTimeoutError, zapros.ConnectionError), _within(timeout):
            # The host of a URL has brackets around an IPv6 address; that of a socket has none.
            stream = SocketStream(await _connect(host.strip("[]"), port), context)
            self._streams.add(stream)
            if tls:
                if alpn_protocols is not None:
                    context.set_alpn_protocols(alpn_protocols)
                await stream.start_tls(server_hostname=server_hostname)
        return stream


class SocketStream(AsyncBaseNetworkStream):
    """A connected socket, for Zapros before the handshake and for a connection after it."""

    carries_control: ClassVar[bool] = True

    def __init__(self, sock: socket.socket, ssl_context: ssl.SSLContext | None = None) -> None:
        # Held while the socket is closed, and by whoever shares it: a descriptor that is closed in between could be
        # another socket already.
        self.mutex = Lock()
        self._socket = sock
        # The socket with all TLS that stands on it, and what is called to read and to write: threads may share it.
        self._top: Below = sock
        self._ends: Below | SharedTls = sock
        self._pending = sock.pending if isinstance(sock, ssl.SSLSocket) else None
        self._ssl_context = ssl_context
        # What is asked whether the socket takes a byte, where that is asked often.
        self._asked: Callable[[float], object] | None = None
        # Set by a sender that waits for the reader to take part in a handshake of TLS.
        self._heard: Event | None = None
        # Set when the socket takes a byte, or who waited for that has gone.
        self._writable: Event | None = None
        self._reads_in_a_row = 0
        self._pumping: asyncio.Future[None] | None = None
        self._watch: Watch | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Wait for up to ``max_bytes`` bytes; none at the end of the stream."""
        with self._closed_when_cancelled():
            return await self._read(max_bytes, timeout)

    async def write_all(self, data: bytes, timeout: float | None = None) -> int:
        """Write all of ``data``; cancelling it leaves it unknown how much was written."""
        left: bytes | memoryview = data
        with _mapped(zapros.WriteTimeoutError, zapros.WriteError):
            if data:
                left = self.send_now(data)
            if left:
                with self._closed_when_cancelled(), _within(timeout):
                    await self._send(left)
        return len(data)

    async def close(self) -> None:
        """Close the socket, at once."""
        self.close_now()

    def close_now(self) -> None:
        """The same, where nothing can be awaited."""
        with self.mutex:
            self._close_alone()

    def _close_alone(self) -> None:
        if self._socket.fileno() < 0:
            return
        notify_closing(self._socket)
        if self._watch is not None:
            self._watch.close()
        if self._pumping is not None and not self._pumping.done():
            self._pumping.set_exception(anyio.ClosedResourceError())
        if has_tls(self._top):
            # A word of farewell, if the socket takes it: nobody waits for the answer.
            with suppress(OSError, ValueError):
                self._top.unwrap()
        self._socket.close()

    async def start_tls(self, *, server_hostname: str | None = None) -> AsyncBaseNetworkStream:
        """Begin TLS on the stream, or TLS inside its TLS; a failure closes it."""
        hostname = None if server_hostname is None else server_hostname.strip("[]")
        context = self._ssl_context or _default_context()
        try:
            with _mapped(zapros.ConnectTimeoutError, zapros.ConnectionError):
                tls = TlsSocket.begin(self._top, context, hostname)
                self._stand_on(tls)
                await self._when_ready(tls.do_handshake)
        except BaseException:
            await self.close()
            raise
        return self

    def go_on_in(self, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        """Go on in TLS that somebody else has begun on the stream."""
        self._stand_on(TlsSocket(self._top, tls, incoming, outgoing))

    def _stand_on(self, tls: TlsSocket) -> None:
        self._top = self._ends = tls
        self._pending = tls.pending

    def selected_alpn_protocol(self) -> Alpn | None:
        """The protocol that the server chose in the TLS handshake, or None."""
        return cast("Alpn | None", self._top.selected_alpn_protocol()) if has_tls(self._top) else None

    def is_readable(self) -> bool:
        """Whether there is something to read, the end of the stream included."""
        if self._socket.fileno() < 0 or self.has_pending():
            return True
        return bool(until_ready(self._socket, to_write=False)(0))

    # What a connection uses

    async def receive(self) -> bytes:
        """Wait for some bytes; none at the end of the stream."""
        return await self._receive(READ_SIZE)

    async def pump(self, sink: Sink) -> None:
        """Receive until ``sink`` wants no more. Cancelling it loses nothing."""
        receive = self._receiver(sink)
        while True:
            try:
                if trio.lowlevel.in_trio_run():
                    self._watch = Watch(self._socket, receive, sink.takers)
                    await self._watch.keep()
                else:
                    await self._pump_on_asyncio(receive, sink)
                return
            except ssl.SSLWantWriteError:
                await self._until_writable()
            finally:
                self._watch = None

    def share(self) -> Direct | None:
        """Have threads use the socket as well from now on, and say how; None where they cannot."""
        shared = direct(self._socket, self._top, self.mutex)
        if shared is not None and has_tls(self._top):
            self._ends = shared_tls = SharedTls(self._top, self.mutex)
            self._pending = shared_tls.pending
        return shared

    def has_pending(self) -> bool:
        """Whether there is something to read that no readiness announces: TLS has it already."""
        return self._pending is not None and bool(self._pending())

    @property
    def sender(self) -> Callable[[bytes | bytearray | memoryview], int] | None:
        """``send`` of a plain socket; what TLS does not write it has encrypted all the same."""
        return None if has_tls(self._top) else self._socket.send

    def is_writable(self) -> bool:
        """Whether the socket takes a byte."""
        if self._socket.fileno() < 0:
            return False
        ask = self._asked or until_ready(self._socket, to_write=True)
        if has_tls(self._top):
            # It is asked for each message. That of a plain socket is seldom, and would take up memory for nothing.
            self._asked = ask
        return bool(ask(0))

    def send_now(self, data: bytes | bytearray) -> bytes | memoryview:
        """Write what the socket takes, and return what is left."""
        try:
            sent = self._ends.send(data)
        except _NOT_NOW:
            return memoryview(data)
        return memoryview(data)[sent:]

    async def wait_writable(self) -> None:
        """Wait until the socket takes a byte."""
        if self._socket.fileno() >= 0 and not self.is_writable():
            await self._until_writable()

    async def send_all(self, data: bytes | memoryview) -> None:
        """Write all of ``data``."""
        await self._send(data)

    async def aclose(self, *, grace: float) -> None:
        """Close at once: the kernel sends what was written."""
        await self.close()

    # How it is done

    def _receiver(self, sink: Sink) -> Callable[[], Next]:
        """What receives once and without waiting, and says what to do next."""
        tells_twice = not is_uvloop_here()
        recv_into = self._ends.recv_into
        pending = self._pending
        # What an ``ssl.SSLSocket`` gives out at once; TLS in memory knows by itself whether there is more.
        most_of_tls = _RECORD if self._top is self._socket else maxsize

        def receive() -> Next:
            room = sink.room()
            # An event loop of asyncio may go on in another thread, while this one has another event loop.
            into = buffer_here() if room is None else room
            most = len(into) if pending is None else most_of_tls
            try:
                count = recv_into(into)
            except (BlockingIOError, ssl.SSLWantReadError):
                return Next.WAIT
            finally:
                if room is not None:
                    room.release()
                if self._heard is not None:
                    self._heard.set()
            if not (sink.fill(count) if room is not None and count else sink.take(into[:count] if count else b"")):
                return Next.STOP
            # A read that brought less than it could has taken all that was there. But where a reset stands behind it,
            # and came with it, uvloop does not call again.
            return Next.WAIT if count < most and tells_twice and not (pending and pending()) else Next.GO_ON

        return receive

    async def _pump_on_asyncio(self, receive: Callable[[], Next], sink: Sink) -> None:
        # The event loop calls back, instead of waking a task up that would have to ask it again each time.
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        again: asyncio.Handle | None = None
        calls_back = False

        def on_readable() -> None:
            nonlocal again
            if again is not None:
                again.cancel()
                again = None
            if over.done():
                return
            try:
                for _ in range(READS_IN_A_ROW):
                    after = receive()
                    if after is Next.WAIT:
                        return
                    if after is Next.STOP:
                        over.set_result(None)
                        break
                else:
                    # There is more. For what TLS has decrypted already nobody will call back.
                    again = loop.call_soon(on_readable)
                    return
            except Exception as error:
                over.set_exception(error)
            if calls_back:
                loop.remove_reader(self._socket)

        on_readable()
        if over.done():
            over.result()
            return
        try:
            loop.add_reader(self._socket, on_readable)
        except NotImplementedError:
            # The event loop of Windows that knows no readiness: anyio helps it out.
            over.cancel()
            await pump(self, sink)
            return
        calls_back = True
        self._pumping = over
        try:
            await over
        finally:
            # What is still to be called back finds that it is over.
            self._pumping = None
            if self._socket.fileno() >= 0:
                loop.remove_reader(self._socket)

    @contextmanager
    def _closed_when_cancelled(self) -> Generator[None, None, None]:
        try:
            yield
        except get_cancelled_exc_class():
            # Zapros 0.23 forgets a stream with the response that it belonged to; one of HTTP/2 serves others still.
            if self.selected_alpn_protocol() != "h2":
                self.close_now()
            raise

    async def _read(self, max_bytes: int, timeout: float | None) -> bytes:
        with _mapped(zapros.ReadTimeoutError, zapros.ReadError), _within(timeout):
            return await self._receive(max_bytes)

    async def _receive(self, max_bytes: int) -> bytes:
        self._reads_in_a_row += 1
        if self._reads_in_a_row >= READS_IN_A_ROW:
            # A stream that never runs dry: let others have their turn.
            self._reads_in_a_row = 0
            await checkpoint()
        return await self._when_ready(lambda: self._ends.recv(max_bytes))

    async def _send(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[self._ends.send(left) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await self._until_writable()
            except ssl.SSLWantReadError:
                # The server shakes hands anew in the middle of it all: whoever reads takes part in that.
                self._heard = Event()
                # A thread that reads says nothing of it.
                with move_on_after(_PATIENCE if isinstance(self._ends, SharedTls) else None):
                    await self._heard.wait()
                self._heard = None

    async def _when_ready(self, operation: Callable[[], _T]) -> _T:
        while True:
            try:
                return operation()
            except (BlockingIOError, ssl.SSLWantReadError):
                self._reads_in_a_row = 0
                await until_readable(self._socket)
            except ssl.SSLWantWriteError:
                await self._until_writable()
            finally:
                if self._heard is not None:
                    self._heard.set()

    async def _until_writable(self) -> None:
        # One task waits for the socket, for all that do: who writes, and who reads what TLS has to answer. When it is
        # cancelled, another takes its place.
        while self._writable is not None:
            await self._writable.wait()
            if self._socket.fileno() < 0 or self.is_writable():
                return
        self._writable = Event()
        try:
            await self._until_writable_alone()
        finally:
            self._writable.set()
            self._writable = None

    async def _until_writable_alone(self) -> None:
        while True:
            try:
                await until_writable(self._socket)
                return
            except anyio.ClosedResourceError:
                # It is also what a task on watch is interrupted with.
                if self._socket.fileno() < 0:
                    raise


async def _connect(host: str, port: int) -> socket.socket:
    """The first address to answer wins; the next is tried when one fails, or is slow."""
    addresses = interleaved(_as_literal(host, port) or await getaddrinfo(host, port, type=socket.SOCK_STREAM))
    errors: list[OSError] = []
    try:
        # Nothing to race against, as with a literal and with most names: no task is needed for it.
        connected = await (_connect_to(*addresses[0]) if len(addresses) == 1 else _race(addresses, errors))
    except OSError as error:
        connected = None
        errors.append(error)
    if connected is None:
        raise OSError(f"no address of {host} could be connected to: {'; '.join(map(str, errors))}")
    return connected


def _as_literal(host: str, port: int) -> list[AddressInfo] | None:
    """The address that ``host`` spells out, for which nobody has to be asked; None for a name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        return None
    return cast("list[AddressInfo]", found)


async def _race(addresses: list[tuple[int, Address]], errors: list[OSError]) -> socket.socket | None:
    connected: list[socket.socket] = []

    async def attempt(family: int, address: Address, over: Event) -> None:
        try:
            sock = await _connect_to(family, address)
            if connected:
                sock.close()
            else:
                connected.append(sock)
                tasks.cancel_scope.cancel()
        except OSError as error:
            errors.append(error)
        finally:
            over.set()

    try:
        async with create_task_group() as tasks:
            for family, address in addresses:
                over = Event()
                tasks.start_soon(attempt, family, address, over)
                with move_on_after(ATTEMPT_DELAY):
                    await over.wait()
    except BaseException:
        for sock in connected:
            sock.close()
        raise
    return connected[0] if connected else None


async def _connect_to(family: int, address: Address) -> socket.socket:
    # It raises where the system has no such family, or no descriptor left: one address less.
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BlockingIOError):
            sock.connect(address)
        await until_writable(sock)
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number))
    except BaseException:
        sock.close()
        raise
    return sock


def interleaved(addresses: Iterable[AddressInfo]) -> list[tuple[int, Address]]:
    """In the order of the system, but for a change of family each time (RFC 8305, section 4)."""
    families: dict[int, list[tuple[int, Address]]] = {}
    for family, _, _, _, address in addresses:
        families.setdefault(family, []).append((family, address))
    return [pair for row in zip_longest(*families.values()) for pair in row if pair is not None]


def _within(timeout: float | None) -> AbstractContextManager[object]:
    # A scope costs as much as a system call.
    return nullcontext() if timeout is None else fail_after(timeout)


@contextmanager
def _mapped(on_timeout: type[zapros.ZaprosError], on_error: type[zapros.ZaprosError]) -> Generator[None, None, None]:
    try:
        yield
    except TimeoutError as error:
        raise on_timeout(str(error) or "timed out") from error
    except ssl.SSLError as error:
        raise (zapros.SSLError if on_error is zapros.ConnectionError else on_error)(f"TLS failed: {error}") from error
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.BusyResourceError) as error:
        raise on_error(str(error) or type(error).__name__) from error


@cache
def _default_context() -> ssl.SSLContext:
    return ssl.create_default_context()
