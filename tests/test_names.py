"""The names of ``zapros.websocket``: changing the import line is the whole migration."""

from __future__ import annotations

from types import ModuleType

import zapros.websocket

import zapros_websocket


def test_every_public_name_of_zapros_websocket_exists_here() -> None:
    names = {
        name
        for name, value in vars(zapros.websocket).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert {"aconnect_ws", "connect_ws", "ConnectionClosed", "PerMessageDeflateExtension"} <= names
    assert [name for name in sorted(names) if not hasattr(zapros_websocket, name)] == []
