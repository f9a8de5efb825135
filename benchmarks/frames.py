"""``python -m benchmarks.frames``: nanoseconds of CPU per message for reading and building frames, in Python and in C.

The two forms take turns in each round; what is shown is the median of each, and of their ratio in the same round.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from statistics import median
from time import process_time
from timeit import timeit

from zapros_websocket._protocol import _speedups, pure

ROUNDS = 9
SIZES = (64, 1024, 65536, 1 << 20)
LIMIT = 1 << 24
CHUNK = 65536
"""Bytes that one read gives, and with them several short messages."""


def frame(first: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    form, sign = (2, 126) if length < 1 << 16 else (8, 127)
    return bytes((first, sign)) + length.to_bytes(form, "big") + payload


def reading(first: int, payload: bytes) -> tuple[Callable[[], object], Callable[[], object], int]:
    one = frame(first, payload)
    count = max(1, CHUNK // len(one))
    chunk = memoryview(bytearray(one * count))
    return (
        lambda: pure.read_messages(chunk, 0, LIMIT, None, []),
        lambda: _speedups.read_messages(chunk, 0, LIMIT, None, []),
        count,
    )


def building(payload: bytes) -> tuple[Callable[[], object], Callable[[], object], int]:
    return lambda: pure.encode(2, payload), lambda: _speedups.encode(2, payload), 1


def main() -> None:
    print(f"Python {platform.python_version()} on {platform.machine()}; {ROUNDS} rounds\n")
    print(f"{'':12} {'bytes':>9} {'ns in Python':>14} {'ns in C':>10} {'ratio':>8}")
    for size in SIZES:
        payload = b"x" * size
        cases = {"read text": reading(0x81, payload), "read binary": reading(0x82, payload), "build": building(payload)}
        for name, (in_python, in_c, count) in cases.items():
            times = max(3, 20_000 // count // (1 + size // 512))
            rounds = [
                tuple(timeit(form, timer=process_time, number=times) / times / count for form in (in_python, in_c))
                for _ in range(ROUNDS)
            ]
            slow, fast = (median(column) * 1e9 for column in zip(*rounds, strict=True))
            print(f"{name:12} {size:9} {slow:14.0f} {fast:10.0f} {median(a / b for a, b in rounds):8.1f}")


if __name__ == "__main__":
    main()
