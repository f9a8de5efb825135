"""What every program here does: listen, say where, tell what it saw, and end when the tests end."""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import sys
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Arguments:
    """The command line that all the programs share; ``kind`` and ``credentials`` are for those that want them."""

    kind: str
    host: str
    port: int
    unix: str
    certificate: str
    credentials: str

    @classmethod
    def from_command_line(cls) -> Arguments:
        parser = argparse.ArgumentParser()
        parser.add_argument("--kind", default="")
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=0)
        parser.add_argument("--unix", default="")
        parser.add_argument("--certificate", default="")
        parser.add_argument("--credentials", default="")
        return cls(**vars(parser.parse_args()))

    def listen(self) -> socket.socket:
        """A socket that queues connections from now on, so a test may connect before anybody accepts."""
        if self.unix:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.unix)
            listener.listen()
            return listener
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        return socket.create_server((self.host, self.port), family=family)

    def tls(self) -> ssl.SSLContext | None:
        if not self.certificate:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate)
        return context


def announce(listener: socket.socket) -> None:
    """Say on the first line of standard output where to connect; stay until standard input is closed."""
    name: object = listener.getsockname()
    write_line({"port": name[1] if isinstance(name, tuple) else 0})
    threading.Thread(target=_end_with_the_tests, daemon=True).start()


def write_line(facts: dict[str, object]) -> None:
    """Tell the tests something: one JSON object on a line of its own."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _end_with_the_tests() -> None:
    # However the tests end, the kernel closes their end of the pipe.
    sys.stdin.read()
    os._exit(0)
