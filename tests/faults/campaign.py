"""All the cases, in the order of the table."""

from __future__ import annotations

from typing import Final

from .case_closing import CLOSING
from .case_control import CONSUMERS, PINGS
from .case_handshakes import HANDSHAKES
from .case_network import NETWORK, SECURE_NETWORK
from .case_scale import SCALE
from .case_sizes import SIZES
from .case_tasks import TASKS
from .case_wire import CLOSES, ENDS, MESSAGES, VIOLATIONS
from .registry import Group
from .stage import Case

GROUPS: Final[list[Group]] = [
    HANDSHAKES,
    MESSAGES,
    VIOLATIONS,
    CLOSES,
    ENDS,
    CLOSING,
    PINGS,
    CONSUMERS,
    SIZES,
    TASKS,
    NETWORK,
    SECURE_NETWORK,
    SCALE,
]
CASES: Final[list[Case]] = [case for group in GROUPS for case in group.cases]
