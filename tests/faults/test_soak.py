"""The soak, in a short form."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from .soak import soak
from .stage import World


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_nothing_is_lost_or_doubled_while_the_network_misbehaves(backend: str, tmp_path: Path) -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"seed {seed}: python -m tests.faults.soak --backend {backend} --seed {seed}")
    with World(tmp_path) as world:
        tally = soak(world, backend=backend, seed=seed, seconds=10, connections=20)
    print(tally)
    assert tally.ends.total() >= 20
