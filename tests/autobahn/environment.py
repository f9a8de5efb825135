"""Where ``wstest`` comes from: a virtual environment of CPython 2.7, made once and kept.

The suite was last released for Python 2, so it lives outside the environment that the tests run in. Nothing is
installed into the 2.7 interpreter itself: its pip puts virtualenv into a folder of our own, and that makes the rest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

SUITE = "autobahntestsuite==0.8.2"
# The last release of virtualenv that runs on Python 2.7.
VIRTUALENV = "virtualenv==20.15.1"

VARIABLE = "AUTOBAHN_PYTHON27"
PROBE_SECONDS = 60
INSTALL_SECONDS = 900

PROBE = "import platform, sys; print(platform.python_implementation() + ' %d.%d' % sys.version_info[:2])"


class EnvironmentFailure(Exception):
    """``wstest`` could not be installed; the message says why."""


def find_python27() -> str | None:
    """The first CPython 2.7 among the places where one usually is, or None."""
    for candidate in _candidates():
        if _output_of([candidate, "-c", PROBE]) == "CPython 2.7":
            return candidate
    return None


def _candidates() -> Iterator[str]:
    named = os.environ.get(VARIABLE)
    if named:
        yield named
    on_path = shutil.which("python2.7")
    if on_path:
        yield on_path
    pyenv = os.environ.get("PYENV_ROOT")
    root = Path(pyenv) if pyenv else Path.home() / ".pyenv"
    for folder in sorted(root.glob("versions/2.7*"), reverse=True):
        yield str(folder / "bin" / "python")


def _output_of(command: Sequence[str]) -> str | None:
    # A file of the right name need not be an interpreter: pyenv's shims fail when no version is selected.
    try:
        finished = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=PROBE_SECONDS,
            env=environment_for_python27(),
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout.strip()


def installed_wstest(folder: Path) -> Path | None:
    """The ``wstest`` of an environment that was made before and still runs, or None."""
    wstest = folder.absolute() / "python27" / "bin" / "wstest"
    said = _output_of([str(wstest), "--autobahnversion"])
    return wstest if said is not None and "AutobahnTestSuite 0.8.2" in said else None


def install_wstest(folder: Path, python27: str) -> Path:
    """Make the environment in ``folder``, in place of what was there.

    Raises:
        EnvironmentFailure: a step failed; the message ends with what it printed.
    """
    folder = folder.absolute()
    tools, target = folder / "tools", folder / "python27"
    for stale in (tools, target):
        shutil.rmtree(stale, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    _step([python27, "-m", "pip", "install", "--quiet", "--target", str(tools), VIRTUALENV])
    _step([python27, "-m", "virtualenv", "--quiet", str(target)], module_path=tools)
    _step([str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", SUITE])
    wstest = installed_wstest(folder)
    if wstest is None:
        raise EnvironmentFailure(f"{SUITE} was installed, but {target / 'bin' / 'wstest'} does not run")
    return wstest


def environment_for_python27() -> dict[str, str]:
    """This process's environment, without what is meant for another Python, and for another pip."""
    return {
        name: value
        for name, value in os.environ.items()
        # The pip of Python 2.7 ends with an error where PIP_QUIET is a number that newer ones know.
        if not name.startswith("PYTHON") and name != "PIP_QUIET"
    }


def _step(command: Sequence[str], *, module_path: Path | None = None) -> None:
    environment = environment_for_python27()
    if module_path is not None:
        environment["PYTHONPATH"] = str(module_path)
    try:
        finished = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_SECONDS,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFailure(f"{' '.join(command)}: {error}") from error
    if finished.returncode:
        said = "\n".join(finished.stdout.splitlines()[-20:])
        raise EnvironmentFailure(f"{' '.join(command)} ended with status {finished.returncode}:\n{said}")
