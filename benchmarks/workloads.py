"""What is measured: the table of workloads, and the messages that they send."""

from __future__ import annotations

import json
import random
import zlib
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["round trip", "receive", "send", "many", "connect", "idle"]

# How many different messages the corpus of JSON has.
CORPUS: Final = 64
# Connections that talk all at once, and that are idle.
MANY: Final = 500
IDLE: Final = 1000
# Seconds between two pings of keepalive on idle connections: shorter than any default, or nothing would be seen.
PING_INTERVAL: Final = 1.0


@dataclass(frozen=True)
class Workload:
    """One kind of work. A batch is what is done between two looks at the clock."""

    name: str
    title: str
    kind: Kind
    size: int
    batch: int
    tls: bool = False
    deflate: bool = False
    delay: int = 0
    connections: int = 1
    unit: str = "message"

    @property
    def path(self) -> str:
        """The path that makes the server do its part."""
        if self.kind == "send":
            return f"/sink/{self.batch}"
        if self.kind == "receive":
            return f"/corpus/{self.batch}" if self.deflate else f"/flood/{self.batch}/{self.size}"
        return f"/delay/{self.delay}" if self.delay else "/echo"

    def messages(self) -> list[bytes] | list[str]:
        """What a client sends in one batch."""
        if self.deflate:
            texts = corpus()
            return [texts[number % CORPUS] for number in range(self.batch)]
        return [b"x" * self.size] * self.batch


def corpus() -> list[str]:
    """JSON texts of about 1 KiB that look like the events of an exchange; the same in each run."""
    chance = random.Random(6455)
    return [
        json.dumps(
            {
                "type": "book",
                "sequence": 1_000_000 + number,
                "product": chance.choice(["BTC-EUR", "ETH-EUR", "SOL-EUR"]),
                "time": f"2026-01-01T00:00:{number % 60:02d}.{chance.randrange(10**6):06d}Z",
                "changes": [
                    {"side": chance.choice(["buy", "sell"]), "price": f"{chance.uniform(10, 99999):.2f}", "size": size}
                    for size in (f"{chance.expovariate(1):.6f}" for _ in range(17))
                ],
            }
        )
        for number in range(CORPUS)
    ]


def deflated_corpus() -> bytes:
    """The corpus as the frames of a server that keeps its context from message to message (RFC 7692, 7.2.1).

    Its first message refers to nothing before it, so the frames may be sent again and again.
    """
    compressor = zlib.compressobj(wbits=-15)
    frames = bytearray()
    for text in corpus():
        data = compressor.compress(text.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
        data = data.removesuffix(b"\x00\x00\xff\xff")
        frames += b"\xc1" + (bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")) + data
    return bytes(frames)


def _table() -> list[Workload]:
    sizes: list[tuple[str, str, int, int]] = [
        ("64", "64 B", 64, 1024),
        ("1k", "1 KiB", 1024, 1024),
        ("64k", "64 KiB", 1 << 16, 128),
        ("1m", "1 MiB", 1 << 20, 16),
    ]
    table: list[Workload] = []
    for tls in (False, True):
        prefix, suffix = ("tls-", ", TLS") if tls else ("", "")
        table.append(Workload(f"{prefix}rtt-64", f"round trip 64 B{suffix}", "round trip", 64, 256, tls))
        if tls:
            table.append(Workload("tls-echo-256k", "echo 256 KiB, TLS", "round trip", 1 << 18, 32, tls))
        kinds: list[tuple[Kind, str]] = [("receive", "recv"), ("send", "send")]
        for kind, name in kinds:
            for short, title, size, batch in sizes:
                table.append(Workload(f"{prefix}{name}-{short}", f"{kind} {title}{suffix}", kind, size, batch, tls))
    table += [
        Workload("recv-json", "receive 1 KiB JSON, deflate", "receive", 1024, 1024, deflate=True),
        Workload("send-json", "send 1 KiB JSON, deflate", "send", 1024, 1024, deflate=True),
        Workload("slow-200", "round trip 64 B, 200 us server", "round trip", 64, 128, delay=200),
        Workload("many-500", f"{MANY} connections", "many", 64, 1, connections=MANY),
        Workload("connect", "connect and close", "connect", 0, 16, unit="connection"),
        Workload("idle-1000", f"{IDLE} idle connections", "idle", 0, 1, connections=IDLE, unit="connection and second"),
    ]
    return table


WORKLOADS: Final[dict[str, Workload]] = {workload.name: workload for workload in _table()}
QUICK: Final = ("rtt-64", "recv-64", "send-64", "recv-64k", "send-64k", "tls-rtt-64")
