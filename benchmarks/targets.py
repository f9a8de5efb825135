"""The targets, from the file beside this one, and what was measured of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from .report import number, shown
from .results import Results, Spread, cpu, memory
from .workloads import WORKLOADS

TARGETS: Final = Path(__file__).with_name("targets.txt")
MEMORY: Final = "memory"


@dataclass(frozen=True)
class Target:
    """What is asked of one of ours against a peer in some workloads; or of its memory, in KiB."""

    own: str
    peer: str
    workloads: str
    asked: float

    def holds_for(self, workload: str) -> bool:
        """Patterns with commas between them; what one with ``!`` in front matches is not asked for."""
        patterns = self.workloads.split(",")
        if any(fnmatchcase(workload, pattern[1:]) for pattern in patterns if pattern.startswith("!")):
            return False
        return any(fnmatchcase(workload, pattern) for pattern in patterns)

    def measured(self, results: Results, workload: str) -> Spread | None:
        if self.peer != MEMORY:
            return results.ratio(cpu, workload, self.peer, self.own)
        spread = results.cost(memory, workload, self.own)
        return spread and Spread(spread.median / 1024, spread.low / 1024, spread.high / 1024)

    def is_met_by(self, spread: Spread) -> bool:
        return spread.median <= self.asked if self.peer == MEMORY else spread.median >= self.asked


def targets() -> list[Target]:
    lines = (line.partition("#")[0].split() for line in TARGETS.read_text(encoding="utf-8").splitlines())
    return [Target(own, peer, workloads, float(asked)) for own, peer, workloads, asked in filter(None, lines)]


def check(results: Results) -> Iterator[tuple[bool, str]]:
    """Each target that could be measured, whether it was reached, and a line that says so. A client of ours that failed
    has missed; a peer that cannot do a workload is not compared with. What is asked of the frames in C is not asked
    where there were none."""
    tried = [name for name in WORKLOADS if name in results.readings or name in results.left_out]
    asked = targets()
    if results.machine.get("frames") == "pure":
        asked = [target for target in asked if target.own.endswith("-pure")]
    for target in asked:
        for workload in filter(target.holds_for, tried):
            spread = target.measured(results, workload)
            failed = results.left_out.get(workload, {}).get(target.own)
            if spread is not None:
                met = target.is_met_by(spread)
                outcome = f"measured {shown(spread)}"
            elif failed is not None:
                met = False
                outcome = f"not measured: {failed}"
            else:
                continue
            limit = "at most" if target.peer == MEMORY else "at least"
            line = f"{workload:15}{target.own:18}{target.peer:24}asked {limit} {number(target.asked):6} {outcome}"
            yield met, f"{'' if met else 'MISSED':8}{line}"
