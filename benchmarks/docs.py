"""The page of the documentation that shows a run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .chart import svg
from .report import markdown
from .results import Results

PAGE: Final = Path(__file__).parents[1] / "docs" / "explanation" / "performance.md"
CHART: Final = PAGE.with_suffix(".svg")
BEGIN: Final = "<!-- written by python -m benchmarks --docs: begin -->"
END: Final = "<!-- written by python -m benchmarks --docs: end -->"


def write(results: Results) -> None:
    """Put the tables between the marks in the page, and the chart beside it."""
    CHART.write_text(svg(results), encoding="utf-8")
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} has lost its marks")
    picture = f"![CPU for each message, as ratios to ours]({CHART.name})"
    PAGE.write_text(f"{before}{BEGIN}\n\n{picture}\n\n{markdown(results)}\n{END}{after}", encoding="utf-8")
