"""The recorder writes what was said, and the scripted server plays it back."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import anyio
import pytest
import zapros
from zapros import (
    AsyncBaseHandler,
    AsyncClient,
    BaseHandler,
    BaseNetworkStream,
    Client,
    Request,
    Response,
    ResponseContext,
    SyncStream,
)

from tests.asgi.applications import URL, Echo
from tests.memory import MemoryServer
from zapros_websocket import (
    ConnectionClosed,
    HandshakeError,
    PingMessage,
    TextMessage,
    aconnect_ws,
    connect_ws,
)
from zapros_websocket.testing import (
    Entry,
    Recorder,
    Script,
    ScriptFailed,
    WebSocketAsgiHandler,
    read_recording,
    scripted_server,
)

pytestmark = pytest.mark.anyio


async def converse(url: str, client: AsyncClient | None = None, *, greeting: str = "grüße\n") -> None:
    """Three connections: an exchange, a refusal, and a loss."""
    async with aconnect_ws(
        f"{url}feed?x=1", client=client, subprotocols=["chat"], permessage_deflate=True, ping_interval=None
    ) as ws:
        await ws.send(greeting)
        await ws.send(b"\x00\xff")
        assert await ws.recv() == TextMessage("fragments")
        assert await ws.recv() == PingMessage(b"server")
        await ws.ping()
        await ws.close(3000, "enough")
    with pytest.raises(HandshakeError):
        async with aconnect_ws(f"{url}no", client=client):
            pytest.fail("it was refused")
    async with aconnect_ws(url, client=client) as ws:
        await ws.send("drop")
        with pytest.raises(ConnectionClosed):
            await ws.recv()


def converse_in_a_thread(url: str, client: Client | None = None) -> None:
    """The same without an event loop."""
    with connect_ws(
        f"{url}feed?x=1", client=client, subprotocols=["chat"], permessage_deflate=True, ping_interval=None
    ) as ws:
        ws.send("grüße\n")
        ws.send(b"\x00\xff")
        assert ws.recv(timeout=30) == TextMessage("fragments")
        assert ws.recv(timeout=30) == PingMessage(b"server")
        ws.ping()
        ws.close(3000, "enough")
    with pytest.raises(HandshakeError):
        with connect_ws(f"{url}no", client=client):
            pytest.fail("it was refused")
    with connect_ws(url, client=client) as ws:
        ws.send("drop")
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=30)


SCRIPTS = [
    Script()
    .accept("chat")
    .expect_text("grüße\n")
    .expect_binary(b"\x00\xff")
    .send_fragments("frag", "ments")
    .send_ping(b"server")
    .expect_close(3000, "enough"),
    Script().refuse(403),
    # A reset right behind the answer can overtake the client, which is still writing its request.
    Script().expect_text("drop").drop(),
]

RECORDED = r"""
1 > request "/feed?x=1"
1 < accept "chat"
1 > text "gr\u00fc\u00dfe\n"
1 > binary base64:AP8=
1 < text "fragments" (2 frames)
1 < ping base64:c2VydmVy
1 > pong base64:c2VydmVy
1 > ping
1 < pong
1 > close 3000 "enough"
1 < close 3000 "enough"
1 < end
1 > end
2 > request "/no"
2 < refuse 403
3 > request "/"
3 < accept
3 > text "drop"
3 < drop
3 > end
"""


def lines_of(path: Path) -> list[str]:
    """The lines without their times, and without the payload of what is random."""
    heading, *lines = path.read_text(encoding="utf-8").splitlines()
    assert heading.startswith("# A WebSocket conversation")
    said: list[str] = []
    for line in lines:
        connection, time, rest = line.split(maxsplit=2)
        assert float(time) >= 0
        is_random = rest.startswith(("> ping", "< pong"))
        said.append(f"{connection} {rest.rpartition(' ')[0] if is_random else rest}")
    return said


async def test_a_conversation_is_recorded_and_played_back(tmp_path: Path) -> None:
    path = tmp_path / "conversation.txt"
    with Recorder(path) as recorder:
        async with scripted_server(*SCRIPTS) as server, AsyncClient().wrap_with_middleware(recorder) as client:
            await converse(server.url, client)
        assert recorder.entries == read_recording(path)
    assert sorted(lines_of(path)) == sorted(RECORDED.split("\n")[1:-1])

    played = Script.from_recording(path)
    async with scripted_server(*played) as server:
        await converse(server.url)
    with pytest.raises(ScriptFailed, match=r"expect_text\('grüße\\n'\), but text \"hello\" came"):
        async with scripted_server(*played) as server:
            await converse(server.url, greeting="hello")


def test_a_conversation_of_threads_is_recorded_and_played_back(tmp_path: Path) -> None:
    path = tmp_path / "conversation.txt"
    with Recorder(path) as recorder:
        with scripted_server(*SCRIPTS) as server, Client().wrap_with_middleware(recorder) as client:
            converse_in_a_thread(server.url, client)
        assert recorder.entries == read_recording(path)
    assert sorted(lines_of(path)) == sorted(RECORDED.split("\n")[1:-1])

    with scripted_server(*Script.from_recording(path)) as server:
        converse_in_a_thread(server.url)


def test_the_client_of_a_thread_closes_once_and_what_it_learns_by_that_is_no_news(tmp_path: Path) -> None:
    with Recorder(tmp_path / "x") as recorder:
        with scripted_server(Script().accept().stall()) as server:
            with connect_ws(server.url, client=Client().wrap_with_middleware(recorder), close_timeout=0.1) as ws:
                ws.send("hello")
            server.check()
        said = [(entry.sender, entry.kind) for entry in recorder.entries]
    assert said[-1] == ("client", "end")
    assert said.count(("client", "end")) == 1


def test_an_answer_to_a_thread_without_a_stream_is_left_alone(tmp_path: Path) -> None:
    class NoStream(BaseHandler):
        def handle(self, request: Request) -> Response:
            return Response(101, request=request, content=b"")

    with Recorder(tmp_path / "x") as recorder:
        with pytest.raises(HandshakeError, match="handed no network stream over"):
            with connect_ws("ws://test/", client=Client(NoStream()).wrap_with_middleware(recorder)):
                pytest.fail("there is no stream")
        assert [entry.kind for entry in recorder.entries] == ["request"]


def test_a_stream_that_is_closed_twice_or_read_after_that_has_one_end(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with Recorder(tmp_path / "x") as recorder, theirs:
        client = Client(Handing(ours)).wrap_with_middleware(recorder)
        response = client.request("GET", "http://test/", headers={"Upgrade": "websocket"})
        stream = response.context.get("handoff", {}).get("network_stream")
        assert isinstance(stream, BaseNetworkStream)
        theirs.sendall(b"\x81\x02hi")
        assert stream.read(100) == b"\x81\x02hi"
        stream.close()
        stream.close()
        with pytest.raises(zapros.ZaprosError):
            stream.read(100)
        assert [(entry.sender, entry.kind) for entry in recorder.entries[2:]] == [
            ("server", "text"),
            ("client", "end"),
        ]


class Handing(BaseHandler):
    """Hands a socket over, whatever is asked."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = SyncStream(sock, upgrade_ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def handle(self, request: Request) -> Response:
        context: ResponseContext = {"handoff": {"network_stream": self._stream, "trailing_data": b""}}
        return Response(101, context=context, request=request, content=b"")


