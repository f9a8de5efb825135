"""The queue from the reader to ``recv``: when the reader has to stop, and when it may go on."""

from __future__ import annotations

import anyio
import pytest

from zapros_websocket import BinaryMessage, PingMessage, PongMessage, _inbox
from zapros_websocket._inbox import MAX_BYTES, MAX_MESSAGES, Data, Inbox
from zapros_websocket._inbox_of_parts import InboxOfParts
from zapros_websocket._protocol.messages import Message
from zapros_websocket._waiting import new_waiter_here

pytestmark = pytest.mark.anyio


def sized(size: int) -> BinaryMessage:
    return BinaryMessage(bytes(size))


async def test_what_was_taken_counts_no_more_once_it_matters() -> None:
    inbox = Inbox(new_waiter_here())
    inbox.put_data([sized(MAX_BYTES // 2), sized(1)])
    inbox.pop()
    # The upper bound is reached, and what is really there is not.
    inbox.put_data([sized(MAX_BYTES // 2)])
    assert not inbox.is_full
    inbox.put_data([sized(MAX_BYTES // 2)])
    assert inbox.is_full


async def test_the_reader_of_many_small_messages_goes_on_at_a_quarter_of_them() -> None:
    inbox = Inbox(new_waiter_here())
    inbox.put_data([sized(1)] * MAX_MESSAGES)
    assert inbox.is_full
    while inbox.is_full:
        inbox.pop()
    assert len(inbox.data) == MAX_MESSAGES // 4


async def test_the_reader_of_large_messages_goes_on_at_a_quarter_of_the_bytes() -> None:
    inbox = Inbox(new_waiter_here())
    inbox.put_data([sized(MAX_BYTES // 8)] * 8)
    assert inbox.is_full
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(inbox.room)
        while inbox.is_full:
            inbox.pop()
    assert len(inbox.data) == 2


async def test_the_reader_of_one_message_beyond_the_bound_goes_on_when_it_is_taken() -> None:
    inbox = Inbox(new_waiter_here())
    inbox.put_data([sized(2 * MAX_BYTES)])
    assert inbox.is_full
    inbox.pop()
    assert not inbox.is_full


async def test_a_put_while_full_moves_the_low_mark() -> None:
    inbox = Inbox(new_waiter_here())
    inbox.put_data([sized(1)] * MAX_MESSAGES)
    inbox.put_data([sized(MAX_BYTES)])
    while inbox.is_full:
        inbox.pop()
    assert not inbox.data


@pytest.mark.parametrize("kind", [Inbox, InboxOfParts])
async def test_a_ping_among_many_messages_makes_none_of_them_dearer(
    monkeypatch: pytest.MonkeyPatch, kind: type[Inbox]
) -> None:
    measured: list[Data] = []

    def size_of(message: Data) -> int:
        measured.append(message)
        return len(message.data)

    monkeypatch.setattr(_inbox, "size_of", size_of)
    messages: list[Message] = [sized(1)] * 5000
    control: list[Message] = [PingMessage(b"1"), PongMessage(b"2")]
    inbox = kind(new_waiter_here())
    inbox.put([*messages, *control, *messages, *control], 4 * len(messages))
    # Where parts may be among them each is measured; the mark at which the reader goes on is looked for once.
    assert len(measured) <= 2 * len(messages) + MAX_MESSAGES
    assert [inbox.pop() for _ in range(2 * len(messages) + 4)] == [*messages, *control, *messages, *control]
