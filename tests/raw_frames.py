"""Frames of a server as RFC 6455, section 5.2, draws them, byte by byte, and with no help of a library."""

from __future__ import annotations

from typing import Final

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

RSV1: Final = 0x40
RSV2: Final = 0x20
RSV3: Final = 0x10


def header(opcode: int, length: int, *, final: bool = True, reserved: int = 0, form: int = 0, masked: int = 0) -> bytes:
    """The header of a frame that declares ``length``, in the shortest form or in the one that takes ``form`` bytes."""
    first = (0x80 if final else 0) | reserved | opcode
    form = form or (0 if length < 126 else 2 if length < 1 << 16 else 8)
    seven_bits = {0: length, 2: 126, 8: 127}[form]
    return bytes((first, masked | seven_bits)) + (length.to_bytes(form, "big") if form else b"")


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, reserved: int = 0, form: int = 0) -> bytes:
    """A frame of a server."""
    return header(opcode, len(payload), final=final, reserved=reserved, form=form) + payload


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """A frame as only a client may send it, with a key of zeros."""
    return header(opcode, len(payload), masked=0x80) + bytes(4) + payload


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)
