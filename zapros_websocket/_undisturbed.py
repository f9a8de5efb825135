"""Steps of a thread that no interrupt breaks into: it comes out behind them.

CPython looks for signals behind each read and write of OpenSSL, within the same call. When a handler raises there, what
was just decrypted is gone, and nobody knows what was written. Handlers run in the main thread; so there that of SIGINT
gives way for as long as the call takes, which is some microseconds, since nothing that is done here waits for the peer.

Invariants:

- The handler is back when the block is left, however that is.
- An interrupt that came meanwhile is not lost: its handler is called then.
- A stand-in that stayed behind, because the handler of another signal raised around the block, is taken for no handler
  of the user, and passes on to that.

What C code has put in front of Python's handler of SIGINT, as ``faulthandler.register`` does, is gone after the first.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from threading import get_ident, main_thread
from time import monotonic
from types import FrameType
from typing import Final, TypeAlias

_Handler: TypeAlias = Callable[[int, "FrameType | None"], object]

# Without making enums of all that goes in and out, which takes ten times as long.
_bare: Final = sys.modules.get("_signal", signal)
_get: Final[Callable[[int], object]] = _bare.getsignal
_set: Final[Callable[[int, _Handler], object]] = _bare.signal
_SIGINT: Final = int(signal.SIGINT)

# Seconds that a block can take; a stand-in that is called later has stayed behind.
_LONGEST: Final = 1.0


class Undisturbed:
    """A block that an interrupt does not break into. It is used once."""

    __slots__ = ("_began", "_came", "_handler", "_is_left", "_thread")

    def __init__(self) -> None:
        self._thread = get_ident()
        self._handler: _Handler | None = None
        self._came: list[tuple[int, FrameType | None]] = []
        self._is_left = False
        self._began = monotonic()

    def __enter__(self) -> None:
        if self._thread != main_thread().ident:
            return
        handler = _get(_SIGINT)
        # What is no function is the doing of the system, and raises nothing here.
        if callable(handler):
            self._handler = handler = self.real(handler)
            try:
                _set(_SIGINT, self._put_off)
            except ValueError:
                # This is no thread in which handlers run, whatever ``threading`` takes for the main one.
                self._handler = None
            except BaseException:
                _restore(handler)
                raise

    def __exit__(self, *_: object) -> None:
        handler = self._handler
        if handler is None:
            return
        try:
            _restore(handler)
        finally:
            self._is_left = True
            if self._came:
                handler(*self._came[0])

    def _put_off(self, number: int, frame: FrameType | None) -> None:
        # In a child that another thread has forked in the middle of it, the block is never left.
        if get_ident() == self._thread and not self.is_over:
            self._came.append((number, frame))
        else:
            assert self._handler is not None
            self._handler(number, frame)

    @property
    def is_over(self) -> bool:
        """Whether the block is left, as far as can be known: a handler may have raised in front of that."""
        return self._is_left or monotonic() - self._began > _LONGEST

    @staticmethod
    def real(handler: _Handler) -> _Handler:
        """The handler that one which has stayed behind stands for."""
        stand_in = getattr(handler, "__self__", None)
        if isinstance(stand_in, Undisturbed) and stand_in.is_over and stand_in._handler is not None:
            return Undisturbed.real(stand_in._handler)
        return handler


def _restore(handler: _Handler) -> None:
    """Set the handler, and then raise what the handlers of other signals have raised in front of that."""
    raised: BaseException | None = None
    while True:
        try:
            _set(_SIGINT, handler)
            break
        except BaseException as error:
            raised = raised or error
    if raised is not None:
        raise raised
