"""ASGI applications without a framework, each of them one behaviour, and a client that reaches one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeAlias

import anyio
import zapros

Event: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]

URL: Final = "ws://testserver/"
ACCEPT: Final[Event] = {"type": "websocket.accept"}


class Application(Protocol):
    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None: ...


@asynccontextmanager
async def client_of(application: Application, *, lifespan: bool = False) -> AsyncGenerator[zapros.AsyncClient, None]:
    """A client whose requests all go to this application."""
    async with (
        zapros.AsgiHandler(application, enable_lifespan=lifespan) as handler,
        zapros.AsyncClient(handler) as client,
    ):
        yield client


class Echo:
    """Sends back every message until the disconnect, and keeps what it was given. Others do less, or something else."""

    def __init__(self) -> None:
        self.scopes: list[Event] = []
        self.events: list[Event] = []
        self.ended = anyio.Event()

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        async def receive_and_keep() -> Event:
            event = await receive()
            self.events.append(event)
            return event

        self.scopes.append(scope)
        try:
            await receive_and_keep()
            await self.converse(receive_and_keep, send)
        finally:
            self.ended.set()

    async def converse(self, receive: Receive, send: Send) -> None:
        """What happens after the ``websocket.connect``."""
        await send(ACCEPT)
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})

    @property
    def disconnects(self) -> list[tuple[object, object]]:
        """The code and the reason of each ``websocket.disconnect``."""
        return [(event["code"], event["reason"]) for event in self.events if event["type"] == "websocket.disconnect"]


class Returns(Echo):
    """Sends some events, and returns."""

    def __init__(self, *events: Event) -> None:
        super().__init__()
        self._script = events

    async def converse(self, receive: Receive, send: Send) -> None:
        for event in self._script:
            await send(event)


class Says(Returns):
    """Sends some events, and listens until the disconnect."""

    async def converse(self, receive: Receive, send: Send) -> None:
        await super().converse(receive, send)
        while (await receive())["type"] == "websocket.receive":
            pass


class Raises(Returns):
    """Sends some events, and raises."""

    async def converse(self, receive: Receive, send: Send) -> None:
        await super().converse(receive, send)
        raise RuntimeError("the application is broken")


class Waits(Returns):
    """Sends some events, and takes notice of nothing until it is released."""

    def __init__(self, *events: Event) -> None:
        super().__init__(*events)
        self.released = anyio.Event()

    async def converse(self, receive: Receive, send: Send) -> None:
        await super().converse(receive, send)
        await self.released.wait()


class CleansUp(Echo):
    """Is busy for a while after the disconnect."""

    def __init__(self, *, seconds: float) -> None:
        super().__init__()
        self.cleaned_up = False
        self._seconds = seconds

    async def converse(self, receive: Receive, send: Send) -> None:
        await super().converse(receive, send)
        await anyio.sleep(self._seconds)
        self.cleaned_up = True


def text(data: object) -> Event:
    return {"type": "websocket.send", "text": data}


def binary(data: object) -> Event:
    return {"type": "websocket.send", "bytes": data}


def close(**details: object) -> Event:
    return {"type": "websocket.close", **details}
