"""All the cases, in the order of the table."""

from __future__ import annotations

from typing import Final

from .case_handshakes import HANDSHAKES
from .case_wire import CLOSES, ENDS, MESSAGES, VIOLATIONS
from .stage import Case

CASES: Final[list[Case]] = [
    case for group in (HANDSHAKES, MESSAGES, VIOLATIONS, CLOSES, ENDS) for case in group.cases
]
