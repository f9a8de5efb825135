"""Non-blocking sockets, plain and TLS, driven by readiness, as streams of Zapros and of a connection.

A read and a write are tried first and wait only when the socket says so. TLS that is begun here is in memory, see
``tls``; a socket that was handed over may have TLS of its own, an ``ssl.SSLSocket``.

Invariants:

- Cancelling a read loses nothing: what was received is returned in the same step.
- The socket is closed when what Zapros reads or writes before the handshake is cancelled, and when TLS fails to begin.
- Certificates are verified unless the SSL context of the caller says otherwise.
- Every error that comes out of what Zapros calls is its own.
- Once threads share the socket, whatever touches TLS holds the mutex: see ``direct``.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from sys import maxsize
from threading import Lock
from typing import ClassVar, Final, Literal, TypeVar, cast

import anyio
import trio
import zapros
from anyio import Event, fail_after, get_cancelled_exc_class, move_on_after, notify_closing
from anyio import wait_readable as until_readable
from anyio import wait_writable as until_writable
from anyio.lowlevel import checkpoint
from zapros import AsyncBaseNetworkStream

from .._waiting import is_uvloop_here
from .base import READ_SIZE, Sink, pump
from .callbacks import Callbacks
from .direct import Direct, SharedTls, direct, until_ready
from .tls import Below, TlsSocket, buffer_here, has_tls
from .watch import READS_IN_A_ROW, Next, Watch

# Seconds after which a write that waits for a read tries again, where it is a thread that may have read.
_PATIENCE: Final = 0.02

# What a socket raises that would have to wait.
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError)

_T = TypeVar("_T")
Alpn = Literal["http/1.1", "h2"]

# The most bytes of a record (RFC 8446, section 5.1).
_RECORD: Final = 16 * 1024


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
        self._watch: Watch | Callbacks | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Wait for up to ``max_bytes`` bytes; none at the end of the stream."""
        with self._closed_when_cancelled():
            return await self._read(max_bytes, timeout)

    async def write_all(self, data: bytes, timeout: float | None = None) -> int:
        """Write all of ``data``; cancelling it leaves it unknown how much was written."""
        left: bytes | memoryview = data
        with mapped(zapros.WriteTimeoutError, zapros.WriteError):
            if data:
                left = self.send_now(data)
            if left:
                with self._closed_when_cancelled(), within(timeout):
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
        if has_tls(self._top):
            # A word of farewell, if the socket takes it: nobody waits for the answer.
            with suppress(OSError, ValueError):
                self._top.unwrap()
        self._socket.close()

    async def start_tls(self, *, server_hostname: str | None = None) -> AsyncBaseNetworkStream:
        """Begin TLS on the stream, or TLS inside its TLS; a failure closes it."""
        hostname = None if server_hostname is None else server_hostname.strip("[]")
        context = self._ssl_context or default_context()
        try:
            with mapped(zapros.ConnectTimeoutError, zapros.ConnectionError):
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
                    self._watch = watch = Watch(self._socket, receive, sink.takers)
                    await watch.keep()
                else:
                    self._watch = callbacks = Callbacks(self._socket, receive)
                    if not await callbacks.keep():
                        # The event loop of Windows that knows no readiness: anyio helps it out.
                        await pump(self, sink)
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
        with mapped(zapros.ReadTimeoutError, zapros.ReadError), within(timeout):
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


def within(timeout: float | None) -> AbstractContextManager[object]:
    # A scope costs as much as a system call.
    return nullcontext() if timeout is None else fail_after(timeout)


@contextmanager
def mapped(on_timeout: type[zapros.ZaprosError], on_error: type[zapros.ZaprosError]) -> Generator[None, None, None]:
    try:
        yield
    except TimeoutError as error:
        raise on_timeout(str(error) or "timed out") from error
    except ssl.SSLError as error:
        raise (zapros.SSLError if on_error is zapros.ConnectionError else on_error)(f"TLS failed: {error}") from error
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.BusyResourceError) as error:
        raise on_error(str(error) or type(error).__name__) from error


@cache
def default_context() -> ssl.SSLContext:
    return ssl.create_default_context()
