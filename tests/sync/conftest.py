"""The other end of the socket pairs, plain and TLS, closed with each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .peers import PairServer


@pytest.fixture(params=["plain", "tls"])
def server(request: pytest.FixtureRequest) -> Iterator[PairServer]:
    server = PairServer(tls=request.param == "tls")
    yield server
    server.close()
