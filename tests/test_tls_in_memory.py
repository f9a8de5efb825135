"""TLS in memory on a socket that takes and gives as little as a test says; the server at the other end is Python's."""

from __future__ import annotations

import errno
import select
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Lock

import pytest
import trio

from tests.interrupts import interrupts_come_out
from zapros_websocket._streams import tls
from zapros_websocket._streams.direct import direct
from zapros_websocket._streams.tls import PIECE, TlsSocket

LARGE = bytes(range(256)) * 4096


class Counting(socket.socket):
    """A socket that counts calls, and may take no more than ``room`` bytes."""

    reads = writes = 0
    room = 1 << 30
    error: OSError | None = None

    def recv_into(self, buffer: memoryview) -> int:  # type: ignore[override]
        self.reads += 1
        return super().recv_into(buffer)

    def send(self, data: memoryview) -> int:  # type: ignore[override]
        self.writes += 1
        if self.error is not None:
            raise self.error
        if not self.room:
            raise BlockingIOError
        sent = super().send(data[: self.room])
        self.room -= sent
        return sent


class Pair:
    """Our end in memory, on a plain socket; the other is moved by hand."""

    def __init__(self, of_client: ssl.SSLContext, of_server: ssl.SSLContext, kind: type[Counting] = Counting) -> None:
        ours, self.theirs = socket.socketpair()
        self.plain = kind(fileno=ours.detach())
        for sock in (self.plain, self.theirs):
            sock.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = of_server.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.ours = TlsSocket.begin(self.plain, of_client, "localhost")

    def shake_hands(self) -> None:
        ours = theirs = False
        while not (ours and theirs):
            with suppress(ssl.SSLWantReadError):
                self.ours.do_handshake()
                ours = True
            theirs = theirs or self.serve(self.server.do_handshake)
        self.plain.reads = self.plain.writes = 0

    def serve(self, operation: Callable[[], object]) -> bool:
        """Do something at the other end with all that has come; whether that could be done."""
        self.take()
        try:
            operation()
        except ssl.SSLWantReadError:
            return False
        finally:
            self.theirs.sendall(self._outgoing.read())
        return True

    def take(self) -> None:
        with suppress(BlockingIOError):
            while data := self.theirs.recv(1 << 20):
                self._incoming.write(data)

    def send(self, *messages: bytes, then: bytes = b"") -> None:
        """A record for each message, in one write, and something else behind them."""
        for message in messages:
            self.server.write(message)
        self.theirs.sendall(self._outgoing.read() + then)

    def received(self) -> bytes:
        """All that has come to the other end."""
        self.take()
        data = b""
        with suppress(ssl.SSLWantReadError):
            while more := self.server.read(1 << 20):
                data += more
        return data

    def receive(self, size: int = 1 << 20) -> bytes:
        buffer = memoryview(bytearray(size))
        return bytes(buffer[: self.ours.recv_into(buffer)])


