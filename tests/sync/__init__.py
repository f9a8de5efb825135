"""SPEC "Sync": ``connect_ws`` on socket pairs whose other end the test moves, and in processes of its own."""
