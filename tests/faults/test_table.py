"""The table in the documentation is that of the cases, and has no open row."""

from __future__ import annotations

from .campaign import CASES
from .surfaces import SURFACES
from .table import OPEN, rows_of_the_page


def test_the_table_has_a_row_for_each_case() -> None:
    assert [row[:2] for row in rows_of_the_page()] == [(case.group, case.name.replace("|", "/")) for case in CASES]


def test_no_row_of_the_table_is_open() -> None:
    rows = rows_of_the_page()
    assert rows
    assert not [line for _, _, line in rows if OPEN in line.split(" | ")[1:]]


def test_each_row_has_the_figures_of_every_surface() -> None:
    for _, _, line in rows_of_the_page():
        *_, seconds, mebibytes = line.strip("| ").split(" | ")
        assert len(seconds.split()) == len(mebibytes.split()) == len(SURFACES), line
        # Whatever else: each case was played somewhere.
        assert any(figure != "–" for figure in seconds.split()), line
