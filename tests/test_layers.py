"""The layers: imports point downwards, and each module uses only the libraries that it may."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import zapros_websocket

PACKAGE = Path(zapros_websocket.__file__).parent

# From the top down: a module may import from those below it. Beside it, the libraries outside the standard one.
LAYERS: dict[str, set[str]] = {
    "__main__": set(),
    "_cli.command": {"anyio", "trio"},
    "_cli.arguments": set(),
    "_cli.version": set(),
    "_cli.demo": {"trio"},
    "_cli.serve": {"anyio"},
    "_cli.bench": {"anyio", "rich"},
    "_cli.opening": {"anyio", "zapros"},
    "_cli.conversation": {"anyio"},
    "_cli.display": {"anyio", "rich"},
    "_cli.lines": {"anyio", "prompt_toolkit"},
    "_cli.rendering": set(),
    "_cli.addresses": {"zapros"},
    "_cli.streams": set(),
    "_cli.status": set(),
    "_cli.__init__": set(),
    "testing.fixtures": {"pytest"},
    "testing.__init__": set(),
    "testing._asgi": {"anyio", "trio", "zapros"},
    "testing._lifespan": {"anyio", "zapros"},
    "testing._application": {"anyio", "wsproto", "zapros"},
    "testing._memory": {"anyio", "zapros"},
    "testing._scripted": {"anyio"},
    "testing._company": {"anyio"},
    "testing._script": set(),
    "testing._steps": {"anyio"},
    "testing._peer": {"anyio", "wsproto"},
    "testing._recorder": {"anyio", "trio", "wsproto", "zapros"},
    "testing._recording": set(),
    "testing._half": {"wsproto"},
    "testing._echo": {"anyio", "wsproto"},
    "testing._serving": {"anyio"},
    "__init__": {"wsproto"},
    "_reconnecting_sync": {"anyio", "zapros"},
    "_reconnecting": {"anyio", "zapros"},
    "_sync": {"anyio", "zapros"},
    "_host": {"anyio"},
    "_retries": {"zapros"},
    "_connect": {"anyio", "zapros", "trio"},
    "_blocking": {"anyio", "zapros"},
    "_opening": {"anyio", "zapros", "trio"},
    "_last_step": {"zapros"},
    "_answer": {"anyio", "trio", "zapros"},
    "_cancel_once": {"trio"},
    "_without_wsproto": set(),
    "_chunks_of_threads": set(),
    "_incoming_for_threads": set(),
    "_frame_log": {"zapros"},
    "_outbox": {"anyio"},
    "_connection": {"anyio", "trio", "zapros"},
    "_chunks": {"anyio", "trio"},
    "_incoming": set(),
    "_byte_stream": {"anyio", "trio"},
    "_base": set(),
    "_payloads": set(),
    "_observed": set(),
    "_link": {"anyio", "trio"},
    "_writer": {"anyio", "trio"},
    "_next_turn": {"trio"},
    "_keepalive": set(),
    "_tasks": {"anyio", "trio"},
    "_alarm": {"trio"},
    "_turn": set(),
    "_pace": {"anyio", "trio"},
    "_pings": set(),
    "_inbox_of_parts_for_threads": set(),
    "_inbox_of_parts": set(),
    "_time_left": set(),
    "_inbox_of_threads": {"anyio"},
    "_lending": {"anyio"},
    "_portal": {"anyio", "trio"},
    "_inbox": {"anyio"},
    "_observer": {"zapros"},
    "_errors": {"zapros"},
    "_streams.handed_over": {"zapros"},
    "_streams.threads": {"anyio", "zapros"},
    "_streams.asgi": {"anyio", "wsproto", "zapros"},
    "_streams.transport": {"anyio", "zapros"},
    "_streams.sockets": {"anyio", "trio", "zapros"},
    "_streams.direct": set(),
    "_streams.tls": {"trio"},
    "_streams.zapros": {"anyio", "trio", "zapros"},
    "_streams.base": set(),
    "_streams.callbacks": {"anyio"},
    "_streams.watch": {"trio"},
    "_streams.lookout": {"trio"},
    "_waiting": {"anyio", "trio"},
    "_soon": {"trio"},
    "_attentive": set(),
    "_undisturbed": set(),
    "_streams.__init__": set(),
    "_protocol.parts": {"wsproto"},
    "_protocol.session": {"wsproto"},
    "_protocol.fragments": {"wsproto"},
    "_protocol.outgoing": set(),
    "_protocol.sequence": set(),
    "_protocol.large": set(),
    "_protocol.headers": set(),
    "_protocol.frames": set(),
    "_protocol.pure": set(),
    "_protocol._speedups": set(),
    "_protocol.deflate": set(),
    "_protocol.handshake": {"wsproto"},
    "_protocol.options": set(),
    "_protocol.messages": set(),
    "_protocol.__init__": set(),
}
TYPING_ONLY = {"typing_extensions"}
NO_IO = {"asyncio", "socket", "ssl", "selectors", "threading", "time", "anyio", "trio", "zapros"}


def modules() -> dict[str, Path]:
    """All modules; the one in C by its stub."""
    paths = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


def imports(name: str, path: Path) -> set[str]:
    """What a module imports: names of the package begin with a dot."""
    found: set[str] = set()
    parent = name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = parent[: len(parent) - (node.level - 1)]
            target = [*base, *(node.module or "").split(".")] if node.module else base
            dotted = ".".join(target)
            if dotted in LAYERS:
                found.add(f".{dotted}")
            else:
                found.update(f".{'.'.join([*target, alias.name])}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_the_table_names_every_module() -> None:
    assert set(modules()) == set(LAYERS)


def test_imports_point_downwards() -> None:
    order = list(LAYERS)
    for name, path in modules().items():
        for imported in imports(name, path):
            if imported.startswith("."):
                target = imported[1:]
                if name.startswith("_cli.") and target not in order:
                    # A public name.
                    continue
                assert order.index(target) > order.index(name), f"{name} imports {target}, which stands above it"


def test_each_module_uses_only_the_libraries_that_it_may() -> None:
    for name, path in modules().items():
        used = {library for library in imports(name, path) if not library.startswith(".")}
        used -= sys.stdlib_module_names | TYPING_ONLY | {"zapros_websocket"}
        assert used <= LAYERS[name], name


def test_the_protocol_is_free_of_io() -> None:
    for name, path in modules().items():
        if name.startswith("_protocol."):
            assert not imports(name, path) & NO_IO, name
