"""The opening handshake, sent through the user's HTTP client as one GET.

Invariants:

- What is wrong with the arguments is raised before anything is sent, as ValueError or TypeError.
- An answer that is not a valid 101 becomes a HandshakeError; a network error stays Zapros's own; nothing of h11 or
  anyio comes out. A stream that was handed over and is not used is closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import unquote

import trio
import zapros
from anyio import CancelScope, create_task_group, current_time, move_on_after, sleep_until
from zapros import URL, AsyncClient, Client, Headers, RequestContext, Response

from ._answer import BODY_TIMEOUT, MAX_BODY, lines_of, refused, too_late, translate, whole
from ._cancel_once import cancelled_once
from ._last_step import SECURE, LastStep
from ._protocol.handshake import Agreement, Offer, check_headers, check_own_headers
from ._protocol.options import PerMessageDeflateExtension
from ._streams.asgi import AsgiHandle, AsgiStream
from ._streams.sockets import SocketStream
from ._streams.zapros import ZaprosStream

if TYPE_CHECKING:
    from ._streams.base import ByteStream

# Seconds for a response to close, once enough of it was read.
_CLOSE_TIMEOUT: Final = 0.5

# Seconds between a time that runs out beneath and the same time here, which is the last resort.
MARGIN: Final = 0.05


@dataclass(frozen=True, slots=True)
class Opened:
    """What a successful handshake leaves: a stream, what came behind the 101, and what was agreed to."""

    stream: ByteStream
    trailing_data: bytes
    agreement: Agreement
    response: Response


class Opening:
    """One opening handshake, checked and ready to go through a client."""

    def __init__(
        self,
        url: URL | str,
        *,
        subprotocols: Sequence[str] | None,
        permessage_deflate: bool | PerMessageDeflateExtension,
        headers: Mapping[str, str] | Headers | None,
        context: RequestContext | None,
    ) -> None:
        if isinstance(permessage_deflate, bool):
            deflate = PerMessageDeflateExtension() if permessage_deflate else None
        elif isinstance(permessage_deflate, PerMessageDeflateExtension):  # pyright: ignore[reportUnnecessaryIsInstance]
            deflate = permessage_deflate
        else:
            raise TypeError("permessage_deflate is a bool or a PerMessageDeflateExtension")
        if not isinstance(url, (str, URL)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"the url is a str or a zapros.URL, not {type(url).__name__}")
        self._url = url
        self._checked: URL | None = None
        # A name that is no sequence of names is refused as it is.
        names = subprotocols if isinstance(subprotocols, str) else tuple(subprotocols or ())
        self._offer = Offer(names, deflate)
        if not isinstance(context, (Mapping, type(None))):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"the context is a mapping, not {type(context).__name__}")
        self._context = context
        self.headers = _headers(headers)
        check_headers(self.headers.list())
        check_own_headers(self.headers.list())

    def check_url(self, client: AsyncClient | Client | None) -> None:
        """Raise ValueError for a URL that no handshake through ``client`` can be sent to."""
        self._checked = _resolve(self._url, None if client is None else client.base_url)

    def attempt(self, client: AsyncClient | Client) -> Attempt:
        """The handshake through ``client``, with a key of its own (RFC 6455, section 4.1)."""
        offer = Offer(self._offer.subprotocols, self._offer.permessage_deflate)
        # Each has a URL of its own, which it takes the credentials out of, and which the client writes into.
        url, self._checked = self._checked or _resolve(self._url, client.base_url), None
        return Attempt(url, client, offer, self.headers, self._context)

    async def through(self, client: AsyncClient, timeout: float | None) -> Opened:
        """Send the request and judge the answer, within ``timeout`` seconds.

        Cancelling it closes what was opened so far.
        """
        if trio.lowlevel.in_trio_run():
            # Zapros forgets its socket there when it is cancelled, and closes it when the time is its own.
            return await cancelled_once(lambda: self.through_new(client, timeout, timeout))
        return await self.through_new(client, timeout)

    async def through_new(self, client: AsyncClient, timeout: float | None, told: float | None = None) -> Opened:
        """The same through a client that nobody else uses, and whose sockets the caller closes.

        ``told`` is the timeout that Zapros is given; this waits a little longer.
        """
        attempt = self.attempt(client)
        context = attempt.context(told)
        began = current_time()
        with move_on_after(None if timeout is None else timeout + MARGIN) as scope:
            try:
                async with client.stream(
                    "GET",
                    attempt.url,
                    headers=self.headers,
                    auth=attempt.auth,
                    context=context,
                    handler=attempt.last_step.in_front_of,
                ) as response:
                    return await _judge(attempt, response, scope)
            except zapros.TimeoutError as error:
                if timeout is None or current_time() - began < timeout:
                    raise
                raise too_late(timeout) from error
            except Exception as error:
                translated = translate(error)
                if translated is error:
                    raise
                raise translated from error
        raise too_late(timeout)


class Attempt:
    """What there is to one handshake but the waiting: the request, and the judgement on the answer.

    ``url`` is the client's to write into, once.
    """

    def __init__(
        self,
        url: URL,
        client: AsyncClient | Client,
        offer: Offer,
        headers: Headers,
        context: RequestContext | None,
    ) -> None:
        self.url = url
        self._protocol = url.protocol
        self._offer = offer
        self._context = context
        self.auth = _take_credentials(url, client, headers)
        self.last_step = LastStep(offer, url, client, headers)

    def context(self, timeout: float | None) -> RequestContext:
        """The request context, in which the deadlines of Zapros are ``timeout`` unless the caller has set others."""
        context: dict[str, object] = dict(self._context or {})
        if timeout is not None:
            given = (self._context or {}).get("timeouts", {})
            context["timeouts"] = {"connect": timeout, "total": timeout, **given}
        return cast("RequestContext", context)

    def agreement(self, response: Response, stream: object, application: AsgiHandle | None = None) -> Agreement | str:
        """What was agreed to, or what is wrong with the answer."""
        final = response.request.url.protocol if response.request is not None else self._protocol
        if SECURE[self._protocol] and not SECURE.get(final, False):
            return f"a redirect led from {self._protocol}// to {final}//, which is not encrypted"
        if response.status != 101:
            return f"the server answered with status {response.status}"
        if stream is None:
            return "the client's handler answered 101 and handed no network stream over"
        if application is not None:
            # There are no such headers in process: the application has accepted, and named its subprotocol.
            subprotocol = application.accept_subprotocol
            return _complete(self._offer.choose([] if subprotocol is None else [subprotocol]))
        return _complete(self._offer.check(lines_of(response.headers)))


async def _judge(attempt: Attempt, response: Response, scope: CancelScope) -> Opened:
    handoff = response.context.get("handoff", {})
    application = cast("AsgiHandle | None", handoff.get("_asgi_websocket_stream"))
    network = cast("zapros.AsyncBaseNetworkStream | None", handoff.get("network_stream"))
    stream: ByteStream | None = None
    if application is not None:
        stream = AsgiStream(application)
    elif network is not None:
        stream = network if isinstance(network, SocketStream) else ZaprosStream(network)
    try:
        agreement = attempt.agreement(response, stream, application)
        if isinstance(agreement, Agreement):
            assert stream is not None
            opened = Opened(stream, handoff.get("trailing_data", b""), agreement, response)
            stream = None
            return opened
    finally:
        if stream is not None:
            await stream.aclose(grace=0)
    # The handshake was answered: what is left is to read why it was refused.
    deadline, scope.deadline = scope.deadline, inf
    raise refused(agreement, await _with_body(response, deadline))


def _complete(agreement: Agreement | str) -> Agreement | str:
    return agreement if isinstance(agreement, Agreement) else f"the server answered with a 101, but {agreement}"


def _take_credentials(url: URL, client: AsyncClient | Client, headers: Headers) -> tuple[str, str] | None:
    """Move ``user:password@`` out of the URL, and make Basic auth of it unless there is an Authorization."""
    username, password = unquote(url.username), unquote(url.password)
    url.username = url.password = ""
    if not username and not password:
        return None
    if client.auth is not None or "authorization" in client.default_headers or "authorization" in headers:
        return None
    return username, password


def _headers(given: Mapping[str, str] | Headers | None) -> Headers:
    if isinstance(given, Headers):
        return Headers(given)
    try:
        pairs = dict(given or {})
    except (TypeError, ValueError):
        raise TypeError(f"headers is a mapping of str to str, not {type(given).__name__}") from None
    # Looked at before Zapros does, which takes every name for a str.
    check_headers(pairs.items())
    return Headers(pairs)


def _resolve(url: URL | str, base_url: str | None) -> URL:
    try:
        # Also a copy of a URL that was given: the client writes into it.
        resolved = URL(url if isinstance(url, str) else url.to_string(), base_url)
    except ValueError:
        # Without the error of the URL, which repeats it with all its credentials.
        raise ValueError(
            "the url is not valid: it is absolute (ws, wss, http or https), or relative to the base_url of the client"
        ) from None
    if resolved.protocol not in SECURE:
        raise ValueError(f"the url has the scheme {resolved.protocol!r}, and not ws:, wss:, http: or https:")
    if resolved.hash:
        raise ValueError("the url has a fragment, which means nothing to a WebSocket (RFC 6455, section 3)")
    return resolved


async def _with_body(response: Response, deadline: float) -> Response:
    """A response of its own with what comes of the body in a short time, up to 64 KiB."""
    raw = bytearray()

    async def read() -> None:
        try:
            async for chunk in response.async_iter_raw():
                raw.extend(chunk[: MAX_BODY - len(raw)])
                if len(raw) >= MAX_BODY:
                    # The chunks end now by themselves: to leave the loop would be to leave a generator behind.
                    with CancelScope(shield=True), move_on_after(_CLOSE_TIMEOUT):
                        await response.aclose()
        except Exception:
            # Whatever breaks the body off: the answer stands, with what came of it.
            return
        finally:
            tasks.cancel_scope.cancel()

    deadline = min(deadline, current_time() + BODY_TIMEOUT)
    with CancelScope(deadline=deadline + MARGIN):
        async with create_task_group() as tasks:
            tasks.start_soon(read)
            # A read that is cancelled can leave its socket open; one whose response is closed does not.
            await sleep_until(deadline)
            await response.aclose()
    return whole(response, raw)
