"""One client and one workload in a process of its own: what it cost is printed as one line of JSON.

``python -m benchmarks.process CLIENT WORKLOAD SECONDS PLACE``, with the place of the server as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from . import libraries
from .clients import CLIENTS, PURE, Client
from .library import NotThere, Setting
from .meter import Meter, Reading
from .server import CpuClock, Place
from .workloads import WORKLOADS, Workload

# Seconds for a client to be done, at the least: opening a thousand connections takes its time.
PATIENCE: Final = 120.0
PROJECT: Final = Path(__file__).parents[1]


class LeftOut(Exception):
    """A client cannot do a workload, or failed at it."""


def run(client: Client, workload: Workload, seconds: float, place: Place, core: int | None) -> Reading:
    """Measure in a process of its own, on that core."""
    environment = {name: value for name, value in os.environ.items() if name != PURE}
    if client.pure:
        environment[PURE] = "1"
    arguments = (client.name, workload.name, str(seconds), json.dumps(asdict(place)), json.dumps(core))
    process = subprocess.Popen(
        (sys.executable, "-m", "benchmarks.process", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=PROJECT,
        env=environment,
    )
    try:
        output, errors = process.communicate(timeout=PATIENCE + 10 * seconds)
    except subprocess.TimeoutExpired:
        raise LeftOut(f"not done after {PATIENCE + 10 * seconds:.0f} s") from None
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise LeftOut((errors.strip().splitlines() or [f"status {process.returncode}"])[-1])
    return Reading(**json.loads(output))


def main(client_name: str, workload_name: str, seconds: str, place_json: str, core_json: str) -> None:
    core: int | None = json.loads(core_json)
    if core is not None:
        os.sched_setaffinity(0, {core})
    client, workload, place = CLIENTS[client_name], WORKLOADS[workload_name], Place(**json.loads(place_json))
    if workload.tls and not place.tls:
        sys.exit("the server was built without TLS: the headers of OpenSSL are missing")
    libraries.trust(place.authority)
    meter = Meter(workload.batch, float(seconds), CpuClock(place.pid))
    try:
        measure(client, workload, place, meter)
    except NotThere as reason:
        sys.exit(str(reason))
    reading = meter.reading
    if workload.kind == "idle" and not client.keepalive:
        reading = replace(reading, cpu=None)
    print(json.dumps(asdict(reading)))


def measure(client: Client, workload: Workload, place: Place, meter: Meter) -> None:
    opening = client.open(Setting.of(workload, place))
    if client.backend == "sync":
        from . import sync_work

        sync_work.measure(opening, workload, meter)
        return
    from . import async_work

    if client.backend == "trio":
        import trio

        trio.run(async_work.measure, opening, workload, meter)
    elif client.backend == "asyncio":
        asyncio.run(async_work.measure(opening, workload, meter))
    else:
        from .library import load

        load("uvloop").run(async_work.measure(opening, workload, meter))


if __name__ == "__main__":
    main(*sys.argv[1:])
