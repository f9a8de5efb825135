"""The headers of frames, however the stream is cut."""

from __future__ import annotations

import os

import pytest

from zapros_websocket._protocol.frames import encode
from zapros_websocket._protocol.headers import FrameHeader, FrameHeaders

FRAMES = [
    (b"\x81\x05hello", FrameHeader(1, True, False, 5)),
    (b"\x02\x00", FrameHeader(2, False, False, 0)),
    (b"\x89\x01?", FrameHeader(9, True, False, 1)),
    (b"\xc1\x7e\x00\x80" + bytes(128), FrameHeader(1, True, True, 128)),
    (b"\x80\x7f" + (70_000).to_bytes(8, "big") + os.urandom(70_000), FrameHeader(0, True, False, 70_000)),
    (encode(2, bytes(300)), FrameHeader(2, True, False, 300)),
    (b"\x88\x02\x03\xe8", FrameHeader(8, True, False, 2)),
]
STREAM = b"".join(frame for frame, _ in FRAMES)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 13, 14, 15, 1000, len(STREAM)])
def test_each_header_comes_out_once_its_frame_is_complete(size: int) -> None:
    headers = FrameHeaders()
    found: list[tuple[int, FrameHeader]] = []
    for end in range(size, len(STREAM) + size, size):
        found += [(end, header) for header in headers.feed(memoryview(STREAM)[end - size : end])]
    assert [header for _, header in found] == [header for _, header in FRAMES]
    complete_at = [sum(len(frame) for frame, _ in FRAMES[: number + 1]) for number in range(len(FRAMES))]
    assert all(at <= end < at + size for at, (end, _) in zip(complete_at, found, strict=True))


def test_a_payload_can_be_skipped_without_being_seen() -> None:
    headers = FrameHeaders()
    assert headers.feed(b"\x82\x0aabc") == []
    assert headers.skip(6) == []
    assert headers.skip(1) == [FrameHeader(2, True, False, 10)]
    assert headers.feed(b"\x8a\x00") == [FrameHeader(10, True, False, 0)]
