"""Fixtures for pytest. Enable them in a ``conftest.py``::

    pytest_plugins = ["zapros_websocket.testing.fixtures"]

The servers run in threads of their own, so that the fixtures are the same for tests on trio, on asyncio and without
either, whatever plugin runs them.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from typing import Protocol

import pytest

from ._company import ScriptFailed
from ._echo import EchoServer, echo_server
from ._script import Script
from ._scripted import SyncScriptedServer, scripted_server


class ServeScripts(Protocol):
    """What the fixture ``websocket_script`` gives."""

    def __call__(self, *scripts: Script, afterwards: Script | None = None, timeout: float = 5.0) -> SyncScriptedServer:
        """Start a ``scripted_server`` with these arguments."""
        ...


_SERVERS = pytest.StashKey[ExitStack]()


@pytest.fixture
def websocket_echo_server() -> Generator[EchoServer, None, None]:
    """A running ``echo_server``."""
    with echo_server() as server:
        yield server


@pytest.fixture
def websocket_script(request: pytest.FixtureRequest) -> ServeScripts:
    """Start a ``scripted_server``: it takes its arguments, and runs until the test function has ended.

    A client that does otherwise than a script fails the test.
    """
    node: pytest.Item = request.node
    servers = node.stash.setdefault(_SERVERS, ExitStack())

    def serve(*scripts: Script, afterwards: Script | None = None, timeout: float = 5.0) -> SyncScriptedServer:
        return servers.enter_context(scripted_server(*scripts, afterwards=afterwards, timeout=timeout))

    return serve


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Leave the servers as a part of the test, so that what they found fails it, and is no error of the teardown."""
    result = failed = None
    has_passed = False
    try:
        with item.stash.get(_SERVERS, ExitStack()):
            result = yield
            has_passed = True
    except ScriptFailed as failure:
        if not has_passed or failure.__cause__ is not None:
            raise
        failed = str(failure)
    if failed is not None:
        # There is no line of the test to show.
        pytest.fail(failed, pytrace=False)
    return result
