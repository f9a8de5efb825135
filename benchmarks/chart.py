"""The results as a picture: an SVG with a dot for each peer, on a logarithmic scale, readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

from .clients import Client
from .compared import FROM_TRIO, LOOPS, backends_of, peers_of
from .results import Results, Spread, cpu
from .workloads import WORKLOADS

# What is worth a row. The rest is in the tables.
CHARTED: Final = (
    *("rtt-64", "recv-64", "recv-1k", "recv-64k", "recv-1m", "send-64", "send-1k", "send-64k", "send-1m"),
    *("recv-json", "send-json", "tls-rtt-64", "tls-echo-256k", "many-500", "connect"),
)

# Colours that differ for those who see few of them as well, and can be read on white and on black; and the shapes.
COLOURS: Final = {
    "websockets": "#0a7abf",
    "aiohttp": "#d55e00",
    "picows": "#b0559a",
    "trio-websocket": "#00926a",
    "httpx-ws": "#a37800",
    "zapros.websocket": "#6f6fd8",
    "websocket-client": "#00926a",
}
SHAPES: Final = {
    "websockets": "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z",
    "aiohttp": "M-4,-4h8v8h-8z",
    "picows": "M0,-5.5L5.5,0L0,5.5L-5.5,0z",
    "trio-websocket": "M0,-5L5,4.5H-5z",
    "httpx-ws": "M0,5L5,-4.5H-5z",
    "zapros.websocket": "M-5,-1.5h3.5v-3.5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5z",
    "websocket-client": "M0,-5L5,4.5H-5z",
}
STYLE: Final = """
svg { background: #fff; font: 12px system-ui, sans-serif; }
text { fill: #1f2328; } .small { fill: #59636e; font-size: 11px; } .title { font-weight: 600; font-size: 14px; }
.grid { stroke: #d1d9e0; } .even { stroke: #59636e; stroke-width: 1.5; } .ground { fill: #fff; }
@media (prefers-color-scheme: dark) {
  svg { background: #131416; }
  text { fill: #e6e9ec; } .small { fill: #a3adb8; }
  .grid { stroke: #33383f; } .even { stroke: #a3adb8; } .ground { fill: #131416; }
}
"""

NAMES: Final = 200
PLOT: Final = 440
WIDTH: Final = NAMES + PLOT + 30
ROW: Final = 22
HEAD: Final = 66
FOOT: Final = 34


class Scale:
    """Ratios to pixels. It ends on whole marks, and 1 is always on it."""

    MARKS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

    def __init__(self, ratios: list[float]) -> None:
        low, high = min([1, *ratios]), max([1, *ratios])
        first = max((i for i, mark in enumerate(self.MARKS) if mark < low), default=0)
        last = min((i for i, mark in enumerate(self.MARKS) if mark > high), default=len(self.MARKS) - 1)
        self.marks = self.MARKS[first : last + 1]

    def __call__(self, ratio: float) -> float:
        low, high = math.log(self.marks[0]), math.log(self.marks[-1])
        part = (math.log(max(ratio, 1e-9)) - low) / (high - low)
        return NAMES + PLOT * min(max(part, 0), 1)


def shown_in(backend: str, peers: list[Client]) -> list[Client]:
    """On trio, the libraries that have a form for trio with that form, and the others with theirs for asyncio."""
    names = {peer.title for peer in peers if peer.backend == backend}
    return [
        peer
        for peer in peers
        if not (peer.is_ours or peer.raw)
        and (peer.name not in FROM_TRIO or peer.backend == backend or peer.title not in names)
    ]


def panel(results: Results, backend: str, top: float) -> tuple[list[str], float]:
    """One loop: its parts, and where the next may begin."""
    own = f"ours-{backend}"
    peers = shown_in(backend, peers_of(backend, results))
    rows: list[tuple[str, list[tuple[Client, Spread]]]] = []
    for name in filter(results.workloads.__contains__, CHARTED):
        ratios = [(peer, results.ratio(cpu, name, peer.name, own)) for peer in peers]
        dots = [(peer, spread) for peer, spread in ratios if spread is not None]
        if dots:
            rows.append((name, dots))
    if not rows:
        return [], top
    scale = Scale([value for _, dots in rows for _, spread in dots for value in (spread.low, spread.high)])
    bottom = top + HEAD + ROW * len(rows)
    parts = [f'<text class="title" x="12" y="{top + 20:g}">{escape(LOOPS[backend])}</text>']
    parts += legend(
        [peer for peer in peers if any(peer is dot for _, dots in rows for dot, _ in dots)], backend, top + 38
    )
    for mark in scale.marks:
        kind = "even" if mark == 1 else "grid"
        parts.append(f'<path class="{kind}" d="M{scale(mark):.1f},{top + HEAD - 8:g}V{bottom:g}"/>')
        label = "even" if mark == 1 else f"{mark:g}"
        parts.append(
            f'<text class="small" x="{scale(mark):.1f}" y="{bottom + 14:g}" text-anchor="middle">{label}</text>'
        )
    for number, (name, dots) in enumerate(rows):
        middle = top + HEAD + ROW * number + ROW / 2 - 4
        title = escape(WORKLOADS[name].title)
        parts.append(f'<text x="{NAMES - 10}" y="{middle + 4:g}" text-anchor="end">{title}</text>')
        for peer, spread in dots:
            parts += dot(peer, spread, scale, middle)
    return parts, bottom + FOOT


def legend(peers: list[Client], backend: str, middle: float) -> Iterator[str]:
    left = 20.0
    for peer in peers:
        label = peer.title if peer.backend == backend else f"{peer.title} ({peer.backend})"
        place = f"translate({left:g},{middle:g})"
        yield f'<path d="{SHAPES[peer.title]}" fill="{COLOURS[peer.title]}" transform="{place}"/>'
        yield f'<text class="small" x="{left + 9:g}" y="{middle + 4:g}">{escape(label)}</text>'
        left += 22 + 6.2 * len(label)


def dot(peer: Client, spread: Spread, scale: Scale, middle: float) -> Iterator[str]:
    colour = COLOURS[peer.title]
    yield f'<path stroke="{colour}" d="M{scale(spread.low):.1f},{middle:g}H{scale(spread.high):.1f}"/>'
    yield (
        f'<path d="{SHAPES[peer.title]}" fill="{colour}" transform="translate({scale(spread.median):.1f},{middle:g})">'
        f"<title>{escape(peer.title)}: {spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})</title></path>"
    )


def svg(results: Results) -> str:
    """The whole picture."""
    parts: list[str] = []
    top = 36.0
    for backend in backends_of(results):
        more, top = panel(results, backend, top)
        parts += more
    title = "CPU for each message, peer / ours: to the right of even, ours takes less"
    size = f'viewBox="0 0 {WIDTH} {top:g}" width="{WIDTH}" height="{top:g}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="ground" width="{WIDTH}" height="{top:g}"/>\n<text x="12" y="24">{title}</text>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
