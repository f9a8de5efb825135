"""Which command runs, over the network and to the exit status: in this process and in one of its own."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import ssl
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest
import trustme
from wsproto.utilities import generate_accept_token

from zapros_websocket import _without_wsproto
from zapros_websocket._cli import command, opening
from zapros_websocket._cli.command import main
from zapros_websocket._cli.display import Display
from zapros_websocket._cli.opening import TRUST, authorization

from .conftest import Outcome, Run, serving


def test_without_an_argument_the_help_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["zapros_websocket"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("zapros_websocket", run_name="__main__", alter_sys=True)
    assert end.value.code == 2
    output, errors = capsys.readouterr()
    assert (output, "demo" in errors) == ("", True)


@pytest.mark.parametrize("installed", [True, False])
def test_the_version_names_what_is_beneath(
    installed: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(distribution: str) -> str:
        if distribution == "wsproto" and not installed:
            raise metadata.PackageNotFoundError(distribution)
        return f"1.2.{len(distribution)}"

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    python = ".".join(str(part) for part in sys.version_info[:3])
    wsproto = "1.2.7" if installed else "not installed"
    assert capsys.readouterr().out.startswith(
        f"zapros_websocket 1.2.16 (zapros 1.2.6, wsproto {wsproto}, anyio 1.2.5, trio 1.2.4, Python {python}"
    )


def test_help_names_the_commands_and_the_statuses(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run("--help")
    assert outcome.status == 0
    for words in (
        "bench URL",
        "serve",
        "demo",
        "exit status:",
        "before all was measured",
        "  6  the connection was lost",
    ):
        assert words in outcome.output.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ["ws://127.0.0.1/", "--wait", "-1"],
        ["ws://127.0.0.1/", "--wait", "nan"],
        ["ws://127.0.0.1/", "-H", "no colon"],
        ["ws://127.0.0.1/", "--file", "/nowhere/at/all"],
        ["ws://127.0.0.1/", "-H", "Upgrade: chat"],
        ["ws://127.0.0.1/", "--subprotocol", "two words"],
        ["127.0.0.1:80"],
        ["dance"],
        ["bench", "ws://127.0.0.1/", "--count", "0"],
        ["serve", "--port"],
        ["demo", "--fast"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_used_ends_with_status_2(arguments: list[str], run: Run) -> None:
    outcome = run(*arguments)
    assert outcome.status == 2
    assert outcome.output == b""
    assert outcome.remarks


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("notaurl", "'notaurl' is no URL with one of ws://, wss://, http://, https://;"),
        ("servee", "; the commands are bench, serve, demo"),
        ("user:secret@host", "'host' is no URL"),
        ("ws:///", "'ws:///' is not valid: it has no host"),
        ("ws://[::1/", "'ws://[::1/' is not valid: its host is malformed"),
        ("ws://two words/", "'ws://two words/' is not valid: its host is malformed"),
        ("ws://user:secret@host:99999/?a@b", "'ws://host:99999/?a@b' is not valid: ports go from 1 to 65535"),
    ],
)
def test_what_is_wrong_with_a_url_is_said_without_the_password(url: str, fault: str, run: Run) -> None:
    for outcome in (run(url), run("bench", url)):
        assert outcome.status == 2
        assert "error: argument URL: " in outcome.remarks
        assert fault in outcome.remarks
        assert "secret" not in outcome.remarks


@pytest.mark.parametrize(
    ("arguments", "remark"),
    [
        (["-H", "Upgrade: x"], "argument -H/--header: 'Upgrade' belongs to the opening handshake: use --subprotocol"),
        (["-H", "Sec-WebSocket-Protocol: x"], "use --subprotocol and --deflate"),
        (["--auth", ""], "argument --auth: it is empty: write USER:PASSWORD, or a token"),
        (
            ["--proxy", "ftp://me:secret@x"],
            "'ftp://x' is no URL with one of http://, https://, socks5://, socks5h://\n",
        ),
        (["--wait", "abc"], "argument --wait: 'abc' is no number of seconds"),
        (["--timeout", "-1"], "argument --timeout: '-1' is no number of seconds"),
        (["--ping", "0"], "argument --ping: without a pause pings would be all that there is"),
        (["--proxy", "http://x:99999"], "argument --proxy: 'http://x:99999' is not valid: ports go from 1 to 65535"),
    ],
)
def test_an_option_that_cannot_be_used_is_said_in_words_of_the_command_line(
    arguments: list[str], remark: str, run: Run
) -> None:
    outcome = run("ws://127.0.0.1/", *arguments)
    assert outcome.status == 2
    assert remark in outcome.remarks
    assert "secret" not in outcome.remarks


# Talking


def test_lines_are_sent_and_echoes_are_printed(run: Run, url: str) -> None:
    outcome = run(url, input=b"one\ntwo\r\n\nlast")
    assert outcome == Outcome(0, b"one\ntwo\n\nlast\n", f"connected to {url}\n")


def test_binary_input_is_one_message_and_comes_back_as_it_was(run: Run, url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file\n")
    outcome = run(url, "--quiet", "--binary", "--file", str(tmp_path / "file"), input=b"\x00\n\xff" * 50_000)
    assert outcome == Outcome(0, b"from a file\n" + b"\x00\n\xff" * 50_000, "")


def test_json_is_printed_in_many_lines(run: Run, url: str) -> None:
    assert run(url, "-q", "--json", input=b'{"a":[1]}').output == b'{\n  "a": [\n    1\n  ]\n}\n'


def test_what_was_agreed_to_is_said_without_the_password(run: Run, url: str) -> None:
    address = url.replace("ws://", "ws://user:secret@") + "count/2"
    outcome = run(address, "--deflate", "--subprotocol", "chat", "--subprotocol", "other", "--wait", "inf")
    assert outcome.output == b"1\n2\n"
    assert outcome.remarks.splitlines() == [
        f"connected to {url}count/2 (subprotocol chat, compressed)",
        "closed by the server: 1000 'counted'",
    ]


@pytest.mark.parametrize(
    ("path", "status", "remark"),
    [
        ("count/1", 0, "closed by the server: 1000 'counted'"),
        ("close/1013/busy", 5, "closed by the server: 1013 'busy'"),
        ("close/4000/%1B%5B2J", 5, r"closed by the server: 4000 '\x1b[2J'"),
        ("status/403", 4, "the opening handshake failed: the server answered with status 403\n  refused on request"),
        ("status/204", 4, "the opening handshake failed: the server answered with status 204"),
    ],
)
def test_the_exit_status_tells_the_outcome(path: str, status: int, remark: str, run: Run, url: str) -> None:
    outcome = run(url + path, "--wait", "inf")
    assert outcome.status == status
    assert outcome.remarks.endswith(f"{remark}\n")


def test_nobody_there_is_status_3(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        outcome = run(f"ws://127.0.0.1:{port}/", "--timeout", "0.1")
        assert outcome.status == 3
        assert "did not end within 0.1 seconds" in outcome.remarks
    outcome = run(f"ws://127.0.0.1:{port}/")
    assert outcome.status == 3
    assert outcome.remarks.startswith("no connection: ")


@contextmanager
def rude_server(answer: Callable[[bytes], bytes]) -> Generator[int]:
    """Sends one answer to the head of one request, and ends the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                heads.append(head)
                connection.sendall(answer(head))

        heads: list[bytes] = []
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()
        requests[:] = heads