@pytest.fixture
def pair(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> Iterator[Pair]:
    pair = Pair(client_context, server_context)
    with pair.plain, pair.theirs:
        pair.shake_hands()
        # What comes behind a handshake of TLS 1.3.
        with pytest.raises(ssl.SSLWantReadError):
            pair.receive()
        pair.plain.reads = pair.plain.writes = 0
        yield pair


def test_any_number_of_records_is_one_read_and_one_write(pair: Pair) -> None:
    pair.send(b"a" * 10_000, b"b" * 16_384, b"c")
    assert pair.receive() == b"a" * 10_000 + b"b" * 16_384 + b"c"
    assert pair.plain.reads == 1
    assert not pair.ours.pending()
    assert pair.ours.send(b"d" * 60_000) == 60_000
    assert pair.received() == b"d" * 60_000
    assert pair.plain.writes == 1


@pytest.mark.parametrize("size", [1, 10, 16_384, 20_000])
def test_what_there_is_no_room_for_is_pending(pair: Pair, size: int) -> None:
    pair.send(b"a" * 10_000, b"b" * 16_384)
    received = pair.receive(size)
    assert len(received) == size
    while pair.ours.pending():
        received += pair.receive(size)
    assert received == b"a" * 10_000 + b"b" * 16_384
    assert pair.plain.reads == 1
    with pytest.raises(ssl.SSLWantReadError):
        pair.receive()


def test_what_another_has_left_of_a_record_is_pending(pair: Pair) -> None:
    pair.send(b"the beginning, and the end")
    assert pair.receive(14) == b"the beginning,"
    ours = pair.ours
    # As if somebody had read who knows nothing of this class.
    parts = (ours._below, ours._tls, ours._incoming, ours._outgoing)  # pyright: ignore[reportPrivateUsage]
    pair.ours = TlsSocket(*parts)
    assert pair.ours.pending()
    assert pair.receive() == b" and the end"
    assert not pair.ours.pending()


def test_a_record_that_is_larger_than_what_is_asked_for_is_waited_for(pair: Pair) -> None:
    pair.send(b"x" * 10_000)
    wire = pair.plain.recv(20_000)
    pair.theirs.send(wire[:-1])
    with pytest.raises(ssl.SSLWantReadError):
        pair.ours.recv(100)
    pair.theirs.send(wire[-1:])
    received = b""
    while len(received) < 10_000:
        received += (data := pair.ours.recv(100))
        assert len(data) == 100
    assert received == b"x" * 10_000


def test_a_record_in_pieces_is_waited_for_and_keeps_nothing_back(pair: Pair) -> None:
    pair.send(b"whole", b"in pieces")
    wire = pair.plain.recv(1000)
    received = b""
    for number in range(len(wire)):
        pair.theirs.send(wire[number : number + 1])
        with suppress(ssl.SSLWantReadError):
            received += pair.receive()
        assert not pair.ours.pending()
    assert received == b"wholein pieces"


def test_a_thread_leaves_nothing_behind(pair: Pair) -> None:
    records = [bytes([number]) * 7000 for number in range(20)]
    pair.send(*records)
    received: list[bytes] = []
    with pytest.raises(ssl.SSLWantReadError):
        while True:
            received.append(pair.ours.recv_all(1))
            # What there may be more is in the socket, which announces it.
            assert not pair.ours.pending() or select.select([pair.plain], [], [], 0)[0]
    assert b"".join(received) == b"".join(records)


@pytest.mark.parametrize("size", [100_000, len(LARGE)])
def test_what_a_socket_does_not_take_goes_out_with_the_next_call_of_the_same_bytes(pair: Pair, size: int) -> None:
    data = memoryview(LARGE * 3)
    sent: list[int] = []
    received = b""
    while (done := sum(sent)) < len(data):
        try:
            sent.append(pair.ours.send(data[done : done + size]))
        except ssl.SSLWantWriteError:
            sent.append(0)
            received += pair.received()
    assert received + pair.received() == data
    assert sent.count(0) > 2
    assert all(count in (0, size) or not count % PIECE for count in sent[:-1])


def test_nothing_overtakes_what_the_socket_did_not_take(pair: Pair) -> None:
    pair.plain.room = 0
    with pytest.raises(ssl.SSLWantWriteError):
        pair.ours.send(b"first")
    with pytest.raises(ssl.SSLWantWriteError):
        pair.ours.send(b"first")
    # What is read meanwhile changes nothing.
    pair.send(b"to be read")
    assert pair.receive() == b"to be read"
    pair.plain.room = 1 << 30
    assert pair.ours.send(b"first") == 5
    assert pair.ours.send(b"second") == 6
    assert pair.received() == b"firstsecond"


def test_what_is_written_of_many_pieces_is_said(pair: Pair) -> None:
    data = LARGE[: 3 * PIECE]
    pair.plain.room = PIECE * 3 // 2
    assert pair.ours.send(data) == PIECE
    with pytest.raises(ssl.SSLWantWriteError):
        pair.ours.send(data[PIECE:])
    received = pair.received()
    pair.plain.room = 1 << 30
    assert pair.ours.send(data[PIECE : 2 * PIECE]) == PIECE
    received += pair.received()
    assert pair.ours.send(data[2 * PIECE :]) == PIECE
    assert received + pair.received() == data


def test_what_was_taken_is_not_sent_again_with_more_behind_it(pair: Pair) -> None:
    pair.plain.room = 0
    with pytest.raises(ssl.SSLWantWriteError):
        pair.ours.send(b"first")
    pair.plain.room = 1 << 30
    assert pair.ours.send(b"first and more") == 14
    assert pair.received() == b"first and more"


@pytest.mark.parametrize("times", [1, 2])
def test_an_error_of_the_socket_that_passes_loses_nothing(pair: Pair, times: int) -> None:
    pair.plain.error = OSError(errno.ENOBUFS, "No buffer space available")
    for _ in range(times):
        with pytest.raises(OSError, match="No buffer space"):
            pair.ours.send(b"data")
    pair.plain.error = None
    assert pair.ours.send(b"data") == 4
    assert pair.received() == b"data"


def test_on_trio_an_interrupt_comes_behind_a_call(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    class Interrupting(Counting):
        interrupts = 0

        def send(self, data: memoryview) -> int:  # type: ignore[override]
            self.interrupt()
            sent = super().send(data)
            self.interrupt()
            return sent

        def recv_into(self, buffer: memoryview) -> int:  # type: ignore[override]
            count = super().recv_into(buffer)
            self.interrupt()
            return count

        def interrupt(self) -> None:
            if self.interrupts:
                self.interrupts -= 1
                signal.raise_signal(signal.SIGINT)

    pair = Pair(client_context, server_context, Interrupting)
    plain = pair.plain
    assert isinstance(plain, Interrupting)
    pair.shake_hands()
    with suppress(ssl.SSLWantReadError):
        pair.receive()

    async def interrupted() -> None:
        plain.interrupts = 2
        assert pair.ours.send(b"sent once") == 9
        with pytest.raises(KeyboardInterrupt):
            await trio.lowlevel.checkpoint()
        pair.send(b"received once")
        plain.interrupts = 1
        assert pair.receive() == b"received once"
        with pytest.raises(KeyboardInterrupt):
            await trio.lowlevel.checkpoint()

    with interrupts_come_out():
        trio.run(interrupted)
    assert pair.received() == b"sent once"
    with pair.plain, pair.theirs, pytest.raises(ssl.SSLWantReadError):
        pair.receive()


def test_what_is_written_is_said_also_where_tls_wants_to_read_next(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a handshake in the midst of it all, for which Python has no server.
    real = pair.ours._tls  # pyright: ignore[reportPrivateUsage]
    steps = iter([real.write, None, None, real.write])

    class Renegotiating:
        def write(self, data: memoryview) -> int:
            write = next(steps)
            if write is None:
                raise ssl.SSLWantReadError
            return write(data)

    data = LARGE[: 2 * PIECE]
    monkeypatch.setattr(pair.ours, "_tls", Renegotiating())
    assert pair.ours.send(data) == PIECE
    received = pair.received()
    with pytest.raises(ssl.SSLWantReadError):
        pair.ours.send(data[PIECE:])
    assert pair.ours.send(data[PIECE:]) == PIECE
    assert received + pair.received() == data


def test_what_came_in_front_of_a_record_that_was_tampered_with_is_received(pair: Pair) -> None:
    pair.send(b"good", b"as well", then=b"\x17\x03\x03\x00\x20" + bytes(32))
    assert pair.receive() == b"goodas well"
    assert pair.ours.pending()
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match=r"(?i)mac|decrypt"):
            pair.receive()
    # And the peer hears of it.
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        pair.received()


@pytest.mark.parametrize("end", ["farewell", "FIN", "both"])
def test_the_end_comes_behind_what_was_received(pair: Pair, end: str) -> None:
    pair.server.write(b"last")
    if end != "FIN":
        # In the same segment.
        with suppress(ssl.SSLWantReadError):
            pair.server.unwrap()
    pair.send()
    if end != "farewell":
        pair.theirs.shutdown(socket.SHUT_WR)
    assert pair.receive() == b"last"
    assert pair.ours.pending() or end == "FIN"
    for _ in range(2):
        assert pair.receive() == b""
        assert pair.ours.pending()


@pytest.mark.parametrize("is_read", [False, True])
def test_a_farewell_is_heard_by_the_peer(pair: Pair, *, is_read: bool) -> None:
    pair.send(b"more than is read")
    assert pair.receive(20 if is_read else 4) == b"more than is read"[: 20 if is_read else 4]
    pair.ours.send(b"last")
    pair.ours.unwrap()
    assert pair.received() == b"last"
    assert pair.server.read(10) == b""


def test_the_end_is_found_also_where_an_answer_cannot_go_out(asking: Pair) -> None:
    asking.send(b"")
    asking.theirs.shutdown(socket.SHUT_WR)
    asking.plain.room = 0
    assert asking.receive() == b""


def test_a_certificate_that_cannot_be_verified_is_an_error_of_which_the_peer_hears(
    server_context: ssl.SSLContext,
) -> None:
    pair = Pair(ssl.create_default_context(), server_context)
    with pair.plain, pair.theirs:
        with pytest.raises(ssl.SSLCertVerificationError):
            pair.shake_hands()
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            pair.serve(pair.server.do_handshake)


def test_a_handshake_that_ends_is_an_error(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    pair = Pair(client_context, server_context)
    with pair.plain, pair.theirs:
        pair.theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ssl.SSLEOFError):
            pair.ours.do_handshake()


@pytest.fixture
def asking(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> Iterator[Pair]:
    """A server that asks for a certificate behind the handshake, which TLS has to answer by itself."""
    client_context.post_handshake_auth = True
    server_context.verify_mode = ssl.CERT_OPTIONAL
    pair = Pair(client_context, server_context)
    with pair.plain, pair.theirs:
        pair.shake_hands()
        with pytest.raises(ssl.SSLWantReadError):
            pair.receive()
        pair.server.verify_client_post_handshake()
        yield pair


def test_what_tls_has_to_answer_is_answered_by_who_reads(asking: Pair) -> None:
    asking.send(b"")
    asking.plain.writes = 0
    with pytest.raises(ssl.SSLWantReadError):
        asking.receive()
    assert asking.plain.writes == 1
    assert asking.received() == b""


def test_an_answer_that_the_socket_does_not_take_is_waited_for_with_nothing_else_to_do(asking: Pair) -> None:
    asking.send(b"")
    asking.plain.room = 0
    for _ in range(2):
        with pytest.raises(ssl.SSLWantWriteError):
            asking.receive()
    asking.plain.room = 1 << 30
    with pytest.raises(ssl.SSLWantReadError):
        asking.receive()
    assert asking.received() == b""
    asking.send(b"goes on")
    assert asking.receive() == b"goes on"


@pytest.mark.parametrize("error", [None, BrokenPipeError()], ids=["full", "broken"])
def test_an_answer_that_cannot_go_out_does_not_hold_up_what_came_with_it(asking: Pair, error: OSError | None) -> None:
    asking.plain.room, asking.plain.error = 0, error
    asking.send(b"came with it")
    assert asking.receive() == b"came with it"
    assert asking.ours.pending()
    asking.plain.room, asking.plain.error = 1 << 30, None
    if error is None:
        # It goes out in front of the next.
        assert asking.ours.send(b"next") == 4
        assert asking.received() == b"next"


class Nested:
    """TLS inside TLS, as through a proxy that speaks it."""

    def __init__(self, outer: Pair, of_client: ssl.SSLContext, of_server: ssl.SSLContext) -> None:
        self._outer = outer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = of_server.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.ours = TlsSocket.begin(outer.ours, of_client, "localhost")
        done = False
        while not done:
            with suppress(ssl.SSLWantReadError):
                self.ours.do_handshake()
                done = True
            self.move(self.server.do_handshake)

    def move(self, operation: Callable[[], object]) -> None:
        self._incoming.write(self._outer.received())
        with suppress(ssl.SSLWantReadError):
            operation()
        if self._outgoing.pending:
            self._outer.send(self._outgoing.read())


def test_tls_inside_tls(pair: Pair, client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    nested = Nested(pair, client_context, server_context)
    assert nested.ours.is_nested
    assert not pair.ours.is_nested
    # Threads are lent nothing of which they could not know whether it has something to read.
    assert direct(pair.plain, nested.ours, Lock()) is None
    with suppress(ssl.SSLWantReadError):
        nested.ours.recv(1000)
    nested.move(lambda: nested.server.write(LARGE[:100_000]))
    received = nested.ours.recv(1000)
    assert nested.ours.pending()
    while len(received) < 100_000:
        received += nested.ours.recv(1000)
    assert received == LARGE[:100_000]
    assert not nested.ours.pending()
    # The outer one does not take it all, and both go on with the same bytes.
    pair.plain.room = 0
    with pytest.raises(ssl.SSLWantWriteError):
        nested.ours.send(b"through both")
    pair.plain.room = 1 << 30
    assert nested.ours.send(b"through both") == 12
    heard: list[bytes] = []
    nested.move(lambda: heard.append(nested.server.read(100)))
    assert heard == [b"through both"]
    nested.ours.unwrap()
    nested.move(lambda: heard.append(nested.server.read(100)))
    assert heard[1:] == [b""]
    assert pair.server.read(1) == b""


def test_each_thread_has_one_buffer() -> None:
    assert tls.buffer_here() is tls.buffer_here()
