"""Every example of the README and of docs/ runs, against real servers on loopback.

An example is a fenced block of Python:

- one that runs an event loop, or needs none, is a program;
- one that has ``await`` at the top is run on trio and on asyncio, unless it imports one of them;
- one that defines tests is given to pytest.

A fenced block of ``text`` right behind an example shows what the example prints.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio
import trustme

from tests.integration.processes import Servers

pytestmark = pytest.mark.integration

PROJECT: Final = Path(__file__).parents[1]
DOCUMENTS: Final = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]

PYTHON: Final = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(\s*^```text\n(?P<output>.*?)^```$)?", re.MULTILINE | re.DOTALL
)
LOOKS_LIKE_PYTHON: Final = re.compile(r"^\s*(```|~~~|:::)\s*\{?(python|py|code)", re.MULTILINE)
PROGRAM: Final = re.compile(
    r"^ *(trio|asyncio|anyio|uvloop)\.run\(|^( {4})?with connect_ws\(|^for attempt in reconnecting_sync\(", re.MULTILINE
)
TEST: Final = re.compile(r"^(async )?def test_", re.MULTILINE)
NOT_OURS: Final = re.compile(
    r"^(?:from|import) (litestar|opentelemetry|starlette|fastapi|uvloop|websockets|trio_websocket|httpx_ws)\b",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Example:
    """A block of Python, the line it begins on, and what it should print, if the document says so."""

    document: Path
    line: int
    code: str
    output: str | None

    @property
    def name(self) -> str:
        return f"{self.document.relative_to(PROJECT)}:{self.line}"

    @property
    def ways_to_run(self) -> list[str]:
        if TEST.search(self.code):
            return ["pytest"]
        if PROGRAM.search(self.code):
            return ["program"]
        return [
            name for name, other in (("trio", "asyncio"), ("asyncio", "trio")) if f"import {other}" not in self.code
        ]


def examples_of(document: Path) -> Iterator[Example]:
    text = document.read_text(encoding="utf-8")
    for match in PYTHON.finditer(text):
        yield Example(document, text.count("\n", 0, match.start("code")) + 1, match["code"], match["output"])


EXAMPLES: Final = [example for document in DOCUMENTS for example in examples_of(document)]


@pytest.fixture(scope="module")
def servers(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    pytest.importorskip("aiohttp", reason="the servers that the examples name need it")
    certificate = tmp_path_factory.mktemp("tls") / "certificate.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    with Servers(certificate) as servers:
        yield servers


@pytest.fixture(scope="module")
def unix_socket(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("unix") / "socket")
    servers.start("aiohttp_server", "--unix", path)
    return path


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What an example does to the logger ends with the example."""
    logger = logging.getLogger("zapros_websocket")
    yield
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def rewrite(
    servers: Servers,
    unix_socket: str,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], str]:
    """Puts real servers in the place of those that the examples name; and the files and variables that they use,
    and what is typed."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\nhow are you?\n"))
    monkeypatch.setenv("API_TOKEN", "a token")
    monkeypatch.setenv("HTTPS_PROXY", servers.start("http_proxy").address("http"))
    plain = servers.websocket("aiohttp")
    places = {
        "wss://busy.example.com/feed": f"{plain.address()}/busy?key={tmp_path.name}",
        "wss://old.example.com/feed": f"{plain.address()}/redirect?to={plain.address()}/echo",
        "wss://user:secret@api.example.com": plain.address(host="user:secret@127.0.0.1"),
        "wss://private.example.com": servers.secure().address("wss"),
        "wss://echo.example.com": plain.address(),
        "wss://api.example.com": plain.address(),
        "https://api.example.com": plain.address("http"),
        "http://proxy.example.com:3128": servers.start("http_proxy").address("http"),
        "socks5://proxy.example.com:1080": servers.start("socks5_proxy").address("socks5"),
        "/run/app/web.sock": unix_socket,
    }

    def rewritten(code: str) -> str:
        for place, address in places.items():
            code = code.replace(place, address)
        assert "example.com" not in code, "an example names a server that is not there"
        return code

    return rewritten


CASES: Final = [
    pytest.param(example, way, id=f"{example.name}-{way}") for example in EXAMPLES for way in example.ways_to_run
]


@pytest.mark.parametrize(("example", "way"), CASES)
def test_the_example_runs(
    example: Example,
    way: str,
    rewrite: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for match in NOT_OURS.finditer(example.code):
        pytest.importorskip(match[1])
    code = rewrite(example.code)
    if way == "pytest":
        run_tests(code, tmp_path)
    else:
        run(code, example, way)
    if example.output is not None:
        assert capsys.readouterr().out == example.output


def run_tests(code: str, folder: Path) -> None:
    (folder / "test_example.py").write_text(code, encoding="utf-8")
    options = ["-p", "no:cacheprovider", "-W", "error", "--rootdir", str(folder)]
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    completed = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert completed.returncode == 0, completed.stdout


def run(code: str, example: Example, way: str) -> None:
    # Behind as many empty lines as stand in front of it, so that a traceback names the right line.
    source = "\n" * (example.line - 1) + code
    compiled = compile(source, str(example.document), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    execute = partial(eval, compiled, {"__name__": "__main__"})

    async def execute_and_await() -> None:
        result = execute()
        if inspect.isawaitable(result):
            await result

    if way == "program":
        execute()
    elif way == "trio":
        trio.run(execute_and_await)
    else:
        asyncio.run(execute_and_await())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(PROJECT)))
def test_no_python_is_left_out(document: Path) -> None:
    written = len(LOOKS_LIKE_PYTHON.findall(document.read_text(encoding="utf-8")))
    assert len(list(examples_of(document))) == written


def test_the_architecture_names_every_module() -> None:
    package = PROJECT / "zapros_websocket"
    # A module in C has a stub.
    paths = [*package.rglob("*.py"), *package.rglob("*.pyi")]
    modules = {".".join(path.relative_to(package).with_suffix("").parts) for path in paths}
    text = (PROJECT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert named == {name for name in modules if not name.endswith("__init__")}
