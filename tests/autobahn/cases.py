"""Which cases are run, what each one lets us offer, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass

from zapros_websocket import PerMessageDeflateExtension

EVERYTHING = ("*",)

# Everything about the protocol; of the cases about volume (9) and compression (12, 13), a sample of each kind.
QUICK = (
    *("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"),
    *("9.1.1", "9.1.4", "9.2.1", "9.2.4", "9.3.4", "9.4.4", "9.5.3", "9.6.3", "9.7.1", "9.7.4", "9.8.4"),
    *("12.1.1", "12.1.5", "12.1.11", "12.2.4", "12.3.4", "12.4.4", "12.5.4"),
    *("13.1.4", "13.2.4", "13.3.4", "13.4.4", "13.5.4", "13.6.4", "13.7.4", "13.5.11"),
)

# The offer that the description of each subgroup of 13 asks of the client. The server's part, which asks the client for
# the same restrictions, needs no more than the bare client_max_window_bits that every offer carries.
OFFERS = {
    "13.1": PerMessageDeflateExtension(),
    "13.2": PerMessageDeflateExtension(server_no_context_takeover=True),
    "13.3": PerMessageDeflateExtension(server_max_window_bits=9),
    "13.4": PerMessageDeflateExtension(server_max_window_bits=15),
    "13.5": PerMessageDeflateExtension(server_no_context_takeover=True, server_max_window_bits=9),
    "13.6": PerMessageDeflateExtension(server_no_context_takeover=True, server_max_window_bits=15),
    "13.7": PerMessageDeflateExtension(server_no_context_takeover=True, server_max_window_bits=9),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One case: its place in the server's list, from 1 on, and its name in the suite (``12.1.3``)."""

    number: int
    name: str

    @property
    def group(self) -> str:
        return self.name.partition(".")[0]

    @property
    def subgroup(self) -> str:
        return ".".join(self.name.split(".")[:2])

    @property
    def offer(self) -> bool | PerMessageDeflateExtension:
        """What to offer: groups 12 and 13 are about compression, and the others are written for none."""
        if self.group == "13":
            return OFFERS[self.subgroup]
        return self.group == "12"

    @property
    def deadline(self) -> float:
        """Seconds after which the case counts as stuck.

        The suite itself ends a case of volume after one to eight minutes; this limit is for what it cannot end.
        """
        return 600.0 if self.group in ("9", "12", "13") else 120.0
