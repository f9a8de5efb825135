"""The ASGI application under the server that ``--kind`` names."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

import hypercorn
import hypercorn.asyncio
import hypercorn.trio
import trio
import uvicorn
from uvicorn.config import WSProtocolType

from .asgi_app import application
from .hosting import Arguments, announce
from .script import LARGEST_MESSAGE


def run_uvicorn(listener: socket.socket, implementation: WSProtocolType) -> None:
    config = uvicorn.Config(
        application, ws=implementation, ws_max_size=LARGEST_MESSAGE, lifespan="on", log_level="error"
    )
    uvicorn.Server(config).run(sockets=[listener])


def hypercorn_config(listener: socket.socket) -> hypercorn.Config:
    config = hypercorn.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.websocket_max_message_size = LARGEST_MESSAGE
    config.loglevel = "ERROR"
    return config


def main() -> None:
    arguments = Arguments.from_command_line()
    listener = arguments.listen()
    announce(listener)
    match arguments.kind:
        case "uvicorn-websockets":
            run_uvicorn(listener, "websockets-sansio")
        case "uvicorn-wsproto":
            run_uvicorn(listener, "wsproto")
        case "hypercorn-asyncio":
            serve = partial(hypercorn.asyncio.serve, application, hypercorn_config(listener))  # pyright: ignore[reportUnknownMemberType]
            asyncio.run(serve())
        case "hypercorn-trio":
            serve = partial(hypercorn.trio.serve, application, hypercorn_config(listener))  # pyright: ignore[reportUnknownMemberType]
            trio.run(serve)
        case _:
            raise SystemExit(f"unknown kind of server: {arguments.kind!r}")


if __name__ == "__main__":
    main()
