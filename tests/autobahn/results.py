"""What the suite's report says, and whether that will do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from .cases import Case

ACCEPTED = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})


class Entry(TypedDict):
    """The part of an entry of the suite's ``index.json`` that we read."""

    behavior: str
    behaviorClose: str


Report = Mapping[str, Mapping[str, Entry]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one agent did: every behaviour with its count, and what is wrong with each failing case."""

    agent: str
    total: int
    behaviors: Mapping[str, int]
    closings: Mapping[str, int]
    failures: Mapping[str, str]

    def lines(self) -> list[str]:
        """The verdict in words, the failing cases last."""
        return [
            f"{self.agent}: {self.total} cases, {len(self.failures)} failed",
            f"  behavior:      {_counted(self.behaviors)}",
            f"  behaviorClose: {_counted(self.closings)}",
            *(f"  FAILED {name}: {why}" for name, why in self.failures.items()),
        ]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"


def read_report(folder: Path) -> Report:
    """The suite's summary, agent by agent and case by case; empty when it wrote none."""
    summary = folder / "index.json"
    if not summary.exists():
        return {}
    report: Report = json.loads(summary.read_text())
    return report


def judge(agent: str, cases: Iterable[Case], report: Report, errors: Mapping[str, str]) -> Verdict:
    """Hold the report against the cases that should have run, and against what went wrong on our side."""
    entries = report.get(agent, {})
    behaviors: Counter[str] = Counter()
    closings: Counter[str] = Counter()
    failures: dict[str, str] = {}
    names = [case.name for case in cases]
    for name in names:
        entry = entries.get(name)
        if entry is None:
            failures[name] = errors.get(name, "the suite has no result for it")
            continue
        behaviors[entry["behavior"]] += 1
        closings[entry["behaviorClose"]] += 1
        wrong = [f"{kind} {entry[kind]}" for kind in ("behavior", "behaviorClose") if entry[kind] not in ACCEPTED]
        if name in errors:
            wrong.append(errors[name])
        if wrong:
            failures[name] = ", ".join(wrong)
    return Verdict(agent, len(names), behaviors, closings, failures)
