"""Alarms: what is called when, in which context, and what is left of those that were cancelled."""

from __future__ import annotations

import gc
import sys
import weakref
from contextvars import ContextVar

import anyio
import pytest
import trio

from tests.memory import autojump
from zapros_websocket._alarm import Alarm, call_at_here

pytestmark = pytest.mark.anyio

who: ContextVar[str] = ContextVar("who")


class Notes:
    """What was called, and when."""

    def __init__(self) -> None:
        self.began = anyio.current_time()
        self.taken: list[tuple[str, float]] = []
        self._call_at = call_at_here()

    def after(self, seconds: float, name: str) -> Alarm:
        return self._call_at(self.began + seconds, lambda: self.take(name))

    def take(self, name: str) -> None:
        self.taken.append((name, round(anyio.current_time() - self.began, 3)))


async def test_each_is_called_at_its_time_whichever_was_set_first() -> None:
    notes = Notes()
    for seconds, name in ((5, "late"), (2, "early"), (3, "behind"), (7, "last")):
        notes.after(seconds, name)
    await anyio.sleep(1)
    # The wait for the first has begun, and is for another now.
    notes.after(1.5, "first")
    await anyio.sleep(9)
    assert notes.taken == [("first", 1.5), ("early", 2), ("behind", 3), ("late", 5), ("last", 7)]
    # Nothing was left to wait for, and then there is something again.
    notes.after(20, "again")
    await anyio.sleep(11)
    assert notes.taken[5:] == [("again", 20)]


async def test_one_whose_time_is_over_is_called_soon() -> None:
    notes = Notes()
    notes.after(-1, "over")
    await anyio.sleep(0.1)
    assert notes.taken == [("over", 0)]


async def test_what_is_called_can_set_the_next() -> None:
    notes = Notes()

    def again() -> None:
        notes.take("again")
        if len(notes.taken) < 3:
            call_at_here()(anyio.current_time() + 2, again)

    call_at_here()(notes.began + 2, again)
    await anyio.sleep(10)
    assert notes.taken == [("again", 2), ("again", 4), ("again", 6)]


async def test_it_is_called_in_the_context_of_who_has_asked_for_it() -> None:
    seen: list[str] = []
    who.set("first")
    call_at_here()(anyio.current_time() + 1, lambda: seen.append(who.get()))
    who.set("second")
    call_at_here()(anyio.current_time() + 2, lambda: seen.append(who.get()))
    who.set("neither")
    await anyio.sleep(3)
    assert seen == ["first", "second"]


async def test_one_that_is_cancelled_is_not_called_and_cancelling_it_again_does_nothing() -> None:
    notes = Notes()
    alarms = [notes.after(number, str(number)) for number in range(1, 5)]
    for alarm in (alarms[0], alarms[2], alarms[2]):
        alarm.cancel()
    await anyio.sleep(3)
    alarms[1].cancel()
    assert notes.taken == [("2", 2)]
    alarms[3].cancel()
    await anyio.sleep(3)
    assert notes.taken == [("2", 2)]


async def test_what_a_cancelled_one_would_have_called_is_not_kept() -> None:
    class Connection:
        def look(self) -> None: ...

    connection = Connection()
    there = weakref.ref(connection)
    notes = Notes()
    notes.after(1000, "another")
    alarm = call_at_here()(notes.began + 500, connection.look)
    alarm.cancel()
    del connection
    gc.collect()
    assert there() is None


# Asyncio has it in its event loop.
on_trio = pytest.mark.parametrize("anyio_backend", [autojump("trio")], ids=["trio"])


def system_tasks() -> list[trio.lowlevel.Task]:
    """The tasks that wait for alarms."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return [task for nursery in root.child_nurseries for task in nursery.child_tasks if "alarms" in task.name]


@on_trio
async def test_one_that_is_cancelled_in_the_moment_in_which_it_is_due_is_not_counted_among_those_to_come() -> None:
    call_at = call_at_here()
    soon = anyio.current_time() + 1
    call_at(soon, lambda: second.cancel())
    second = call_at(soon, lambda: pytest.fail("it was cancelled"))
    await anyio.sleep(2)
    call_at(soon + 100, lambda: None).cancel()
    await anyio.wait_all_tasks_blocked()
    assert not system_tasks()


@on_trio
async def test_one_task_waits_for_all_and_is_there_while_there_is_something_to_wait_for() -> None:
    notes = Notes()
    assert not system_tasks()
    first, second = notes.after(5, "first"), notes.after(6, "second")
    await anyio.sleep(1)
    assert len(system_tasks()) == 1
    first.cancel()
    second.cancel()
    await anyio.wait_all_tasks_blocked()
    assert not system_tasks()
    notes.after(5, "third")
    await anyio.sleep(5)
    await anyio.wait_all_tasks_blocked()
    assert not system_tasks()
    assert notes.taken == [("third", 5)]


@on_trio
async def test_of_many_that_are_cancelled_few_are_kept() -> None:
    notes = Notes()
    for number in range(10):
        notes.after(200 + number, str(number))
    gc.collect()
    before = sys.getallocatedblocks()
    for number in range(1000):
        notes.after(1000 + number, "never").cancel()
    gc.collect()
    assert sys.getallocatedblocks() - before < 500
    await anyio.sleep(2000)
    assert [name for name, _ in notes.taken] == [str(number) for number in range(10)]
