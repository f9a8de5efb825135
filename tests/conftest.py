"""What all tests share: the backends that they run on."""

from __future__ import annotations

import sys

import pytest

pytest_plugins = ["pytester", "zapros_websocket.testing.fixtures"]

Backend = tuple[str, dict[str, object]]

NO_OPTIONS: dict[str, object] = {}

BACKENDS = [
    pytest.param(("trio", NO_OPTIONS), id="trio"),
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
]
if sys.platform != "win32" and sys.implementation.name == "cpython":
    try:
        import uvloop as uvloop
    except ModuleNotFoundError:
        pass
    else:
        BACKENDS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    """Every asynchronous test runs on trio, asyncio and, where it is installed, uvloop."""
    backend: Backend = request.param
    return backend
