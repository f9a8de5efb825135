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

from copy import copy

from zapros import (
    URL,
    AsyncBaseHandler,
    AsyncBaseMiddleware,
    AsyncClient,
    CookieMiddleware,
    Headers,
    RedirectMiddleware,
    Request,
    Response,
    RetryMiddleware,
)

from ._errors import HandshakeError
from ._protocol.handshake import Offer, check_headers

SECURE = {"ws:": False, "http:": False, "wss:": True, "https:": True}
"""The schemes of a WebSocket URL, and whether they stand for TLS."""


class LastStep(AsyncBaseMiddleware):
    """The handler that is put in front of those of the client, for one handshake."""

    def __init__(self, offer: Offer, url: URL, client: AsyncClient, headers: Headers) -> None:
        self._headers = [*headers.list(), *offer.headers()]
        self._is_secure = SECURE[url.protocol]
        given = url.search.removeprefix("?")
        named = set(url.search_params)
        defaults = [pair for pair in client.default_params.to_string().split("&") if pair]
        kept = [pair for pair in defaults if pair.partition("=")[0] not in named]
        self._search = "&".join([*kept, given] if given else kept)

    def in_front_of(self, handler: AsyncBaseHandler) -> AsyncBaseHandler:
        """The handler that does this before ``handler``."""
        self.async_next = _with_each_hop(handler, self._is_secure)
        return self

    async def ahandle(self, request: Request) -> Response:
        """Send the request on."""
        request.url.search = self._search
        for name, value in self._headers:
            request.headers[name] = value
        check_headers(request.headers.list())
        _prepare(request)
        return await self.async_next.ahandle(request)


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
    request.url = _WithoutBrackets(request.url.to_string())


class _EachHop(AsyncBaseMiddleware):
    """Stands behind the redirects: each request that they make is prepared like the first, and stays encrypted."""

    def __init__(self, handler: AsyncBaseHandler, is_secure: bool) -> None:
        self.async_next = handler
        self._is_secure = is_secure

    async def ahandle(self, request: Request) -> Response:
        """Send the request on, or refuse to."""
        if self._is_secure and not SECURE.get(request.url.protocol, False):
            raise HandshakeError(f"a redirect led from wss:// to {request.url.protocol}//, which is not encrypted")
        _prepare(request)
        return await self.async_next.ahandle(request)


def _with_each_hop(handler: AsyncBaseHandler, is_secure: bool) -> AsyncBaseHandler:
    # The middlewares of Zapros share what they know with a copy; of others nobody can tell, so they are left alone,
    # and the answer is looked at when it comes.
    if type(handler) not in (CookieMiddleware, RedirectMiddleware, RetryMiddleware):
        return handler
    guarded = copy(handler)
    assert isinstance(handler, AsyncBaseMiddleware)
    assert isinstance(guarded, AsyncBaseMiddleware)
    inner = handler.async_next
    is_redirect = isinstance(handler, RedirectMiddleware)
    guarded.async_next = _EachHop(inner, is_secure) if is_redirect else _with_each_hop(inner, is_secure)
    return guarded
