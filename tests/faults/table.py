"""The table of docs/explanation/faults.md: a row for each case, with what the runs of it have shown.

``python -m tests.faults`` plays every case on every surface and writes it.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .stage import Case, Report

PAGE: Final = Path(__file__).parents[2] / "docs" / "explanation" / "faults.md"
BEGIN: Final = "<!-- The table begins: python -m tests.faults writes it. -->"
END: Final = "<!-- The table ends. -->"
OPEN: Final = "open"
NOT_HERE: Final = "–"


@dataclass(frozen=True)
class Row:
    """A case, and its reports by surface; None where the case is not for the surface, and none where it has failed."""

    case: Case
    reports: dict[str, Report | None]


def table(rows: Iterable[Row], surfaces: Sequence[str], length: str) -> str:
    """The whole table, section by section."""
    lines = [BEGIN, "", f"Measured on Python {platform.python_version()}, {platform.system()}, {length}.", ""]
    group = ""
    for row in rows:
        if row.case.group != group:
            group = row.case.group
            lines += ["", f"### {group}", ""] if lines[-1] else [f"### {group}", ""]
            lines += [
                "| what happens | what the caller gets | what the peer sees | seconds | MiB |",
                "|---|---|---|---|---|",
            ]
        lines.append(_line(row, surfaces))
    return "\n".join([*lines, "", END])


def _line(row: Row, surfaces: Sequence[str]) -> str:
    reports = [report for report in row.reports.values() if report is not None]
    has_failed = any(surface not in row.reports for surface in surfaces)
    callers = _together(report.outcome.caller for report in reports)
    peers = _together(report.outcome.peer for report in reports)
    seconds = " ".join(_figure(row.reports, surface, seconds=True) for surface in surfaces)
    mebibytes = " ".join(_figure(row.reports, surface, seconds=False) for surface in surfaces)
    cells = [row.case.name, OPEN if has_failed else callers, peers, seconds, mebibytes]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _together(words: Iterable[str]) -> str:
    # Where the surfaces differ, as TCP may end in one way or the other, both stand there.
    return " or ".join(dict.fromkeys(words))


def _figure(reports: dict[str, Report | None], surface: str, *, seconds: bool) -> str:
    if surface not in reports:
        return OPEN
    report = reports[surface]
    if report is None:
        return NOT_HERE
    if seconds:
        return f"{report.cost.seconds:.2f}"
    return NOT_HERE if report.cost.mebibytes is None else f"{report.cost.mebibytes:.1f}"


def write(new_table: str) -> None:
    """Put the table in its place in the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + new_table + after, encoding="utf-8")


def rows_of_the_page() -> list[tuple[str, str, str]]:
    """Section, name and the whole line of each row that stands in the page."""
    text = PAGE.read_text(encoding="utf-8")
    inside = text.partition(BEGIN)[2].partition(END)[0]
    rows: list[tuple[str, str, str]] = []
    section = ""
    for line in inside.splitlines():
        if line.startswith("### "):
            section = line.removeprefix("### ")
        elif (match := re.match(r"\| (.*?) \|", line)) and match[1] != "what happens":
            rows.append((section, match[1], line))
    return rows
