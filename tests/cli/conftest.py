"""A server in a thread, for the commands that run an event loop of their own; and standard input from a file."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trustme

from zapros_websocket._cli.command import main
from zapros_websocket.testing import echo_server


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Generator[str]:
    """An echo server in a thread: its address, with a final slash."""
    started = threading.Event()
    found: list[str] = []
    ends: list[Callable[[], None]] = []

    async def serve() -> None:
        async with echo_server(subprotocols=["chat"], tls=tls) as server:
            end = trio.Event()
            token = trio.lowlevel.current_trio_token()
            found.append(server.url)
            ends.append(lambda: token.run_sync_soon(end.set))
            started.set()
            await end.wait()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    started.wait()
    try:
        yield found[0]
    finally:
        ends[0]()
        thread.join()


@pytest.fixture(scope="package")
def url() -> Iterator[str]:
    """The address of an echo server, with a final slash."""
    with serving() as url:
        yield url


@pytest.fixture
def secure_url() -> Iterator[str]:
    """The address of one behind TLS, with a certificate that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    with serving(context) as url:
        yield url


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    status: int
    output: bytes
    remarks: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, with ``input`` from a file; nothing is a terminal."""

    def run(*arguments: str, input: bytes = b"") -> Outcome:
        source = tmp_path / "input"
        output = tmp_path / "output"
        source.write_bytes(input)
        with source.open(encoding="utf-8") as stdin, output.open("w", encoding="utf-8") as stdout:
            monkeypatch.setattr(sys, "stdin", stdin)
            monkeypatch.setattr(sys, "stdout", stdout)
            try:
                status = main(arguments)
            except SystemExit as end:
                status = int(end.code or 0)
            finally:
                monkeypatch.undo()
        return Outcome(status, output.read_bytes(), capfd.readouterr().err)

    return run
