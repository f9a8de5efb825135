"""Programs that the tests start with ``python -m``: servers and proxies on ephemeral ports of loopback."""
