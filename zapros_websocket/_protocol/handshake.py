"""The opening handshake (RFC 6455, section 4): the headers of the request, and the answer checked.

Invariants:

- What a caller offers is checked when the ``Offer`` is made, before anything is sent.
- A server's answer never raises: it is an ``Agreement``, or a ``str`` that says what is wrong with it.
- Only what was offered can be agreed to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from wsproto.utilities import generate_accept_token, generate_nonce

from .options import PerMessageDeflateExtension

# RFC 9110, sections 5.6.2 and 5.5.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE: Final = re.compile(r"([\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_WINDOW_BITS: Final = re.compile(r"8|9|1[0-5]")

_DEFLATE: Final = "permessage-deflate"
_OWN_HEADERS: Final = ("connection", "upgrade")
_OWN_PREFIX: Final = "sec-websocket-"
_BODY_HEADERS: Final = ("content-length", "transfer-encoding")


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError for a header that HTTP cannot carry, such as one with a line break (header injection).

    And TypeError for one that is not made of strings.
    """
    for name, value in headers:
        if not isinstance(name, str) or not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"the name and the value of the header {name!r} must be str")
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"the header name {name!r} is not a token of HTTP")
        # A value can be a credential: it is not repeated in the error.
        if not _FIELD_VALUE.fullmatch(value):
            raise ValueError(f"the value of the header {name!r} has a character that HTTP cannot carry")


def check_own_headers(headers: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError for a header that the opening handshake sets by itself, or that tells of a body."""
    for name, _ in headers:
        if name.lower() in _BODY_HEADERS:
            raise ValueError(f"the header {name!r} tells of a body, and an opening handshake has none")
        if name.lower() in _OWN_HEADERS or name.lower().startswith(_OWN_PREFIX):
            raise ValueError(
                f"the header {name!r} belongs to the opening handshake: use subprotocols= and permessage_deflate="
            )


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both sides agreed to."""

    subprotocol: str | None = None
    permessage_deflate: PerMessageDeflateExtension | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """What the client asks for in one opening handshake.

    Raises:
        TypeError: ``subprotocols`` is one string, or has something else in it.
        ValueError: a subprotocol is not a token of HTTP, or is named twice.
    """

    subprotocols: Sequence[str] = ()
    permessage_deflate: PerMessageDeflateExtension | None = None
    key: str = field(default_factory=lambda: generate_nonce().decode())

    def __post_init__(self) -> None:
        if isinstance(self.subprotocols, str):
            raise TypeError("subprotocols is a sequence of names, not one str")
        for name in self.subprotocols:
            if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"a subprotocol is a str, not {name!r}")
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"the subprotocol {name!r} is not a token of HTTP")
        if len(set(self.subprotocols)) < len(self.subprotocols):
            raise ValueError("a subprotocol is named twice")

    def headers(self) -> list[tuple[str, str]]:
        """The headers that make a GET an opening handshake (section 4.1)."""
        headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", self.key),
        ]
        if self.subprotocols:
            headers.append(("Sec-WebSocket-Protocol", ", ".join(self.subprotocols)))
        if self.permessage_deflate is not None:
            headers.append(("Sec-WebSocket-Extensions", _deflate_offer(self.permessage_deflate)))
        return headers

    def check(self, headers: Iterable[tuple[str, str]]) -> Agreement | str:
        """The agreement that the headers of a 101 stand for, or what is wrong with them (section 4.1)."""
        answer: dict[str, list[str]] = {}
        for name, value in headers:
            answer.setdefault(name.lower(), []).append(value)
        if "websocket" not in _tokens(answer, "upgrade"):
            return "its Upgrade header does not name websocket"
        if "upgrade" not in _tokens(answer, "connection"):
            return "its Connection header does not name Upgrade"
        accept = generate_accept_token(self.key.encode()).decode()
        if [value.strip() for value in answer.get("sec-websocket-accept", [])] != [accept]:
            return "its Sec-WebSocket-Accept header does not match the request"
        subprotocols = [value.strip() for value in answer.get("sec-websocket-protocol", [])]
        deflate = self._check_extensions(", ".join(answer.get("sec-websocket-extensions", [])))
        if isinstance(deflate, str):
            return deflate
        return self.choose(subprotocols, deflate)

    def choose(self, subprotocols: Sequence[str], deflate: PerMessageDeflateExtension | None = None) -> Agreement | str:
        """The agreement on the subprotocol that the server named."""
        if not subprotocols:
            return Agreement(None, deflate)
        if len(subprotocols) > 1 or subprotocols[0] not in self.subprotocols:
            return f"it names the subprotocol {', '.join(subprotocols)!r}, which was not offered"
        return Agreement(subprotocols[0], deflate)

    def _check_extensions(self, value: str) -> PerMessageDeflateExtension | str | None:
        # No parameter of permessage-deflate has a comma or a semicolon in it, quoted or not.
        extensions = [part.strip() for part in value.split(",") if part.strip()]
        if not extensions:
            return None
        name, *parameters = (part.strip() for part in extensions[0].split(";"))
        if len(extensions) > 1 or name != _DEFLATE or self.permessage_deflate is None:
            return f"it names the extensions {value!r}, which were not offered"
        return _deflate_answer(parameters, self.permessage_deflate)


