"""The small protocol that all streams share.

Invariants of every stream:

- One task receives, one task sends, and both may do so at once.
- Cancelling ``receive`` loses no bytes. Cancelling ``wait_writable`` has no effect. Cancelling ``send_all`` leaves it
  unknown how much was written.
- ``aclose`` ends within its ``grace`` and little more, whatever the peer does, and leaves no socket open.
- A stream that is broken raises any Exception: which one is the business of what it stands on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

if TYPE_CHECKING:
    from .watch import Takers

READ_SIZE = 64 * 1024


class Sink(Protocol):
    """Who takes in what a stream brings, at once and without waiting."""

    @property
    def takers(self) -> Takers | None:
        """Those who wait for it, where they could receive it themselves."""
        ...

    def take(self, data: bytes | memoryview) -> bool:
        """Take ``data``, which may change afterwards; none at the end of the stream. Whether to go on receiving."""
        ...

    def room(self) -> memoryview | None:
        """Where the next bytes may be written, instead of giving them to ``take``; never without a byte of room."""
        ...

    def fill(self, count: int) -> bool:
        """So many bytes, and at least one, were written into the ``room``. Whether to go on receiving."""
        ...


class ByteStream(Protocol):
    """What a connection stands on."""

    carries_control: ClassVar[bool]
    """Whether ping and pong frames reach the peer."""

    async def receive(self) -> bytes:
        """Wait for some bytes; none at the end of the stream."""
        ...

    async def pump(self, sink: Sink) -> None:
        """Receive, and give what comes to ``sink`` until that wants no more. Cancelling it loses no bytes."""
        ...

    async def wait_writable(self) -> None:
        """Wait until ``send_all`` can write at least one byte at once, where that can be known."""
        ...

    async def send_all(self, data: bytes | memoryview) -> None:
        """Write all of ``data``."""
        ...

    async def aclose(self, *, grace: float) -> None:
        """Close, with up to ``grace`` seconds for what was written to leave; 0 closes at once."""
        ...


class EagerStream(ByteStream, Protocol):
    """A stream that can also write without waiting."""

    @property
    def sender(self) -> Callable[[bytes | bytearray | memoryview], int] | None:
        """What writes some bytes at once, or raises BlockingIOError with none written; None where that is not known.

        It may be called while another thread receives.
        """
        ...

    def is_writable(self) -> bool:
        """Whether ``send_now`` can write at least one byte."""
        ...

    def send_now(self, data: bytes | bytearray) -> bytes | memoryview:
        """Write what can be written at once, and return what is left for ``send_all``."""
        ...


def eager(stream: ByteStream) -> EagerStream | None:
    """``stream`` as one that can also write without waiting, if it is such."""
    # Told by what it does: an isinstance with a protocol looks at every one of its members, and at each of its bases.
    return cast("EagerStream", stream) if hasattr(stream, "send_now") else None


async def pump(stream: ByteStream, sink: Sink) -> None:
    """``ByteStream.pump`` by way of ``ByteStream.receive``."""
    while sink.take(await stream.receive()):
        pass
