"""``python -m zapros_websocket``."""

import sys

from ._cli import main

sys.exit(main())
