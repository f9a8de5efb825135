"""The connection tests run over a network in memory, on backends whose clock jumps over every wait."""

from __future__ import annotations

import pytest

from tests.memory import Backend, MemoryServer, autojump


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return autojump(request.param)


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()
