"""TLS in memory on a non-blocking socket: several records are read, and several written, with one call to the kernel.

Python's ``ssl.SSLSocket`` asks the kernel twice for each record that it reads, and once for each that it writes: 16 KiB
at most. Here they cross in memory, at the price of one copy.

Invariants:

- The socket has everything that was encrypted, or it is kept and goes out before anything else: in the order of TLS.
- What ``send`` does not write it has encrypted all the same, as ``ssl.SSLSocket``: the next call has the same bytes.
- What can be read, the end included, and what TLS itself has to answer are ``pending`` until that is done: the socket
  is to be waited for when nothing is.
- On trio an interrupt (KeyboardInterrupt) comes behind a call, never into the middle of one.
- No more than ``PIECE`` is in the memory of OpenSSL, which keeps as much as it has ever needed: in each direction.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from threading import local
from typing import Final, TypeAlias, TypeGuard, cast

from trio.lowlevel import enable_ki_protection

Data: TypeAlias = "bytes | bytearray | memoryview"
Below: TypeAlias = "socket.socket | TlsSocket"
"""What TLS stands on: a non-blocking socket, plain or an ``ssl.SSLSocket``, or TLS."""

# Bytes that are encrypted and received at once: more than a message of 64 KiB.
PIECE: Final = 72 * 1024

# Bytes of the receive buffer of a thread.
BUFFER_SIZE: Final = 256 * 1024
_KEPT_SIZE: Final = 2 * 1024 * 1024

_NOTHING: Final = memoryview(b"")


class TlsSocket:
    """The client's side of TLS on a socket, or on TLS that stands there already, with the methods that both have.

    Where it would have to wait it raises what an ``ssl.SSLSocket`` does: SSLWantReadError and SSLWantWriteError.
    """

    def __init__(self, below: Below, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._below = below
        self._tls = tls
        self._read = cast("Callable[[int, memoryview], int]", tls.read)
        self._incoming = incoming
        self._outgoing = outgoing
        # What is below has not taken of what was encrypted, and the bytes of a caller that this stands for.
        self._owed = _NOTHING
        self._promised = 0
        # Whether the last read brought as much as it could, from below, and whether it filled a buffer; who has read
        # before may have left something.
        self._was_full = False
        self._is_cut = True
        # What comes behind that which was read last: the end, or what is wrong.
        self._is_at_end = False
        self._failure: ssl.SSLError | None = None

    @classmethod
    def begin(cls, below: Below, context: ssl.SSLContext, server_hostname: str | None) -> TlsSocket:
        """TLS that has still to shake hands."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        return cls(below, context.wrap_bio(incoming, outgoing, server_hostname=server_hostname), incoming, outgoing)

    def do_handshake(self) -> None:
        """Shake hands, once the certificate of the peer is well."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                # The peer hears why.
                with suppress(OSError):
                    self._flush()
                raise
            else:
                self._flush()
                return

    def selected_alpn_protocol(self) -> str | None:
        """The protocol that the server chose."""
        return self._tls.selected_alpn_protocol()

    def recv(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end of the stream."""
        buffer = buffer_here()[:size]
        return bytes(buffer[: self.recv_into(buffer)])

    def recv_all(self, _: int) -> bytes:
        """All bytes that can be had, whatever their number; none at the end of the stream."""
        buffer = buffer_here()
        return bytes(buffer[: self.recv_into(buffer)])

    @enable_ki_protection
    def recv_into(self, buffer: memoryview) -> int:
        """Receive into ``buffer`` what it has room for; 0 at the end of the stream."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        count, size = 0, len(buffer)
        is_urgent = False
        try:
            if not self._has_some():
                self._fill()
            while True:
                try:
                    more = self._read(size - count, buffer[count:] if count else buffer)
                    count += more
                except ssl.SSLWantReadError:
                    if count:
                        break
                    self._fill()
                    continue
                # Nothing more comes behind a word of farewell.
                self._is_at_end = not more
                # To ask for what is not there costs as much as to read a record.
                if count == size or not (more and self._incoming.pending):
                    break
        except ssl.SSLEOFError:
            # TCP has ended without that word: what ends a connection for us is a close frame.
            self._is_at_end = True
        except ssl.SSLError as error:
            if not count:
                # Perhaps the peer says nothing before it has an answer.
                is_urgent = isinstance(error, ssl.SSLWantReadError)
                raise
            self._failure = error
        finally:
            self._is_cut = count == size
            if self._has_answer:
                self._answer(is_urgent=is_urgent)
        return count

    def pending(self) -> bool:
        """Whether there is something to do that no readiness of the socket announces, or may well be."""
        is_pending_below = has_tls(self._below) and self._below.pending() > 0
        return self._has_some() or self._has_answer or self._was_full or is_pending_below

    def _has_some(self) -> bool:
        if self._is_at_end or self._failure is not None or self._incoming.pending > 0:
            return True
        # Of a record that was read to its end OpenSSL keeps nothing.
        return self._is_cut and self._tls.pending() > 0

    @property
    def _has_answer(self) -> bool:
        return self._outgoing.pending > 0 or bool(self._owed and not self._promised)

    @property
    def is_nested(self) -> bool:
        """Whether it stands on other TLS."""
        return has_tls(self._below)

    @enable_ki_protection
    def send(self, data: Data) -> int:
        """Write ``data``, and return how much of it is written."""
        done, self._promised = self._promised, 0
        if self._owed:
            try:
                self._flush()
            except BaseException:
                self._promised = done
                raise
        size = len(data)
        while done < size:
            piece = data if size <= PIECE and not done else memoryview(data)[done : done + PIECE]
            try:
                self._promised = self._tls.write(piece)
                self._flush()
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if not done:
                    raise
                break
            done, self._promised = done + self._promised, 0
        return done

    @enable_ki_protection
    def unwrap(self) -> None:
        """Say goodbye, if the socket takes it, whatever the peer has said or not."""
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        if has_tls(self._below):
            self._below.unwrap()

    # How it is done

    def _answer(self, *, is_urgent: bool) -> None:
        """Write what TLS itself has to say. What the socket does not take goes out in front of what is sent next."""
        try:
            self._flush()
        except ssl.SSLWantWriteError:
            if is_urgent:
                raise
        except OSError:
            # Whoever reads or writes next finds the socket broken.
            pass

    def _fill(self) -> None:
        into = buffer_here()[:PIECE]
        self._was_full = False
        try:
            count = self._below.recv_into(into)
        except BlockingIOError:
            raise ssl.SSLWantReadError from None
        self._was_full = count == PIECE
        if count:
            self._incoming.write(into[:count])
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        """Write all that was encrypted; raise SSLWantWriteError when the socket does not take it."""
        while self._owed or self._outgoing.pending:
            # Whatever sending it raises, it is not lost.
            self._owed = owed = self._owed or memoryview(self._outgoing.read())
            try:
                sent = self._below.send(owed)
            except BlockingIOError:
                raise ssl.SSLWantWriteError from None
            self._owed = owed[sent:] if sent < len(owed) else _NOTHING


def has_tls(below: Below) -> TypeGuard[TlsSocket | ssl.SSLSocket]:
    """Whether it is more than a plain socket."""
    return isinstance(below, (TlsSocket, ssl.SSLSocket))


def buffer_here() -> memoryview:
    """One for all sockets of a thread: what was received is taken in before anything else can happen."""
    buffer: memoryview | None = getattr(_buffers, "buffer", None)
    if buffer is None:
        buffer = _buffers.buffer = memoryview(bytearray(BUFFER_SIZE))
        # The allocator of glibc gives free memory back to the system beyond a threshold, and has to get it again for
        # the next message. It raises the threshold to twice the largest block that it has ever seen come and go.
        del bytearray(_KEPT_SIZE)[:]
    return buffer


_buffers: Final = local()
