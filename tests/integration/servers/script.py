"""What all the WebSocket servers do alike: the path of the request says how the conversation goes.

    /echo                   send back every message
    /describe               send the request as JSON, then echo
    /count/NUMBER           send the texts "1" to NUMBER, then close with 1000
    /close/CODE/REASON      close at once
    /ping/PAYLOAD           ping, wait for the pong, say so in a text, then echo (where the server can ping)
    /refuse                 no WebSocket: 403

A query ``?name=...`` makes the server write a line with that name and the close code and reason it was left with.
"""

from __future__ import annotations

import json
from typing import Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from .hosting import write_line

ACCEPT_HEADER: Final = ("X-Accepted", "gladly")
LARGEST_MESSAGE: Final = 32 * 1024 * 1024
SUBPROTOCOLS: Final = frozenset({"chat.v1", "chat.v2"})


class Conversation(Protocol):
    """One accepted connection, as each server library offers it."""

    async def send(self, data: str | bytes) -> None: ...

    async def receive(self) -> str | bytes | None:
        """The next message, or None when the client has closed."""
        ...

    async def ping(self, payload: bytes) -> None:
        """Ping the client and wait for its pong."""
        ...

    async def close(self, code: int, reason: str) -> None: ...

    def farewell(self) -> tuple[int | None, str | None]:
        """The code and the reason that the client closed with."""
        ...


def is_refused(target: str) -> bool:
    return urlsplit(target).path == "/refuse"


def choose_subprotocol(offered: list[str]) -> str | None:
    """The client's first choice among those known here."""
    return next((name for name in offered if name in SUBPROTOCOLS), None)


def describe(target: str, headers: list[tuple[str, str]], client: tuple[str, int] | None) -> str:
    """The request as JSON: the target as it came, the header names in lower case, and the client's address."""
    facts = {"target": target, "headers": [[name.lower(), value] for name, value in headers], "client": client}
    return json.dumps(facts)


async def converse(conversation: Conversation, target: str, description: str) -> None:
    """Follow the path of ``target``; ``description`` is what ``/describe`` sends."""
    parts = urlsplit(target)
    match [unquote(part) for part in parts.path.strip("/").split("/")]:
        case [*_, "count", number]:
            for n in range(int(number)):
                await conversation.send(str(n + 1))
            await conversation.close(1000, "")
        case [*_, "close", code, reason]:
            await conversation.close(int(code), reason)
        case [*_, "ping", payload]:
            await conversation.ping(payload.encode())
            await conversation.send("the pong came")
            await _echo(conversation)
        case [*_, "describe"]:
            await conversation.send(description)
            await _echo(conversation)
        case _:
            await _echo(conversation)
    if names := parse_qs(parts.query).get("name"):
        code_and_reason = conversation.farewell()
        write_line({"name": names[0], "code": code_and_reason[0], "reason": code_and_reason[1]})


async def _echo(conversation: Conversation) -> None:
    while (data := await conversation.receive()) is not None:
        await conversation.send(data)
