"""An interrupt that comes in the middle of a step comes out behind it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import FrameType

import pytest

from zapros_websocket import _undisturbed
from zapros_websocket._undisturbed import Undisturbed

from .peers import Background

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to a thread")


class Alarm(Exception):
    """What the handler of another signal raises."""


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture
def alarm(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have the handler of another signal raise where the next handler is set: behind that, and in front of it."""

    def arm() -> None:
        setting = _undisturbed._set  # pyright: ignore[reportPrivateUsage]

        def interrupted(number: int, handler: Callable[[int, FrameType | None], object]) -> object:
            monkeypatch.setattr(_undisturbed, "_set", setting)
            raise Alarm

        monkeypatch.setattr(_undisturbed, "_set", interrupted)

    return arm


def test_an_interrupt_comes_out_behind_the_block() -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        with Undisturbed():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            steps.append("done")
        steps.append("not reached")
    assert steps == ["done"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_without_an_interrupt_nothing_happens() -> None:
    with Undisturbed():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_the_block_raises_comes_out() -> None:
    with pytest.raises(Alarm), Undisturbed():
        raise Alarm
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_blocks_within_each_other() -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        with Undisturbed():
            with Undisturbed():
                signal.raise_signal(signal.SIGINT)
            steps.append("done")
        steps.append("not reached")
    assert steps == ["done"]


def test_in_other_threads_no_handler_runs_and_none_is_touched() -> None:
    def handler_inside() -> object:
        with Undisturbed():
            return signal.getsignal(signal.SIGINT)

    assert Background(handler_inside).result() is signal.default_int_handler


def test_a_signal_that_python_does_not_handle_is_left_alone() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Undisturbed():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("where", ["entering", "leaving"])
def test_the_handler_is_back_whatever_another_one_raises(alarm: Callable[[], None], where: str) -> None:
    block: AbstractContextManager[None] = Undisturbed()
    if where == "entering":
        alarm()
    with pytest.raises(Alarm), block:
        alarm()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_is_not_lost_to_what_another_handler_raises(alarm: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt), Undisturbed():
        signal.raise_signal(signal.SIGINT)
        alarm()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_no_handler_can_run_there_is_nothing_to_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int, handler: object) -> object:
        raise ValueError("signal only works in main thread of the main interpreter")

    monkeypatch.setattr(_undisturbed, "_set", refuse)
    done = False
    with Undisturbed():
        done = True
    assert done


def test_a_child_that_another_thread_forks_meanwhile_is_interrupted_as_ever() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    with Undisturbed():
        inside = signal.getsignal(signal.SIGINT)
        assert callable(inside)
        # The thread that has forked is the main thread of the child.
        Background(lambda: inside(signal.SIGINT, None)).result()
        assert seen == [signal.SIGINT]


def left_behind() -> Undisturbed:
    """A block that another handler has kept from being left in order."""
    block = Undisturbed()
    block.__enter__()
    return block


@pytest.mark.parametrize("is_noted", [True, False])
def test_what_stayed_behind_passes_an_interrupt_on(monkeypatch: pytest.MonkeyPatch, is_noted: bool) -> None:
    block = left_behind()
    if is_noted:
        block._is_left = True  # pyright: ignore[reportPrivateUsage]
    else:
        monkeypatch.setattr(_undisturbed, "_LONGEST", -1.0)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_what_stayed_behind_is_not_taken_for_the_handler_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_undisturbed, "_LONGEST", -1.0)
    left_behind()
    left_behind()
    with Undisturbed():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_that_raises_again_and_again_ends_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = _undisturbed._set  # pyright: ignore[reportPrivateUsage]
    calls: list[int] = []

    def interrupted(number: int, handler: Callable[[int, FrameType | None], object]) -> object:
        calls.append(number)
        if 1 < len(calls) < 5:
            raise Alarm(len(calls))
        return setting(number, handler)

    monkeypatch.setattr(_undisturbed, "_set", interrupted)
    with pytest.raises(Alarm, match="2"), Undisturbed():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
