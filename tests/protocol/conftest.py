"""What the tests of the protocol share."""

from __future__ import annotations

import pytest

from .forms import FORMS, Form, load


@pytest.fixture(scope="session", params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    """The frames in each of their forms."""
    return load(str(request.param))


@pytest.fixture(scope="session")
def forms() -> tuple[Form, ...]:
    """All of them, for a test that compares them."""
    return tuple(load(name) for name in FORMS)


@pytest.fixture(scope="session")
def speedups() -> Form:
    """The one in C."""
    return load("c")
