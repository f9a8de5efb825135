"""Where it was measured, and what."""

from __future__ import annotations

import importlib
import os
import platform
import ssl
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .clients import DISTRIBUTIONS


def versions() -> dict[str, str]:
    """The versions of what takes part; a library that is not installed is not in it."""
    found = {"Python": platform.python_version(), "OpenSSL": ssl.OPENSSL_VERSION.split()[1]}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


def machine() -> dict[str, str]:
    """The processor, the system, and how busy it was."""
    busy = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    return {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "load": f"{busy} when it began",
        "frames": frames(),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def frames() -> str:
    """Whether the clients of ours that are not pure have the C module."""
    module = importlib.import_module("zapros_websocket._protocol.frames")
    return str(getattr(module, "implementation", "pure Python"))
