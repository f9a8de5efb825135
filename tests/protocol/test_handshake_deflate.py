"""What a server may agree to of permessage-deflate (RFC 7692, section 7.1), parameter by parameter."""

from __future__ import annotations

import pytest

from zapros_websocket._protocol.handshake import Agreement, Offer
from zapros_websocket._protocol.options import PerMessageDeflateExtension

from .test_handshake import DEFAULT, KEY, answer, deflate

NOT_A_WINDOW = ["", "=", '=""', "=7", "=16", "=0", "=010", "=-9", "=+9", "=9.0", "=1_0", "=9 9", "=ten", "=\u0669"]


def check(offered: PerMessageDeflateExtension | None, *values: str) -> Agreement | str:
    headers = answer(*(("Sec-WebSocket-Extensions", value) for value in values))
    return Offer(permessage_deflate=offered, key=KEY).check(headers)


@pytest.mark.parametrize(
    ("offered", "parameters", "agreed"),
    [
        pytest.param(deflate(), "", deflate(), id="nothing more"),
        pytest.param(
            deflate(), "; client_no_context_takeover", deflate(client_forgets=True), id="the client must forget"
        ),
        pytest.param(
            deflate(), "; server_no_context_takeover", deflate(server_forgets=True), id="the server forgets unasked"
        ),
        pytest.param(
            deflate(server_forgets=True),
            "; server_no_context_takeover",
            deflate(server_forgets=True),
            id="the server forgets as asked",
        ),
        pytest.param(
            deflate(client_forgets=True), "", deflate(client_forgets=True), id="the client forgets though it need not"
        ),
        pytest.param(deflate(), "; client_max_window_bits=8", deflate(client_bits=8), id="the least for the client"),
        pytest.param(deflate(), "; client_max_window_bits=15", deflate(), id="the most for the client"),
        pytest.param(
            deflate(client_bits=12), "; client_max_window_bits=12", deflate(client_bits=12), id="what the client hinted"
        ),
        pytest.param(
            deflate(client_bits=12), "; client_max_window_bits=9", deflate(client_bits=9), id="less than was hinted"
        ),
        pytest.param(deflate(client_bits=12), "", deflate(client_bits=12), id="the client keeps its own window"),
        pytest.param(deflate(), "; server_max_window_bits=8", deflate(server_bits=8), id="the least of a server"),
        pytest.param(deflate(), "; server_max_window_bits=10", deflate(server_bits=10), id="a server's own constraint"),
        pytest.param(
            deflate(server_bits=12), "; server_max_window_bits=12", deflate(server_bits=12), id="what was asked for"
        ),
        pytest.param(
            deflate(server_bits=12), "; server_max_window_bits=9", deflate(server_bits=9), id="less than was asked for"
        ),
        pytest.param(deflate(), '; server_max_window_bits="10"', deflate(server_bits=10), id="a quoted value"),
        pytest.param(
            deflate(),
            ";server_max_window_bits = 10 ;client_no_context_takeover",
            deflate(server_bits=10, client_forgets=True),
            id="space in other places",
        ),
        pytest.param(
            deflate(),
            "; server_max_window_bits=10; client_max_window_bits=11; server_no_context_takeover; "
            "client_no_context_takeover",
            deflate(client_bits=11, server_bits=10, client_forgets=True, server_forgets=True),
            id="everything",
        ),
    ],
)
def test_what_was_offered_can_be_agreed_to(
    offered: PerMessageDeflateExtension, parameters: str, agreed: PerMessageDeflateExtension
) -> None:
    assert check(offered, f"permessage-deflate{parameters}") == Agreement(None, agreed)


def test_no_extension_is_an_answer_to_an_offer() -> None:
    assert check(DEFAULT) == Agreement()
    assert check(DEFAULT, "") == Agreement()


@pytest.mark.parametrize(
    ("offered", "parameters", "words"),
    [
        pytest.param(deflate(), "; client_no_context_takeover=1", "a value", id="a flag with a value"),
        pytest.param(deflate(), "; server_no_context_takeover=", "a value", id="a flag with an empty value"),
        pytest.param(deflate(server_forgets=True), "", "does not agree", id="a server that does not forget as asked"),
        pytest.param(deflate(server_bits=12), "", "does not agree", id="a server without the window asked for"),
        pytest.param(
            deflate(server_bits=12), "; server_max_window_bits=13", "8 to 12", id="a larger window of a server"
        ),
        pytest.param(
            deflate(client_bits=12), "; client_max_window_bits=13", "8 to 12", id="a larger window of the client"
        ),
        *(
            pytest.param(deflate(), f"; {side}_max_window_bits{value}", "8 to 15", id=f"{side} with {value!a}")
            for side in ("client", "server")
            for value in NOT_A_WINDOW
        ),
        pytest.param(deflate(), "; server_max_window_bits=10; server_max_window_bits=10", "twice", id="a window twice"),
        pytest.param(deflate(), "; client_no_context_takeover; client_no_context_takeover", "twice", id="a flag twice"),
        pytest.param(deflate(), "; mode=fast", "'mode'", id="an unknown parameter"),
        pytest.param(deflate(), "; Server_No_Context_Takeover", "Server_No", id="a parameter in another case"),
        pytest.param(deflate(), ";", "does not have", id="an empty parameter"),
    ],
)
def test_parameters_that_cannot_be(offered: PerMessageDeflateExtension, parameters: str, words: str) -> None:
    result = check(offered, f"permessage-deflate{parameters}")
    assert isinstance(result, str)
    assert words in result


@pytest.mark.parametrize(
    ("offered", "values"),
    [
        pytest.param(None, ["permessage-deflate"], id="nothing was offered"),
        pytest.param(DEFAULT, ["permessage-brotli"], id="another extension"),
        pytest.param(DEFAULT, ["x-webkit-deflate-frame"], id="an old extension"),
        pytest.param(DEFAULT, ["permessage-deflate, permessage-deflate"], id="twice"),
        pytest.param(DEFAULT, ["permessage-deflate", "permessage-deflate"], id="in two headers"),
        pytest.param(DEFAULT, ["permessage-deflate, permessage-brotli"], id="with another one behind it"),
        pytest.param(DEFAULT, ["permessage-brotli", "permessage-deflate"], id="with another one in front"),
        pytest.param(DEFAULT, ["; permessage-deflate"], id="without a name"),
    ],
)
def test_extensions_that_were_not_offered(offered: PerMessageDeflateExtension | None, values: list[str]) -> None:
    result = check(offered, *values)
    assert isinstance(result, str)
    assert "not offered" in result
