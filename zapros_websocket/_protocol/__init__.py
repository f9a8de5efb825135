"""Everything about the protocol and nothing about tasks, sockets or time: bytes in, messages out, and back."""
