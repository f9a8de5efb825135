"""The opening handshake through a synchronous client, in the thread of the caller.

A thread cannot be cancelled, so the deadline is kept in two ways: Zapros is told of it, as the timeouts of the
request; and where Zapros waits without a timeout, as for the greeting of a SOCKS proxy and for TLS in a tunnel, the
socket is shut down when the time is over.

Invariants:

- A stream that was handed over and is not used is closed; so is every other that a handshake without an answer leaves.
- What is waited for: the resolver of the system, and a handler of the caller, as long as they take.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Literal

import anyio
import zapros
from anyio.from_thread import BlockingPortal
from zapros import BaseHandler, BaseNetworkStream, BaseTransport, Client, Response, StdNetworkHandler

from ._answer import BODY_TIMEOUT, MAX_BODY, refused, too_late, translate, whole
from ._errors import HandshakeError
from ._opening import Attempt, Opening
from ._protocol.handshake import Agreement


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What a successful handshake leaves: a stream of Zapros, what came behind the 101, and what was agreed to."""

    stream: BaseNetworkStream
    trailing_data: bytes
    agreement: Agreement
    response: Response


def open_through(opening: Opening, client: Client, timeout: float | None, portal: BlockingPortal) -> HandedOver:
    """Send the request and judge the answer, within ``timeout`` seconds."""
    attempt = opening.attempt(client)
    deadline = Deadline(portal)
    began = monotonic()
    try:
        with (
            deadline.after(timeout),
            client.stream(
                "GET",
                attempt.url,
                headers=opening.headers,
                auth=attempt.auth,
                context=attempt.context(timeout),
                handler=lambda handler: attempt.last_step.in_front_of(handler, deadline.network),
            ) as response,
        ):
            return _judge(attempt, response, deadline, None if timeout is None else began + timeout)
    except HandshakeError:
        raise
    except Exception as error:
        deadline.close_all()
        is_over = timeout is not None and monotonic() - began >= timeout
        # When a handshake of TLS takes too long, Zapros lets the error of Python out.
        if deadline.is_over or (is_over and isinstance(error, (zapros.TimeoutError, TimeoutError))):
            raise too_late(timeout) from error
        translated = translate(error)
        if translated is error:
            raise
        raise translated from error
    except BaseException:
        deadline.close_all()
        raise


def _judge(attempt: Attempt, response: Response, deadline: Deadline, give_up_at: float | None) -> HandedOver:
    handoff = response.context.get("handoff", {})
    stream: BaseNetworkStream | None = handoff.get("network_stream")  # type: ignore[assignment]
    kept = False
    try:
        agreement = attempt.agreement(response, stream)
        if isinstance(agreement, Agreement):
            assert stream is not None
            kept = True
            return HandedOver(stream, handoff.get("trailing_data", b""), agreement, response)
    finally:
        if stream is not None and not kept:
            stream.close()
    # The handshake was answered: what is left is to read why it was refused.
    left = BODY_TIMEOUT if give_up_at is None else min(BODY_TIMEOUT, give_up_at - monotonic())
    with deadline.after(left):
        raise refused(agreement, _with_body(response, monotonic() + left))


def _with_body(response: Response, give_up_at: float) -> Response:
    raw = bytearray()
    try:
        for chunk in response.iter_raw():
            raw += chunk[: MAX_BODY - len(raw)]
            if len(raw) >= MAX_BODY or monotonic() >= give_up_at:
                break
    except Exception:
        # Whatever breaks the body off: the answer stands, with what came of it.
        return whole(response, raw)
    finally:
        response.close()
    return whole(response, raw)


class Deadline:
    """Shuts the sockets of a handshake down when its time is over."""

    def __init__(self, portal: BlockingPortal) -> None:
        self.is_over = False
        self._portal = portal
        self.streams: list[BaseNetworkStream] = []

    @contextmanager
    def after(self, seconds: float | None) -> Generator[None, None, None]:
        """Be there for so many seconds, in the place of any that was set before."""
        if seconds is None:
            yield
            return
        timer = self._portal.start_task_soon(self.wait, seconds)
        try:
            yield
        finally:
            timer.cancel()

    async def wait(self, seconds: float) -> None:
        """Wait for so many seconds, and end what is still under way."""
        await anyio.sleep(max(seconds, 0))
        self.is_over = True
        for stream in self.streams:
            sock: object = getattr(stream, "sock", None)
            if isinstance(sock, socket.socket):
                with suppress(OSError):
                    # Not that of a TLS socket, which would take its TLS away from who is reading.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close_all(self) -> None:
        """Close what was opened and not handed over, which Zapros forgets when it is interrupted."""
        for stream in self.streams:
            stream.close()

    def network(self, handler: BaseHandler) -> BaseHandler:
        """The network handler of Zapros, with an eye on the streams that it opens; any other as it is."""
        return _Watched(handler, self.streams.append) if type(handler) is StdNetworkHandler else handler


class _Watched(StdNetworkHandler):
    """A network handler that is another one, with the same pools, but for its transport."""

    def __init__(self, handler: StdNetworkHandler, opened: Callable[[BaseNetworkStream], None]) -> None:
        vars(self).update(vars(handler))
        self._watched = _WatchedTransport(handler.transport, opened)

    @property
    def transport(self) -> BaseTransport:
        """The transport of the other, watched."""
        return self._watched


class _WatchedTransport:
    """Tells of each stream that a transport opens."""

    def __init__(self, transport: BaseTransport, opened: Callable[[BaseNetworkStream], None]) -> None:
        self._transport = transport
        self._opened = opened

    def connect(
        self,
        host: str,
        port: int,
        server_hostname: str | None = None,
        tls: bool = False,
        *,
        alpn_protocols: list[Literal["http/1.1", "h2"]] | None = None,
        timeout: float | None = None,
    ) -> BaseNetworkStream:
        """Connect as the other does."""
        stream = self._transport.connect(
            host, port, server_hostname, tls, alpn_protocols=alpn_protocols, timeout=timeout
        )
        self._opened(stream)
        return stream
