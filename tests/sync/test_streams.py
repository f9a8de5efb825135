"""SPEC "Sync": streams that have blocking methods and nothing else."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
import wsproto.events as ws_events
import zapros
from zapros import BaseNetworkStream

from zapros_websocket import BinaryMessage, ConnectionClosed, TextMessage, connect_ws
from zapros_websocket.testing import echo_server

from .peers import PATIENCE, Background, PairServer
from .waiting import until_one_receives


class ForeignStream(BaseNetworkStream):
    """A stream of no class of Zapros; it can be read, written and closed."""

    def __init__(self, sock: socket.socket) -> None:
        self._hidden = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._hidden.recv(max_bytes)

    def write_all(self, data: bytes, timeout: float | None = None) -> int:
        self._hidden.sendall(data)
        return len(data)

    def close(self) -> None:
        self._hidden.shutdown(socket.SHUT_RDWR)
        self._hidden.close()


class DeafStream(ForeignStream):
    """One that does not notice when it is closed."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.noticed = threading.Event()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.noticed.wait()
        return b""

    def write_all(self, data: bytes, timeout: float | None = None) -> int:
        self.noticed.wait()
        return len(data)

    def close(self) -> None:
        self.noticed.wait()
        super().close()


def threads_of_streams() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("zapros_websocket ")]


def until_no_thread_of_a_stream_is_left() -> None:
    for thread in threads_of_streams():
        thread.join(PATIENCE)
    assert not threads_of_streams()


def test_a_stream_of_another_make_is_driven_by_threads() -> None:
    server = PairServer(stream=ForeignStream)
    with connect_ws("ws://test/", client=server.client) as ws:
        data = bytes(range(256)) * 4096

        def echo() -> None:
            for _ in range(3):
                server.peer.send(ws_events.BytesMessage(server.peer.receive_message()))  # type: ignore[arg-type]
            server.peer.serve()

        serving = Background(echo)
        for _ in range(3):
            ws.send(data)
            assert ws.recv() == BinaryMessage(data)
        assert ws.ping() >= 0
    serving.result()
    assert ws.close_code == 1000
    server.close()


def test_a_stream_that_is_derived_from_that_of_zapros_does_what_it_says() -> None:
    written: list[bytes] = []

    class Noting(zapros.SyncStream):
        def write_all(self, data: bytes, timeout: float | None = None) -> int:
            written.append(data)
            return super().write_all(data, timeout)

    server = PairServer(stream=lambda sock: Noting(sock, upgrade_ssl_context=ssl.create_default_context()))
    with connect_ws("ws://test/", client=server.client) as ws:
        serving = Background(lambda: [server.peer.receive_message(), server.peer.serve()])
        ws.send(b"hello")
    serving.result()
    # A message, and the close frame.
    assert [data[0] & 0xF for data in written] == [0x2, 0x8]
    server.close()


def test_its_threads_end_with_it() -> None:
    before = threading.active_count()
    server = PairServer(stream=ForeignStream)
    with connect_ws("ws://test/", client=server.client) as ws:
        inside = threading.active_count()
        serving = Background(server.peer.serve)
        ws.close()
        serving.result()
    until_no_thread_of_a_stream_is_left()
    assert inside > before
    server.close()


def test_what_it_raises_is_the_cause_of_the_end() -> None:
    class Broken(ForeignStream):
        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            raise zapros.ReadError("it broke")

        def close(self) -> None:
            super().close()
            raise zapros.ReadError("this as well")

    server = PairServer(stream=Broken)
    with connect_ws("ws://test/", client=server.client) as ws:
        with pytest.raises(ConnectionClosed, match="it broke") as caught:
            ws.recv()
        assert isinstance(caught.value.__cause__, zapros.ReadError)
    server.close()


def test_what_is_no_exception_of_its_own_ends_no_other_connection() -> None:
    class Leaving(ForeignStream):
        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            raise SystemExit("for the thread")

    server = PairServer(stream=Leaving)
    with echo_server() as other, connect_ws(other.url) as others:
        with connect_ws("ws://test/", client=server.client) as ws:
            with pytest.raises(ConnectionClosed, match=r"the stream raised SystemExit\('for the thread'\)") as caught:
                ws.recv()
            assert caught.value.code == 1006
        others.send("still here")
        assert others.recv() == TextMessage("still here")
    server.close()


def test_what_was_being_read_when_a_connection_failed_is_read_on() -> None:
    server = PairServer(stream=ForeignStream)
    with connect_ws("ws://test/", client=server.client, ping_interval=0.05, ping_timeout=0.05) as ws:
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv()
        assert caught.value.code == 1011
        while not isinstance(server.peer.receive(), ws_events.CloseConnection):
            pass
        server.peer.end()
    server.close()


def test_a_stream_that_is_deaf_is_left_behind() -> None:
    streams: list[DeafStream] = []

    def deaf(sock: socket.socket) -> BaseNetworkStream:
        streams.append(DeafStream(sock))
        return streams[0]

    server = PairServer(stream=deaf)
    with connect_ws("ws://test/", client=server.client, close_timeout=0.05) as ws:

        def receive() -> None:
            with pytest.raises(ConnectionClosed):
                ws.recv()

        receiving = Background(receive)
        until_one_receives(ws)
        ws.send("into nowhere")
    receiving.result()
    streams[0].noticed.set()
    until_no_thread_of_a_stream_is_left()
    server.close()


def test_a_socket_is_driven_without_threads(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        ws.send("hello")
        assert server.peer.receive_message() == "hello"
        server.peer.send(ws_events.TextMessage("hello too"))
        assert ws.recv() == TextMessage("hello too")
        assert not threads_of_streams()
