"""What ``coverage_guided`` runs in a process of its own: it must be the first that imports what is instrumented."""

from __future__ import annotations

import importlib
import sys
from typing import Final

INSTRUMENTED: Final = ["zapros_websocket", "wsproto", "h11"]


def main(name: str, *arguments: str) -> None:
    """Fuzz the explorer of that name; libFuzzer ends the process."""
    # By its name, because type checkers need not know it.
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED):
        module = importlib.import_module(f"tests.exploration.{name}")
    # To merge, libFuzzer has the shell run what it takes for its own name.
    itself = f"{sys.executable} -m tests.exploration.instrumented {name}"
    atheris.Setup([itself, *arguments], module.explore)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
