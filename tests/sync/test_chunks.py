"""SPEC "Sync" and "Messages": a message that a thread sends chunk by chunk, and what other threads do meanwhile."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
import wsproto.events as ws_events

from zapros_websocket import ConnectionClosed, PingMessage, connect_ws

from .peers import Background, PairServer
from .waiting import until_one_sends, until_one_sends_a_fragment


class Source:
    """Chunks, given out when the test says so."""

    def __init__(self) -> None:
        self._given: list[object] = []
        self._there = threading.Condition()
        self.asked = 0

    def give(self, *chunks: object) -> None:
        with self._there:
            self._given += chunks
            self._there.notify_all()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        with self._there:
            self.asked += 1
            assert self._there.wait_for(lambda: self._given, 30)
            chunk = self._given.pop(0)
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk  # type: ignore[return-value]


END = StopIteration()


@pytest.mark.parametrize("deflate", [False, True])
def test_an_iterable_is_one_message_in_its_place(deflate: bool) -> None:
    server = PairServer(deflate=deflate)
    with connect_ws("ws://test/", client=server.client, permessage_deflate=deflate, close_timeout=0) as ws:
        ws.send("before")
        ws.send(["a", "", "é"])
        ws.send(part for part in (b"bytes", bytearray(b" and "), memoryview(b"more")))
        ws.send(["a", "b"], compress=False)
        ws.send(())
        ws.send("after")
        received = [server.peer.receive_message() for _ in range(6)]
    server.close()
    assert received == ["before", "aé", b"bytes and more", "ab", b"", "after"]


def test_compress_says_whether_json_is_compressed() -> None:
    server = PairServer(deflate=True)
    with connect_ws("ws://test/", client=server.client, permessage_deflate=True, close_timeout=0) as ws:
        for compress in (True, False):
            ws.send_json("x" * 1000, compress=compress)
            assert (len(server.peer.sock.recv(65536)) < 100) is compress
        with pytest.raises(TypeError, match="True, False or None"):
            ws.send_json("text", compress="no")  # type: ignore[call-overload]
    server.close()


@pytest.mark.parametrize("deflate", [False, True])
def test_more_than_may_be_unsent_goes_out_as_the_peer_reads(deflate: bool) -> None:
    server = PairServer(deflate=deflate)
    chunks = [bytes([number]) * 200_000 for number in range(20)]
    with connect_ws("ws://test/", client=server.client, permessage_deflate=deflate, close_timeout=0) as ws:

        def send() -> None:
            ws.send(bytes(2_000_000))
            ws.send((bytearray(chunk) for chunk in chunks), compress=False)
            ws.send("after")

        sending = Background(send)
        assert server.peer.receive_message() == bytes(2_000_000)
        assert server.peer.receive_message() == b"".join(chunks)
        assert server.peer.receive_message() == "after"
        sending.result()
    server.close()


def test_other_messages_wait_and_pings_do_not(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        source = Source()
        sending = Background(lambda: ws.send(source))
        source.give("one")
        assert server.peer.receive() == ws_events.TextMessage("one", message_finished=False)
        others = [Background(lambda: ws.send("other")), Background(lambda: ws.send(["chunks"]))]
        until_one_sends(ws, 2)
        ws.send(PingMessage(b"user"))
        assert server.peer.receive() == ws_events.Ping(b"user")
        server.peer.send(ws_events.Ping(b"peer"))
        assert server.peer.receive() == ws_events.Pong(b"peer")
        source.give("two", END)
        assert server.peer.receive_message() == "two"
        assert sorted(str(server.peer.receive_message()) for _ in others) == ["chunks", "other"]
        for thread in (sending, *others):
            thread.result()
        ws.send("at once again")
        assert server.peer.receive_message() == "at once again"


def test_what_is_no_chunk_is_refused_and_changes_nothing(server: PairServer) -> None:
    async def chunks() -> AsyncIterator[str]:
        yield ""

    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        with pytest.raises(TypeError, match="a chunk of a message is a str or bytes-like, not int"):
            ws.send([1])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="cannot send async_generator from a thread"):
            ws.send(chunks())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="True, False or None"):
            ws.send("text", compress="no")  # type: ignore[arg-type]
        ws.send("nothing has happened")
        assert server.peer.receive_message() == "nothing has happened"


def test_what_the_iterable_raises_in_the_middle_breaks_the_connection(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client) as ws:
        source = Source()
        sending = Background(lambda: ws.send(source))
        source.give("one")
        assert server.peer.receive() == ws_events.TextMessage("one", message_finished=False)
        other = Background(lambda: ws.send("other"))
        until_one_sends(ws)
        source.give(LookupError("of the iterable"))
        with pytest.raises(LookupError, match="of the iterable"):
            sending.result()
        with pytest.raises(ConnectionClosed, match="broken off"):
            other.result()
        assert server.peer.receive() is None
        assert ws.close_code == 1006


def test_an_interrupt_in_the_middle_breaks_the_connection_and_before_it_does_not(server: PairServer) -> None:
    def interrupted(*chunks: str) -> Iterator[str]:
        yield from chunks
        raise KeyboardInterrupt

    with connect_ws("ws://test/", client=server.client) as ws:
        with pytest.raises(KeyboardInterrupt):
            ws.send(interrupted())
        ws.send("nothing has happened")
        with pytest.raises(KeyboardInterrupt):
            ws.send(interrupted("one"))
        with pytest.raises(ConnectionClosed, match="broken off"):
            ws.send("other")
        assert server.peer.receive_message() == "nothing has happened"


def test_close_goes_between_the_fragments(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client) as ws:
        source = Source()
        sending = Background(lambda: ws.send(source))
        source.give("one")
        assert server.peer.receive() == ws_events.TextMessage("one", message_finished=False)
        closing = Background(lambda: ws.close(4000))
        event = server.peer.receive()
        assert event == ws_events.CloseConnection(4000, "")
        source.give("late")
        with pytest.raises(ConnectionClosed) as caught:
            sending.result()
        assert caught.value.code == 4000
        server.peer.send(ws_events.CloseConnection(4000, ""))
        server.peer.end()
        closing.result()
        assert ws.close_code == 4000


@pytest.mark.parametrize("close", ["first", "last"])
def test_a_message_that_waits_for_room_hears_of_the_end(close: str) -> None:
    server = PairServer(buffer=4096)
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        sending = Background(lambda: ws.send(bytes(600_000) for _ in range(10)))
        until_one_sends_a_fragment(ws)
        other = Background(lambda: ws.send("other"))
        until_one_sends(ws)
        if close == "first":
            ws.close()
        else:
            server.peer.sock.close()
        for thread in (sending, other):
            with pytest.raises(ConnectionClosed):
                thread.result()
    server.close()


def test_a_thread_with_an_event_loop_may_send_chunks_until_it_has_to_wait() -> None:
    server = PairServer(buffer=4096)

    async def send(count: int) -> None:
        ws.send(bytes(600_000) for _ in range(count))

    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        anyio.run(send, 1)
        with pytest.raises(RuntimeError, match="would block the event loop"):
            anyio.run(send, 3)
        with pytest.raises(ConnectionClosed):
            ws.send("late")
    server.close()


def test_a_message_in_chunks_that_never_got_its_turn_changes_nothing(server: PairServer) -> None:
    async def send() -> None:
        ws.send(["other"])

    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        source = Source()
        sending = Background(lambda: ws.send(source))
        source.give("one")
        assert server.peer.receive() == ws_events.TextMessage("one", message_finished=False)
        with pytest.raises(RuntimeError, match="would block the event loop"):
            anyio.run(send)
        source.give(END)
        sending.result()
        ws.send("after")
        assert server.peer.receive_message() == ""
        assert server.peer.receive_message() == "after"
