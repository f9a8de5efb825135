"""``python -m zapros_websocket``."""

import sys

from ._cli.command import main

sys.exit(main())
