"""Where there is no answer: nobody listens, TLS fails, or a proxy does not let the client through."""

from __future__ import annotations

import ssl

import pytest
import zapros

from zapros_websocket import HandshakeError, HandshakeTimeoutError, aconnect_ws

from .clients import cleaned_up_client, through
from .processes import ServerProcess, Servers

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("leaks_show")]

CREDENTIALS = "user:secret"


class Attempt:
    """An attempt to connect that fails, with a client of the call's own or with one of the caller."""

    def __init__(self, given_client: bool) -> None:
        self._given_client = given_client

    async def failure(
        self,
        url: str,
        *,
        proxy: str | None = None,
        client_context: ssl.SSLContext | None = None,
        open_timeout: float = 10.0,
    ) -> zapros.ZaprosError:
        """What it ends with."""
        async with cleaned_up_client(client_context) as client:
            with pytest.raises(zapros.ZaprosError) as caught:
                async with aconnect_ws(
                    url,
                    client=client if self._given_client else None,
                    context=None if proxy is None else through(proxy),
                    open_timeout=open_timeout,
                ):
                    pytest.fail("there is no way to the server")
        return caught.value


@pytest.fixture(params=[False, True], ids=["own-client", "given-client"])
def attempt(request: pytest.FixtureRequest) -> Attempt:
    return Attempt(request.param)


async def test_a_refused_connection_is_an_error_of_zapros(attempt: Attempt, closed_port: int) -> None:
    error = await attempt.failure(f"ws://127.0.0.1:{closed_port}/")
    assert isinstance(error, zapros.ConnectionError)


async def test_an_unknown_host_is_an_error_of_zapros(attempt: Attempt) -> None:
    # RFC 6761, section 6.4: nothing below .invalid can be resolved.
    error = await attempt.failure("ws://nobody-is-here.invalid/")
    assert isinstance(error, zapros.ConnectionError)


async def test_a_certificate_that_nobody_vouches_for_is_refused(attempt: Attempt, servers: Servers) -> None:
    error = await attempt.failure(f"{servers.secure().address('wss')}/echo")
    assert isinstance(error, zapros.SSLError)


async def test_a_certificate_for_another_name_is_refused(servers: Servers, client_context: ssl.SSLContext) -> None:
    error = await Attempt(given_client=True).failure(
        f"{servers.secure().address('wss', 'localhost')}/echo", client_context=client_context
    )
    assert isinstance(error, zapros.SSLError)


async def test_a_server_that_does_not_speak_tls_is_an_error_of_zapros(
    attempt: Attempt, aiohttp_server: ServerProcess
) -> None:
    error = await attempt.failure(f"{aiohttp_server.address('wss')}/echo")
    assert isinstance(error, zapros.ConnectionError)


async def test_silence_in_tls_runs_into_the_open_timeout(attempt: Attempt, raw_server: ServerProcess) -> None:
    error = await attempt.failure(f"{raw_server.address('wss')}/", open_timeout=0.2)
    assert isinstance(error, HandshakeTimeoutError)


@pytest.mark.parametrize(("program", "scheme"), [("http_proxy", "http"), ("socks5_proxy", "socks5")])
async def test_a_tunnel_does_not_vouch_for_the_server_behind_it(
    attempt: Attempt, servers: Servers, program: str, scheme: str
) -> None:
    proxy = servers.start(program).address(scheme)
    error = await attempt.failure(f"{servers.secure().address('wss')}/echo", proxy=proxy)
    assert isinstance(error, zapros.SSLError)


@pytest.mark.parametrize(("program", "scheme"), [("http_proxy", "http"), ("socks5_proxy", "socks5")])
@pytest.mark.parametrize("user", ["user:wrong@", ""], ids=["wrong-password", "no-password"])
async def test_a_tunnel_that_is_refused_is_an_error_of_zapros(
    attempt: Attempt, servers: Servers, program: str, scheme: str, user: str
) -> None:
    proxy = servers.start(program, "--credentials", CREDENTIALS).address(scheme, f"{user}127.0.0.1")
    error = await attempt.failure(f"{servers.secure().address('wss')}/echo", proxy=proxy)
    assert isinstance(error, zapros.ConnectionError)


async def test_a_forwarding_proxy_that_refuses_is_a_handshake_error(
    attempt: Attempt, servers: Servers, aiohttp_server: ServerProcess
) -> None:
    proxy = servers.start("http_proxy", "--credentials", CREDENTIALS).address("http")
    error = await attempt.failure(f"{aiohttp_server.address()}/echo", proxy=proxy)
    assert isinstance(error, HandshakeError)
    assert error.response is not None
    assert (error.response.status, error.response.text) == (407, "who asks?")


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_a_proxy_that_is_not_there_is_an_error_of_zapros(
    attempt: Attempt, aiohttp_server: ServerProcess, closed_port: int, scheme: str
) -> None:
    proxy = f"{scheme}://127.0.0.1:{closed_port}"
    error = await attempt.failure(f"{aiohttp_server.address()}/echo", proxy=proxy)
    assert isinstance(error, zapros.ConnectionError)


async def test_a_proxy_that_talks_nonsense_is_an_error_of_zapros_or_of_the_handshake(
    attempt: Attempt, raw_server: ServerProcess
) -> None:
    error = await attempt.failure("wss://127.0.0.1/", proxy=raw_server.address("http"))
    assert isinstance(error, zapros.ConnectionError | HandshakeError)


@pytest.mark.parametrize("scheme", ["https", "socks5"])
async def test_a_silent_proxy_runs_into_the_open_timeout(
    attempt: Attempt, raw_server: ServerProcess, scheme: str
) -> None:
    error = await attempt.failure("ws://127.0.0.1/", proxy=raw_server.address(scheme), open_timeout=0.2)
    assert isinstance(error, HandshakeTimeoutError)
