"""SPEC "Sync": the synchronous surface is the asynchronous one without await, and neither grows without the other."""

from __future__ import annotations

import inspect
import re

from zapros_websocket import (
    AsyncBaseWebSocket,
    AsyncWebSocket,
    BaseWebSocket,
    WebSocket,
    aconnect_ws,
    connect_ws,
    open_ws,
)

ASYNC_NAMES = {
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}
SPECIAL = {"__init__", "__repr__", *ASYNC_NAMES, *ASYNC_NAMES.values()}

# What ``connect_ws`` calls; and a stream for the libraries of asynchronous code, which threads have no use for.
INNER = {"part"}
ONLY_ASYNC = {"as_stream"}


def surface(of: type) -> dict[str, object]:
    """The public members of a class, by the names that they have in code without await."""
    members = {name: member for name, member in inspect.getmembers(of) if not name.startswith("_") or name in SPECIAL}
    return {ASYNC_NAMES.get(name, name): member for name, member in members.items() if name not in INNER | ONLY_ASYNC}


def parameters(function: object) -> list[tuple[str, object, object, object]]:
    assert callable(function)
    signature = inspect.signature(function)
    return [(p.name, p.kind, p.default, _without_await(p.annotation)) for p in signature.parameters.values()]


def _without_await(annotation: object) -> object:
    # What only code with await can ask for the next of; the annotations are strings.
    return re.sub(r" \| AsyncIterable\[\w+\]", "", annotation) if isinstance(annotation, str) else annotation


def test_the_connections_have_the_same_members() -> None:
    assert set(surface(WebSocket)) == set(surface(AsyncWebSocket))
    assert set(surface(BaseWebSocket)) == set(surface(AsyncBaseWebSocket))
    assert set(surface(connect_ws)) == set(surface(aconnect_ws))


def test_the_methods_take_the_same_arguments_and_the_asynchronous_ones_are_awaited() -> None:
    for name, member in surface(AsyncWebSocket).items():
        other = surface(WebSocket)[name]
        if isinstance(member, property):
            assert isinstance(other, property), name
            continue
        if name == "__init__":
            continue
        expected = parameters(member)
        if name.startswith("recv"):
            # The only difference: a coroutine is put under a deadline from outside.
            assert "timeout" not in [parameter[0] for parameter in expected]
            assert [parameter for parameter in parameters(other) if parameter[0] != "timeout"] == expected
            [timeout] = [parameter for parameter in parameters(other) if parameter[0] == "timeout"]
            assert timeout[2] is None
        else:
            assert parameters(other) == expected, name
        assert not inspect.iscoroutinefunction(other), name


def test_the_entry_points_take_the_same_arguments_with_the_same_defaults() -> None:
    def options(function: object) -> dict[str, object]:
        return {name: default for name, _, default, _ in parameters(function) if name != "task_group"}

    synchronous = options(connect_ws)
    assert synchronous.pop("portal") is None
    assert synchronous == options(aconnect_ws) == options(open_ws)
