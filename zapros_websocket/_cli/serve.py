"""``zapros-ws serve``: an echo server on this machine, to try things against."""

from __future__ import annotations

import sys

from anyio import create_task_group, sleep_forever

from .opening import Interrupt
from .status import Status

PATHS = """\
  /                    every message comes back
  /count/N             sends the texts 1 to N, then closes with 1000
  /close/CODE/REASON   closes with this code and reason
  /status/N            refuses the handshake with the HTTP status N
Ctrl-C ends it."""


async def serve(port: int) -> Status:
    """Serve until a signal comes."""
    from ..testing import echo_server  # only here: all else works without wsproto

    status = Status.DONE
    interrupt = Interrupt()
    async with create_task_group() as tasks:
        await tasks.start(interrupt.watch)
        with interrupt.scope:
            try:
                async with echo_server(port=port) as server:
                    print(server.url, PATHS, sep="\n", flush=True)
                    await sleep_forever()
            except OSError as error:
                print(f"cannot listen on port {port}: {error}", file=sys.stderr)
                status = Status.FAILED
        tasks.cancel_scope.cancel()
    return status
