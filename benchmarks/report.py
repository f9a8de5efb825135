"""The results in words: lines for the screen, tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from .clients import CLIENTS, ours_for
from .compared import LOOPS, backends_of, heading, peers_of
from .results import Measure, Results, Spread, cpu, memory, wall
from .workloads import WORKLOADS


def number(value: float) -> str:
    """Three digits that say something."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def shown(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{number(spread.median)} ({number(spread.low)} to {number(spread.high)})"


def header(results: Results) -> Iterator[str]:
    yield ", ".join(f"{name} {version}" for name, version in results.versions.items())
    yield "; ".join(f"{name}: {value}" for name, value in results.machine.items())


def screen(results: Results, name: str) -> Iterator[str]:
    """The lines of one workload."""
    workload = WORKLOADS[name]
    yield f"\n{name}: {workload.title}; ratios to ours on the same loop, above 1 ours is ahead"
    yield (
        f"  {'client':24}{f'CPU, us/{workload.unit}':>28}{'ratio of CPU (quartiles)':>28}"
        f"{'ratio of time (quartiles)':>28}{'KiB each':>10}{'server busy':>13}"
    )
    for client in CLIENTS:
        if results.of(name, client):
            cost, own = results.cost(cpu, name, client), ours_for(client)
            memory_of = results.cost(memory, name, client)
            yield (
                f"  {client:24}{number(cost.median * 1e6) if cost else '':>28}"
                f"{shown(results.ratio(cpu, name, client, own)):>28}"
                f"{shown(results.ratio(wall, name, client, own)):>28}"
                f"{number(memory_of.median / 1024) if memory_of else '':>10}"
                f"{results.server_share(name, client):>12.0%}"
            )
    for client, reason in results.left_out.get(name, {}).items():
        yield f"  {client:24}left out: {reason}"


def closing(results: Results) -> Iterator[str]:
    """Whether the server was fast enough."""
    shares = [
        (results.server_share(workload, client), client, workload)
        for workload, clients in results.readings.items()
        for client in clients
        if not CLIENTS[client].raw
    ]
    if shares:
        share, client, workload = max(shares)
        yield f"At most the server was busy for {share:.0%} of the time: with {client} in {workload}."
    held_up = results.held_up()
    if held_up:
        yield f"The server was the bottleneck for: {', '.join(held_up)}."
    elif shares:
        yield "The server was the bottleneck for nobody."


def table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def ratios(results: Results, measure: Measure, backend: str) -> Iterator[str]:
    own = f"ours-{backend}"
    peers = peers_of(backend, results)
    rows: list[list[str]] = []
    for name in results.workloads:
        cost = results.cost(measure, name, own)
        cells = [shown(results.ratio(measure, name, peer.name, own)) for peer in peers]
        if cost is not None and any(cells):
            rows.append([WORKLOADS[name].title, number(cost.median * 1e6), *cells])
    yield from table(["", "ours, us", *(heading(peer, backend) for peer in peers)], rows)


def memories(results: Results) -> Iterator[str]:
    names = [name for name in results.workloads if WORKLOADS[name].connections > 1]
    rows: list[list[str]] = []
    for client in CLIENTS.values():
        costs = [results.cost(memory, name, client.name) for name in names]
        if any(costs):
            cells = [number(cost.median / 1024) if cost else "" for cost in costs]
            rows.append([f"{client.title}, {LOOPS[client.backend]}", *cells])
    if rows:
        yield "### Memory, KiB of RSS for each connection"
        yield ""
        yield from table(["", *(WORKLOADS[name].title for name in names)], rows)


def markdown(results: Results) -> str:
    """All tables."""
    lines = [f"Median of the rounds ({results.rounds}), with its quartiles.", ""]
    lines += [f"- {name}: {value}" for name, value in results.machine.items()]
    lines += [f"- versions: {', '.join(f'{name} {version}' for name, version in results.versions.items())}"]
    lines += ["", *closing(results), ""]
    for backend in backends_of(results):
        lines += [f"### CPU, {LOOPS[backend]}: peer / ours", "", *ratios(results, cpu, backend)]
        lines += [f"### Time, {LOOPS[backend]}: peer / ours", "", *ratios(results, wall, backend)]
    lines += memories(results)
    return "\n".join(lines).rstrip() + "\n"
