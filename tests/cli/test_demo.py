"""``zapros-ws demo``: its transcript, and that it fails when it should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from zapros_websocket import aconnect_ws
from zapros_websocket._cli.command import main
from zapros_websocket._cli.demo import (
    DemoError,
    show,
    show_close_of_the_peer,
    show_handshake,
    show_iteration,
    show_refusal,
    show_saving,
    show_text,
)
from zapros_websocket.testing import echo_server

pytestmark = pytest.mark.anyio

# One expression for each entry; together they are the whole transcript.
TRANSCRIPT = re.compile(
    r"""server       ws://127\.0\.0\.1:\d+/, on trio \S+
handshake    101 Switching Protocols
(?:             [a-z-]+: '.*'\n)+subprotocol  'v2\.demo', of \['v3\.demo', 'v2\.demo'\] offered
extension    PerMessageDeflateExtension\([^)]*\)
text         sent 'Hello, WebSocket!', received TextMessage\(data='Hello, WebSocket!', kind='text'\)
binary       1,048,576 bytes there and back in [\d.,]+ ms, sha256 equal: [0-9a-f]{16}\.\.\.
ping         answered after [\d.]+ ms
compression  95,890 bytes of JSON took \d?\d,\d{3} on the wire: \d\d,\d{3} saved, \d\d\.\d%
our close    sent 1001 'the demo moves on', answered with 1001 'the demo moves on'
iteration    received '1', '2', '3', '4', '5'; then 1000 'counted' ended the loop
their close  recv\(\) returns CloseMessage\(code=1001, reason='restarting at noon', kind='close'\)
             recv\(\) raises ConnectionClosed: .*1001.*'restarting at noon'
refused      HandshakeError: .*403
             body: 'refused on request\\n'
"""
)


def test_the_demo_prints_its_transcript(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    output, errors = capsys.readouterr()
    assert TRANSCRIPT.fullmatch(output), output
    assert "\nx-demo: 'hello'\n" in output.replace(" " * 13, "")
    assert "permessage-deflate" in output
    assert errors == ""


def test_the_demo_runs_as_a_module_in_a_process_of_its_own() -> None:
    finished = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "zapros_websocket", "demo"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.stderr == ""
    assert finished.returncode == 0
    assert TRANSCRIPT.fullmatch(finished.stdout), finished.stdout


def test_an_error_in_the_demo_goes_to_stderr_and_ends_with_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zapros_websocket.testing", None)
    assert main(["demo"]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("the demo failed: ModuleNotFoundError(")


def test_long_entries_are_wrapped_beside_their_label(capsys: pytest.CaptureFixture[str]) -> None:
    show("label", "word " * 30)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:13] for line in lines] == ["label        ", " " * 13]
    assert all(len(line) <= 110 for line in lines)


async def test_the_demo_fails_when_something_is_not_negotiated() -> None:
    async with echo_server(subprotocols=["a"], permessage_deflate=False) as server:
        async with aconnect_ws(server.url, subprotocols=["b"]) as ws:
            with pytest.raises(DemoError, match="chose the subprotocol None"):
                show_handshake(ws, ["b"])
        async with aconnect_ws(server.url, subprotocols=["a"], permessage_deflate=True) as ws:
            with pytest.raises(DemoError, match="left permessage-deflate out"):
                show_handshake(ws, ["a"])


async def test_the_demo_fails_when_the_peer_says_something_else() -> None:
    async with echo_server() as server:
        async with aconnect_ws(server.url) as ws:
            await ws.send("1")
            with pytest.raises(DemoError, match=r"the text came back as TextMessage\(data='1'"):
                await show_text(ws)
        with pytest.raises(DemoError, match="counting gave"):
            await show_iteration(f"{server.url}count/4")
        with pytest.raises(DemoError, match=r"instead of a close came TextMessage\(data='1'"):
            await show_close_of_the_peer(f"{server.url}count/1")
        with pytest.raises(DemoError, match="was to be refused"):
            await show_refusal(server.url)


def test_the_demo_fails_when_compression_saves_nothing() -> None:
    with pytest.raises(DemoError, match="saved nothing"):
        show_saving(10, 12)
