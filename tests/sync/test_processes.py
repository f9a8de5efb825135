"""SPEC "Sync": the end of the interpreter, forks, signals and forgotten connections, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
DEADLINE = 60

# A connection to the other end of a socket pair, which the program holds as ``server.peer``.
PRELUDE = """
import gc, os, signal, sys, threading, time, warnings
from tests.sync.peers import Background, PairServer
from zapros_websocket import ConnectionClosed, connect_ws

server = PairServer()
connection = connect_ws("ws://test/", client=server.client)
"""


def run(program: str, *options: str) -> str:
    """Run the program, and return what it printed; it must end by itself, with status 0 and no complaint."""
    code = PRELUDE + textwrap.dedent(program)
    completed = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=PROJECT,
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stderr == ""
    return completed.stdout


def test_a_forgotten_connection_does_not_hang_the_exit_and_says_goodbye() -> None:
    output = run(
        """
        import atexit

        # Registered before the first connection is opened, it runs when that has been ended.
        atexit.register(lambda: print(server.peer.receive()))
        ws = connection.__enter__()

        def receive():
            try:
                ws.recv()
            except ConnectionClosed as closed:
                print(closed.code)

        threading.Thread(target=receive, daemon=True).start()
        """
    )
    assert "NORMAL_CLOSURE: 1000" in output


def test_an_exit_inside_the_block() -> None:
    assert run(
        """
        with connection as ws:
            print("in", flush=True)
            sys.exit(0)
        """
    ) == ("in\n")


def test_a_connection_that_is_collected_warns_and_is_closed() -> None:
    output = run(
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ws = connection.__enter__()
            peer = server.peer
            del ws, connection
            gc.collect()
        [warning] = caught
        print(warning.category.__name__, warning.message)
        print(peer.receive())
        """
    )
    assert "ResourceWarning unclosed <WebSocket open>: leave its block, or call close()" in output
    assert "NORMAL_CLOSURE: 1000" in output


def test_a_connection_that_was_closed_is_collected_in_silence() -> None:
    program = """
        ws = connection.__enter__()
        serving = Background(server.peer.serve)
        ws.close()
        serving.result()
        server.peer.sock.close()
        del ws, connection
        gc.collect()
        print("quiet")
        """
    assert run(program, "-W", "error") == ("quiet\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_after_a_fork_the_child_gets_an_error_and_can_connect_anew() -> None:
    output = run(
        """
        # Python 3.12 and later warn of threads beside a fork, which is what this is about.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        with connection as ws:
            child = os.fork()
            if child == 0:
                leave = lambda: connection.__exit__(None, None, None)
                for call in (ws.recv, lambda: ws.send("x"), ws.close, ws.ping, leave):
                    try:
                        call()
                    except RuntimeError as error:
                        print(error)
                with connect_ws("ws://test/", client=server.client) as other:
                    other.send("from the child")
                    print(server.peer.receive_message())
                    Background(server.peer.serve)
                # What was raised in a block that a child inherits comes out as it is.
                try:
                    raise ValueError("mine")
                except ValueError as error:
                    connection.__exit__(ValueError, error, None)
                del ws, connection
                gc.collect()
                sys.stdout.flush()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            ws.send("from the parent")
            print(server.peer.receive_message())
            Background(server.peer.serve)
        """
    )
    lines = output.splitlines()
    assert len([line for line in lines if "before the process was forked" in line]) == 5
    assert lines[5:] == ["from the child", "from the parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.parametrize("is_known", [True, False])
def test_after_a_fork_a_portal_that_was_inherited_is_refused(*, is_known: bool) -> None:
    output = run(
        f"""
        from anyio.from_thread import start_blocking_portal
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        with start_blocking_portal() as portal:
            if {is_known}:
                with connect_ws("ws://test/", client=server.client, portal=portal, close_timeout=0):
                    pass
            child = os.fork()
            if child == 0:
                try:
                    connect_ws("ws://test/", client=server.client, portal=portal).__enter__()
                except RuntimeError as error:
                    print(error)
                with start_blocking_portal() as own:
                    with connect_ws("ws://test/", client=server.client, portal=own) as other:
                        other.send("from the child")
                        print(server.peer.receive_message())
                        Background(server.peer.serve)
                sys.stdout.flush()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        """
    )
    refused, sent = output.splitlines()
    assert "this portal was started before the process was forked" in refused
    assert sent == "from the child"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_after_a_fork_in_the_middle_of_a_message_it_is_that_of_the_parent() -> None:
    output = run(
        """
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        from wsproto.events import TextMessage

        def chunks():
            yield "from "
            global child
            child = os.fork()
            yield "the parent" if child else "the child"

        with connect_ws(
            "ws://test/", client=server.client, max_message_size=10, stream_large_messages=True, close_timeout=0
        ) as ws:
            server.peer.send(TextMessage("x" * 100))
            try:
                late = ws.recv_chunks()
                with ws.recv_chunks() as message:
                    ws.send(chunks())
                    if not child:
                        next(message)
            except RuntimeError as error:
                print(error)
            if not child:
                try:
                    with ws.recv_chunks() as message:
                        pass
                except RuntimeError as error:
                    print(error)
                try:
                    late.__enter__()
                except RuntimeError as error:
                    print(error)
                sys.stdout.flush()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            print(server.peer.receive_message())
        """
    )
    *refused, sent = output.splitlines()
    assert len([line for line in refused if "before the process was forked" in line]) == len(refused) == 3
    assert sent == "from the parent"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 interrupts also where a call has returned")
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such timer")
def test_no_message_is_lost_to_a_storm_of_interrupts() -> None:
    output = run(
        """
        import wsproto.events as events

        total = 20000

        def send():
            for start in range(0, total, 100):
                server.peer.send(*(events.TextMessage(str(n)) for n in range(start, start + 100)))

        armed = False

        def interrupt(*_):
            # At most once in a call, and never where the test itself could lose a message.
            global armed
            if armed:
                armed = False
                raise KeyboardInterrupt

        received, interrupts = [], 0
        signal.signal(signal.SIGALRM, interrupt)
        with connection as ws:
            Background(send)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            while len(received) < total:
                try:
                    armed = True
                    received += [ws.recv().data]
                    armed = False
                except KeyboardInterrupt:
                    interrupts += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            Background(server.peer.serve)
        assert interrupts > 0
        print(received == [str(n) for n in range(total)])
        """
    )
    assert output == "True\n"
