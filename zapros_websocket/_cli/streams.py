"""The standard streams, of which a shell can have closed some: Python has None for each of those."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager


@contextmanager
def input_and_remarks() -> Generator[None]:
    """A closed standard input is an empty one in the block, and what goes to a closed standard error is dropped."""
    given = sys.stdin, sys.stderr
    with ExitStack() as stack:
        if sys.stdin is None:
            sys.stdin = stack.enter_context(open(os.devnull, encoding="utf-8"))
        if sys.stderr is None:
            # Remarks would go to standard output, which is for messages alone.
            sys.stderr = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        try:
            yield
        finally:
            sys.stdin, sys.stderr = given
