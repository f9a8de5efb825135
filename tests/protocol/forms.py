"""The two forms of the frames, in Python and in C: every test of frames runs over both."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import pytest

from zapros_websocket._protocol.deflate import Deflate
from zapros_websocket._protocol.messages import CloseMessage, Message

Buffer = bytes | bytearray | memoryview

FORMS = ("pure", "c")


class Form(Protocol):
    """What both forms offer."""

    def encode(self, opcode: int, payload: bytes | memoryview, *, compressed: bool = False) -> bytes: ...

    def read_messages(
        self, buffer: Buffer, start: int, limit: int, deflate: Deflate | None, messages: list[Message], /
    ) -> tuple[int, int, CloseMessage | None]: ...

    def forget_keys(self) -> None: ...


def load(name: str) -> Form:
    """A form by its name. The one in C may be missing only where it could not have been built."""
    module = f"zapros_websocket._protocol.{'_speedups' if name == 'c' else name}"
    try:
        return cast(Form, import_module(module))
    except ModuleNotFoundError:
        if can_compile():
            pytest.fail(
                "the form in C is missing, and there is a compiler: install the package anew (pip install -e .)"
            )
        pytest.skip("there is no compiler for the form in C")


def can_compile() -> bool:
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    compiler = shlex.split(os.environ.get("CC") or str(sysconfig.get_config_var("CC") or ""))
    has_headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    return bool(compiler) and shutil.which(compiler[0]) is not None and has_headers
