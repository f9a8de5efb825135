"""The request of an opening handshake gets its last form in front of all handlers of the client.

What Zapros 0.23 does to it on the way, and what is done here about that:

- The client merges queries and headers as dictionaries: the second of two parameters of one name is dropped, and two
  headers that differ in case are both kept. Here the query is as it was given, behind the default parameters of the
  client, and the headers of the call and of the handshake replace whatever stood in their place.
- A redirect is followed wherever it leads. Here a handshake that began with TLS goes nowhere without it, as far down
  as the handlers in front are those of Zapros.
- An IPv6 address is resolved together with its brackets. Here the host has none.
- The credentials of a SOCKS5 proxy are sent to the server behind it. Here they are not, also behind a redirect.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Final, TypeVar, cast

from zapros import (
    URL,
    AsyncBaseHandler,
    AsyncBaseMiddleware,
    AsyncClient,
    BaseHandler,
    BaseMiddleware,
    Client,
    CookieMiddleware,
    Headers,
    ProxyMiddleware,
    RedirectMiddleware,
    Request,
    Response,
    RetryMiddleware,
)

from ._answer import refused, whole
from ._errors import HandshakeError
from ._protocol.handshake import Offer, check_headers

SECURE = {"ws:": False, "http:": False, "wss:": True, "https:": True}
"""The schemes of a WebSocket URL, and whether they stand for TLS."""


# Those of Zapros share what they know with a copy.
_COPYABLE = (CookieMiddleware, ProxyMiddleware, RedirectMiddleware, RetryMiddleware)

_Handler = TypeVar("_Handler", AsyncBaseHandler, BaseHandler)


class _Step(AsyncBaseMiddleware, BaseMiddleware):
    """A middleware for both kinds of client. Like those of Zapros it has the same handler under both names."""

    def stand_before(self, handler: AsyncBaseHandler | BaseHandler) -> None:
        self.async_next = cast("AsyncBaseHandler", handler)
        self.next = cast("BaseHandler", handler)


class LastStep(_Step):
    """The handler that is put in front of those of the client, for one handshake."""

    def __init__(self, offer: Offer, url: URL, client: AsyncClient | Client, headers: Headers) -> None:
        self._headers = [*headers.list(), *offer.headers()]
        self._is_secure = SECURE[url.protocol]
        given = url.search.removeprefix("?")
        named = set(url.search_params)
        defaults = [pair for pair in client.default_params.to_string().split("&") if pair]
        kept = [pair for pair in defaults if pair.partition("=")[0] not in named]
        self._search = "&".join([*kept, given] if given else kept)

    def in_front_of(self, handler: _Handler, network: Callable[[_Handler], _Handler] | None = None) -> LastStep:
        """The handler that does this before ``handler``, with what ``network`` makes of the last of them."""
        self.stand_before(_guarded(handler, self._is_secure, network))
        return self

    async def ahandle(self, request: Request) -> Response:
        """Send the request on."""
        self._finish(request)
        return await self.async_next.ahandle(request)

    def handle(self, request: Request) -> Response:
        """Send the request on."""
        self._finish(request)
        return self.next.handle(request)

    def _finish(self, request: Request) -> None:
        request.url.search = self._search
        for name, value in self._headers:
            request.headers[name] = value
        check_headers(request.headers.list())
        _prepare(request)


class _HeadersForTheServer(Headers):
    """Take no credentials that are those of a SOCKS proxy."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        super().__init__([(name, value) for name in request.headers for value in request.headers.getall(name)])
        self._request = request

    def __setitem__(self, key: str, value: str) -> None:
        if key.lower() != "proxy-authorization" or not self._is_for_socks():
            super().__setitem__(key, value)

    def _is_for_socks(self) -> bool:
        proxy = self._request.context.get("network", {}).get("proxy", {})
        return str(proxy.get("url", "")).startswith("socks")


class _WithoutBrackets(URL):
    """Name an IPv6 address as a resolver and a certificate do."""

    @property  # type: ignore[misc]
    def hostname(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().hostname.strip("[]")


def _prepare(request: Request) -> None:
    request.headers = _HeadersForTheServer(request)
    if request.url.hostname.startswith("["):
        request.url = _WithoutBrackets(request.url.to_string())


class _EachHop(_Step):
    """Stands behind the redirects: each request that they make is prepared like the first, and stays encrypted.

    One that leads to where no request can be sent is refused, in place of whatever error that would be.
    """

    def __init__(self, is_secure: bool) -> None:
        self._is_secure = is_secure

    async def ahandle(self, request: Request) -> Response:
        """Send the request on, or refuse to."""
        self._check(request)
        response = await self.async_next.ahandle(request)
        if not _can_be_followed(request, response):
            await response.aclose()
            raise _leads_nowhere(response)
        return response

    def handle(self, request: Request) -> Response:
        """Send the request on, or refuse to."""
        self._check(request)
        response = self.next.handle(request)
        if not _can_be_followed(request, response):
            response.close()
            raise _leads_nowhere(response)
        return response

    def _check(self, request: Request) -> None:
        if self._is_secure and not SECURE.get(request.url.protocol, False):
            raise HandshakeError(f"a redirect led from wss:// to {request.url.protocol}//, which is not encrypted")
        _prepare(request)


# What Zapros follows; the other statuses from 300 on are answers.
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))


def _can_be_followed(request: Request, response: Response) -> bool:
    location = response.headers.get("Location")
    if response.status not in _REDIRECTS or location is None:
        return True
    try:
        url = URL(location, base=request.url.to_string())
        url.hostname.encode("idna")
    except ValueError:
        return False
    return url.protocol in SECURE


def _leads_nowhere(response: Response) -> HandshakeError:
    return refused("the server redirects to what is not the URL of a WebSocket", whole(response, bytearray()))


def _guarded(handler: _Handler, is_secure: bool, network: Callable[[_Handler], _Handler] | None) -> _Handler:
    # Of middlewares that are not Zapros's own nobody can tell what a copy would be, so they are left alone, with all
    # behind them, and the answer is looked at when it comes.
    if type(handler) not in _COPYABLE:
        return handler if network is None else network(handler)
    copied = copy(handler)
    assert isinstance(copied, _COPYABLE)
    following: tuple[object, object] = copied.async_next, copied.next
    inner: object = _guarded(cast("_Handler", following[not isinstance(handler, AsyncBaseHandler)]), is_secure, network)
    if isinstance(handler, RedirectMiddleware):
        each_hop = _EachHop(is_secure)
        each_hop.stand_before(cast("BaseHandler", inner))
        inner = each_hop
    _Step.stand_before(cast("_Step", copied), cast("BaseHandler", inner))
    return copied