def test_plain_requests_of_a_thread_are_not_recorded(tmp_path: Path) -> None:
    class NoContent(BaseHandler):
        def handle(self, request: Request) -> Response:
            return Response(204, request=request, content=b"")

    with Recorder(tmp_path / "x") as recorder:
        client = Client(NoContent()).wrap_with_middleware(recorder)
        assert client.get("http://test/").status == 204
        assert recorder.entries == []


async def test_what_a_server_does_is_played_back(tmp_path: Path) -> None:
    path = tmp_path / "conversation.txt"
    path.write_text(
        """# by hand

        1 0.0 > request "/"
        1 0.1 < accept
        1 0.2 < text "a"
        1 0.3 < binary base64:YQ==
        1 0.4 < raw base64:igA=
        1 0.4 < pong base64:YQ==
        1 0.5 < close 4000 "bye"
        1 0.6 > text "crossed"
        1 0.7 > close 4000 "bye"
        2 0.8 < end
        3 0.8 > request "/"
        3 0.8 < accept
        3 0.9 > end
        """,
        encoding="utf-8",
    )
    first, second, third = Script.from_recording(path)
    assert [str(step) for step in first.steps] == [
        "expect_request('/')",
        "accept()",
        "send_text('a')",
        "send_binary(b'a')",
        "send_raw(b'\\x8a\\x00')",
        "close(4000, 'bye')",
    ]
    assert [str(step) for step in second.steps] == ["end()"]
    assert [str(step) for step in third.steps] == ["expect_request('/')", "accept()", "expect_end()"]


