"""Steps of a thread that no interrupt breaks into: it comes out behind them.

CPython looks for signals behind each read and write of OpenSSL, within the same call. When a handler raises there, what
was just decrypted is gone, and nobody knows what was written. Handlers run in the main thread; so there that of SIGINT
gives way for as long as the call takes, which is some microseconds, since nothing that is done here waits for the peer.

Invariants:

- The handler is back when the call is over, however it ends.
- An interrupt that came meanwhile is not lost: its handler is called then.
- What stands in for the handler puts an interrupt off only while the call is on the stack. One that stayed behind,
  because the handler of another signal raised around the call, and one in a child that another thread has forked in
  the middle of it, pass on to the handler, and are taken for no handler of the user.

What C code has put in front of Python's handler of SIGINT, as ``faulthandler.register`` does, is gone after the first.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from inspect import currentframe
from threading import get_ident, main_thread
from types import FrameType
from typing import Any, Final, TypeAlias, TypeVar, cast

_Handler: TypeAlias = Callable[[int, "FrameType | None"], object]
_T = TypeVar("_T")

# Without making enums of all that goes in and out, which takes ten times as long.
_bare: Final = sys.modules.get("_signal", signal)
_get: Final[Callable[[int], object]] = _bare.getsignal
_set: Final[Callable[[int, _Handler], object]] = _bare.signal
_SIGINT: Final = int(signal.SIGINT)


def undisturbed(call: Callable[..., _T], *arguments: Any) -> _T:
    """Call it, and return what it returns; an interrupt that comes meanwhile comes out behind it."""
    handler = _get(_SIGINT) if get_ident() == main_thread().ident else None
    # What is no function is the doing of the system, and raises nothing here.
    if not callable(handler):
        return call(*arguments)
    stand_in = _StandIn(_real(handler) if isinstance(handler, _StandIn) else handler)
    raised: BaseException | None = None
    try:
        try:
            _set(_SIGINT, stand_in)
        except ValueError:
            if _may_set():
                # It is that of the handler of another signal.
                raise
        return call(*arguments)
    finally:
        # Nothing is called in front of it: an interrupt, and what the handlers of other signals raise, comes behind a
        # call, or as it begins.
        while True:
            try:
                _set(_SIGINT, stand_in.handler)
                break
            except BaseException as error:
                if isinstance(error, ValueError) and _get(_SIGINT) is not stand_in:
                    break
                raised = raised or error
        if stand_in.came is not None:
            stand_in.handler(*stand_in.came)
        if raised is not None:
            raise raised


class _StandIn:
    """What is called in the place of the handler of SIGINT."""

    __slots__ = ("came", "handler")

    def __init__(self, handler: _Handler) -> None:
        self.handler = handler
        self.came: tuple[int, FrameType | None] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.is_needed_in(frame):
            self.came = number, frame
        else:
            self.handler(number, frame)

    def is_needed_in(self, frame: FrameType | None) -> bool:
        """Whether the call for which it stands in is on the stack of ``frame``."""
        while frame is not None:
            if frame.f_code is undisturbed.__code__ and frame.f_locals.get("stand_in") is self:
                return True
            frame = frame.f_back
        return False


def _may_set() -> bool:
    """Whether this is a thread in which handlers run, and not only what ``threading`` takes for the main one."""
    try:
        _set(_SIGINT, cast("_Handler", _get(_SIGINT)))
    except ValueError:
        return False
    return True


def _real(handler: _Handler) -> _Handler:
    """The handler for which one stands in that has stayed behind."""
    frame = currentframe()
    while isinstance(handler, _StandIn) and not handler.is_needed_in(frame):
        handler = handler.handler
    return handler
