"""Play every case on every surface, and write the table: ``python -m tests.faults``.

Each case is played with short deadlines and then, where it says so, with the default ones; these wait side by side.
With ``--long`` they go to full length, and the table is that of the full length. ``--tls`` and ``--with-client``
play the cases of the peer over TLS and through a client of the caller with the transport of Zapros; they write nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from .campaign import CASES
from .patience import failures, patient_runs
from .stage import Case, Report, Stage, World, perform
from .surfaces import SURFACES
from .table import Row, table, write


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--long", action="store_true", help="go to full length: about 15 minutes")
    parser.add_argument("--tls", action="store_true", help="the peer speaks TLS; the table is not written")
    parser.add_argument("--with-client", action="store_true", help="through a zapros.AsyncClient(); the same")
    parser.add_argument("--only", default="", help="the cases with that in their section or name; the same")
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    chosen = [case for case in CASES if arguments.only in f"{case.group}: {case.name}"]
    rows = [Row(case, {}) for case in chosen]
    failed = 0
    with tempfile.TemporaryDirectory() as folder, World(Path(folder)) as world:
        for surface in SURFACES:
            for row in rows:
                stage = Stage(
                    surface,
                    world,
                    is_long=arguments.long,
                    tls=arguments.tls and not row.case.group.startswith("The network"),
                    with_client=arguments.with_client,
                )
                if not row.case.is_for(surface):
                    row.reports[surface.name] = None
                    continue
                report = attempt(row.case, stage)
                if report is not None:
                    row.reports[surface.name] = report
                failed += report is None
        failed += len(failures(patient_runs(chosen), world))
    is_whole = not (arguments.tls or arguments.with_client or arguments.only)
    if is_whole:
        write(table(rows, [surface.name for surface in SURFACES], "at full length" if arguments.long else "short form"))
    print(f"{len(chosen)} cases, {sum(len(row.reports) for row in rows)} runs, {failed} failed")
    return 1 if failed else 0


def attempt(case: Case, stage: Stage) -> Report | None:
    try:
        return perform(case, stage)
    except Exception:
        print(f"FAILED: {stage.surface.name}: {case.group}: {case.name}", flush=True)
        print("".join(traceback.format_exc().splitlines(keepends=True)[-6:])[-1500:], flush=True)
        return None


if __name__ == "__main__":
    sys.exit(main())
