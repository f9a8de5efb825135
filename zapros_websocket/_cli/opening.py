"""The connection of a command: what was asked for on the command line becomes a WebSocket, or a status."""

from __future__ import annotations

import signal
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import zapros
from anyio import CancelScope, create_task_group, open_signal_receiver

from .. import aconnect_ws
from .._errors import HandshakeError, HandshakeTimeoutError
from .._streams.transport import SocketTransport
from .addresses import without_credentials
from .status import SIGNALLED, Status

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from .._connection import AsyncWebSocket
    from .display import Display

CLOSE_TIMEOUT: Final = 5.0
MAX_BODY_SHOWN: Final = 500
TRUST: Final = "SSL_CERT_FILE=PATH in the environment names authorities to trust; --insecure believes every certificate"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and how."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    subprotocols: tuple[str, ...] = ()
    auth: str | None = None
    deflate: bool = False
    insecure: bool = False
    proxy: str | None = None
    timeout: float = 10.0
    max_size: int = 64 * 1024 * 1024


async def over_a_connection(
    target: Target, display: Display, talk: Callable[[AsyncWebSocket], Awaitable[Status]]
) -> int:
    """Connect, talk, close; Ctrl-C and SIGTERM close politely. The exit status."""
    status: int = Status.FAILED
    interrupt = Interrupt()
    async with create_task_group() as tasks:
        await tasks.start(interrupt.watch)
        with interrupt.scope:
            status = await _connect_and_talk(target, display, talk)
        tasks.cancel_scope.cancel()
    return status if interrupt.number is None else SIGNALLED + interrupt.number


class Interrupt:
    """Cancels a scope when a signal asks for the end."""

    def __init__(self) -> None:
        self.scope = CancelScope()
        self.number: int | None = None

    async def watch(self, *, task_status: TaskStatus[None]) -> None:
        """Wait for a signal."""
        with open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                self.number = number
                self.scope.cancel()


async def _connect_and_talk(
    target: Target, display: Display, talk: Callable[[AsyncWebSocket], Awaitable[Status]]
) -> Status:
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(_trusting_client()) if target.insecure else None
            ws = await stack.enter_async_context(_connecting(target, client))
        except HandshakeTimeoutError as error:
            display.complain(f"{error}")
            return Status.NO_CONNECTION
        except HandshakeError as error:
            display.complain(f"{error}")
            if error.response is not None:
                for line in error.response.read().decode(errors="replace")[:MAX_BODY_SHOWN].splitlines():
                    display.complain(f"  {line}")
            return Status.REFUSED
        except zapros.ZaprosError as error:
            display.complain(f"no connection: {error}")
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                display.complain(TRUST)
            return Status.NO_CONNECTION
        except (TypeError, ValueError) as error:
            display.complain(f"{error}")
            return Status.USAGE
        except RuntimeError as error:
            # There is no wsproto.
            display.complain(f"{error}")
            return Status.FAILED
        agreed: list[str] = []
        if target.subprotocols:
            agreed.append(f"subprotocol {ws.subprotocol}" if ws.subprotocol else "no subprotocol")
        if target.deflate:
            agreed.append("compressed" if ws.permessage_deflate else "not compressed")
        details = f" ({', '.join(agreed)})" if agreed else ""
        display.say(f"connected to {without_credentials(target.url)}{details}")
        return await talk(ws)


def _connecting(target: Target, client: zapros.AsyncClient | None) -> aconnect_ws:
    headers = dict(target.headers)
    if target.auth is not None:
        headers["Authorization"] = authorization(target.auth)
    return aconnect_ws(
        target.url,
        client=client,
        subprotocols=target.subprotocols,
        permessage_deflate=target.deflate,
        headers=headers,
        max_message_size=target.max_size,
        open_timeout=target.timeout,
        close_timeout=CLOSE_TIMEOUT,
        context=None if target.proxy is None else {"network": {"proxy": {"url": target.proxy}}},
    )


def authorization(credentials: str) -> str:
    """The header for ``USER:PASSWORD`` (RFC 7617), or for a token (RFC 6750)."""
    if ":" in credentials:
        return f"Basic {b64encode(credentials.encode()).decode()}"
    return f"Bearer {credentials}"


@asynccontextmanager
async def _trusting_client() -> AsyncGenerator[zapros.AsyncClient]:
    """A client that believes every certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    transport = SocketTransport(ssl_context=context)
    async with zapros.AsyncClient(handler=zapros.AsyncStdNetworkHandler(transport=transport)) as client:
        try:
            yield client
        finally:
            transport.close_all_but(None)
