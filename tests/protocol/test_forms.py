"""Which form of the frames is used, and that the two say the same.

The property: on any stream, in any pieces, in any kind of buffer, both forms read the same messages, stop at the same
place and name the same failure. What they should say, the tests of frames and the fuzz against wsproto tell.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zapros_websocket._protocol import frames, pure, session
from zapros_websocket._protocol.deflate import Deflate
from zapros_websocket._protocol.messages import CloseMessage, Message
from zapros_websocket._protocol.options import PerMessageDeflateExtension

from .forms import Buffer, Form, can_compile, load
from .test_cost import blocks_kept
from .test_fuzz import STOP, Reference, Verdict, assert_same, by_wsproto, cut, mutated, places, streams
from .wire import BINARY, LIMIT, RSV1, TEXT, Outcome, deflated, frame, header, new_session, outcome_of, steady

SWITCH = "ZAPROS_WEBSOCKET_PURE"
SPEEDUPS = "zapros_websocket._protocol._speedups"


# Which one is used


def frames_anew() -> ModuleType:
    """The module as an interpreter finds it that begins now."""
    spec = spec_from_file_location("zapros_websocket._protocol.frames_anew", frames.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_form_in_c_is_used_unless_it_is_switched_off() -> None:
    expected = "pure" if os.environ.get(SWITCH) or not can_compile() else "c"
    assert expected == frames.implementation
    assert frames.read_messages is load(expected).read_messages
    assert vars(session)["read_messages"] is frames.read_messages


def test_the_form_in_c_is_used_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that it can be shown on a machine without a compiler too.
    stand_in = ModuleType(SPEEDUPS)
    vars(stand_in).update(encode="encode in C", read_messages="read_messages in C", context_switches=int)
    monkeypatch.setitem(sys.modules, SPEEDUPS, stand_in)
    monkeypatch.delenv(SWITCH, raising=False)
    found = frames_anew()
    assert (found.implementation, found.encode, found.read_messages) == ("c", "encode in C", "read_messages in C")


@pytest.mark.parametrize("way", ["missing", "switched off"])
def test_the_form_in_python_is_used_where_the_other_is(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    if way == "missing":
        monkeypatch.setitem(sys.modules, SPEEDUPS, None)
    else:
        monkeypatch.setenv(SWITCH, "1")
    found = frames_anew()
    assert found.implementation == "pure"
    assert (found.encode, found.read_messages) == (pure.encode, pure.read_messages)


# That they say the same


def steps(form: Form, pieces: list[bytes], kind: type[Buffer], limit: int, *, deflate: bool) -> list[object]:
    """All that a form says about a stream that comes in ``pieces``; what it stops in front of is passed over."""
    agreed = Deflate(PerMessageDeflateExtension()) if deflate else None
    said: list[object] = []
    received = b""
    start = 0
    for piece in pieces:
        received += piece
        for _ in range(30):
            messages: list[Message] = []
            result = form.read_messages(kind(received), start, limit, agreed, messages)
            said += [messages, [type(message) for message in messages], result]
            start, needed, _ = result
            if needed:
                break
            start += 1
    return said


@settings(steady, max_examples=150)
@given(st.data(), st.booleans(), st.sampled_from([bytes, bytearray, memoryview]), st.sampled_from([100, LIMIT]))
def test_both_forms_say_the_same(
    forms: tuple[Form, ...], data: st.DataObject, deflate: bool, kind: type[Buffer], limit: int
) -> None:
    stream = data.draw(mutated(deflate=deflate) | streams(deflate=deflate)).removesuffix(STOP)
    pieces = cut(stream, data.draw(places))
    with pytest.MonkeyPatch.context() as patch:
        # Whatever the form in Python copies at once, but for a header, which is always whole.
        patch.setattr(pure, "_WINDOW", data.draw(st.sampled_from([10, 30, 300, 16 * 1024])))
        in_python, in_c = (steps(form, pieces, kind, limit, deflate=deflate) for form in forms)
    assert in_python == in_c


@settings(steady, max_examples=100)
@given(st.data(), places)
@pytest.mark.parametrize("deflate", [False, True], ids=["uncompressed", "compressed"])
def test_a_session_of_either_form_is_wsproto_s_equal(
    forms: tuple[Form, ...], deflate: bool, data: st.DataObject, places: list[int]
) -> None:
    stream = data.draw(mutated(deflate=deflate) | streams(deflate=deflate))
    theirs = by_wsproto(stream, Reference() if deflate else None)
    outcomes: list[Outcome] = []
    for form in forms:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "read_messages", form.read_messages)
            outcomes.append(outcome_of(new_session(deflate=deflate), cut(stream, places)))
    assert outcomes[0] == outcomes[1]
    assert_same(Verdict(outcomes[0].messages, outcomes[0].failure), theirs, deflate=deflate)


@steady
@given(st.binary(max_size=40) | st.integers(min_value=0, max_value=20_000).map(bytes), st.booleans())
def test_both_forms_build_the_same(forms: tuple[Form, ...], payload: bytes, compressed: bool) -> None:
    def urandom(size: int) -> bytes:
        return b"\x01\x7f\xfe\x80" * (size // 4)

    built: set[bytes] = set()
    for form in forms:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "urandom", urandom)
            form.forget_keys()
            built.add(form.encode(BINARY, payload, compressed=compressed))
            form.forget_keys()
    assert len(built) == 1


# What only the form in C can get wrong


def repeated(act: Callable[[], None], times: int) -> None:
    for _ in range(times):
        act()


class Odd(Deflate):
    """Inflates to whatever it is told to."""

    def __init__(self, result: object) -> None:
        super().__init__(PerMessageDeflateExtension())
        self.result = result

    def inflate(self, data: bytes | memoryview, room: int, *, final: bool) -> bytes | CloseMessage:
        if self.result is RuntimeError:
            raise RuntimeError("a mistake")
        return cast(bytes, self.result)


NONE: list[Message] = []
# Does not get smaller when it is compressed.
NOISE = random.Random(1).randbytes(5000)
COMPRESSED = frame(TEXT, deflated(b"hello"), reserved=RSV1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param((), TypeError, id="nothing"),
        pytest.param((b"", 0, 1, None, NONE, 1), TypeError, id="too much"),
        pytest.param(("text", 0, 1, None, NONE), TypeError, id="a buffer of text"),
        pytest.param((memoryview(bytes(8))[::2], 0, 1, None, NONE), BufferError, id="a buffer with gaps"),
        pytest.param((b"", "0", 1, None, NONE), TypeError, id="a start of text"),
        pytest.param((b"", -1, 1, None, NONE), ValueError, id="a negative start"),
        pytest.param((b"", 1 << 64, 1, None, NONE), OverflowError, id="a start beyond all memory"),
        pytest.param((b"", 0, None, None, NONE), TypeError, id="no limit"),
        pytest.param((b"", 0, 1, None, ()), TypeError, id="no list"),
        pytest.param((COMPRESSED, 0, LIMIT, object(), NONE), AttributeError, id="no inflate"),
        pytest.param((COMPRESSED, 0, LIMIT, Odd("text"), NONE), TypeError, id="inflated to text"),
        pytest.param((COMPRESSED, 0, LIMIT, Odd(None), NONE), TypeError, id="inflated to nothing"),
        pytest.param((COMPRESSED, 0, LIMIT, Odd(RuntimeError), NONE), RuntimeError, id="inflate raises"),
    ],
)
def test_wrong_arguments_to_read_are_errors(
    speedups: Form, arguments: tuple[object, ...], error: type[Exception]
) -> None:
    def call() -> None:
        with pytest.raises(error):
            speedups.read_messages(*arguments)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType]

    call()
    assert blocks_kept(lambda: repeated(call, 100)) < 50


@pytest.mark.parametrize(
    ("arguments", "keywords", "error"),
    [
        pytest.param((), {}, TypeError, id="nothing"),
        pytest.param((1, b"", True), {}, TypeError, id="too much"),
        pytest.param((1, b""), {"final": True}, TypeError, id="another keyword"),
        pytest.param((1, b""), {"compressed": True, "final": True}, TypeError, id="one keyword too many"),
        pytest.param(("1", b""), {}, TypeError, id="an opcode of text"),
        pytest.param((16, b""), {}, ValueError, id="an opcode that is none"),
        pytest.param((-1, b""), {}, ValueError, id="a negative opcode"),
        pytest.param((1, "text"), {}, TypeError, id="a payload of text"),
        pytest.param((1, memoryview(bytes(8))[::2]), {}, BufferError, id="a payload with gaps"),
    ],
)
def test_wrong_arguments_to_encode_are_errors(
    speedups: Form, arguments: tuple[object, ...], keywords: dict[str, bool], error: type[Exception]
) -> None:
    def call() -> None:
        with pytest.raises(error):
            speedups.encode(*arguments, **keywords)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue, reportArgumentType]

    call()
    assert blocks_kept(lambda: repeated(call, 100)) < 50


@pytest.mark.parametrize(
    ("wire", "deflate"),
    [
        pytest.param(frame(TEXT, b"x" * 300) + frame(BINARY, b"x" * 300), False, id="messages"),
        pytest.param(
            COMPRESSED + frame(BINARY, deflated(bytes(range(256)) * 100), reserved=RSV1), True, id="compressed"
        ),
        pytest.param(
            frame(BINARY, NOISE) + frame(BINARY, deflated(NOISE), reserved=RSV1), True, id="long and compressed"
        ),
        pytest.param(frame(TEXT, b"\xff"), False, id="no text"),
        pytest.param(frame(TEXT, deflated(b"\xff"), reserved=RSV1), True, id="compressed no text"),
        pytest.param(frame(TEXT, b"\xff" * 100, reserved=RSV1), True, id="no compressed text"),
        pytest.param(header(TEXT, 70_000), False, id="half a message"),
    ],
)
def test_nothing_is_kept(form: Form, wire: bytes, deflate: bool) -> None:
    def read() -> None:
        agreed = Deflate(PerMessageDeflateExtension()) if deflate else None
        form.read_messages(bytearray(wire), 0, LIMIT, agreed, [])
        form.encode(BINARY, memoryview(bytearray(wire)))

    repeated(read, 500)
    assert blocks_kept(lambda: repeated(read, 500)) < 100
