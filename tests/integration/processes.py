"""Start the programs in ``servers``, each once, and end them with the tests."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

import anyio.to_thread

PROJECT: Final = Path(__file__).parents[2]

# A line that a server wrote before it answered may be read a moment later. Generous: it only bounds a failure.
PATIENCE: Final = 30.0


class ServerProcess:
    """A running program: where it listens, and the lines it wrote since."""

    def __init__(self, module: str, *arguments: str) -> None:
        # A name with a dot in it is that of a module elsewhere.
        program = module if "." in module else f"tests.integration.servers.{module}"
        command = [sys.executable, "-m", program, *arguments]
        self._process = subprocess.Popen(
            command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self._lines: list[Mapping[str, object]] = []
        self._line_came = threading.Condition()
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read_lines, daemon=True)
        announcement = self._process.stdout.readline()
        self._reader.start()
        if not announcement:
            self.close()
            raise RuntimeError(f"{module} ended with status {self._process.returncode}: see its standard error")
        self.port: int = json.loads(announcement)["port"]

    def address(self, scheme: str = "ws", host: str = "127.0.0.1") -> str:
        """The address of the server, without a path."""
        return f"{scheme}://{host}:{self.port}"

    def forget_lines(self) -> None:
        """Keep none of the lines that have come: they are not to be counted as memory of the library."""
        with self._line_came:
            self._lines.clear()

    async def line(self, key: str, value: object) -> Mapping[str, object]:
        """The newest line that has ``value`` under ``key``, once one was written: a port can come again."""
        return await anyio.to_thread.run_sync(self._wait_for_line, key, value)

    def _wait_for_line(self, key: str, value: object) -> Mapping[str, object]:
        with self._line_came:
            found = self._line_came.wait_for(
                lambda: next((line for line in reversed(self._lines) if line.get(key) == value), None), PATIENCE
            )
            assert found is not None, (
                f"no line with {key}={value!r} among those that end with {str(self._lines)[-1000:]}"
            )
            return found

    def close(self) -> None:
        self._process.kill()
        self._reader.join()
        # Leaving the block closes the pipes and waits for the process.
        with self._process:
            pass

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._line_came:
                self._lines.append(json.loads(line))
                self._line_came.notify_all()


class Servers:
    """All the programs, started when first asked for and ended together."""

    def __init__(self, certificate: Path) -> None:
        self._certificate = str(certificate)
        self._started: dict[tuple[str, ...], ServerProcess] = {}

    def websocket(self, name: str) -> ServerProcess:
        """The WebSocket server with that name: websockets, aiohttp, or one that runs the ASGI application."""
        if name in ("websockets", "aiohttp"):
            return self.start(f"{name}_server")
        return self.start("asgi_server", "--kind", name)

    def secure(self) -> ServerProcess:
        """aiohttp's server behind TLS, with a certificate for 127.0.0.1 that a private authority signed."""
        return self.start("aiohttp_server", "--certificate", self._certificate)

    def secure_proxy(self) -> ServerProcess:
        """The HTTP proxy, to be spoken to over TLS."""
        return self.start("http_proxy", "--certificate", self._certificate)

    def start(self, module: str, *arguments: str) -> ServerProcess:
        """The program in that module with those arguments; the same one when asked again."""
        key = (module, *arguments)
        if key not in self._started:
            self._started[key] = ServerProcess(*key)
        return self._started[key]

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self._started.values():
            server.close()
