"""The mark that all tests here bear, and assertions that say what they compared."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent

for module in HERE.glob("case_*.py"):
    pytest.register_assert_rewrite(f"tests.faults.{module.stem}")
pytest.register_assert_rewrite("tests.faults.stage")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.integration)
