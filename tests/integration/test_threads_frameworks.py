"""An application of FastAPI or Litestar on uvicorn in one thread, and the code that talks to it in another."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import cast

import pytest
import uvicorn
import zapros

from tests.asgi.endpoints import HEADERS, SUBPROTOCOL, Disconnects
from zapros_websocket import BinaryMessage, CloseMessage, HandshakeError, TextMessage, connect_ws

disconnects: Disconnects = []


class Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@pytest.fixture(scope="module", params=["fastapi", "litestar"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    module = import_module(f"tests.asgi.{request.param}_application")
    application = cast("Callable[..., object]", module.make(disconnects))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(application, ws="websockets-sansio", log_level="critical")
        server = Server(config)
        thread = threading.Thread(target=server.run, args=[[listener]], daemon=True)
        thread.start()
        assert server.listens.wait(30)
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("given_client", [False, True], ids=["own-client", "given-client"])
def test_an_application_on_uvicorn_in_a_thread(url: str, given_client: bool) -> None:
    disconnects.clear()
    with zapros.Client() as client:
        with connect_ws(
            f"{url}/echo", client=client if given_client else None, subprotocols=["chat.v1", SUBPROTOCOL]
        ) as ws:
            assert ws.subprotocol == SUBPROTOCOL
            for name, value in HEADERS.items():
                assert ws.response.headers[name] == value
            ws.send("hello")
            ws.send(b"\x00\x01")
            assert [ws.recv(), ws.recv()] == [TextMessage("hello"), BinaryMessage(b"\x00\x01")]
            assert ws.ping() >= 0
            ws.close(4000, "enough")
        assert ws.close_code == 4000
        with connect_ws(f"{url}/close", client=client if given_client else None) as ws:
            assert list(ws) == [TextMessage("one")]
            assert (ws.close_code, ws.close_reason) == (4001, "that is all")
        with pytest.raises(HandshakeError):
            connect_ws(f"{url}/reject", client=client if given_client else None).__enter__()
    assert disconnects[0][0] == 4000
    with connect_ws(f"{url}/close") as ws:
        assert [ws.recv(), ws.recv()] == [TextMessage("one"), CloseMessage(4001, "that is all")]
