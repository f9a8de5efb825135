"""The opening handshake, sent through the user's HTTP client as one GET.

Invariants:

- What is wrong with the arguments is raised before anything is sent, as ValueError or TypeError.
- An answer that is not a valid 101 becomes a HandshakeError; a network error stays Zapros's own; nothing of h11 or
  anyio comes out. A stream that was handed over and is not used is closed.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import unquote

import anyio
import trio
import zapros
from anyio import CancelScope, create_task_group, current_time, move_on_after, sleep_until
from zapros import URL, AsyncClient, Headers, RequestContext, Response

from ._cancel_once import cancelled_once
from ._errors import HandshakeError, HandshakeTimeoutError
from ._last_step import SECURE, LastStep
from ._protocol.handshake import Agreement, Offer, check_headers, check_own_headers
from ._protocol.options import PerMessageDeflateExtension
from ._streams.asgi import AsgiHandle, AsgiStream
from ._streams.sockets import SocketStream
from ._streams.zapros import ZaprosStream

if TYPE_CHECKING:
    from ._streams.base import ByteStream

MAX_BODY: Final = 64 * 1024

# Seconds for the body of an answer that refuses the connection, once its headers are there.
BODY_TIMEOUT: Final = 2.0

# Seconds for a response to close, once enough of it was read.
_CLOSE_TIMEOUT: Final = 0.5

# Bytes that are decompressed at once: Zapros inflates what it is given to the end, and four bytes of Zstandard can be
# 128 KiB.
_PIECE: Final = 64

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
        # A name that is no sequence of names is refused as it is.
        names = subprotocols if isinstance(subprotocols, str) else tuple(subprotocols or ())
        self._offer = Offer(names, deflate)
        self._headers = _headers(headers)
        if not isinstance(context, (Mapping, type(None))):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"the context is a mapping, not {type(context).__name__}")
        self._context = context
        check_headers(self._headers.list())
        check_own_headers(self._headers.list())

    async def through(self, client: AsyncClient, timeout: float | None) -> Opened:
        """Send the request and judge the answer, within ``timeout`` seconds.

        Cancelling it closes what was opened so far.
        """
        if trio.lowlevel.in_trio_run():
            return await cancelled_once(lambda: self._through(client, timeout))
        return await self._through(client, timeout)

    async def _through(self, client: AsyncClient, timeout: float | None) -> Opened:
        # Each handshake has a key of its own (RFC 6455, section 4.1).
        self._offer = Offer(self._offer.subprotocols, self._offer.permessage_deflate)
        url = _resolve(self._url, client.base_url)
        auth = self._take_credentials(url, client)
        last_step = LastStep(self._offer, url, client, self._headers)
        context: dict[str, object] = dict(self._context or {})
        if timeout is not None and trio.lowlevel.in_trio_run():
            # Zapros on trio forgets its socket when it is cancelled, and closes it when the time is its own.
            context["timeouts"] = {"connect": timeout, "total": timeout, **(self._context or {}).get("timeouts", {})}
        began = current_time()
        with move_on_after(None if timeout is None else timeout + MARGIN) as scope:
            try:
                async with client.stream(
                    "GET",
                    URL(url.to_string()),
                    headers=self._headers,
                    auth=auth,
                    context=cast("RequestContext", context),
                    handler=last_step.in_front_of,
                ) as response:
                    return await self._judge(response, url, scope)
            except zapros.TimeoutError as error:
                if timeout is None or current_time() - began < timeout:
                    raise
                raise _too_late(timeout) from error
            except Exception as error:
                translated = _translated(error)
                if translated is error:
                    raise
                raise translated from error
        raise _too_late(timeout)

    def _take_credentials(self, url: URL, client: AsyncClient) -> tuple[str, str] | None:
        """Move ``user:password@`` out of the URL, and make Basic auth of it unless there is an Authorization."""
        username, password = unquote(url.username), unquote(url.password)
        url.username = url.password = ""
        if not username and not password:
            return None
        if client.auth is not None or "authorization" in client.default_headers or "authorization" in self._headers:
            return None
        return username, password

    async def _judge(self, response: Response, url: URL, scope: CancelScope) -> Opened:
        handoff = response.context.get("handoff", {})
        application = cast("AsgiHandle | None", handoff.get("_asgi_websocket_stream"))
        network = cast("zapros.AsyncBaseNetworkStream | None", handoff.get("network_stream"))
        stream: ByteStream | None = None
        if application is not None:
            stream = AsgiStream(application)
        elif network is not None:
            stream = network if isinstance(network, SocketStream) else ZaprosStream(network)
        try:
            agreement = self._agreement(response, url, application, stream)
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
        raise HandshakeError(
            f"the opening handshake failed: {agreement}", response=await _with_body(response, deadline)
        )

    def _agreement(
        self, response: Response, url: URL, application: AsgiHandle | None, stream: ByteStream | None
    ) -> Agreement | str:
        final = response.request.url.protocol if response.request is not None else url.protocol
        if SECURE[url.protocol] and not SECURE.get(final, False):
            return f"a redirect led from {url.protocol}// to {final}//, which is not encrypted"
        if response.status != 101:
            return f"the server answered with status {response.status}"
        if stream is None:
            return "the client's handler answered 101 and handed no network stream over"
        if application is not None:
            # There are no such headers in process: the application has accepted, and named its subprotocol.
            subprotocol = application.accept_subprotocol
            return self._complete(self._offer.choose([] if subprotocol is None else [subprotocol]))
        return self._complete(self._offer.check(_lines(response.headers)))

    def _complete(self, agreement: Agreement | str) -> Agreement | str:
        return agreement if isinstance(agreement, Agreement) else f"the server answered with a 101, but {agreement}"


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


def _lines(headers: Headers) -> list[tuple[str, str]]:
    # Each line of a header that stands there more than once: the list of Zapros has only the first.
    return [(name, value) for name in headers for value in headers.getall(name)]


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
    lines = _lines(response.headers)
    pieces = (bytes(raw[start : start + _PIECE]) for start in range(0, len(raw), _PIECE))
    body = _decompressed(Response(response.status, lines, content=pieces))
    headers = [(name, value) for name, value in lines if name.lower() != "content-encoding"]
    whole = Response(response.status, headers, content=body, context=response.context, request=response.request)
    whole.read()
    return whole


def _decompressed(response: Response) -> bytes:
    """The body without its encoding, and no more of it than is kept: a few bytes can stand for gigabytes."""
    body = bytearray()
    try:
        for chunk in response.iter_bytes():
            body += chunk[: MAX_BODY - len(body)]
            if len(body) >= MAX_BODY:
                break
    except Exception:
        # It was cut off, or it is not what it says: the answer stands, with what could be read of it.
        return bytes(body)
    return bytes(body)


def _too_late(timeout: float | None) -> HandshakeTimeoutError:
    return HandshakeTimeoutError(f"the opening handshake did not end within {timeout:g} seconds")


def _translated(error: Exception) -> Exception:
    """The error of this library or of Zapros that stands for what came out of a client."""
    if isinstance(error, (zapros.ConnectionError, OSError)) and not isinstance(error, zapros.SSLError):
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                return zapros.SSLError(f"TLS failed during the opening handshake: {cause}")
            cause = cause.__cause__ or cause.__context__
    if isinstance(error, zapros.ZaprosError):
        return error
    if isinstance(error, OSError):
        return zapros.ConnectionError(f"the connection failed during the opening handshake: {error}")
    if isinstance(error, (trio.BrokenResourceError, anyio.BrokenResourceError, anyio.EndOfStream)):
        return zapros.ConnectionError(f"the connection was lost during the opening handshake: {error!r}")
    if type(error).__module__.partition(".")[0] == "h11":
        return HandshakeError(f"the opening handshake failed: the answer was not HTTP/1.1 ({error})")
    return error
