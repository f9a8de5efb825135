"""``zapros-ws bench``: the percentiles, and what it does with a server that plays no part."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

import anyio
import pytest
from wsproto.events import CloseConnection
from wsproto.events import TextMessage as WsprotoText

from tests.memory import MemoryServer, autojump
from zapros_websocket import AsyncWebSocket, aconnect_ws
from zapros_websocket._cli import bench
from zapros_websocket._cli.bench import Bench, Latencies, Rows, live_view, no_view
from zapros_websocket._cli.display import Display
from zapros_websocket._cli.status import Status

from .conftest import Run

TABLE = re.compile(
    r"round trips +20\nmin +[\d.]+ ms\nmean +[\d.]+ ms\np50 +[\d.]+ ms\np90 +[\d.]+ ms\np99 +[\d.]+ ms\n"
    r"p99\.9 +[\d.]+ ms\nmax +[\d.]+ ms\n"
)


def test_percentiles_are_values_that_were_measured() -> None:
    found = Latencies.of([n / 1000 for n in range(100, 0, -1)])
    assert (found.count, found.minimum, found.maximum) == (100, 1, 100)
    assert found.mean == pytest.approx(50.5)
    assert found.percentiles == {"p50": 50, "p90": 90, "p99": 99, "p99.9": 100}
    one = Latencies.of([0.005])
    assert set(one.percentiles.values()) == {5}


@pytest.mark.parametrize("arguments", [[], ["--echo", "100"], ["--echo", "0"]], ids=["ping", "echo", "empty"])
def test_it_prints_a_table(arguments: list[str], run: Run, url: str) -> None:
    outcome = run("bench", url, "--count", "20", *arguments)
    assert outcome.status == 0
    assert TABLE.fullmatch(outcome.output.decode()), outcome.output
    assert outcome.remarks == f"connected to {url}\n"


@pytest.mark.parametrize(
    ("option", "number", "least"), [("--count", "0", 1), ("--count", "many", 1), ("--echo", "-1", 0)]
)
def test_what_cannot_be_counted_cannot_be_measured(option: str, number: str, least: int, run: Run) -> None:
    outcome = run("bench", "ws://127.0.0.1/", option, number)
    assert (outcome.status, outcome.output) == (2, b"")
    assert f"argument {option}: '{number}' is no whole number from {least} on" in outcome.remarks


def test_it_prints_json(run: Run, url: str) -> None:
    outcome = run("bench", url, "--count", "5", "--json", "-q")
    facts = json.loads(outcome.output)
    assert (facts["count"], facts["unit"]) == (5, "ms")
    assert 0 < facts["minimum"] <= facts["percentiles"]["p50"] <= facts["maximum"]
    assert outcome.remarks == ""


@pytest.mark.parametrize(("path", "status"), [("count/1", 5), ("close/1013/busy", 5), ("status/403", 4)])
def test_a_server_that_closes_cuts_it_off(path: str, status: int, run: Run, url: str) -> None:
    outcome = run("bench", url + path, "--count", "100000")
    assert outcome.status == status
    assert "server" in outcome.remarks


def test_what_was_measured_before_ctrl_c_is_a_result(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ping = AsyncWebSocket.ping
    pings = 0

    async def interrupted(ws: AsyncWebSocket) -> float:
        nonlocal pings
        pings += 1
        if pings == 21:
            signal.raise_signal(signal.SIGINT)
            await anyio.sleep_forever()
        return await ping(ws)

    with monkeypatch.context() as patch:
        patch.setattr(AsyncWebSocket, "ping", interrupted)
        outcome = run("bench", url)
    assert outcome.status == 130
    assert TABLE.fullmatch(outcome.output.decode())


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [autojump("trio"), autojump("asyncio")], ids=["trio", "asyncio"])
@pytest.mark.parametrize(
    ("answer", "remark"), [("text", "a binary message was asked for"), (b"other", "something else came back")]
)
async def test_a_server_that_does_not_echo_is_found_out(
    answer: str | bytes, remark: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from wsproto.events import BytesMessage

    server = MemoryServer()
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await server.peer.send(WsprotoText(answer) if isinstance(answer, str) else BytesMessage(answer))
        display = Display(pretty=False, quiet=False, coloured=False)
        measuring = Bench(display, count=10, size=4, as_json=False, live=no_view)
        assert await measuring.run(ws) == Status.FAILED
    assert remark in capfd.readouterr().err


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [autojump("trio")], ids=["trio"])
async def test_it_shows_what_was_measured_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[tuple[str, str]]] = []

    @contextmanager
    def view(rows: Rows) -> Generator[Callable[[], None]]:
        yield lambda: seen.append(rows())

    async def ping(ws: AsyncWebSocket) -> float:
        await anyio.sleep(bench.REFRESH * 0.6)
        return 0.25

    monkeypatch.setattr(AsyncWebSocket, "ping", ping)
    server = MemoryServer()
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        display = Display(pretty=False, quiet=True, coloured=False)
        assert await Bench(display, count=4, size=None, as_json=True, live=view).run(ws) == Status.DONE
    assert [rows[0] for rows in seen] == [("round trips", "1"), ("round trips", "3")]
    assert seen[0][1] == ("min", "250.000 ms")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [autojump("trio")], ids=["trio"])
async def test_without_a_round_trip_there_is_nothing_to_report(capfd: pytest.CaptureFixture[str]) -> None:
    server = MemoryServer()
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await server.peer.send(CloseConnection(1000))
        await ws.recv()
        measuring = Bench(
            Display(pretty=False, quiet=True, coloured=False), count=4, size=None, as_json=True, live=no_view
        )
        assert await measuring.run(ws) == Status.CLOSED
        assert measuring.rows() == [("round trips", "0")]
    assert capfd.readouterr().out == ""


def test_the_live_view_is_a_table_that_changes_in_its_place(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich", reason="the live view needs rich")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    count = 0

    def rows() -> list[tuple[str, str]]:
        return [("round trips", str(count))]

    with live_view(rows) as refresh:
        for count in (1, 22, 333):  # noqa: B007 (rows looks at it)
            refresh()
    output, errors = capfd.readouterr()
    assert output == ""
    for number in ("22", "333"):
        assert number in errors
    assert "\x1b[" in errors
