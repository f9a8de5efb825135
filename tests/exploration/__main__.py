"""Explore for a while, with numbers that begin elsewhere each time, and say how far it went.

python -m tests.exploration NAME --seconds N [--seed S]
"""

from __future__ import annotations

import argparse
import base64
import random
import sys
import time
from collections.abc import Callable, Iterator
from math import inf

from hypothesis import HealthCheck, Phase, given, seed, settings

from . import answers, any_bytes, differential, two_connections
from .corpus import kept

EXPLORERS: dict[str, Callable[[bytes], None]] = {
    "any_bytes": any_bytes.explore,
    "answers": answers.explore,
    "differential": differential.explore,
}


def main() -> None:
    """Explore, and print the count; what is found comes out as an exception."""
    parser = argparse.ArgumentParser(prog="python -m tests.exploration", description=__doc__)
    parser.add_argument("name", choices=[*EXPLORERS, "two_connections"])
    parser.add_argument("--seconds", type=float, default=inf)
    parser.add_argument("--runs", type=int, default=None)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    began = time.monotonic()
    count = 0
    runs = programs(arguments.seed) if arguments.name == "two_connections" else inputs(arguments.name, arguments.seed)
    for number in runs:
        count += number
        if time.monotonic() - began >= arguments.seconds or count == arguments.runs:
            break
    print(f"{arguments.name}: {count:,} runs in {time.monotonic() - began:,.0f} s from seed {arguments.seed}")


def inputs(name: str, start: int) -> Iterator[int]:
    """Random inputs, and those that are kept with changes; each run counts as one."""
    choose = random.Random(start)
    examples = [data for data in kept(name) if len(data) <= 4096]
    while True:
        if examples and choose.randrange(2):
            data = changed(choose, examples)
        else:
            data = choose.randbytes(choose.choice((10, 50, 200, 1000)))
        try:
            EXPLORERS[name](data)
        except BaseException:
            print(f"the input, in base64: {base64.b64encode(data).decode()}", file=sys.stderr)
            raise
        yield 1


def changed(choose: random.Random, examples: list[bytes]) -> bytes:
    """One of the examples with some bytes changed, left out and put in, or the end of another behind it."""
    data = bytearray(choose.choice(examples))
    for _ in range(choose.randrange(1, 4)):
        place = choose.randrange(len(data) + 1)
        kind = choose.randrange(3)
        if kind == 0:
            data[place : place + choose.randrange(3)] = choose.randbytes(choose.randrange(3))
        elif kind == 1:
            data[place : place + 1] = bytes([1 << choose.randrange(8)])
        else:
            other = choose.choice(examples)
            data[place:] = other[choose.randrange(len(other) + 1) :]
    return bytes(data)


def programs(start: int) -> Iterator[int]:
    """Programs by hypothesis, on both event loops by turns, some at a time."""
    while True:
        count = 0

        @seed(start)
        @settings(
            max_examples=50,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @given(two_connections.programs)
        def explore(program: two_connections.Program) -> None:
            nonlocal count
            for backend in two_connections.BACKENDS:
                two_connections.run(program, backend)
                count += 1

        explore()
        start += 1
        yield count


if __name__ == "__main__":
    main()
