"""What comes of an opening handshake that fails: the error that is raised, and the answer that it carries.

Invariants:

- A network error stays Zapros's own; nothing of h11 or anyio comes out.
- Of a body no more is read, and no more is inflated, than is kept.
"""

from __future__ import annotations

import ssl
from typing import Final

import anyio
import trio
import zapros
from zapros import Headers, Response

from ._errors import HandshakeError, HandshakeTimeoutError

MAX_BODY: Final = 64 * 1024

# Seconds for the body of an answer that refuses the connection, once its headers are there.
BODY_TIMEOUT: Final = 2.0

# Bytes that are decompressed at once: Zapros inflates what it is given to the end, and four bytes of Zstandard can be
# 128 KiB.
_PIECE: Final = 64


def refused(why: str, response: Response) -> HandshakeError:
    """The error for an answer that is not a valid 101."""
    return HandshakeError(f"the opening handshake failed: {why}", response=response)


def too_late(timeout: float | None) -> HandshakeTimeoutError:
    """The error for a handshake that took longer than ``timeout`` seconds."""
    return HandshakeTimeoutError(f"the opening handshake did not end within {timeout:g} seconds")


def lines_of(headers: Headers) -> list[tuple[str, str]]:
    """Each line of a header that stands there more than once: the list of Zapros has only the first."""
    return [(name, value) for name in headers for value in headers.getall(name)]


def whole(response: Response, raw: bytearray) -> Response:
    """``response`` with what was read of its body, without the encoding."""
    lines = lines_of(response.headers)
    pieces = (bytes(raw[start : start + _PIECE]) for start in range(0, len(raw), _PIECE))
    body = _decompressed(Response(response.status, lines, content=pieces))
    headers = [(name, value) for name, value in lines if name.lower() != "content-encoding"]
    copied = Response(response.status, headers, content=body, context=response.context, request=response.request)
    copied.read()
    return copied


def _decompressed(response: Response) -> bytes:
    """The body without its encoding, and no more of it than is kept: a few bytes can stand for gigabytes."""
    body = bytearray()
    try:
        for chunk in response.iter_bytes():
            body += chunk[: MAX_BODY - len(body)]
            if len(body) >= MAX_BODY:
                break
    except Exception:
        # It was cut off, or it is not what it says: the answer stands, with what could be read of it.
        return bytes(body)
    return bytes(body)


def translate(error: Exception) -> Exception:
    """The error of this library or of Zapros that stands for what came out of a client."""
    if isinstance(error, (zapros.ConnectionError, OSError)) and not isinstance(error, zapros.SSLError):
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                return zapros.SSLError(f"TLS failed during the opening handshake: {cause}")
            cause = cause.__cause__ or cause.__context__
    if isinstance(error, zapros.ZaprosError):
        return error
    if isinstance(error, OSError):
        return zapros.ConnectionError(f"the connection failed during the opening handshake: {_reason(error)}")
    if isinstance(error, (trio.BrokenResourceError, anyio.BrokenResourceError, anyio.EndOfStream)):
        return zapros.ConnectionError(f"the connection was lost during the opening handshake: {error!r}")
    if type(error).__module__.partition(".")[0] == "h11":
        return HandshakeError(f"the opening handshake failed: the answer was not HTTP/1.1 ({error})")
    return error


def _reason(error: BaseException) -> str:
    """What it says, or what its causes do; or what it is, when they are silent."""
    cause: BaseException | None = error
    while cause is not None:
        if str(cause):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
