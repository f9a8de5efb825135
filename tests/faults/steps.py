"""What a peer can be asked to do, step by step; a script of steps travels in the path of the request.

The peer follows the script and then, unless it did so already, ends its half of TCP and reads until the client has
left.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Final

Step = list[object]

DEFLATE: Final = "Sec-WebSocket-Extensions: permessage-deflate"
ENDLESS: Final = 0
"""As a number of times: until the client has left."""


def answer(*lines: str, body: bytes = b"") -> Step:
    """Write a head as given, and what follows it in the same segment. ``{accept}`` is what the request asks for."""
    return ["answer", "".join(f"{line}\r\n" for line in lines) + "\r\n", body.hex()]


def switch(*extra: str, frames: bytes = b"") -> Step:
    """Accept the handshake as it should be, with more header lines, and frames in the same segment."""
    return answer(
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: {accept}",
        *extra,
        body=frames,
    )


def begin(text: str) -> Step:
    """Write the beginning of an answer, as given."""
    return ["answer", "", text.encode().hex()]


def drip(*lines: str, pause: float) -> Step:
    """Write a head byte by byte."""
    return ["drip", "".join(f"{line}\r\n" for line in lines) + "\r\n", pause]


def write(data: bytes, *, times: int = 1, pause: float = 0.0) -> Step:
    """Write the same bytes a number of times."""
    return ["write", data.hex(), times, pause]


def large(opcode: int, size: int, *, times: int = 1) -> Step:
    """Write messages of one frame, of ``size`` bytes each: those of ``pattern``."""
    return ["large", opcode, size, times]


def bomb(size: int, *, fragment: int = 0) -> Step:
    """Write one compressed message that inflates to ``size`` zeros, in fragments of so many bytes or in one frame."""
    return ["bomb", size, fragment]


def count(number: int, *, size: int = 0, pause: float = 0.0) -> Step:
    """Write texts that begin with "1", "2" and so on, and are ``size`` long."""
    return ["count", number, size, pause]


def read(frames: int) -> Step:
    """Read that many frames."""
    return ["read", frames]


def read_pong(payload: bytes) -> Step:
    """Read up to the pong with that payload."""
    return ["read_pong", payload.hex()]


def read_close() -> Step:
    """Read up to the client's close frame."""
    return ["read_close"]


def answer_close() -> Step:
    """Read up to the client's close frame, and send it back."""
    return ["answer_close"]


def echo() -> Step:
    """Send every frame back, and pongs for pings; the close frame ends it."""
    return ["echo"]


def hold(seconds: float) -> Step:
    """Neither read nor write, for so long, or until the client has left or the test lets go."""
    return ["hold", seconds]


def let_go(name: str) -> Step:
    """End the hold of the connection with that name."""
    return ["let_go", name]


def tell() -> Step:
    """Tell the test that all before this is done."""
    return ["tell"]


def await_bytes() -> Step:
    """Wait until the client has sent something, without reading it."""
    return ["await_bytes"]


def stay() -> Step:
    """Read until the client leaves, without ending TCP before."""
    return ["stay"]


def fin() -> Step:
    """End this half of TCP: with TLS without a word about it, as when a process dies."""
    return ["fin"]


def rst() -> Step:
    """Reset TCP."""
    return ["rst"]


def pattern(size: int) -> bytes:
    """The payload of a large message: every byte says where it stands, as text does."""
    line = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXY\r\n"
    return (line * (size // len(line) + 1))[:size]


def path_of(name: str, script: list[Step]) -> str:
    """The path of a request that asks for that script, and for a report under that name."""
    return "/" + base64.urlsafe_b64encode(zlib.compress(json.dumps([name, script]).encode())).decode()


def script_of(path: str) -> tuple[str, list[Step]]:
    """The name and the script in the path of a request."""
    name, script = json.loads(zlib.decompress(base64.urlsafe_b64decode(path.partition("?")[0].removeprefix("/"))))
    return name, script
