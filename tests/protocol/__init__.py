"""The sans-IO half: no event loop, no socket and no clock takes part in these tests."""
