"""The other end of the socket pairs, plain, with TLS of the socket and with TLS in memory, closed with each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .peers import PairServer, Tls


@pytest.fixture(params=["plain", "tls", "tls-in-memory"])
def server(request: pytest.FixtureRequest) -> Iterator[PairServer]:
    kinds: dict[str, Tls | None] = {"plain": None, "tls": "socket", "tls-in-memory": "memory"}
    server = PairServer(tls=kinds[request.param])
    yield server
    server.close()
