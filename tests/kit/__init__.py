"""The kit for tests, tested with the client that it is made for."""
