"""The client under test: it echoes what a case sends, until the case closes the connection."""

from __future__ import annotations

import json
import signal
from types import FrameType
from typing import Final, Literal, TypedDict

import anyio

from zapros_websocket import ConnectionClosed, PerMessageDeflateExtension, TextMessage, aconnect_ws, connect_ws

from .cases import Case

Backend = Literal["trio", "asyncio", "sync"]
"""Where the client runs: on an event loop, or in plain threads."""

BACKENDS: Final[tuple[Backend, ...]] = ("trio", "asyncio", "sync")

# 9.1.6 and 9.2.6 send a message of 16 MiB.
MAX_MESSAGE_SIZE = 64 * 1024 * 1024
# Beyond a case's deadline, for a client that does not even react to its cancellation.
GRACE_SECONDS = 60.0
COMMAND_SECONDS = 300.0


class Stuck(BaseException):
    """A case went on after it was cancelled."""


def agent_of(backend: Backend) -> str:
    """The name under which the suite reports what runs on ``backend``."""
    return f"zapros_websocket-{backend}"


def list_cases(url: str) -> list[Case]:
    """The cases that the server has selected, in its order."""
    return anyio.run(_list_cases, url, backend="trio")


async def _list_cases(url: str) -> list[Case]:
    with anyio.fail_after(COMMAND_SECONDS):
        count = int(await _answer(f"{url}/getCaseCount"))
        return [
            Case(number, json.loads(await _answer(f"{url}/getCaseInfo?case={number}"))["id"])
            for number in range(1, count + 1)
        ]


async def _answer(url: str) -> str:
    async with aconnect_ws(url, ping_interval=None) as ws:
        async for message in ws:
            if isinstance(message, TextMessage):
                return message.data
    raise ConnectionError(f"no answer from {url}")


def run_case(url: str, case: Case, backend: Backend) -> str | None:
    """Run one case in an event loop of its own, so that it disturbs no other.

    Returns what went wrong on this side, or None. A connection that the case broke on purpose is no fault here: the
    server judges how it was failed.
    """
    address = f"{url}/runCase?case={case.number}&agent={agent_of(backend)}"
    previous = signal.signal(signal.SIGALRM, _raise_stuck)
    signal.setitimer(signal.ITIMER_REAL, case.deadline + GRACE_SECONDS)
    try:
        if backend == "sync":
            return _run_case_in_this_thread(address, case)
        return anyio.run(_run_case, address, case, backend=backend)
    except (Exception, Stuck) as error:
        return f"the event loop ended with {error!r}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _raise_stuck(number: int, frame: FrameType | None) -> None:
    raise Stuck


def _run_case_in_this_thread(address: str, case: Case) -> str | None:
    signal.setitimer(signal.ITIMER_REAL, case.deadline)
    options = _options(case.offer)
    try:
        with connect_ws(address, **options) as ws:
            for message in ws:
                ws.send(message)
    except ConnectionClosed:
        pass
    except Stuck:
        return f"stuck after {case.deadline:g} seconds"
    except Exception as error:
        return f"the client raised {error!r}"
    return None


async def _run_case(address: str, case: Case) -> str | None:
    with anyio.move_on_after(case.deadline) as scope:
        try:
            await _echo(address, case.offer)
        except ConnectionClosed:
            pass
        except Exception as error:
            return f"the client raised {error!r}"
    return f"stuck after {case.deadline:g} seconds" if scope.cancelled_caught else None


async def _echo(address: str, offer: bool | PerMessageDeflateExtension) -> None:
    async with aconnect_ws(address, **_options(offer)) as ws:
        async for message in ws:
            await ws.send(message)


class _Options(TypedDict):
    permessage_deflate: bool | PerMessageDeflateExtension
    max_message_size: int
    ping_interval: float | None


def _options(offer: bool | PerMessageDeflateExtension) -> _Options:
    return {"permessage_deflate": offer, "max_message_size": MAX_MESSAGE_SIZE, "ping_interval": None}


def write_reports(url: str, backend: Backend) -> None:
    """Let the server write its reports, about every agent that it has seen."""
    anyio.run(_write_reports, f"{url}/updateReports?agent={agent_of(backend)}", backend="trio")


async def _write_reports(url: str) -> None:
    with anyio.fail_after(COMMAND_SECONDS):
        # The server is busy writing while we wait for its close frame.
        async with aconnect_ws(url, ping_interval=None, open_timeout=COMMAND_SECONDS) as ws:
            async for _ in ws:
                pass
