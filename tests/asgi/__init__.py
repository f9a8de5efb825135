"""Applications that are driven in process, through Zapros's ASGI handler."""
