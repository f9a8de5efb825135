"""Run the Autobahn suite: exit status 0 when every case is OK, NON-STRICT or INFORMATIONAL on every backend.

1: a case failed, or the suite did not run. 2: wrong arguments. 3: there is no Python 2.7 to run the suite with.
"""

from __future__ import annotations

import argparse
import platform
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from types import FrameType

from .cases import EVERYTHING, QUICK, Case
from .client import BACKENDS, Backend, agent_of, list_cases, run_case, write_reports
from .environment import SUITE, VARIABLE, EnvironmentFailure, find_python27, install_wstest, installed_wstest
from .results import judge, read_report
from .server import FuzzingServer, ServerFailure

REPORTS = Path(__file__).resolve().parents[2] / "reports"
NO_PYTHON27 = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks, and return the exit status."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _exit)
    patterns: Sequence[str] = QUICK if options.quick else options.cases.split()
    backends: tuple[Backend, ...] = BACKENDS if options.backend == "all" else (options.backend,)
    report: Path = options.report
    try:
        wstest = _wstest(options.environment)
        if wstest is None:
            print(
                "No CPython 2.7 was found, and the Autobahn suite runs on nothing newer. Put python2.7 on the PATH, "
                f"install one with pyenv, or name one in {VARIABLE}.",
                file=sys.stderr,
            )
            return NO_PYTHON27
        with FuzzingServer(wstest, report, patterns) as server:
            return _run(server.url, report, backends)
    except (EnvironmentFailure, ServerFailure) as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn", description="Run the Autobahn suite.")
    parser.add_argument("--backend", choices=(*BACKENDS, "all"), default="all")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--cases", default=" ".join(EVERYTHING), metavar='"1.* 2.*"', help="the cases to run (default: all 517)"
    )
    which.add_argument("--quick", action="store_true", help="groups 1 to 7 and 10, and a sample of 9, 12 and 13")
    parser.add_argument("--report", type=Path, default=REPORTS / "autobahn", metavar="DIR", help="where reports go")
    parser.add_argument(
        "--environment",
        type=Path,
        default=REPORTS / "autobahn-environment",
        metavar="DIR",
        help="where the suite is installed, on the first run",
    )
    return parser


def _exit(number: int, frame: FrameType | None) -> None:
    # An exception, so that the server is stopped on the way out.
    sys.exit(128 + number)


def _wstest(environment: Path) -> Path | None:
    wstest = installed_wstest(environment)
    if wstest is not None:
        return wstest
    python27 = find_python27()
    if python27 is None:
        return None
    print(f"Installing the suite into {environment}", flush=True)
    return install_wstest(environment, python27)


def _run(url: str, report: Path, backends: Sequence[Backend]) -> int:
    try:
        cases = list_cases(url)
    except Exception as error:
        raise ServerFailure(f"the server does not list its cases (does the suite have them all?): {error!r}") from error
    if not cases:
        raise ServerFailure("no case of the suite has such a name")
    packages = [f"{name} {version(name)}" for name in ("zapros", "wsproto", "anyio", "trio")]
    print(f"{platform.python_implementation()} {platform.python_version()}", *packages, SUITE, sep=", ", flush=True)
    errors = {backend: _run_cases(url, cases, backend) for backend in backends}
    try:
        write_reports(url, backends[0])
    except Exception as error:
        # Then no case has a result, and every one of them counts as failed.
        print(f"the server does not write its reports: {error!r}", file=sys.stderr)
    summary = read_report(report)
    verdicts = [judge(agent_of(backend), cases, summary, errors[backend]) for backend in backends]
    for verdict in verdicts:
        print(*verdict.lines(), sep="\n")
    print(f"report: {report / 'index.html'}")
    return 1 if any(verdict.failures for verdict in verdicts) else 0


def _run_cases(url: str, cases: Sequence[Case], backend: Backend) -> dict[str, str]:
    """Run all cases one after the other; returns what went wrong on the client's side, by case."""
    errors: dict[str, str] = {}
    for group, members in groupby(cases, key=lambda case: case.group):
        started, count = time.monotonic(), 0
        for case in members:
            error = run_case(url, case, backend)
            count += 1
            if error is not None:
                errors[case.name] = error
                print(f"{backend}: {case.name}: {error}", flush=True)
        print(f"{backend}: group {group}, {count} cases, {time.monotonic() - started:.1f} s", flush=True)
    return errors


if __name__ == "__main__":
    sys.exit(main())
