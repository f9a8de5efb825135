"""The servers, the certificates, and the mark that all tests here bear."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from .processes import ServerProcess, Servers

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def servers(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    certificate = tmp_path_factory.mktemp("tls") / "certificate.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    with Servers(certificate) as servers:
        yield servers


@pytest.fixture
def leaks_show() -> Iterator[None]:
    """Makes a socket that was forgotten fail the test that forgot it, and not a later one."""
    # Only what the test leaves is looked through, which takes no time.
    gc.freeze()
    yield
    gc.collect()
    gc.unfreeze()


@pytest.fixture
def aiohttp_server(servers: Servers) -> ServerProcess:
    """The server that speaks plain HTTP too."""
    return servers.websocket("aiohttp")


@pytest.fixture
def raw_server(servers: Servers) -> ServerProcess:
    """The server that answers as no server should."""
    return servers.start("raw_server")


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on: it was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
