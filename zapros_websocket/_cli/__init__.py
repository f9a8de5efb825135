"""``zapros-ws`` and ``python -m zapros_websocket``: the command line."""