def _tokens(headers: dict[str, list[str]], name: str) -> list[str]:
    return [token.strip().lower() for value in headers.get(name, []) for token in value.split(",")]


def _deflate_offer(wanted: PerMessageDeflateExtension) -> str:
    """An offer that common servers accept: it names no window that is the default (RFC 7692, section 7.1.2)."""
    parts = [_DEFLATE]
    if wanted.server_no_context_takeover:
        parts.append("server_no_context_takeover")
    if wanted.client_no_context_takeover:
        parts.append("client_no_context_takeover")
    if wanted.server_max_window_bits < 15:
        parts.append(f"server_max_window_bits={wanted.server_max_window_bits}")
    # Without a value it tells the server that it may choose the window of the client.
    bits = f"={wanted.client_max_window_bits}" if wanted.client_max_window_bits < 15 else ""
    parts.append(f"client_max_window_bits{bits}")
    return "; ".join(parts)


def _deflate_answer(parameters: Sequence[str], offered: PerMessageDeflateExtension) -> PerMessageDeflateExtension | str:
    """What a server agreed to, or why that cannot be (RFC 7692, section 7.1)."""
    answer: dict[str, str | None] = {}
    for parameter in parameters:
        name, equals, value = (part.strip() for part in parameter.partition("="))
        if name in answer:
            return f"it names the parameter {name!r} of {_DEFLATE} twice"
        answer[name] = value.removeprefix('"').removesuffix('"') if equals else None
    flags: dict[str, bool] = {}
    for name in ("client_no_context_takeover", "server_no_context_takeover"):
        flags[name] = name in answer
        if answer.pop(name, None) is not None:
            return f"it gives the parameter {name!r} of {_DEFLATE} a value"
    if offered.server_no_context_takeover and not flags["server_no_context_takeover"]:
        return f"it does not agree to server_no_context_takeover, without which {_DEFLATE} was not offered"
    bits: dict[str, int] = {}
    for name, most in (
        ("client_max_window_bits", offered.client_max_window_bits),
        ("server_max_window_bits", offered.server_max_window_bits),
    ):
        if name not in answer:
            # A smaller window of the server is a condition of the offer; that of the client is this side's own.
            if name == "server_max_window_bits" and most < 15:
                return f"it does not agree to {name}={most}, without which {_DEFLATE} was not offered"
            bits[name] = most
            continue
        value = answer.pop(name) or ""
        if not _WINDOW_BITS.fullmatch(value) or int(value) > most:
            return f"it names {name}={value!r}, which is not from 8 to {most}"
        bits[name] = int(value)
    if answer:
        return f"it names {', '.join(answer)!r}, which {_DEFLATE} does not have"
    return replace(
        offered,
        client_no_context_takeover=flags["client_no_context_takeover"] or offered.client_no_context_takeover,
        server_no_context_takeover=flags["server_no_context_takeover"],
        client_max_window_bits=bits["client_max_window_bits"],
        server_max_window_bits=bits["server_max_window_bits"],
    )
