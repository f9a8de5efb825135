"""SPEC "Entry points": without wsproto the import works, and the calls say what to install."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The package, imported anew where wsproto cannot be imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("wsproto", "zapros_websocket")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wsproto", None)
    yield importlib.import_module("zapros_websocket")
    for name in [name for name in sys.modules if name.partition(".")[0] == "zapros_websocket"]:
        del sys.modules[name]


def test_the_names_are_there(package: ModuleType) -> None:
    for name in ("AsyncWebSocket", "TextMessage", "ConnectionClosed", "PerMessageDeflateExtension"):
        assert hasattr(package, name)


def test_the_calls_raise_runtime_error_saying_what_to_install(package: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="pip install wsproto"):
        package.aconnect_ws("ws://test/")
    with pytest.raises(RuntimeError, match="pip install wsproto"):
        package.open_ws(None, "ws://test/").send(None)
    with pytest.raises(RuntimeError, match="pip install wsproto"):
        package.connect_ws("ws://test/")
    with pytest.raises(RuntimeError, match="pip install wsproto"):
        package.reconnecting("ws://test/")
    with pytest.raises(RuntimeError, match="pip install wsproto"):
        package.reconnecting_sync("ws://test/")
