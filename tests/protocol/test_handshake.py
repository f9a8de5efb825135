"""The opening handshake: what is offered, and every answer that a server can give (RFC 6455, section 4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zapros_websocket._protocol.handshake import Agreement, Offer, check_headers, check_own_headers
from zapros_websocket._protocol.options import PerMessageDeflateExtension

from .wire import steady

Headers = list[tuple[str, str]]

# The nonce of RFC 6455, section 1.3, and the answer to it.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

DEFAULT = PerMessageDeflateExtension()


def deflate(
    *, client_bits: int = 15, server_bits: int = 15, client_forgets: bool = False, server_forgets: bool = False
) -> PerMessageDeflateExtension:
    return PerMessageDeflateExtension(
        client_no_context_takeover=client_forgets,
        server_no_context_takeover=server_forgets,
        client_max_window_bits=client_bits,
        server_max_window_bits=server_bits,
    )


def answer(
    *more: tuple[str, str], upgrade: str = "websocket", connection: str = "Upgrade", accept: str = ACCEPT
) -> Headers:
    return [("Upgrade", upgrade), ("Connection", connection), ("Sec-WebSocket-Accept", accept), *more]


def without(name: str) -> Headers:
    return [header for header in answer() if header[0] != name]


# The offer


def test_the_headers_of_a_plain_offer() -> None:
    assert Offer(key=KEY).headers() == [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ]


def test_every_offer_has_a_key_of_its_own_of_16_bytes() -> None:
    keys = {Offer().key for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {24}


def test_subprotocols_are_offered_in_order() -> None:
    offer = Offer(subprotocols=["graphql-ws", "json", "v2.example.com"])
    assert offer.headers()[4:] == [("Sec-WebSocket-Protocol", "graphql-ws, json, v2.example.com")]


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        pytest.param(deflate(), "client_max_window_bits", id="the defaults"),
        pytest.param(
            deflate(server_forgets=True),
            "server_no_context_takeover; client_max_window_bits",
            id="no takeover by the server",
        ),
        pytest.param(
            deflate(client_forgets=True),
            "client_no_context_takeover; client_max_window_bits",
            id="no takeover by the client",
        ),
        pytest.param(deflate(client_bits=12), "client_max_window_bits=12", id="a window of the client"),
        pytest.param(
            deflate(server_bits=8), "server_max_window_bits=8; client_max_window_bits", id="a window of the server"
        ),
        pytest.param(
            deflate(client_bits=9, server_bits=10, client_forgets=True, server_forgets=True),
            "server_no_context_takeover; client_no_context_takeover; "
            "server_max_window_bits=10; client_max_window_bits=9",
            id="everything",
        ),
    ],
)
def test_the_offer_of_permessage_deflate(wanted: PerMessageDeflateExtension, value: str) -> None:
    headers = Offer(permessage_deflate=wanted).headers()
    assert headers[4:] == [("Sec-WebSocket-Extensions", f"permessage-deflate; {value}")]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([""], id="empty"),
        pytest.param(["a b"], id="a space"),
        pytest.param(["a,b"], id="a comma"),
        pytest.param(["ok", "a\r\nX-Injected: 1"], id="a line break"),
        pytest.param(["a\n"], id="a line feed at the end"),
        pytest.param(["é"], id="beyond ASCII"),
        pytest.param(['"a"'], id="quotes"),
        pytest.param(["a", "b", "a"], id="twice the same"),
    ],
)
def test_what_a_caller_offers_is_checked_when_the_offer_is_made(names: list[str]) -> None:
    with pytest.raises(ValueError, match="subprotocol"):
        Offer(subprotocols=names)


@pytest.mark.parametrize("name", [b"json", 1, None], ids=repr)
def test_a_subprotocol_that_is_not_a_str_raises_type_error(name: object) -> None:
    names: list[object] = ["json", name]
    with pytest.raises(TypeError, match="a subprotocol is a str"):
        Offer(subprotocols=names)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_one_str_is_not_a_sequence_of_subprotocols() -> None:
    with pytest.raises(TypeError, match="not one str"):
        Offer(subprotocols="json")


# The headers of a caller


@pytest.mark.parametrize("value", ["", "a", "a b", "a\tb", "é", "\xff", 'q="1", *', "Basic dXNlcjpwYXNz"])
def test_a_header_that_http_carries_is_taken(value: str) -> None:
    check_headers([("X-Custom.Header_1", value)])


@pytest.mark.parametrize(
    "value", ["a\r\nX-Injected: 1", "a\n", "\ra", "a\0b", " a", "a ", "\ta", "a\x7f", "a\x01", "€", " "]
)
def test_a_value_that_http_cannot_carry_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(ValueError, match="the value of the header 'X-Secret'") as caught:
        check_headers([("Fine", "fine"), ("X-Secret", value)])
    assert "Injected" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "a\n", "é", "(a)"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a token"):
        check_headers([(name, "value")])


@pytest.mark.parametrize(("name", "value"), [(b"name", "value"), ("name", b"value"), ("name", None), ("name", 1)])
def test_a_header_that_is_not_made_of_strings_raises_type_error(name: object, value: object) -> None:
    with pytest.raises(TypeError, match="must be str"):
        check_headers([(name, value)])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "name",
    ["Connection", "upgrade", "Sec-WebSocket-Key", "sec-websocket-version", "SEC-WEBSOCKET-EXTENSIONS"],
)
def test_a_header_that_the_opening_handshake_sets_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="belongs to the opening handshake"):
        check_own_headers([("Host", "example.com"), (name, "value")])


def test_any_other_header_is_taken() -> None:
    check_own_headers([("Host", "example.com"), ("Origin", "https://example.com"), ("Sec-Fetch-Mode", "websocket")])


# The answer


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(answer(), id="as most servers write it"),
        pytest.param(answer(upgrade="WebSocket", connection="upgrade"), id="in another case"),
        pytest.param([(name.upper(), value) for name, value in answer()], id="names in another case"),
        pytest.param(answer(connection="keep-alive, Upgrade"), id="beside another token"),
        pytest.param(answer(("Connection", "close"), ("X-Other", "1")), id="beside other headers"),
        pytest.param(answer(accept=f" {ACCEPT} "), id="with space around it"),
        pytest.param(answer(("Sec-WebSocket-Extensions", "")), id="with an empty list of extensions"),
        pytest.param(answer(("Sec-WebSocket-Extensions", " , ,")), id="with a list of no extensions"),
    ],
)
def test_an_answer_that_fits_a_plain_offer(headers: Headers) -> None:
    assert Offer(key=KEY).check(headers) == Agreement(None, None)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        pytest.param([], "Upgrade", id="no headers"),
        pytest.param(without("Upgrade"), "Upgrade header", id="no Upgrade"),
        pytest.param(answer(upgrade="h2c"), "Upgrade header", id="another Upgrade"),
        pytest.param(answer(upgrade="websocket2"), "Upgrade header", id="a longer Upgrade"),
        pytest.param(without("Connection"), "Connection header", id="no Connection"),
        pytest.param(answer(connection="keep-alive"), "Connection header", id="another Connection"),
        pytest.param(without("Sec-WebSocket-Accept"), "Sec-WebSocket-Accept", id="no Accept"),
        pytest.param(answer(accept=""), "Sec-WebSocket-Accept", id="an empty Accept"),
        pytest.param(answer(accept=KEY), "Sec-WebSocket-Accept", id="the key as Accept"),
        pytest.param(answer(accept=ACCEPT.lower()), "Sec-WebSocket-Accept", id="Accept in another case"),
        pytest.param(answer(("Sec-WebSocket-Accept", ACCEPT)), "Sec-WebSocket-Accept", id="Accept twice"),
        pytest.param(answer(("Sec-WebSocket-Protocol", "json")), "'json'", id="a subprotocol"),
        pytest.param(answer(("Sec-WebSocket-Protocol", "")), "subprotocol", id="an empty subprotocol"),
        pytest.param(answer(("Sec-WebSocket-Extensions", "permessage-deflate")), "extensions", id="an extension"),
    ],
)
def test_a_servers_answer_never_raises_it_is_words_that_say_what_is_wrong(headers: Headers, words: str) -> None:
    result = Offer(key=KEY).check(headers)
    assert isinstance(result, str)
    assert words in result


PARAMETERS = [
    "permessage-deflate",
    "client_no_context_takeover",
    "server_no_context_takeover",
    "client_max_window_bits",
    "client_max_window_bits=9",
    'server_max_window_bits="10"',
    "server_max_window_bits=16",
    "",
    "=",
    ",",
]


@steady
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Upgrade", "Connection", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "X"]),
            st.text(max_size=40) | st.lists(st.sampled_from(PARAMETERS), max_size=4).map("; ".join),
        )
    )
)
def test_a_servers_answer_never_raises_whatever_it_is(more: Headers) -> None:
    offer = Offer(subprotocols=["json"], permessage_deflate=DEFAULT, key=KEY)
    for headers in (more, answer(*more)):
        result = offer.check(headers)
        assert isinstance(result, Agreement) or result


# Only what was offered can be agreed to


def subprotocols(*values: str) -> Headers:
    return answer(*(("Sec-WebSocket-Protocol", value) for value in values))


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        pytest.param([], None, id="none"),
        pytest.param(["json"], "json", id="the first"),
        pytest.param(["graphql-ws"], "graphql-ws", id="the second"),
        pytest.param([" json "], "json", id="with space around it"),
    ],
)
def test_the_subprotocol_that_the_server_chose(values: list[str], chosen: str | None) -> None:
    offer = Offer(subprotocols=("json", "graphql-ws"), key=KEY)
    assert offer.check(subprotocols(*values)) == Agreement(chosen)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(["xml"], id="one that was not offered"),
        pytest.param(["JSON"], id="one in another case"),
        pytest.param(["json, graphql-ws"], id="two in one header"),
        pytest.param(["json", "graphql-ws"], id="two headers"),
        pytest.param(["json", "json"], id="the same twice"),
        pytest.param([""], id="an empty one"),
    ],
)
def test_no_other_subprotocol_can_be_agreed_to(values: list[str]) -> None:
    result = Offer(subprotocols=("json", "graphql-ws"), key=KEY).check(subprotocols(*values))
    assert isinstance(result, str)
    assert "not offered" in result


def test_a_choice_without_headers() -> None:
    offer = Offer(subprotocols=("json",))
    assert offer.choose([]) == Agreement()
    assert offer.choose(["json"], DEFAULT) == Agreement("json", DEFAULT)
    assert isinstance(offer.choose(["xml"]), str)
