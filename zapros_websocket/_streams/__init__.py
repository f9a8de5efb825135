"""The byte streams that a connection can stand on."""
