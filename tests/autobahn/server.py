"""The fuzzing server: ``wstest`` in a process group of its own, which never outlives the ``with`` block."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from .environment import environment_for_python27

START_SECONDS = 60
STOP_SECONDS = 10
ATTEMPTS = 3


class ServerFailure(Exception):
    """The fuzzing server did not start; the message says what it printed."""


class FuzzingServer:
    """Serves the cases that match ``patterns`` at ``url``, and writes its reports below ``report``."""

    def __init__(self, wstest: Path, report: Path, patterns: Sequence[str]) -> None:
        self._wstest = wstest
        self._report = report.absolute()
        self._patterns = list(patterns)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> FuzzingServer:
        self._report.mkdir(parents=True, exist_ok=True)
        # Results of an earlier run must not pass for those of this one.
        (self._report / "index.json").unlink(missing_ok=True)
        try:
            for _ in range(ATTEMPTS):
                # The server cannot be told to choose a port itself, so the port may be lost to another process.
                if self._start(_free_port()):
                    return self
            raise ServerFailure(f"wstest does not start:\n{self._log.read_text(errors='replace')[-2000:]}")
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self._report / "wstest.log"

    def _start(self, port: int) -> bool:
        self.url = f"ws://127.0.0.1:{port}"
        specification = self._report / "fuzzingserver.json"
        specification.write_text(
            json.dumps(
                {
                    "url": self.url,
                    "outdir": str(self._report),
                    "cases": self._patterns,
                    "exclude-cases": [],
                    "exclude-agent-cases": {},
                    # The suite's own limits (5 s and 1 s) would judge the machine's load and not the client.
                    "options": {"openHandshakeTimeout": 30, "closeHandshakeTimeout": 30},
                }
            )
        )
        command = [str(self._wstest), "--mode", "fuzzingserver", "--spec", str(specification), "--webport", "0"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._report,
                env=environment_for_python27(),
                start_new_session=True,
            )
        return self._wait_until_it_listens(self._process, port)

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes], port: int) -> bool:
        give_up = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < give_up:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except OSError:
                time.sleep(0.1)
            else:
                # Whoever listens there, it is our process only while that is still alive.
                return process.poll() is None
        self.stop()
        return False

    def stop(self) -> None:
        """End the server and whatever it started; does nothing when there is none."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
