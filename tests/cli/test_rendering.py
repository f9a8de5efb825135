"""What a message looks like: nothing of a peer reaches the terminal as it is."""

from __future__ import annotations

import pytest

from zapros_websocket import BinaryMessage, TextMessage
from zapros_websocket._cli.rendering import MAX_SHOWN, for_a_pipe, for_a_terminal, indented, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hello, Grüße, 世界 \N{SNOWMAN}", "hello, Grüße, 世界 \N{SNOWMAN}"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb\x08\x7f\x00", r"a\rb\x08\x7f\x00"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}txt", r"\u202etxt"),
        ("\N{LINE SEPARATOR}", r"\u2028"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_a_terminal_could_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert shown.isprintable()


def test_a_message_cannot_look_like_a_line_of_the_program() -> None:
    message = TextMessage("first\r\nclosed by the server: 1000\n> rm")
    assert for_a_terminal(message) == "< first\n  closed by the server: 1000\n  > rm"


def test_json_is_shown_in_many_lines_and_escaped_all_the_same() -> None:
    message = indented(TextMessage('{"a":["\\u001b[2J","\N{RIGHT-TO-LEFT OVERRIDE}"]}'))
    assert message is not None
    assert for_a_terminal(message) == ('< {\n    "a": [\n      "\\u001b[2J",\n      "\\u202e"\n    ]\n  }')


@pytest.mark.parametrize(
    "message", [TextMessage(""), TextMessage("no json"), TextMessage("[" * 100_000), BinaryMessage(b"[1]")]
)
def test_what_is_no_json_has_no_lines_of_json(message: TextMessage | BinaryMessage) -> None:
    assert indented(message) is None


def test_what_a_terminal_gets_is_bounded() -> None:
    shown = for_a_terminal(TextMessage("x" * (MAX_SHOWN + 1234)))
    assert shown.endswith("xxx\n  ... 1,234 more characters")
    assert len(shown) < MAX_SHOWN + 100


def test_binary_is_shown_as_its_first_bytes() -> None:
    assert for_a_terminal(BinaryMessage(b"\x00\xff")) == "< binary, 2 bytes: 00 ff"
    shown = for_a_terminal(BinaryMessage(b"\x01" * 1000))
    assert shown == f"< binary, 1,000 bytes: {' '.join(['01'] * 32)} ... 968 more"


def test_a_pipe_gets_what_was_sent() -> None:
    assert for_a_pipe(TextMessage("ä\x1b")) == "ä\x1b\n".encode()
    assert for_a_pipe(BinaryMessage(b"\x00\n")) == b"\x00\n"
    assert for_a_pipe(TextMessage('"\ud800"')) == b'"\\ud800"\n'
