"""The page that says what came of the trials: written by a run, and read by the tests."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .clients import CLIENTS
from .trials import TRIALS

PROJECT: Final = Path(__file__).parents[2]
PAGE: Final = PROJECT / "docs" / "explanation" / "peers.md"

_HEAD: Final = """# Beside other clients

The README compares this client with four others. Each cell rests on a trial: a server of plain sockets and threads does
what a line below says, and a cell says what became of the client, on trio unless asyncio is named. Try one out with
`python -m tests.peers CLIENT`, or all of them, which writes this page anew, with `python -m tests.peers --write`. The
trials stand in `tests/peers/trials.py`. Those in which nobody waits in vain are run by the tests as well.

“Not within 4 s” says when the trial gave up waiting. A trial shows what happened, once, and no more than that; other
versions may do otherwise.

"""

_TAIL: Final = """
How long a client waits at the most stands in the signatures of the entry points, and a test looks at them: the
`close_timeout` of websockets is 10 seconds and the `disconnect_timeout` of trio-websocket 60; zapros.websocket has
none, and neither it nor trio-websocket has a parameter for keepalive.
"""


def try_out(client: str) -> dict[str, object]:
    """Run all trials with a client, in a process of its own."""
    command = [sys.executable, "-m", "tests.peers", client]
    completed = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    found: dict[str, object] = json.loads(completed.stdout)
    return found


def page(found: Mapping[str, Mapping[str, object]]) -> str:
    """The page for what was found with each client."""
    versions = [f"{name} {'(this one)' if name == 'zapros_websocket' else found[name]['version']}" for name in CLIENTS]
    lines = [f"| trial | {' | '.join(versions)} |", f"|---|{'---|' * len(CLIENTS)}"]
    for name, (trial, _) in TRIALS.items():
        says: list[str] = []
        for client in CLIENTS:
            outcomes = found[client]["outcomes"]
            assert isinstance(outcomes, dict)
            says.append(str(outcomes[name]))  # pyright: ignore[reportUnknownArgumentType]
        what = (inspect.getdoc(trial) or "").splitlines()[0].replace("``", "`")
        lines.append(f"| `{name}`: {what} | {' | '.join(says)} |")
    return _HEAD + "\n".join(lines) + "\n" + _TAIL


def written() -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The versions that the page names, and the outcomes of each trial with each client."""
    heading, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    versions = dict(cell.split(" ", 1) for cell in heading[1:])
    outcomes: dict[str, dict[str, str]] = {}
    for first, *cells in rows:
        match = re.match(r"`(\w+)`", first)
        assert match is not None
        outcomes[match[1]] = dict(zip(versions, cells, strict=True))
    return versions, outcomes
