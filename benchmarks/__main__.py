"""``python -m benchmarks``: client CPU per message against peers, in interleaved rounds, as ratios.

Every client runs in a process of its own, one after the other in each round, against one server in its own process.
What is shown is the median of the peer's cost over ours in the same round: above 1 is ahead. A peer that is not
installed, or not there on a backend, is left out. Needs ``pip install websockets`` beside the project.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from .client import CLIENTS

WORKLOADS = [
    ("round trip", 64, 2000),
    ("receive", 64, 20000),
    ("receive", 1024, 20000),
    ("receive", 65536, 500),
    ("receive", 1 << 20, 50),
    ("send", 64, 4000),
    ("send", 1024, 4000),
    ("send", 65536, 300),
    ("send", 1 << 20, 30),
]
OURS = {"trio": "zapros_websocket, trio", "asyncio": "zapros_websocket, asyncio"}


def measured(client: str, port: str, workload: tuple[str, int, int]) -> float | None:
    command = [sys.executable, "-m", "benchmarks.client", client, port, *map(str, workload)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if run.returncode:
        print(f"left out: {client}, {workload[0]} {workload[1]} B: {run.stderr.strip().splitlines()[-1:]}")
        return None
    seconds: float = json.loads(run.stdout)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    print(f"Python {platform.python_version()} on {platform.machine()}", end="")
    for package in ("zapros", "wsproto", "anyio", "trio", "websockets"):
        try:
            print(f", {package} {version(package)}", end="")
        except PackageNotFoundError:
            print(f", no {package}", end="")
    print(f"; {rounds} rounds\n")
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.server"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        print(f"{'workload':20} {'client':28} {'us/message':>10}   peer / ours, median (least to most)")
        for workload in WORKLOADS:
            costs: dict[str, list[float]] = {client: [] for client in CLIENTS}
            for _ in range(rounds):
                for client, spent in costs.items():
                    seconds = measured(client, port, workload)
                    if seconds is not None:
                        spent.append(seconds)
            for client, spent in costs.items():
                if not spent:
                    continue
                own = costs[OURS[CLIENTS[client][0]]]
                ratios = [theirs / ours for theirs, ours in zip(spent, own, strict=False)]
                name = f"{workload[0]} {workload[1]} B"
                print(
                    f"{name:20} {client:28} {statistics.median(spent) * 1e6:10.1f}   "
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                    flush=True,
                )
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
