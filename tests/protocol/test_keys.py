"""The keys that frames are masked with: from the operating system, and each of them for one frame."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import count
from threading import Barrier, Thread

import pytest

from .forms import Form
from .wire import BINARY

FRAMES = 3000
"""More than one call of the operating system gives keys for."""


class Urandom:
    """Stands in for the operating system: gives the numbers from 0 on, four bytes each."""

    def __init__(self) -> None:
        self._numbers = count()

    def __call__(self, size: int) -> bytes:
        assert size % 4 == 0
        return b"".join(next(self._numbers).to_bytes(4, "big") for _ in range(size // 4))

    def next(self) -> int:
        """The first number that was not given, in whatever thread; it will not be."""
        return next(self._numbers)


@pytest.fixture
def urandom(form: Form, monkeypatch: pytest.MonkeyPatch) -> Iterator[Urandom]:
    """The source of all keys of this test, and of none of another."""
    urandom = Urandom()
    monkeypatch.setattr(os, "urandom", urandom)
    form.forget_keys()
    yield urandom
    form.forget_keys()


def key(form: Form) -> int:
    """The key of a frame: a mask of zeros shows it."""
    frame = form.encode(BINARY, bytes(6))
    assert frame[:2] == b"\x82\x86"
    assert frame[2:6] + frame[2:4] == frame[6:]
    return int.from_bytes(frame[2:6], "big")


def test_every_frame_has_a_fresh_key_of_the_operating_system(form: Form, urandom: Urandom) -> None:
    keys = {key(form) for _ in range(FRAMES)}
    assert len(keys) == FRAMES
    assert max(keys) < urandom.next()


def test_what_the_operating_system_cannot_give_comes_out(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    def urandom(size: int) -> bytes:
        raise NotImplementedError("no source of randomness")

    form.forget_keys()
    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", urandom)
        with pytest.raises(NotImplementedError, match="no source of randomness"):
            form.encode(BINARY, b"")
    assert len({key(form) for _ in range(3)}) == 3


def test_threads_share_no_key(form: Form, urandom: Urandom) -> None:
    keys: list[int] = []
    threads_begin = Barrier(4)

    def send() -> None:
        threads_begin.wait()
        keys.extend([key(form) for _ in range(FRAMES)])

    threads = [Thread(target=send) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(keys) == len(set(keys)) == 4 * FRAMES
    assert max(keys) < urandom.next()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_uses_no_key_of_its_parent(form: Form) -> None:
    # Leaves keys behind, which the child must not take.
    key(form)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        # Not a word of pytest from the child, whatever happens.
        try:
            os.write(writing, b"".join(key(form).to_bytes(4, "big") for _ in range(100)))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        written = pipe.read()
    os.waitpid(child, 0)
    of_the_child = {written[place : place + 4] for place in range(0, len(written), 4)}
    of_the_parent = {key(form).to_bytes(4, "big") for _ in range(100)}
    assert len(of_the_child) == len(of_the_parent) == 100
    assert not of_the_child & of_the_parent