@pytest.mark.parametrize(
    "line",
    [
        "what is this",
        "1 0.0 > sings",
        '1 0.0 > text "not closed',
        r'1 0.0 > text "\q"',
        "1 0.0 > binary base64:A",
        "1 0 > ping",
        '1 0.0 = text "x"',
    ],
)
def test_a_file_that_is_no_recording(line: str, tmp_path: Path) -> None:
    path = tmp_path / "conversation.txt"
    path.write_text(f"# heading\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"conversation\.txt, line 2: not a line of a recording: "):
        read_recording(path)


@pytest.mark.parametrize(
    "entry",
    [
        Entry(1, 0.25, "client", "text", data='\x1b[31m \u202e \u2028 \U0001f600 " \\'),
        Entry(12, 1234.5, "server", "text", data=""),
        Entry(1, 0.0, "server", "binary", data=bytes(range(256)), frames=3),
        Entry(1, 0.0, "server", "ping", data=b""),
        Entry(1, 0.0, "client", "close", number=1005),
        Entry(1, 0.0, "client", "close", number=4000, data="bye (2 frames)"),
        Entry(1, 0.0, "server", "refuse", number=403),
    ],
)
def test_an_entry_is_one_printable_line_and_comes_back(entry: Entry) -> None:
    line = str(entry)
    assert line.isprintable()
    assert Entry.parse(line) == entry


async def test_a_handshake_that_was_lost_is_lost_again(tmp_path: Path) -> None:
    path = tmp_path / "conversation.txt"

    async def connect(url: str, client: AsyncClient | None = None) -> None:
        with pytest.raises((HandshakeError, zapros.ReadError, zapros.ConnectionError)):
            async with aconnect_ws(url, client=client):
                pytest.fail("there was no answer")

    with Recorder(path) as recorder:
        async with scripted_server(Script().end(), Script().drop()) as server:
            async with AsyncClient().wrap_with_middleware(recorder) as client:
                for _ in range(2):
                    await connect(server.url, client)
        assert [entry.said() for entry in recorder.entries] == ['request "/"', "drop"] * 2
    async with scripted_server(*Script.from_recording(path)) as server:
        for _ in range(2):
            await connect(server.url)


def test_a_handshake_of_a_thread_that_was_lost_is_lost_again(tmp_path: Path) -> None:
    path = tmp_path / "conversation.txt"

    def connect(url: str, client: Client | None = None) -> None:
        with pytest.raises((HandshakeError, zapros.ReadError, zapros.ConnectionError)):
            with connect_ws(url, client=client):
                pytest.fail("there was no answer")

    with Recorder(path) as recorder, scripted_server(Script().end()) as server:
        with Client().wrap_with_middleware(recorder) as client:
            connect(server.url, client)
        assert [entry.said() for entry in recorder.entries] == ['request "/"', "drop"]
    with scripted_server(*Script.from_recording(path)) as server:
        connect(server.url)


async def test_a_handshake_that_was_given_up_gets_no_answer_again(tmp_path: Path) -> None:
    path = tmp_path / "conversation.txt"

    async def connect() -> None:
        async with aconnect_ws(server.url, client=client):
            pytest.fail("there was no answer")

    with Recorder(path) as recorder:
        async with scripted_server(Script().pause("asked").stall()) as server:
            async with AsyncClient().wrap_with_middleware(recorder) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(connect)
                await server.reached("asked")
                server.resume("asked")
                tasks.cancel_scope.cancel()
        assert [(entry.sender, entry.said()) for entry in recorder.entries] == [
            ("client", 'request "/"'),
            ("client", "end"),
        ]
    (script,) = Script.from_recording(path)
    assert [str(step) for step in script.steps] == ["expect_request('/')", "stall()"]


@pytest.mark.parametrize("error", [zapros.ReadTimeoutError("late"), TimeoutError("late")], ids=repr)
def test_a_handshake_that_took_too_long_was_given_up(tmp_path: Path, error: Exception) -> None:
    class Late(BaseHandler):
        def handle(self, request: Request) -> Response:
            raise error

        def close(self) -> None:
            """There is nothing to close."""

    with Recorder(tmp_path / "conversation.txt") as recorder:
        client = Client(Late()).wrap_with_middleware(recorder)
        with pytest.raises(zapros.ZaprosError), connect_ws("ws://test/", client=client):
            pytest.fail("there was no answer")
        assert [(entry.sender, entry.kind) for entry in recorder.entries] == [("client", "request"), ("client", "end")]


async def test_a_violation_of_the_server_is_recorded(tmp_path: Path) -> None:
    server = MemoryServer(trailing=b"\x81\x02hi\x83\x00")
    with Recorder(tmp_path / "x") as recorder:
        async with aconnect_ws("ws://x/", client=server.client.wrap_with_middleware(recorder)) as ws:
            assert await ws.recv() == TextMessage("hi")
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            server.peer.end()
        assert [entry.kind for entry in recorder.entries[2:4]] == ["text", "violation"]


async def test_what_is_said_after_the_recorder_was_closed_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "x"
    recorder = Recorder(path)
    async with scripted_server(Script().expect_text("a").send_text("b")) as server:
        async with aconnect_ws(server.url, client=AsyncClient().wrap_with_middleware(recorder)) as ws:
            recorder.close()
            await ws.send("a")
            assert await ws.recv() == TextMessage("b")
    assert [entry.kind for entry in read_recording(path)] == ["request", "accept"]


async def test_plain_requests_are_not_recorded(tmp_path: Path) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    with Recorder(tmp_path / "x") as recorder:
        async with WebSocketAsgiHandler(application, enable_lifespan=False) as handler:
            client = AsyncClient(handler).wrap_with_middleware(recorder)
            assert (await client.get("http://testserver/")).status == 204
        assert recorder.entries == []


async def test_an_application_in_process_is_recorded_over_frames(tmp_path: Path) -> None:
    with Recorder(tmp_path / "x") as recorder:
        async with WebSocketAsgiHandler(Echo(), enable_lifespan=False) as handler:
            client = AsyncClient(handler).wrap_with_middleware(recorder)
            async with aconnect_ws(URL, client=client, permessage_deflate=True) as ws:
                await ws.send("hello")
                await ws.recv()
        assert [entry.said() for entry in recorder.entries[2:4]] == ['text "hello"'] * 2


async def test_zapros_has_no_frames_of_an_application(tmp_path: Path) -> None:
    application = Echo()
    with Recorder(tmp_path / "x") as recorder:
        async with zapros.AsgiHandler(application, enable_lifespan=False) as handler:
            client = AsyncClient(handler).wrap_with_middleware(recorder)
            with pytest.raises(RuntimeError, match=r"use testing\.WebSocketAsgiHandler"):
                async with aconnect_ws(URL, client=client):
                    pytest.fail("there are no frames")
    assert application.ended.is_set()


async def test_an_answer_without_a_stream_is_left_alone(tmp_path: Path) -> None:
    class NoStream(AsyncBaseHandler):
        async def ahandle(self, request: Request) -> Response:
            return Response(101, request=request, content=b"")

    with Recorder(tmp_path / "x") as recorder:
        with pytest.raises(HandshakeError, match="handed no network stream over"):
            async with aconnect_ws(URL, client=AsyncClient(NoStream()).wrap_with_middleware(recorder)):
                pytest.fail("there is no stream")
        assert [entry.kind for entry in recorder.entries] == ["request"]
