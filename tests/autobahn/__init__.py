"""The Autobahn test suite, run against ``aconnect_ws`` and ``connect_ws``: ``python -m tests.autobahn --help``."""
