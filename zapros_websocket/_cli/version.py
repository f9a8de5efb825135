"""The version of this library, and of all that its behaviour depends on."""

from __future__ import annotations

import platform
from importlib import metadata


def versions() -> str:
    """All of them in one line."""
    beneath = ", ".join(f"{name} {version_of(name)}" for name in ("zapros", "wsproto", "anyio", "trio"))
    return f"zapros_websocket {version_of('zapros-websocket')} ({beneath}, Python {platform.python_version()})"


def version_of(distribution: str) -> str:
    """The installed version of a distribution, in words when there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
