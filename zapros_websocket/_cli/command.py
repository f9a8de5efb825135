"""Which command it is, and what it runs on."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

import anyio
import trio

from .arguments import bench_parser, demo_parser, serve_parser, talk_parser
from .bench import Bench, live_view, no_view
from .conversation import COMMANDS, Conversation
from .demo import demo
from .display import Display
from .lines import EditedLines, Lines, RawLines, history_file
from .opening import Target, over_a_connection
from .serve import serve
from .status import SIGNALLED, Status
from .streams import input_and_remarks

if TYPE_CHECKING:
    from .._connection import AsyncWebSocket

INTERRUPTED = SIGNALLED + 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of the process, and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with input_and_remarks():
        if sys.stdout is None:
            print("standard output is closed: what is not wanted can go to /dev/null", file=sys.stderr)
            return Status.FAILED
        try:
            return _command(given)
        except KeyboardInterrupt:
            return INTERRUPTED


def _command(given: Sequence[str]) -> int:
    match given:
        case []:
            talk_parser().print_help(sys.stderr)
            return Status.USAGE
        case ["bench", *rest]:
            return _bench(bench_parser().parse_args(rest))
        case ["serve", *rest]:
            return anyio.run(serve, serve_parser().parse_args(rest).port, backend="trio")
        case ["demo", *rest]:
            demo_parser().parse_args(rest)
            return _demo()
        case _:
            return _talk(talk_parser().parse_args(given))


def _demo() -> Status:
    try:
        trio.run(demo)
    except Exception as error:
        print(f"the demo failed: {error!r}", file=sys.stderr)
        return Status.FAILED
    return Status.DONE


def _talk(options: Namespace) -> int:
    display = Display(pretty=options.json, quiet=options.quiet, coloured=_has("rich"))
    try:
        files = [path.expanduser().read_bytes() for path in options.file]
    except OSError as error:
        display.complain(f"{error}")
        return Status.USAGE
    # A terminal is there to be typed at; anything else is read to its end, and then answers are waited for.
    types = sys.stdin.isatty() and not options.binary
    commands = types and sys.stdout.isatty()
    edits = commands and _has("prompt_toolkit")
    wait = 0.0 if types else options.wait

    async def run() -> int:
        lines: Lines = EditedLines(list(COMMANDS), history_file()) if edits else RawLines(sys.stdin.fileno())

        async def talk(ws: AsyncWebSocket) -> Status:
            conversation = Conversation(ws, display, wait=wait, ping_every=options.ping)
            if isinstance(lines, RawLines) and options.binary:
                return await conversation.run(None, [*files, await lines.read_all()], commands=False)
            return await conversation.run(lines, files, commands=commands)

        with lines.shown_beside() if isinstance(lines, EditedLines) else nullcontext():
            return await over_a_connection(_target(options), display, talk)

    return _run(run, on_asyncio=edits)


def _bench(options: Namespace) -> int:
    display = Display(pretty=False, quiet=options.quiet, coloured=False)
    is_live = sys.stderr.isatty() and not options.quiet and _has("rich")
    bench = Bench(
        display,
        count=options.count,
        size=options.echo,
        as_json=options.json,
        live=live_view if is_live else no_view,
    )

    async def run() -> int:
        return await over_a_connection(_target(options), display, bench.run)

    return _run(run, on_asyncio=False)


def _run(call: Callable[[], Awaitable[int]], *, on_asyncio: bool) -> int:
    # On trio a thread that reads what nobody waits for does not keep the process alive; prompt_toolkit needs asyncio.
    return anyio.run(call, backend="asyncio" if on_asyncio else "trio")


def _has(library: str) -> bool:
    return find_spec(library) is not None


def _target(options: Namespace) -> Target:
    return Target(
        url=options.url,
        headers=tuple(options.header),
        subprotocols=tuple(options.subprotocol),
        auth=options.auth,
        deflate=options.deflate,
        insecure=options.insecure,
        proxy=options.proxy,
        timeout=options.timeout,
    )
