"""The Autobahn test suite, run against ``aconnect_ws``: ``python -m tests.autobahn --help``."""
