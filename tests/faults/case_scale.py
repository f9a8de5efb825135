"""Very many connections, one behind the other and all at once: nothing of them stays."""

from __future__ import annotations

from typing import Final

import anyio

from zapros_websocket import TextMessage

from .measure import Belongings
from .registry import Group
from .stage import Outcome, Stage
from .steps import echo, switch

SCALE: Final = Group("Many connections")

PAYLOAD: Final = "x" * 1000


async def cycle(stage: Stage) -> None:
    peer = stage.peer(switch(), echo())
    async with stage.connect(peer.url) as connection:
        await connection.send(PAYLOAD)
        assert await connection.recv() == TextMessage(PAYLOAD)
    await peer.seen()
    peer.forget()


@SCALE.case("10,000 times open and close (short form: 300)", seconds=900)
async def cycles(stage: Stage) -> Outcome:
    number = 10_000 if stage.is_long else 300
    for _ in range(50):
        await cycle(stage)
    before = Belongings.now()
    for _ in range(number):
        await cycle(stage)
    after = Belongings.now()
    assert after.descriptors <= before.descriptors
    # The event loop has a few threads of its own, which come when they are needed first.
    assert after.threads - before.threads < 10
    # Measured in 1.5 KiB a page or so of noise; what is lost for each connection would be much more.
    assert after.kibibytes - before.kibibytes < 2048 + number // 4
    return Outcome("no task, thread, descriptor or memory is left", "close 1000, FIN")


@SCALE.case("1,000 open at once (short form: 100)", seconds=300, mebibytes=200)
async def at_once(stage: Stage) -> Outcome:
    number = 1000 if stage.is_long else 100
    before = Belongings.now()
    opened = 0
    all_are_open = anyio.Event()

    async def use() -> None:
        nonlocal opened
        peer = stage.peer(switch(), echo())
        async with stage.connect(peer.url, open_timeout=60) as connection:
            opened += 1
            if opened == number:
                all_are_open.set()
            await all_are_open.wait()
            await connection.send(PAYLOAD)
            assert await connection.recv() == TextMessage(PAYLOAD)

    async with anyio.create_task_group() as tasks:
        for _ in range(number):
            tasks.start_soon(use)
    after = Belongings.now()
    assert after.descriptors <= before.descriptors
    return Outcome(f"each {len(PAYLOAD)} bytes there and back", "close 1000, FIN")