requests: list[bytes] = []


def accept(head: bytes) -> bytes:
    key = head.lower().partition(b"sec-websocket-key: ")[0]
    token = generate_accept_token(head[len(key) + 19 :].partition(b"\r\n")[0]).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*lines, f"Sec-WebSocket-Accept: {token}", "", ""]).encode() + b"\x81\x02hi"


def test_a_connection_that_is_lost_is_status_6(run: Run) -> None:
    with rude_server(accept) as port:
        outcome = run(f"ws://127.0.0.1:{port}/", "--wait", "inf")
    assert outcome.status == 6
    assert outcome.output == b"hi\n"
    assert "the connection was lost or failed: 1006" in outcome.remarks


def test_what_was_asked_for_in_vain_is_said(run: Run) -> None:
    with rude_server(accept) as port:
        outcome = run(f"ws://127.0.0.1:{port}/", "--subprotocol", "chat", "--deflate", "--wait", "inf")
    connected = outcome.remarks.splitlines()[0]
    assert connected == f"connected to ws://127.0.0.1:{port}/ (no subprotocol, not compressed)"


def test_headers_and_credentials_are_sent(run: Run) -> None:
    with rude_server(lambda head: b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n") as port:
        outcome = run(f"ws://127.0.0.1:{port}/", "-H", "X-One: 1: 2", "--header", "X-Two:2", "--auth", "user:pass word")
    assert outcome.status == 4
    basic = b64encode(b"user:pass word").decode()
    head = requests[0].decode()
    for line in ("X-One: 1: 2", "X-Two: 2", f"Authorization: Basic {basic}"):
        assert line.lower() in head.lower()


def test_credentials_without_a_colon_are_a_token() -> None:
    assert authorization("abc") == "Bearer abc"


def test_an_answer_that_is_not_http_is_status_4(run: Run) -> None:
    with rude_server(lambda head: b"go away\r\n\r\n") as port:
        outcome = run(f"ws://127.0.0.1:{port}/")
    assert outcome.status == 4
    assert "not HTTP" in outcome.remarks


def test_what_stands_in_for_wsproto_is_status_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(opening, "aconnect_ws", _without_wsproto.aconnect_ws)
        outcome = run("ws://127.0.0.1/")
    assert outcome.status == 1
    assert "pip install wsproto" in outcome.remarks


def test_without_wsproto_it_says_what_to_install() -> None:
    program = """
import sys
sys.modules["wsproto"] = None
from zapros_websocket.__main__ import main
"""
    finished = subprocess.run(
        [sys.executable, "-c", program, "ws://127.0.0.1/"], capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 1
    assert "pip install wsproto" in finished.stderr


def test_a_proxy_is_gone_through(run: Run, url: str) -> None:
    with rude_server(lambda head: b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as number:
        outcome = run("ws://server.invalid/", "--proxy", f"http://127.0.0.1:{number}")
    assert outcome.status == 4
    assert requests[0].startswith(b"GET ws://server.invalid/")


def test_an_unknown_authority_is_status_3_unless_it_is_to_be_believed(run: Run, secure_url: str) -> None:
    outcome = run(secure_url, input=b"hello")
    assert outcome.status == 3
    assert "TLS" in outcome.remarks
    assert outcome.remarks.endswith(f"{TRUST}\n")
    assert run(secure_url, "--insecure", "-q", input=b"hello") == Outcome(0, b"hello\n", "")
    assert run(f"{secure_url}status/403", "--insecure").status == 4


def test_authorities_to_trust_can_come_from_a_file(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    with serving(context) as secure_url:
        finished = subprocess.run(
            [sys.executable, "-m", "zapros_websocket", "-q", secure_url],
            input="hello",
            env={**os.environ, "SSL_CERT_FILE": str(tmp_path / "authority.pem")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "hello\n", "")


def test_a_failure_of_tls_that_is_not_the_certificate_says_nothing_of_it(run: Run, url: str) -> None:
    outcome = run(url.replace("ws://", "wss://"))
    assert outcome.status == 3
    assert outcome.remarks.startswith("no connection: TLS failed")
    assert TRUST not in outcome.remarks


# Signals and pipes


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_closes_politely(
    number: signal.Signals, status: int, run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def show(display: Display, message: object) -> None:
        signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(Display, "show", show)
        outcome = run(url, "-q", "--wait", "inf", input=b"hello")
    assert outcome == Outcome(status, b"", "")


def test_pings_go_out_as_often_as_they_are_asked_for(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remarks: list[str] = []

    def say(display: Display, text: str) -> None:
        remarks.append(text)
        if len(remarks) == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Display, "say", say)
        assert run(url, "--ping", "0.01", "--wait", "inf").status == 130
    assert [remark.partition(" after ")[0] for remark in remarks[1:3]] == ["pong", "pong"]


def test_a_signal_before_anything_runs_ends_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_demo", interrupted)
    assert main(["demo"]) == 130


def test_a_reader_that_is_gone_ends_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(os.devnull, encoding="utf-8") as stdin, open(writing, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main([f"{url}count/1000", "-q", "--wait", "inf"]) == 0
        monkeypatch.undo()


def test_a_closed_input_is_an_empty_one(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", None)
        assert main([f"{url}count/2", "-q", "--wait", "inf"]) == 0
        assert sys.stdin is None
    assert capfd.readouterr().out == "1\n2\n"


def test_no_remark_goes_to_the_messages_when_standard_error_is_closed(url: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, (tmp_path / "output").open("w", encoding="utf-8") as stdout:
        patch.setattr(sys, "stdin", None)
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", None)
        assert main([f"{url}count/2", "--wait", "inf"]) == 0
        assert main(["bench", f"{url}status/403"]) == 4
        assert sys.stderr is None
    assert (tmp_path / "output").read_text() == "1\n2\n"


def test_a_closed_output_is_status_1(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert main(["demo"]) == 1
    assert capfd.readouterr().err == "standard output is closed: what is not wanted can go to /dev/null\n"


def test_a_shell_can_close_the_streams(url: str) -> None:
    script = """
"$0" -m zapros_websocket -q "$1" <&-
echo "$?"
"$0" -m zapros_websocket --wait inf "$1count/2" <&- 2>&-
echo "$?"
echo hello | "$0" -m zapros_websocket "$1" >&-
echo "$?"
"""
    finished = subprocess.run(
        ["bash", "-c", script, sys.executable, url], capture_output=True, text=True, timeout=100, check=False
    )
    assert finished.stderr == "standard output is closed: what is not wanted can go to /dev/null\n"
    assert finished.stdout.split() == ["0", "1", "2", "0", "1"]


def test_it_works_in_a_pipeline_of_a_shell(url: str) -> None:
    script = """
set -o pipefail
echo hello | "$0" -m zapros_websocket -q "$1"
"$0" -m zapros_websocket -q --wait inf "$1count/1000" </dev/null | head -n 2
echo "${PIPESTATUS[0]}"
head -c 100 /dev/zero | "$0" -m zapros_websocket -q --binary "$1" | wc -c
"""
    finished = subprocess.run(
        ["bash", "-c", script, sys.executable, url], capture_output=True, text=True, timeout=100, check=False
    )
    assert finished.stderr == ""
    assert finished.stdout.split() == ["hello", "1", "2", "0", "100"]
