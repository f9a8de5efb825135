"""The small protocol that all streams share.

Invariants of every stream:

- One task receives, one task sends, and both may do so at once.
- Cancelling ``receive`` loses no bytes. Cancelling ``wait_writable`` has no effect. Cancelling ``send_all`` leaves it
  unknown how much was written.
- ``aclose`` ends within its ``grace`` and little more, whatever the peer does, and leaves no socket open.
- A stream that is broken raises any Exception: which one is the business of what it stands on.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

READ_SIZE = 64 * 1024


class ByteStream(Protocol):
    """What a connection stands on."""

    carries_control: ClassVar[bool]
    """Whether ping and pong frames reach the peer."""

    async def receive(self) -> bytes:
        """Wait for some bytes; none at the end of the stream."""
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


@runtime_checkable
class EagerStream(ByteStream, Protocol):
    """A stream that can also write without waiting."""

    def is_writable(self) -> bool:
        """Whether ``send_now`` can write at least one byte."""
        ...

    def send_now(self, data: bytes | memoryview) -> bytes | memoryview:
        """Write what can be written at once, and return what is left for ``send_all``."""
        ...
