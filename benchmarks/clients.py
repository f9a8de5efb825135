"""Who takes part: the table of clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from . import libraries, raw
from .library import Backend, Setting
from .workloads import Workload

# Switches the C module of zapros_websocket off.
PURE: Final = "ZAPROS_WEBSOCKET_PURE"


@dataclass(frozen=True)
class Client:
    """A library on an event loop, or on threads."""

    name: str
    title: str
    backend: Backend
    open: Callable[[Setting], Any]
    keepalive: bool = True
    pure: bool = False
    raw: bool = False

    @property
    def is_ours(self) -> bool:
        return self.open in (libraries.ours, libraries.ours_sync)

    def can(self, workload: Workload) -> bool:
        """Whether it takes part. Raw sockets know frames and nothing else."""
        return not self.raw or (workload.kind in ("round trip", "receive", "send") and not workload.deflate)


def _table() -> list[Client]:
    backends: tuple[Backend, ...] = ("trio", "asyncio", "uvloop")
    table: list[Client] = []
    for backend in (*backends, "sync"):
        opening = libraries.ours_sync if backend == "sync" else libraries.ours
        for pure in (False, True):
            suffix = "-pure" if pure else ""
            title = "zapros_websocket, pure" if pure else "zapros_websocket"
            table.append(Client(f"ours-{backend}{suffix}", title, backend, opening, pure=pure))
    forms: dict[Backend, str] = dict.fromkeys(backends, "websockets.asyncio.client")
    forms |= {"trio": "websockets.trio.client", "sync": "websockets.sync.client"}
    for backend, module in forms.items():
        opening = partial(libraries.websockets, module=module)
        table.append(Client(f"websockets-{backend}", "websockets", backend, opening))
    for backend in ("asyncio", "uvloop"):
        table.append(Client(f"aiohttp-{backend}", "aiohttp", backend, libraries.aiohttp))
        opening = partial(libraries.websockets, module="picows.websockets.asyncio.client")
        table.append(Client(f"picows-{backend}", "picows", backend, opening))
    for backend in backends:
        table.append(Client(f"httpx-ws-{backend}", "httpx-ws", backend, libraries.httpx_ws))
    table.append(Client("httpx-ws-sync", "httpx-ws", "sync", libraries.httpx_ws_sync))
    for backend in backends:
        table.append(Client(f"zapros-{backend}", "zapros.websocket", backend, libraries.zapros, keepalive=False))
    table += [
        Client("zapros-sync", "zapros.websocket", "sync", libraries.zapros_sync, keepalive=False),
        Client("trio-websocket-trio", "trio-websocket", "trio", libraries.trio_websocket, keepalive=False),
        Client("websocket-client-sync", "websocket-client", "sync", libraries.websocket_client, keepalive=False),
        Client("raw-trio", "raw socket", "trio", raw.on_trio, raw=True),
        Client("raw-asyncio", "raw socket", "asyncio", raw.on_asyncio, raw=True),
        Client("raw-uvloop", "raw socket", "uvloop", raw.on_asyncio, raw=True),
        Client("raw-sync", "raw socket", "sync", raw.on_threads, raw=True),
    ]
    return table


CLIENTS: Final[dict[str, Client]] = {client.name: client for client in _table()}

# The distributions whose versions are shown.
DISTRIBUTIONS: Final = (
    "zapros-websocket",
    "zapros",
    "wsproto",
    "anyio",
    "trio",
    "uvloop",
    "websockets",
    "aiohttp",
    "picows",
    "httpx-ws",
    "trio-websocket",
    "websocket-client",
)


def ours_for(name: str) -> str:
    """Which of ours a client is compared with by default: the one with the same loop."""
    return f"ours-{CLIENTS[name].backend}"
