"""The command line taken apart."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from math import nan
from pathlib import Path
from typing import Final

from .addresses import MAX_PORT, checked
from .version import versions

COMMANDS: Final = ("bench", "serve", "demo")
SCHEMES: Final = ("ws", "wss", "http", "https")
PROXY_SCHEMES: Final = ("http", "https", "socks5", "socks5h")

_DESCRIPTION: Final = """\
Talk to a WebSocket server: what you type, or what comes from a pipe, is sent line by line; what comes back is shown.

commands, in the place of the URL:
  bench URL            measure round trips, and show their percentiles
  serve                start an echo server on this machine
  demo                 start a server on loopback, talk to it, and show what goes on
"""

_EPILOG: Final = """\
exit status:
  0  closed in order: by this side, or by the server with 1000
  1  something else failed
  2  the arguments or the input cannot be used
  3  no connection: no such name, refused, TLS failed, no answer in time
  4  the server refused the handshake
  5  the server closed with another code than 1000, or, with any, before all was measured
  6  the connection was lost, or failed
  130 after Ctrl-C, 143 after SIGTERM
"""


def talk_parser() -> ArgumentParser:
    """The parser of ``zapros-ws URL``."""
    parser = ArgumentParser(
        prog="zapros-ws", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=versions())
    _add_target(parser)
    parser.add_argument("--json", action="store_true", help="show JSON in many lines")
    parser.add_argument("--ping", type=_interval, metavar="SECONDS", help="ping so often, and say how long it took")
    parser.add_argument("--binary", action="store_true", help="send the whole input as one binary message")
    parser.add_argument("--file", type=Path, action="append", default=[], help="send a file as one binary message")
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="when the input from a pipe has ended, close after so long without a message: 1, or inf",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing about the connection")
    return parser


def bench_parser() -> ArgumentParser:
    """The parser of ``zapros-ws bench URL``."""
    parser = ArgumentParser(
        prog="zapros-ws bench",
        description="Measure round trips, one after the other: of pings, or of messages to an echo server.",
    )
    _add_target(parser)
    parser.add_argument("--count", type=_count, default=1000, metavar="N", help="how many round trips: 1000")
    parser.add_argument(
        "--echo", type=_size, metavar="BYTES", help="send binary messages of this size to an echo server, not pings"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but the result")
    return parser


def serve_parser() -> ArgumentParser:
    """The parser of ``zapros-ws serve``."""
    parser = ArgumentParser(prog="zapros-ws serve", description="Start an echo server on 127.0.0.1.")
    parser.add_argument("--port", type=_port, default=0, help="the port to listen on: any that is free")
    return parser


def demo_parser() -> ArgumentParser:
    """The parser of ``zapros-ws demo``."""
    return ArgumentParser(
        prog="zapros-ws demo", description="Start a server on loopback, talk to it, and show what goes on."
    )


def _add_target(parser: ArgumentParser) -> None:
    parser.add_argument("url", type=_server, metavar="URL", help="ws://..., wss://..., http://... or https://...")
    parser.add_argument(
        "-H",
        "--header",
        type=_header,
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="one more header for the handshake; may be given again",
    )
    parser.add_argument(
        "--subprotocol", action="append", default=[], metavar="NAME", help="offer a subprotocol; may be given again"
    )
    parser.add_argument(
        "--auth", type=_credentials, metavar="USER:PASSWORD", help="Basic auth; without a colon it is a bearer token"
    )
    parser.add_argument("--deflate", action="store_true", help="offer compression")
    parser.add_argument("--insecure", action="store_true", help="believe every certificate")
    parser.add_argument(
        "--proxy", type=_proxy, metavar="URL", help="go through a proxy: http://, https://, socks5:// or socks5h://"
    )
    parser.add_argument("--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="for the handshake: 10")


def _server(text: str) -> str:
    return checked(text, SCHEMES, hint=f"; the commands are {', '.join(COMMANDS)}")


def _proxy(text: str) -> str:
    return checked(text, PROXY_SCHEMES)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ArgumentTypeError(f"{text!r} has no colon: write 'NAME: VALUE'")
    name = name.strip()
    if name.lower() in ("connection", "upgrade") or name.lower().startswith("sec-websocket-"):
        raise ArgumentTypeError(f"{name!r} belongs to the opening handshake: use --subprotocol and --deflate")
    return name, value.strip()


def _credentials(text: str) -> str:
    if not text:
        raise ArgumentTypeError("it is empty: write USER:PASSWORD, or a token")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = nan
    if not seconds >= 0:
        raise ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _interval(text: str) -> float:
    seconds = _seconds(text)
    if seconds == 0:
        raise ArgumentTypeError("without a pause pings would be all that there is: see bench")
    return seconds


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise ArgumentTypeError(f"{text!r} is no port: those go from 1 to {MAX_PORT}, and 0 is any that is free")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, least=1)


def _size(text: str) -> int:
    return _whole(text, least=0)


def _whole(text: str, *, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(text)
