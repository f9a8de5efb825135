"""What came out: the readings of all rounds, and the ratios that are formed within each round."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from .meter import Reading
from .workloads import WORKLOADS

# A server that is busy for more than this part of the time, and busier than the client, holds the client up.
BUSY: Final = 0.9


@dataclass(frozen=True)
class Spread:
    """The median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def cpu(reading: Reading) -> float | None:
    """Seconds of CPU for each message."""
    return None if reading.cpu is None else reading.cpu / reading.count


def wall(reading: Reading) -> float | None:
    """Seconds between one message and the next. Idle connections have no rate."""
    return reading.wall / reading.count


def memory(reading: Reading) -> float | None:
    """Bytes of memory for each connection."""
    return reading.memory


Measure = Callable[[Reading], float | None]


@dataclass
class Results:
    """The readings by workload, client and round; and who was left out, and why."""

    machine: dict[str, str]
    versions: dict[str, str]
    readings: dict[str, dict[str, dict[int, Reading]]] = field(default_factory=dict[str, dict[str, dict[int, Reading]]])
    left_out: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    def add(self, workload: str, client: str, number: int, reading: Reading) -> None:
        self.readings.setdefault(workload, {}).setdefault(client, {})[number] = reading

    def leave_out(self, workload: str, client: str, reason: str) -> None:
        self.left_out.setdefault(workload, {})[client] = reason

    @property
    def workloads(self) -> list[str]:
        return [name for name in WORKLOADS if name in self.readings]

    @property
    def rounds(self) -> int:
        return max((len(rounds) for clients in self.readings.values() for rounds in clients.values()), default=0)

    def of(self, workload: str, client: str) -> dict[int, Reading]:
        return self.readings.get(workload, {}).get(client, {})

    def cost(self, measure: Measure, workload: str, client: str) -> Spread | None:
        values = [measure(reading) for reading in self.of(workload, client).values()]
        found = [value for value in values if value is not None]
        return Spread.of(found) if found else None

    def ratio(self, measure: Measure, workload: str, peer: str, own: str) -> Spread | None:
        """The peer's cost over ours, formed within each round: above 1 ours is ahead."""
        if measure is wall and WORKLOADS[workload].kind == "idle":
            return None
        ratios: list[float] = []
        for number, reading in self.of(workload, own).items():
            other = self.of(workload, peer).get(number)
            theirs, ours = (None if other is None else measure(other)), measure(reading)
            if theirs is not None and ours:
                ratios.append(theirs / ours)
        return Spread.of(ratios) if ratios else None

    def server_share(self, workload: str, client: str) -> float:
        """The part of the time for which the server was busy, the median of the rounds."""
        return statistics.median(reading.server_cpu / reading.wall for reading in self.of(workload, client).values())

    def held_up(self) -> list[str]:
        """Where the server was the bottleneck."""
        return [
            f"{client} in {workload}"
            for workload, clients in self.readings.items()
            for client, rounds in clients.items()
            if any(r.server_cpu / r.wall > BUSY and r.server_cpu > (r.cpu or 0) for r in rounds.values())
        ]

    def save(self, path: Path) -> None:
        samples = [
            {"workload": workload, "client": client, "round": number, **asdict(reading)}
            for workload, clients in self.readings.items()
            for client, rounds in clients.items()
            for number, reading in rounds.items()
        ]
        document = {
            "machine": self.machine,
            "versions": self.versions,
            "samples": samples,
            "left out": self.left_out,
        }
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load(paths: Iterable[Path]) -> Results:
    """What was saved. Several files make one result, each with rounds of its own, when they come from one machine."""
    whole: Results | None = None
    for path in paths:
        document = json.loads(path.read_text(encoding="utf-8"))
        if whole is None:
            whole = Results(document["machine"], document["versions"])
        elif whole.versions != document["versions"]:
            raise ValueError(f"{path} was measured with other versions than the files before it")
        first = whole.rounds
        for sample in document["samples"]:
            workload, client, number = sample.pop("workload"), sample.pop("client"), sample.pop("round")
            whole.add(workload, client, first + number, Reading(**sample))
        for workload, reasons in document["left out"].items():
            for client, reason in reasons.items():
                whole.leave_out(workload, client, reason)
    assert whole is not None
    return whole
