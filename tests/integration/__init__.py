"""The client against real servers and proxies, each in a process of its own, on loopback."""
