"""``reconnecting``: what goes on, what comes out, after which pause; on a network in memory and a clock that jumps."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import replace
from typing import Any

import anyio
import pytest
import trio
import zapros
from wsproto.events import CloseConnection
from wsproto.events import TextMessage as WsprotoText
from zapros import AsyncClient, Request, Response

from tests.memory import Backend, MemoryServer, autojump
from zapros_websocket import (
    CloseMessage,
    ConnectionClosed,
    HandshakeError,
    HandshakeTimeoutError,
    Message,
    Observer,
    ReconnectPolicy,
    TextMessage,
    aconnect_ws,
    reconnecting,
)

pytestmark = pytest.mark.anyio

LONGEST = ReconnectPolicy(first_pause=1, longest_pause=8, lived_after=10, random=lambda: 1.0)


class ScriptedServer(MemoryServer):
    """Answers handshakes as told, and then as a server should."""

    def __init__(self, *answers: int | Exception | None) -> None:
        super().__init__()
        self.answers = deque(answers)
        self.headers: dict[str, str] = {}
        self.times: list[float] = []

    async def ahandle(self, request: Request) -> Response:
        self.times.append(anyio.current_time())
        answer = self.answers.popleft() if self.answers else None
        if isinstance(answer, Exception):
            self.requests.append(request)
            raise answer
        if answer is not None:
            self.requests.append(request)
            return Response(answer, self.headers, content=b"not now", request=request)
        return await super().ahandle(request)

    @property
    def waits(self) -> list[float]:
        """The seconds from one handshake to the next."""
        return [round(b - a, 3) for a, b in zip(self.times, self.times[1:], strict=False)]


def to(server: ScriptedServer, policy: ReconnectPolicy = LONGEST, observer: Observer | None = None) -> reconnecting:
    return reconnecting(
        "ws://test/", policy=policy, client=server.client, close_timeout=0, ping_interval=None, observer=observer
    )


async def test_a_block_that_ends_ends_the_loop() -> None:
    server = ScriptedServer()
    numbers: list[int] = []
    async for attempt in to(server):
        async with attempt as ws:
            await ws.send("hello")
            numbers.append(attempt.number)
            assert attempt.previous is None
    assert numbers == [1]
    assert len(server.peers) == 1


async def test_handshakes_are_repeated_before_the_block_begins() -> None:
    refused = zapros.ConnectionError("refused")
    server = ScriptedServer(503, refused, 429, zapros.ConnectTimeoutError("late"))
    entered = 0
    async for attempt in to(server):
        assert (attempt.number, attempt.previous) == (1, None)
        async with attempt:
            entered += 1
            assert attempt.number == 5
            assert isinstance(attempt.previous, zapros.ConnectTimeoutError)
    assert entered == 1
    assert server.waits == [1, 2, 4, 8]


async def test_each_handshake_goes_through_the_client_anew() -> None:
    tokens = iter(["first", "second"])

    class Refreshing(zapros.AsyncBaseMiddleware):
        def __init__(self, following: zapros.AsyncBaseHandler) -> None:
            self.async_next = following

        async def ahandle(self, request: Request) -> Response:
            request.headers["Authorization"] = next(tokens)
            return await self.async_next.ahandle(request)

    server = ScriptedServer(503)
    client = AsyncClient(handler=Refreshing(server))
    async for attempt in reconnecting("ws://test/", policy=LONGEST, client=client, close_timeout=0):
        async with attempt:
            pass
    assert [request.headers["Authorization"] for request in server.requests] == ["first", "second"]
    assert len({request.headers["Sec-WebSocket-Key"] for request in server.requests}) == 2


async def test_a_lost_connection_begins_the_next_attempt() -> None:
    server = ScriptedServer()
    received: list[str] = []
    previous: list[object] = []
    async for attempt in to(server):
        async with attempt as ws:
            previous.append(attempt.previous and type(attempt.previous))
            await server.peer.send(WsprotoText(str(attempt.number)))
            if attempt.number < 3:
                server.peer.end()
            else:
                await server.peer.send(CloseConnection(1000))
            async for message in ws:
                assert isinstance(message, TextMessage)
                received.append(message.data)
    assert received == ["1", "2", "3"]
    assert previous == [None, ConnectionClosed, ConnectionClosed]
    assert server.waits == [1, 2]


async def test_the_pauses_begin_anew_after_a_connection_that_lived() -> None:
    server = ScriptedServer()
    async for attempt in to(server):
        async with attempt as ws:
            if attempt.number == 3:
                await anyio.sleep(10)
            if attempt.number < 5:
                server.peer.reset()
            else:
                await ws.close()
            async for _ in ws:
                raise AssertionError("nothing was sent")
    # The third lived for 10 seconds; its pause is as short as the first.
    assert server.waits == [1, 2, 11, 1]


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 1014])
async def test_a_close_that_means_come_back_goes_on(code: int) -> None:
    server = ScriptedServer()
    codes: list[int | None] = []
    async for attempt in to(server):
        async with attempt as ws:
            await server.peer.send(CloseConnection(code if attempt.number == 1 else 1000, "why"))
            async for _ in ws:
                raise AssertionError("nothing was sent")
            codes.append(ws.close_code)
            if attempt.number == 2:
                assert isinstance(attempt.previous, ConnectionClosed)
                assert attempt.previous.received == CloseMessage(code, "why")
    assert codes == [code, 1000]


@pytest.mark.parametrize("code", [1000, 1003, 1008, 4000])
async def test_any_other_close_ends_the_loop(code: int) -> None:
    server = ScriptedServer()
    async for attempt in to(server):
        async with attempt as ws:
            await server.peer.send(CloseConnection(code))
            async for _ in ws:
                raise AssertionError("nothing was sent")
    assert len(server.peers) == 1


async def test_the_policy_says_which_close_goes_on() -> None:
    server = ScriptedServer()
    policy = ReconnectPolicy(close_codes=frozenset({1000}))
    async for attempt in to(server, policy):
        async with attempt as ws:
            await server.peer.send(CloseConnection(1000 if attempt.number == 1 else 1012))
            async for _ in ws:
                raise AssertionError("nothing was sent")
    assert len(server.peers) == 2


async def test_a_close_as_a_message_counts_like_the_end_of_iteration() -> None:
    server = ScriptedServer()
    received: list[Message] = []
    async for attempt in to(server):
        async with attempt as ws:
            await server.peer.send(CloseConnection(1012 if attempt.number == 1 else 1000))
            received.append(await ws.recv())
    assert received == [CloseMessage(1012, ""), CloseMessage(1000, "")]


async def test_a_close_that_the_block_has_not_seen_does_not_repeat_it() -> None:
    server = ScriptedServer()
    async for attempt in to(server):
        async with attempt as ws:
            await server.peer.send(WsprotoText("done"), CloseConnection(1012))
            await anyio.wait_all_tasks_blocked()
            assert await ws.recv() == TextMessage("done")
    assert len(server.peers) == 1


@pytest.mark.parametrize("call", ["recv", "recv_text", "send", "ping", "iteration"])
@pytest.mark.parametrize("code", [1006, 1012])
async def test_a_loss_that_the_block_has_caught_goes_on(code: int, call: str) -> None:
    server = ScriptedServer()
    previous: list[object] = []
    async for attempt in to(server):
        async with attempt as ws:
            previous.append(getattr(attempt.previous, "code", None))
            if attempt.number == 1:
                if code == 1006:
                    server.peer.reset()
                else:
                    await server.peer.send(CloseConnection(code))
                await anyio.wait_all_tasks_blocked()
                with contextlib.suppress(ConnectionClosed):
                    if call == "iteration":
                        async for _ in ws:
                            raise AssertionError("nothing was sent")
                    elif call == "send":
                        await ws.send("too late")
                    else:
                        await getattr(ws, call)()
    assert previous == [None, code]


@pytest.mark.parametrize("code", [1006, 1012])
@pytest.mark.parametrize("observer", [None, Observer()], ids=["unobserved", "observed"])
async def test_an_end_that_the_block_has_not_seen_does_not_repeat_it(code: int, observer: Observer | None) -> None:
    server = ScriptedServer()
    async for attempt in to(server, observer=observer):
        async with attempt:
            if code == 1006:
                server.peer.reset()
            else:
                await server.peer.send(CloseConnection(code))
            await anyio.wait_all_tasks_blocked()
        assert len(server.peers) == 1


async def test_a_loss_that_the_policy_does_not_retry_ends_the_loop_when_it_was_caught() -> None:
    server = ScriptedServer()
    async for attempt in to(server, ReconnectPolicy(close_codes=frozenset())):
        async with attempt as ws:
            server.peer.reset()
            with pytest.raises(ConnectionClosed):
                await ws.recv()
    assert len(server.peers) == 1


async def test_an_attempt_says_how_the_last_connection_ended() -> None:
    server = ScriptedServer(503)
    server.answers.extend([None, 503, 503])
    ends: list[object] = []
    async for attempt in to(server):
        async with attempt as ws:
            ends.append(attempt.last_closed and attempt.last_closed.received)
            assert isinstance(attempt.previous, HandshakeError)
            if attempt.number == 2:
                await server.peer.send(CloseConnection(1012, "back soon"))
                async for _ in ws:
                    raise AssertionError("nothing was sent")
    assert ends == [None, CloseMessage(1012, "back soon")]


async def test_an_attempt_says_how_a_connection_ended_that_the_block_gave_up() -> None:
    server = ScriptedServer()
    ends: list[object] = []
    async for attempt in to(server):
        ends.append(attempt.last_closed and type(attempt.last_closed))
        with contextlib.suppress(KeyError):
            async with attempt:
                if attempt.number == 1:
                    raise KeyError("mine")
    assert ends == [None, ConnectionClosed]


async def test_a_close_of_ours_is_no_loss() -> None:
    server = ScriptedServer()
    async for attempt in to(server):
        async with attempt as ws:
            await ws.close(1012)
            async for _ in ws:
                raise AssertionError("nothing was sent")
    with pytest.raises(ConnectionClosed):
        async for attempt in to(server):
            async with attempt as ws:
                await ws.close(1012)
                await ws.send("too late")
    assert len(server.peers) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_comes_out_bare(status: int) -> None:
    server = ScriptedServer(status)
    with pytest.raises(HandshakeError) as caught:
        async for attempt in to(server):
            async with attempt:
                raise AssertionError("there is no connection")
    assert caught.value.response is not None
    assert caught.value.response.status == status
    assert len(server.requests) == 1


async def test_a_violation_of_the_protocol_comes_out_bare() -> None:
    server = ScriptedServer()
    with pytest.raises(ConnectionClosed) as caught:
        async for attempt in to(server):
            async with attempt as ws:
                await server.peer.write(b"\x83\x00")
                await ws.recv()
    assert caught.value.code == 1002
    assert len(server.peers) == 1


@pytest.mark.parametrize(
    "error",
    [ValueError("mine"), ConnectionClosed(1006), zapros.ConnectionError("of another request"), KeyboardInterrupt()],
    ids=repr,
)
async def test_the_users_own_exception_comes_out_bare(error: BaseException) -> None:
    server = ScriptedServer()
    with pytest.raises(type(error)) as caught:
        async for attempt in to(server):
            async with attempt:
                raise error
    assert caught.value is error
    assert len(server.peers) == 1
    # The error outlives the test, and should not keep its connection.
    error.__traceback__ = None


async def test_the_loss_of_another_connection_is_the_users_own_exception() -> None:
    server, other = ScriptedServer(), ScriptedServer()
    with pytest.raises(ConnectionClosed):
        async for attempt in to(server):
            async with attempt, aconnect_ws("ws://other/", client=other.client) as ws:
                other.peer.reset()
                await ws.recv()
    assert len(server.peers) == 1


async def test_an_error_of_a_handler_comes_out_bare() -> None:
    error = KeyError("no token")
    server = ScriptedServer(error)
    with pytest.raises(KeyError) as caught:
        async for attempt in to(server):
            async with attempt:
                raise AssertionError("there is no connection")
    assert caught.value is error


async def test_a_policy_of_ones_own_decides_about_handshakes() -> None:
    class Patient(ReconnectPolicy):
        def retries(self, error: Exception) -> bool:
            return isinstance(error, KeyError) or super().retries(error)

    server = ScriptedServer(KeyError("no token"), 503)
    with pytest.raises(KeyError):
        async for attempt in to(server, Patient(random=lambda: 0.0)):
            async with attempt:
                assert attempt.number == 3
                raise KeyError("in the block")
    assert len(server.requests) == 3


async def test_who_catches_an_exception_inside_the_loop_gets_another_attempt() -> None:
    server = ScriptedServer()
    previous: list[object] = []
    async for attempt in to(server):
        try:
            async with attempt as ws:
                previous.append(attempt.previous)
                if attempt.number == 1:
                    raise ValueError("mine")
                await ws.close()
        except ValueError as error:
            previous.append(error)
    assert previous[0] is None
    assert previous[1] is previous[2]
    assert server.waits == [1]


async def test_a_group_of_nothing_but_the_loss_goes_on() -> None:
    server = ScriptedServer()
    blocks = 0
    async for attempt in to(server):
        async with attempt as ws:
            async with anyio.create_task_group() as tasks:
                blocks += 1
                if attempt.number == 1:
                    tasks.start_soon(ws.recv_text)
                    tasks.start_soon(ws.recv_bytes)
                    await anyio.wait_all_tasks_blocked()
                    server.peer.reset()
    assert blocks == 2


async def test_a_group_with_anything_else_comes_out_as_it_is() -> None:
    server = ScriptedServer()

    async def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(BaseException) as caught:
        async for attempt in to(server):
            async with attempt as ws:
                async with anyio.create_task_group() as tasks:
                    server.peer.reset()
                    tasks.start_soon(ws.recv_text)
                    tasks.start_soon(fail)
    assert ValueError in [type(error) for error in getattr(caught.value, "exceptions", ())]
    assert len(server.peers) == 1


async def test_the_last_error_comes_out_when_the_attempts_are_used_up() -> None:
    server = ScriptedServer(503, 503, 502)
    policy = ReconnectPolicy(first_pause=1, max_attempts=3, random=lambda: 1.0)
    with pytest.raises(HandshakeError) as caught:
        async for attempt in to(server, policy):
            async with attempt:
                raise AssertionError("there is no connection")
    assert caught.value.response is not None
    assert caught.value.response.status == 502
    assert server.waits == [1, 2]


async def test_the_last_loss_comes_out_when_the_attempts_are_used_up() -> None:
    server = ScriptedServer()
    policy = ReconnectPolicy(first_pause=1, max_attempts=2, random=lambda: 1.0)
    with pytest.raises(ConnectionClosed) as caught:
        async for attempt in to(server, policy):
            async with attempt as ws:
                server.peer.reset()
                await ws.recv()
    assert caught.value.code == 1006
    assert len(server.peers) == 2


async def test_the_last_error_comes_out_when_the_time_is_used_up() -> None:
    server = ScriptedServer(*[503] * 100)
    policy = ReconnectPolicy(first_pause=1, longest_pause=8, max_time=60, random=lambda: 1.0)
    began = anyio.current_time()
    with pytest.raises(HandshakeError):
        async for attempt in to(server, policy):
            async with attempt:
                raise AssertionError("there is no connection")
    assert server.waits == [1, 2, 4, 8, 8, 8, 8, 8, 8]
    assert anyio.current_time() - began <= 60


async def test_a_close_that_means_come_back_is_an_error_when_it_is_the_last() -> None:
    server = ScriptedServer()
    policy = ReconnectPolicy(max_attempts=2)
    with pytest.raises(ConnectionClosed) as caught:
        async for attempt in to(server, policy):
            async with attempt as ws:
                await server.peer.send(CloseConnection(1012, "back soon"))
                async for _ in ws:
                    raise AssertionError("nothing was sent")
    assert caught.value.received == CloseMessage(1012, "back soon")
    assert len(server.peers) == 2


async def test_the_server_gets_the_time_that_it_asks_for() -> None:
    server = ScriptedServer(503, 503)
    server.headers = {"Retry-After": "60"}
    async for attempt in to(server):
        async with attempt:
            pass
    assert server.waits == [61, 62]


async def test_a_handshake_without_an_answer_is_repeated() -> None:
    class Silent(ScriptedServer):
        async def ahandle(self, request: Request) -> Response:
            if not self.times:
                self.times.append(anyio.current_time())
                await anyio.sleep_forever()
            return await super().ahandle(request)

    server = Silent()
    async for attempt in to(server):
        async with attempt:
            assert isinstance(attempt.previous, HandshakeTimeoutError)
    assert server.waits == [pytest.approx(11, abs=0.1)]


async def test_an_attempt_that_is_not_entered_ends_the_loop_with_an_error() -> None:
    server = ScriptedServer()
    turns = 0
    with pytest.raises(RuntimeError, match="not entered"):
        async for _ in to(server):
            turns += 1
    assert turns == 1
    assert server.peers == []


async def test_an_attempt_can_be_entered_once() -> None:
    server = ScriptedServer()
    async for attempt in to(server):
        async with attempt:
            pass
        with pytest.raises(RuntimeError, match="entered before"):
            await attempt.__aenter__()
    assert len(server.peers) == 1


async def test_a_loop_can_be_run_again_from_the_beginning() -> None:
    server = ScriptedServer()
    staying = to(server)
    for _ in range(2):
        async for attempt in staying:
            async with attempt:
                assert (attempt.number, attempt.previous) == (1, None)
    assert len(server.peers) == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_message_size": 0}, ValueError),
        ({"client": 1}, TypeError),
        ({"headers": {"a": "b\r\nc"}}, ValueError),
        ({"policy": 5}, TypeError),
        ({"policy": ReconnectPolicy}, TypeError),
        ({"url": "htp://test/"}, ValueError),
        ({"url": "/feed"}, ValueError),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], error: type[Exception]) -> None:
    given: dict[str, Any] = {"url": "ws://test/", **arguments}
    with pytest.raises(error):
        reconnecting(**given)


async def test_a_relative_url_belongs_to_the_client() -> None:
    server = ScriptedServer()
    async for attempt in reconnecting("feed", client=AsyncClient(handler=server, base_url="ws://test/")):
        async with attempt:
            break
    assert server.requests[0].url.pathname == "/feed"


@pytest.mark.parametrize("where", ["handshake", "pause", "pause-after-loss", "block"])
@pytest.mark.parametrize("kind", ["trio", "asyncio", "asyncio-native"])
class TestCancelling:
    @pytest.fixture
    def anyio_backend(self, kind: str) -> Backend:
        return autojump("trio" if kind == "trio" else "asyncio")

    async def test_ends_it_wherever_it_is(self, kind: str, where: str) -> None:
        class Waiting(ScriptedServer):
            async def ahandle(self, request: Request) -> Response:
                if where == "handshake":
                    await anyio.sleep_forever()
                return await super().ahandle(request)

        server = Waiting(*([503] if where == "pause" else []))
        states: list[str] = []

        async def stay() -> None:
            try:
                async for attempt in to(server, replace(LONGEST, first_pause=100, longest_pause=100)):
                    async with attempt as ws:
                        if where == "pause-after-loss":
                            server.peer.reset()
                        states.append("connected")
                        async for _ in ws:
                            raise AssertionError("nothing was sent")
                states.append("over")
            except BaseException:
                states.append("cancelled")
                raise

        if kind == "asyncio-native":
            task = asyncio.ensure_future(stay())
            await anyio.wait_all_tasks_blocked()
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stay)
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        connected = where in ("pause-after-loss", "block")
        assert states == (["connected", "cancelled"] if connected else ["cancelled"])
        assert all(peer.stream.incoming.ended for peer in server.peers), "a stream was left open"


@pytest.mark.parametrize("anyio_backend", [autojump("trio")], ids=["trio"])
async def test_a_nursery_in_the_block_goes_on_too() -> None:
    server = ScriptedServer()
    blocks = 0
    async for attempt in to(server):
        async with attempt as ws, trio.open_nursery() as nursery:
            blocks += 1
            if attempt.number == 1:
                server.peer.reset()
                nursery.start_soon(ws.recv)
    assert blocks == 2
