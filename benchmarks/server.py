"""The server of the benchmarks: compiled on the spot, run in a process of its own, and watched."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import trustme

from .workloads import CORPUS, Workload, deflated_corpus

SOURCE: Final = Path(__file__).with_name("server.c")


class CannotBuild(Exception):
    """There is no compiler, or it refused."""


class CpuClock:
    """The CPU time of another process, all its threads together, to the nanosecond (Linux)."""

    def __init__(self, pid: int) -> None:
        clock = ctypes.c_int()
        if ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
            raise OSError(f"the process {pid} has no CPU clock")
        self._clock = clock.value

    def __call__(self) -> float:
        return time.clock_gettime(self._clock)


@dataclass(frozen=True)
class Place:
    """Where the server is: what a client has to know."""

    pid: int
    plain: int
    tls: int
    authority: str

    def url(self, workload: Workload) -> str:
        scheme, port = ("wss", self.tls) if workload.tls else ("ws", self.plain)
        return f"{scheme}://127.0.0.1:{port}{workload.path}"

    def ssl_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority)


class Server:
    """Runs for the length of a ``with`` block, on the core ``core``. Without the headers of OpenSSL it has no TLS."""

    def __init__(self, core: int | None) -> None:
        self._core = core

    def __enter__(self) -> Place:
        self._folder = tempfile.TemporaryDirectory(prefix="benchmarks-")
        folder = Path(self._folder.name)
        build(folder / "server")
        (folder / "corpus").write_bytes(deflated_corpus())
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        certificate = authority.issue_cert("127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
        certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
        arguments = ("server", "corpus", str(CORPUS), "certificate.pem", "key.pem")
        self._process = subprocess.Popen(
            arguments, executable=folder / "server", cwd=folder, stdout=subprocess.PIPE, encoding="utf-8"
        )
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        if self._core is not None:
            os.sched_setaffinity(self._process.pid, {self._core})
        return Place(self._process.pid, ports["plain"], ports["tls"], str(folder / "authority.pem"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        with self._process:
            pass
        self._folder.cleanup()


def build(target: Path) -> None:
    """Compile the server, with TLS if that can be."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise CannotBuild("the server of the benchmarks is written in C: install a compiler, or name it in CC")
    command = [compiler, "-O2", str(SOURCE), "-o", str(target)]
    for more in (["-DWITH_TLS", "-lssl", "-lcrypto"], []):
        built = subprocess.run([*command, *more], capture_output=True, encoding="utf-8", check=False)
        if built.returncode == 0:
            return
    raise CannotBuild(built.stderr)
