"""The other end of the socket pairs, closed with each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .peers import PairServer


@pytest.fixture
def server() -> Iterator[PairServer]:
    server = PairServer()
    yield server
    server.close()
