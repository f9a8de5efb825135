"""What the tests of the protocol share."""

from __future__ import annotations

import pytest

from .forms import FORMS, Form, load


@pytest.fixture(scope="session", params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    """The frames in each of their forms."""
    return load(str(request.param))
