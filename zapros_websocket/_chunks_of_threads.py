"""A message that a thread sends chunk by chunk: as ``_chunks``, with what the outbox is for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ._portal import process, refuse_fork
from ._protocol.frames import BINARY
from ._protocol.outgoing import Chunks, chunk

if TYPE_CHECKING:
    from ._outbox import Outbox
    from ._protocol.sequence import Sequence
    from ._protocol.session import Session


def send_chunks(outbox: Outbox, session: Session, chunks: Chunks, compress: bool | None) -> None:
    """Send one message, as ``send`` does.

    Raises:
        TypeError: only code with ``await`` can ask for the chunks.
        RuntimeError: the process was forked meanwhile, and this is the child.
    """
    if not isinstance(chunks.source, Iterable):
        kind = type(chunks.source).__name__
        raise TypeError(f"cannot send {kind} from a thread: it is an asynchronous iterable")
    outbox.raise_unless_open()
    forks = process.forks
    sequence: Sequence | None = None
    opcode: int | None = None
    try:
        for given in chunks.source:
            refuse_fork(forks)
            opcode, payload = chunk(given, opcode)
            if not payload:
                continue
            if sequence is None:
                sequence = session.sequence(opcode, compress)
                outbox.begin(sequence)
            outbox.send_fragment(sequence, payload)
            # Not more than one of them at a time.
            del given, payload
        refuse_fork(forks)
        if sequence is None:
            outbox.send(BINARY if opcode is None else opcode, b"", compress)
        else:
            outbox.send_fragment(sequence, None)
    finally:
        # In a child it is the business of the parent.
        if sequence is not None and forks == process.forks:
            outbox.end_of(sequence)
