"""What all tests share: the backends that they run on, and an authority for TLS."""

from __future__ import annotations

import ssl
import sys

import pytest
import trustme

pytest_plugins = ["pytester", "zapros_websocket.testing.fixtures"]

Backend = tuple[str, dict[str, object]]

NO_OPTIONS: dict[str, object] = {}

BACKENDS = [
    pytest.param(("trio", NO_OPTIONS), id="trio"),
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
]
if sys.platform != "win32" and sys.implementation.name == "cpython":
    try:
        import uvloop as uvloop
    except ModuleNotFoundError:
        pass
    else:
        BACKENDS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    """Every asynchronous test runs on trio, asyncio and, where it is installed, uvloop."""
    backend: Backend = request.param
    return backend


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority that nobody but the tests knows."""
    return trustme.CA()


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    """A context that trusts that authority alone."""
    return ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    """A context of a server on loopback, with a certificate of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue_cert("localhost", "127.0.0.1", "::1")
    with certificate.private_key_and_cert_chain_pem.tempfile() as path:
        context.load_cert_chain(path)
    context.set_alpn_protocols(["http/1.1"])
    return context
