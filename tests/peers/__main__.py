"""Try a client out, in all trials or in some: ``python -m tests.peers CLIENT [TRIAL ...]`` prints what came of it.

``python -m tests.peers --write`` tries all of them out, and writes the page in docs/.
"""

from __future__ import annotations

import json
import os
import sys

from .clients import CLIENTS
from .table import PAGE, page, try_out
from .trials import TRIALS, outcome_of


def main(client: str, *trials: str) -> None:
    if client == "--write":
        PAGE.write_text(page({name: try_out(name) for name in CLIENTS}), encoding="utf-8")
        return
    outcomes = {trial: outcome_of(trial, CLIENTS[client]) for trial in trials or TRIALS}
    print(json.dumps({"client": client, "version": CLIENTS[client].version, "outcomes": outcomes}), flush=True)
    # What stands still is left behind, as it stands.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
