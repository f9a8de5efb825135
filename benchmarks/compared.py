"""Which of ours is compared with whom, in the tables and in the chart."""

from __future__ import annotations

from typing import Final

from .clients import CLIENTS, Client
from .results import Results, cpu

LOOPS: Final = {"trio": "trio", "asyncio": "asyncio", "uvloop": "asyncio on uvloop", "sync": "threads"}

# What is there on asyncio only, or is the best known, is worth a look from trio as well.
FROM_TRIO: Final = ("websockets-asyncio", "aiohttp-asyncio", "picows-asyncio")


def peers_of(backend: str, results: Results) -> list[Client]:
    """Who has readings and stands beside ours on that loop: our pure form first, the raw socket last."""
    own = f"ours-{backend}"
    measured = {name for clients in results.readings.values() for name in clients}
    peers = [client for client in CLIENTS.values() if client.backend == backend and client.name != own]
    if backend == "trio":
        peers += [CLIENTS[name] for name in FROM_TRIO]
    peers.sort(key=lambda client: (not client.is_ours, client.raw))
    return [client for client in peers if client.name in measured]


def backends_of(results: Results) -> list[str]:
    """The loops on which ours was measured."""
    return [
        backend
        for backend in LOOPS
        if any(results.cost(cpu, workload, f"ours-{backend}") is not None for workload in results.workloads)
    ]


def heading(client: Client, backend: str) -> str:
    return client.title if client.backend == backend else f"{client.title} ({client.backend})"
