"""What a message looks like: escaped on a terminal, as it is in a pipe.

Invariants:

- Nothing that a peer wrote can move the cursor, change colours or directions, or look like a line of this program: on a
  terminal each character that is not printable is escaped, and each further line of a message is indented.
- What goes to a terminal for one message is bounded.
"""

from __future__ import annotations

import json
from typing import Final

from .._protocol.messages import BinaryMessage, TextMessage

MAX_SHOWN: Final = 64 * 1024
"""Characters of one message that are shown on a terminal."""

MAX_DUMPED: Final = 32
"""Bytes of a binary message that are shown on a terminal."""

MARK: Final = "< "


def printable(text: str) -> str:
    """The text in one line, with everything that a terminal could obey escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def for_a_terminal(message: TextMessage | BinaryMessage) -> str:
    """The message behind a mark, its further lines indented."""
    data = message.data
    if isinstance(data, bytes):
        more = f" ... {len(data) - MAX_DUMPED:,} more" if len(data) > MAX_DUMPED else ""
        return f"{MARK}binary, {len(data):,} bytes: {data[:MAX_DUMPED].hex(' ')}{more}"
    more = f"\n... {len(data) - MAX_SHOWN:,} more characters" if len(data) > MAX_SHOWN else ""
    lines = f"{data[:MAX_SHOWN]}{more}".split("\n")
    return MARK + f"\n{' ' * len(MARK)}".join(printable(line.removesuffix("\r")) for line in lines)


def for_a_pipe(message: TextMessage | BinaryMessage) -> bytes:
    """A text and a line break; the bytes of a binary message and nothing else."""
    if isinstance(message, BinaryMessage):
        return message.data
    # JSON can stand for what UTF-8 has no place for: half of a pair of surrogates.
    return message.data.encode(errors="backslashreplace") + b"\n"


def indented(message: TextMessage | BinaryMessage) -> TextMessage | None:
    """JSON in many lines; None for anything else."""
    if isinstance(message, BinaryMessage):
        return None
    try:
        return TextMessage(json.dumps(json.loads(message.data), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return None
