"""URLs on the command line: told apart from what is none, and shown without their credentials."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from zapros import URL

MAX_PORT: Final = 65535

_CREDENTIALS: Final = re.compile(r"^([^:/?#]*://)?[^/?#]*@")


def without_credentials(url: str) -> str:
    """The URL as it may be shown."""
    return _CREDENTIALS.sub(r"\1", url)


def checked(url: str, schemes: Sequence[str], *, hint: str = "") -> str:
    """The URL itself.

    Raises:
        ArgumentTypeError: it has none of the schemes, or is not valid.
    """
    shown = without_credentials(url)
    if url.partition(":")[0].lower() not in schemes:
        beginnings = ", ".join(f"{scheme}://" for scheme in schemes)
        raise ArgumentTypeError(f"{shown!r} is no URL with one of {beginnings}{hint}")
    try:
        URL(url)
    except ValueError:
        # Without the error of the URL, which repeats it with all its credentials.
        raise ArgumentTypeError(f"{shown!r} is not valid: {_fault(url)}") from None
    return url


def _fault(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "its host is malformed"
    try:
        _ = parts.port
    except ValueError:
        return f"ports go from 1 to {MAX_PORT}"
    return "its host is malformed" if parts.hostname else "it has no host"
