"""``zapros-ws serve``: a process that others can talk to."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import anyio
import pytest

from zapros_websocket import aconnect_ws
from zapros_websocket._cli import serve as serving

from .conftest import Run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_comes(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "zapros_websocket", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()

        async def talk() -> list[object]:
            async with aconnect_ws(f"{url}count/2") as ws:
                return [message.data async for message in ws]

        assert anyio.run(talk, backend="trio") == ["1", "2"]
        process.send_signal(number)
        assert "/count/N" in process.stdout.read()
    assert process.returncode == 0


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_what_is_no_port_cannot_be_used(port: str, run: Run) -> None:
    outcome = run("serve", "--port", port)
    assert (outcome.status, outcome.output) == (2, b"")
    assert f"argument --port: '{port}' is no port" in outcome.remarks


def test_it_listens_where_it_is_told_to(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        outcome = run("serve", "--port", str(port))
        assert outcome.status == 1
        assert outcome.output == b""
        assert f"cannot listen on port {port}" in outcome.remarks

    async def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    with monkeypatch.context() as patch:
        patch.setattr(serving, "sleep_forever", interrupted)
        outcome = run("serve", "--port", str(port))
    assert outcome.status == 0
    assert outcome.output.startswith(f"ws://127.0.0.1:{port}/\n".encode())
