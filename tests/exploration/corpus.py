"""Inputs worth keeping: the seeds that are written here, and those that a fuzzer has found, one a line in base64."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.protocol.cases import CASES

NAMES: Final = ("any_bytes", "answers", "differential")
FOLDER: Final = Path(__file__).parent / "corpus"

_ACCEPTED: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: {accept}\r\n%s\r\n\x81\x05hello\x88\x02\x03\xe8"
)
_EXTENSION: Final = b"Sec-WebSocket-Extensions: permessage-deflate"
_ANSWERS: Final = [
    _ACCEPTED % b"",
    _ACCEPTED % b"Sec-WebSocket-Protocol: v2.chat\r\n",
    _ACCEPTED % (_EXTENSION + b'; client_max_window_bits=9; server_max_window_bits="12"\r\n'),
    _ACCEPTED % (_EXTENSION + b"; client_no_context_takeover; server_no_context_takeover\r\n"),
    _ACCEPTED % b"Set-Cookie: a=b\r\nconnection: keep-alive\r\n",
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 11\r\n\r\nnot for you",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 426 Upgrade Required\r\n\r\nuntil the end",
    b"HTTP/1.1 503 Busy\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
]


def kept(name: str) -> list[bytes]:
    """The inputs of one explorer."""
    path = FOLDER / f"{name}.txt"
    lines = path.read_text(encoding="ascii").split() if path.exists() else []
    return [*_seeds(name), *map(base64.b64decode, lines)]


def keep(name: str, inputs: Iterable[bytes]) -> None:
    """Keep these, and those only, beside the seeds."""
    lines = sorted(
        {base64.b64encode(data).decode() for data in set(inputs) - set(_seeds(name))},
        key=lambda line: (len(line), line),
    )
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def _seeds(name: str) -> list[bytes]:
    if name == "any_bytes":
        # The largest limit, and a small one; with deflate or without; cut in various ways, and what is large not into
        # single bytes.
        cuts = [5 if len(case.wire) > 4096 else number % 6 for number, case in enumerate(CASES)]
        cases = [(cut, case) for cut, case in zip(cuts, CASES, strict=True)]
        return [bytes((limit, case.deflate, 3, cut)) + case.wire for limit in (4, 1) for cut, case in cases]
    if name == "answers":
        return [bytes((0, ends, 1)) + answer for answer in _ANSWERS for ends in (0, 1)]
    return []
