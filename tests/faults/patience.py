"""The cases that wait, with the deadlines that they have by default: side by side, because they do nothing but wait."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from .stage import Case, Stage, World, perform
from .surfaces import SURFACES, Surface


def patient_runs(cases: Iterable[Case]) -> list[tuple[Surface, Case]]:
    """Every run that has to wait for a default deadline."""
    waiting = [case for case in cases if case.patience]
    return [(surface, case) for surface in SURFACES for case in waiting if case.is_for(surface)]


def failures(runs: list[tuple[Surface, Case]], world: World) -> list[str]:
    """Play them all at once, each in a thread of its own, and tell which failed."""

    def run(pair: tuple[Surface, Case]) -> str:
        surface, case = pair
        try:
            perform(case, Stage(surface, world, is_patient=True))
        except Exception:
            return f"{surface.name}: {case.group}: {case.name}\n{traceback.format_exc()}"
        return ""

    if not runs:
        return []
    # Started here, and not by all the threads at once.
    world.peer(tls=False)
    with ThreadPoolExecutor(len(runs)) as threads:
        return [failure for failure in threads.map(run, runs) if failure]
