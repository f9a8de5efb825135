"""The server of the websockets library, on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from websockets import Request, Response, Subprotocol
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from .hosting import Arguments, announce
from .script import ACCEPT_HEADER, LARGEST_MESSAGE, choose_subprotocol, converse, describe, is_refused


class WebsocketsConversation:
    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    async def send(self, data: str | bytes) -> None:
        await self._connection.send(data)

    async def receive(self) -> str | bytes | None:
        try:
            return await self._connection.recv()
        except ConnectionClosed:
            return None

    async def ping(self, payload: bytes) -> None:
        await (await self._connection.ping(payload))

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)

    def farewell(self) -> tuple[int | None, str | None]:
        return self._connection.close_code, self._connection.close_reason


def choose(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    chosen = choose_subprotocol(list(offered))
    return None if chosen is None else Subprotocol(chosen)


def refuse_some(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(403, "not for you") if is_refused(request.path) else None


def add_a_header(connection: ServerConnection, request: Request, response: Response) -> None:
    name, value = ACCEPT_HEADER
    response.headers[name] = value


async def handle(connection: ServerConnection) -> None:
    request = connection.request
    assert request is not None
    description = describe(request.path, list(request.headers.raw_items()), connection.remote_address)
    # A client may leave at any time, also in the middle of an answer.
    with contextlib.suppress(ConnectionClosed):
        await converse(WebsocketsConversation(connection), request.path, description)


async def main() -> None:
    listener = Arguments.from_command_line().listen()
    async with serve(
        handle,
        sock=listener,
        max_size=LARGEST_MESSAGE,
        select_subprotocol=choose,
        process_request=refuse_some,
        process_response=add_a_header,
    ):
        announce(listener)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
