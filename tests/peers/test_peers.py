"""The table of the README: each cell of another client rests on a trial, and those that can are run here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Final

import pytest

from .clients import CLIENTS
from .table import PROJECT, written
from .trials import TRIALS

# Each row of the README, in its order: the trials that it rests on.
ROWS: Final = (
    ("recv_is_cancelled", "recv_is_cancelled_on_asyncio"),
    ("send_after_one_that_was_cancelled_half_way",),
    ("ping_while_a_send_is_blocked",),
    ("leaving_and_no_answer",),
    ("leaving_and_a_flood",),
    ("leaving_with_a_ping_behind", "leaving_with_more_and_a_ping_behind"),
    ("an_error_in_the_block",),
    ("ping_while_nobody_receives",),
    ("a_bomb",),
    ("fragments_without_end",),
    ("lost_during_iteration",),
    ("a_refusal",),
    ("a_wrong_key",),
    ("keepalive_and_a_slow_application",),
)

# What a cell says for what came of its trials.
WORDS: Final[dict[tuple[str, ...], str]] = {
    ("nothing is lost", "nothing is lost"): "nothing is lost",
    ("nothing is lost", "not on asyncio"): "nothing is lost",
    ("nothing is lost", "messages are lost"): "nothing on trio; messages on asyncio",
    ("the stream breaks", "nothing is lost"): "the stream breaks",
    ("the message vanishes",): "message vanishes",
    ("stands still",): "stands still for good",
    ("does not wait",): "does not wait",
    ("leaves",): "in time",
    ("not within 4.5 s",): "not within 4 s",
    ("fine", "fine"): "fine",
    ("fine", "not within 4 s"): "fine with ten; not within 4 s with fifty",
    ("`Cancelled` comes out", "`Cancelled` comes out"): "`trio.Cancelled` comes out",
    ("as itself",): "as itself",
    ("in an `ExceptionGroup`",): "in an `ExceptionGroup`",
    ("answered",): "answered",
    ("delivered",): "delivered",
    ("refused with 1009",): "refused with 1009",
    ("no compression",): "no compression",
    ("no limit",): "no limit",
    ("raises",): "raises",
    ("just ends",): "the loop just ends",
    ("cannot be iterated",): "cannot be iterated",
    ("the response",): "error with the response",
    ("a `RuntimeError` without the response",): "error without the response",
    ("the response without its body (`ResponseNotRead`)",): "the body is not read",
    ("an error of wsproto",): "an error of wsproto",
    ("an error of websockets",): "a clear error",
    ("an error of h11",): "an error of h11",
    ("accepted",): "accepted",
    ("no keepalive",): "no keepalive",
    ("cut",): "cut",
}
# Of one and the same outcome two clients can be told apart by more than the trial.
OTHER_WORDS: Final = {
    ("leaving_and_no_answer", "zapros.websocket"): "waits without end",
    ("leaving_and_no_answer", "websockets"): "10 s",
    ("leaving_and_no_answer", "trio-websocket"): "60 s",
    ("ping_while_nobody_receives", "zapros.websocket"): "not answered",
    ("ping_while_nobody_receives", "trio-websocket"): "not with two messages unread",
    ("ping_while_nobody_receives", "httpx-ws"): "not with two messages unread",
}

# These say what they say because something happened, and not because nothing did for a while, nor by chance: a `recv`
# that is cancelled breaks the stream of some clients only when it was in the middle of reading.
RUN_HERE: Final = (
    "an_error_in_the_block",
    "a_bomb",
    "lost_during_iteration",
    "a_refusal",
    "a_wrong_key",
)


def test_the_page_has_all_trials_with_all_clients() -> None:
    versions, outcomes = written()
    assert list(versions) == list(CLIENTS)
    assert list(outcomes) == list(TRIALS)
    assert {trial for row in ROWS for trial in row} == set(TRIALS)


def test_each_cell_of_the_readme_says_what_came_of_its_trials() -> None:
    _, outcomes = written()
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heading, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert heading[1:] == list(CLIENTS)
    for row, trials in zip(rows, ROWS, strict=True):
        for client, cell in list(zip(CLIENTS, row[1:], strict=True))[1:]:
            came = tuple(outcomes[trial][client] for trial in trials)
            assert cell == (OTHER_WORDS.get((trials[0], client)) or WORDS[came]), (trials, client, came)


def test_this_client_did_in_no_trial_what_the_others_are_blamed_for() -> None:
    _, outcomes = written()
    blamed = re.compile("lost$|breaks|vanish|still|comes out|not answered|delivered|no limit|just|cut|accepted")
    found = {trial: by_client["zapros_websocket"] for trial, by_client in outcomes.items()}
    bad = {trial: outcome for trial, outcome in found.items() if blamed.search(outcome)}
    assert bad == {
        "recv_is_cancelled": "nothing is lost",
        "recv_is_cancelled_on_asyncio": "nothing is lost",
    }


@pytest.mark.parametrize("client", ["websockets", "trio-websocket", "zapros.websocket"])
def test_what_the_clients_can_be_asked_for(client: str) -> None:
    if client != "zapros.websocket":
        pytest.importorskip(client.replace("-", "_"))
    parameters = CLIENTS[client].parameters()
    match client:
        case "websockets":
            assert parameters["close_timeout"] == 10
            assert parameters["ping_interval"] == 20
        case "trio-websocket":
            assert parameters["disconnect_timeout"] == 60
            assert not any("ping" in name for name in parameters)
        case _:
            assert not any("timeout" in name or "ping" in name or "size" in name for name in parameters)


@pytest.mark.integration
@pytest.mark.parametrize("client", CLIENTS)
def test_the_clients_still_do_what_the_page_says(client: str) -> None:
    versions, outcomes = written()
    if client not in ("zapros_websocket", "zapros.websocket"):
        pytest.importorskip(client.replace("-", "_"))
    if client != "zapros_websocket" and CLIENTS[client].version != versions[client]:
        pytest.skip(f"the page is about {client} {versions[client]}, and {CLIENTS[client].version} is installed")
    command = [sys.executable, "-m", "tests.peers", client, *RUN_HERE]
    completed = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, encoding="utf-8", check=True, timeout=110)
    assert json.loads(completed.stdout)["outcomes"] == {trial: outcomes[trial][client] for trial in RUN_HERE}
