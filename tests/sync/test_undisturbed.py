"""An interrupt that comes in the middle of a step comes out behind it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from inspect import currentframe
from types import FrameType

import pytest

from zapros_websocket import _undisturbed
from zapros_websocket._undisturbed import undisturbed

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


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def fail() -> None:
    raise Alarm


def test_an_interrupt_comes_out_behind_the_call() -> None:
    steps: list[str] = []

    def call() -> None:
        interrupt()
        interrupt()
        steps.append("done")

    with pytest.raises(KeyboardInterrupt):
        undisturbed(call)
        steps.append("not reached")
    assert steps == ["done"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_without_an_interrupt_it_returns_what_the_call_returns() -> None:
    assert undisturbed(max, 1, 2) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_the_call_raises_comes_out() -> None:
    with pytest.raises(Alarm):
        undisturbed(fail)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_calls_within_each_other() -> None:
    steps: list[str] = []

    def call() -> None:
        undisturbed(interrupt)
        steps.append("done")

    with pytest.raises(KeyboardInterrupt):
        undisturbed(call)
        steps.append("not reached")
    assert steps == ["done"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_other_threads_no_handler_runs_and_none_is_touched() -> None:
    handler = Background(lambda: undisturbed(signal.getsignal, signal.SIGINT)).result()
    assert handler is signal.default_int_handler


def test_a_signal_that_python_does_not_handle_is_left_alone() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert undisturbed(signal.getsignal, signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("where", ["in front of it", "behind it"])
def test_the_handler_is_back_whatever_another_one_raises(alarm: Callable[[], None], where: str) -> None:
    if where == "in front of it":
        alarm()
    with pytest.raises(Alarm):
        undisturbed(alarm)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_is_not_lost_to_what_another_handler_raises(alarm: Callable[[], None]) -> None:
    def call() -> None:
        interrupt()
        alarm()

    with pytest.raises(KeyboardInterrupt):
        undisturbed(call)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_no_handler_can_run_there_is_nothing_to_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int, handler: object) -> object:
        raise ValueError("signal only works in main thread of the main interpreter")

    monkeypatch.setattr(_undisturbed, "_set", refuse)
    assert undisturbed(max, 1, 2) == 2


@pytest.mark.parametrize("where", [1, 2])
def test_a_value_error_of_another_handler_comes_out(monkeypatch: pytest.MonkeyPatch, where: int) -> None:
    setting = _undisturbed._set  # pyright: ignore[reportPrivateUsage]
    calls: list[int] = []

    def interrupted(number: int, handler: Callable[[int, FrameType | None], object]) -> object:
        calls.append(number)
        if len(calls) == where:
            raise ValueError("of another handler")
        return setting(number, handler)

    monkeypatch.setattr(_undisturbed, "_set", interrupted)
    with pytest.raises(ValueError, match="of another handler"):
        undisturbed(bool)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_child_that_another_thread_forks_meanwhile_is_interrupted_as_ever() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: seen.append(number))

    def call() -> None:
        stand_in = signal.getsignal(signal.SIGINT)
        assert callable(stand_in)
        # The thread that has forked is the main thread of the child, and has a stack of its own.
        Background(lambda: stand_in(signal.SIGINT, currentframe())).result()
        assert seen == [signal.SIGINT]

    undisturbed(call)
    assert seen == [signal.SIGINT]


def leave_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a stand-in stay behind, since another handler has kept the call from setting the handler again."""
    setting = _undisturbed._set  # pyright: ignore[reportPrivateUsage]

    def set_once(number: int, handler: Callable[[int, FrameType | None], object]) -> object:
        return None if handler is signal.default_int_handler else setting(number, handler)

    with monkeypatch.context() as patch:
        patch.setattr(_undisturbed, "_set", set_once)
        undisturbed(bool)
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler


def test_what_stayed_behind_passes_an_interrupt_on(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_behind(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_what_stayed_behind_passes_an_interrupt_on_within_another_call(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_behind(monkeypatch)
    stale = signal.getsignal(signal.SIGINT)
    assert callable(stale)
    with pytest.raises(KeyboardInterrupt):
        undisturbed(stale, signal.SIGINT, currentframe())


def test_what_stayed_behind_is_not_taken_for_the_handler_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_behind(monkeypatch)
    undisturbed(bool)
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
    with pytest.raises(Alarm, match="2"):
        undisturbed(bool)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
