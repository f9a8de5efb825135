"""``python -m benchmarks``: what a message costs, for every client, against one server that is not the bottleneck.

Each client runs in a process of its own, on a core of its own. In each round every client has its turn, in an order
that is drawn anew; a ratio is formed within a round, and what is shown is the median of the rounds with its quartiles.
Needs Linux, a C compiler and ``pip install -e '.[bench]'``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from . import docs
from .chart import svg
from .clients import CLIENTS, ours_for
from .report import closing, header, markdown, screen
from .results import Results, load
from .rounds import cores, measure
from .server import CannotBuild
from .targets import check
from .workloads import QUICK, WORKLOADS

_Number = TypeVar("_Number", int, float)

# Each library once on each kind of loop: without uvloop, and without our pure form.
QUICK_CLIENTS = ("*-trio", "*-asyncio", "*-sync")


def chosen(patterns: list[str], names: list[str]) -> list[str]:
    """The names that one of the patterns matches; each pattern has to match one."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            sys.exit(f"{pattern!r} matches none of: {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def above(kind: type[_Number]) -> Callable[[str], _Number]:
    """A number of that kind above zero, from the command line."""

    def number(text: str) -> _Number:
        if not 0 < (value := kind(text)) < float("inf"):
            raise ValueError
        return value

    number.__name__ = f"number above 0 ({kind.__name__})"
    return number


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--workloads", nargs="+", metavar="NAME", help="names or patterns such as 'recv-*'")
    made.add_argument("--clients", nargs="+", metavar="NAME", help="names or patterns; ours are added for the ratios")
    made.add_argument("--rounds", type=above(int), help="how often each client has its turn (7; quick: 1)")
    made.add_argument("--seconds", type=above(float), help="how long each is measured in a round (0.5; quick: 0.1)")
    made.add_argument("--quick", action="store_true", help="a few workloads and clients, once: a minute or two")
    made.add_argument("--list", action="store_true", help="show the names of workloads and clients")
    made.add_argument("--load", nargs="+", type=Path, metavar="FILE", help="show what --json wrote; measure nothing")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every reading; after each workload")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write tables")
    made.add_argument("--svg", type=Path, metavar="FILE", help="write a chart")
    made.add_argument("--docs", action="store_true", help="write tables and chart into docs/explanation/performance.md")
    made.add_argument("--check", action="store_true", help="compare with targets.txt; status 1 if one is missed")
    return made


def measured(options: argparse.Namespace) -> Results:
    quick: bool = options.quick
    workloads = chosen(options.workloads or (list(QUICK) if quick else ["*"]), list(WORKLOADS))
    clients = set(chosen(options.clients or (list(QUICK_CLIENTS) if quick else ["*"]), list(CLIENTS)))
    clients |= {ours_for(name) for name in clients}
    if None in cores():
        print("There is one core only, so the server and the clients share it.")
    results: Results | None = None
    for results, name in measure(
        [CLIENTS[client] for client in CLIENTS if client in clients],
        [WORKLOADS[workload] for workload in workloads],
        rounds=options.rounds or (1 if quick else 7),
        seconds=options.seconds or (0.1 if quick else 0.5),
        save_to=options.json,
        started=lambda results: print("\n".join(header(results)), flush=True),
    ):
        print("\n".join(screen(results, name)), flush=True)
    assert results is not None
    return results


def main() -> int:
    options = parser().parse_args()
    if options.list:
        print("workloads:", *WORKLOADS, "\nclients:", *CLIENTS)
        return 0
    if options.load:
        try:
            results = load(options.load)
        except (OSError, ValueError, LookupError, TypeError) as error:
            sys.exit(f"--load takes what --json wrote: {error!r}")
        print("\n".join(header(results)))
        for name in results.workloads:
            print("\n".join(screen(results, name)))
    else:
        try:
            results = measured(options)
        except CannotBuild as reason:
            sys.exit(str(reason))
    print("", *closing(results), sep="\n")
    if options.markdown:
        options.markdown.write_text(markdown(results), encoding="utf-8")
    if options.svg:
        options.svg.write_text(svg(results), encoding="utf-8")
    if options.docs:
        if missing := WORKLOADS.keys() - set(results.workloads):
            sys.exit(f"--docs takes a whole run: there is nothing of {', '.join(sorted(missing))}")
        docs.write(results)
    if not options.check:
        return 0
    print()
    outcomes = list(check(results))
    print(*(line for _, line in outcomes), sep="\n")
    missed = sum(not met for met, _ in outcomes)
    print(f"{missed} of {len(outcomes)} missed" if outcomes else "nothing was measured that targets.txt asks for")
    return 1 if missed or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
