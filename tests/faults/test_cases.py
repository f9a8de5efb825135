"""Every case on every surface, with default settings but for deadlines that would take long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .campaign import CASES
from .patience import failures, patient_runs
from .stage import Case, Stage, World, perform
from .surfaces import SURFACES, Surface


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("faults")) as world:
        yield world


@pytest.mark.parametrize(
    ("surface", "case"),
    [
        pytest.param(surface, case, id=f"{surface.name}-{case.group}-{case.name}")
        for surface in SURFACES
        for case in CASES
        if case.is_for(surface)
    ],
)
def test_what_the_case_names_is_survived(surface: Surface, case: Case, world: World) -> None:
    perform(case, Stage(surface, world))


def test_the_default_deadlines_hold(world: World) -> None:
    assert failures(patient_runs(CASES), world) == []
