"""Our session against wsproto's server half and two lists: what each side sent, and what the other should have read.

Whatever both do, and however the bytes are cut, each side reads what the other sent, in order; there is one close from
each side at most and nothing behind it; pongs answer the newest pings, in front of what is sent later; nothing raises.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong
from wsproto.events import TextMessage as WsprotoText
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason

from zapros_websocket._protocol.messages import (
    BinaryMessage,
    CloseMessage,
    Message,
    PingMessage,
    PongMessage,
    TextMessage,
)
from zapros_websocket._protocol.options import PerMessageDeflateExtension
from zapros_websocket._protocol.outgoing import outgoing
from zapros_websocket._protocol.session import MAX_PONGS, State

from .wire import Server, new_session, steady, take_in

LIMIT = 1 << 20

texts = st.text(max_size=100) | st.just("same again " * 20)
data = st.binary(max_size=200) | st.just(b"same again " * 20)
control_payloads = st.binary(max_size=125)
codes = st.sampled_from([1000, 1001, 1011, 3000, 4999])
reasons = st.text(max_size=30)
counts = st.integers(min_value=1, max_value=20) | st.integers(min_value=1, max_value=2000)

messages = st.one_of(
    texts.map(TextMessage),
    data.map(BinaryMessage),
    control_payloads.map(PingMessage),
    control_payloads.map(PongMessage),
)
extensions = st.builds(
    PerMessageDeflateExtension,
    client_no_context_takeover=st.booleans(),
    server_no_context_takeover=st.booleans(),
    client_max_window_bits=st.integers(min_value=9, max_value=15),
    server_max_window_bits=st.integers(min_value=9, max_value=15),
)


def servers_half(agreed: PerMessageDeflateExtension) -> PerMessageDeflate:
    extension = PerMessageDeflate(
        agreed.client_no_context_takeover,
        agreed.client_max_window_bits,
        agreed.server_no_context_takeover,
        agreed.server_max_window_bits,
    )
    extension.finalize("permessage-deflate")
    return extension


class TwoPeers(RuleBasedStateMachine):
    """Two peers and the bytes on their way."""

    @initialize(agreed=st.none() | extensions)
    def connect(self, agreed: PerMessageDeflateExtension | None) -> None:
        self.session = new_session(limit=LIMIT, deflate=agreed or False)
        self.server = Server(*([] if agreed is None else [servers_half(agreed)]))
        self.to_server = bytearray()
        self.to_client = bytearray()
        self.sent_by_client: list[Message] = []
        self.sent_by_server: list[Message] = []
        self.read_by_server: list[Message] = []
        self.read_by_client: list[Message] = []
        self.unfinished: str | bytes | None = None
        # What the session should want to write.
        self.ping: bytes | None = None
        self.pongs: list[bytes] = []
        self.close_sent = False
        self.lost = False

    # The client

    @precondition(lambda self: self.session.state is State.OPEN)
    @rule(message=messages)
    def client_sends(self, message: Message) -> None:
        encoded = outgoing(message)
        assert isinstance(encoded, tuple)
        self.to_server += self.session.encode(*encoded)
        self.control_was_written()
        self.sent_by_client.append(message)

    @rule(payload=control_payloads)
    def client_pings(self, payload: bytes) -> None:
        self.session.ping(payload)
        if self.session.state is State.OPEN:
            self.ping = payload

    @rule(code=codes, reason=reasons)
    def client_closes(self, code: int, reason: str) -> None:
        self.session.close(CloseMessage(code, reason))

    @rule()
    def client_writes(self) -> None:
        has_control = self.session.has_control
        wire = self.session.take_control()
        assert has_control is bool(wire)
        assert not self.session.has_control
        if self.close_sent or self.lost:
            assert not wire
        elif self.session.sent is not None:
            self.close_sent = True
            self.sent_by_client.append(self.session.sent)
        else:
            self.control_was_written()
        self.to_server += wire

    def control_was_written(self) -> None:
        self.sent_by_client += [] if self.ping is None else [PingMessage(self.ping)]
        self.sent_by_client += [PongMessage(payload) for payload in self.pongs[-MAX_PONGS:]]
        self.ping = None
        self.pongs.clear()

    @rule(count=counts)
    def client_reads(self, count: int) -> None:
        was_open = self.session.state is State.OPEN
        received = take_in(self.session, bytes(self.to_client[:count]))
        del self.to_client[:count]
        self.read_by_client += received
        if was_open:
            self.pongs += [message.data for message in received if isinstance(message, PingMessage)]

    @rule(chance=st.integers(min_value=0, max_value=19))
    def client_loses_the_stream(self, chance: int) -> None:
        if chance == 0 and self.session.state is not State.CLOSED:
            self.session.end("lost")
            self.lost = True

    # The server

    def server_is_open(self) -> bool:
        return self.server.connection.state is ConnectionState.OPEN

    def server_writes(self, event: Event, message: Message | None = None) -> None:
        self.to_client += self.server.connection.send(event)
        if message is not None:
            self.sent_by_server.append(message)

    @precondition(server_is_open)
    @rule(text=texts, payload=data, is_text=st.booleans(), final=st.booleans())
    def server_sends(self, text: str, payload: bytes, is_text: bool, final: bool) -> None:
        """A message or the next of its fragments."""
        if isinstance(self.unfinished, str) or (self.unfinished is None and is_text):
            event: Event = WsprotoText(text, message_finished=final)
            whole: TextMessage | BinaryMessage = TextMessage((self.unfinished or "") + text)
        else:
            event = BytesMessage(payload, message_finished=final)
            whole = BinaryMessage((self.unfinished or b"") + payload)
        self.unfinished = None if final else whole.data
        self.server_writes(event, whole if final else None)

    @precondition(server_is_open)
    @rule(payload=control_payloads)
    def server_pings(self, payload: bytes) -> None:
        self.server_writes(Ping(payload), PingMessage(payload))

    @precondition(server_is_open)
    @rule(payload=control_payloads)
    def server_sends_a_pong(self, payload: bytes) -> None:
        self.server_writes(Pong(payload), PongMessage(payload))

    @precondition(server_is_open)
    @rule(code=codes, reason=reasons)
    def server_closes(self, code: int, reason: str) -> None:
        self.server_writes(CloseConnection(code, reason), CloseMessage(code, reason))

    @precondition(server_is_open)
    @rule()
    def server_closes_without_a_code(self) -> None:
        self.server_writes(CloseConnection(CloseReason.NO_STATUS_RCVD, ""), CloseMessage(1005, ""))

    @rule(count=counts)
    def server_reads(self, count: int) -> None:
        if self.server.connection.state is ConnectionState.CLOSED:
            assert not self.to_server
            return
        received = self.server.read(bytes(self.to_server[:count]))
        del self.to_server[:count]
        self.read_by_server += received
        for message in received:
            if isinstance(message, PingMessage) and self.server_is_open():
                self.server_writes(Pong(message.data), PongMessage(message.data))
        if self.server.connection.state is ConnectionState.REMOTE_CLOSING:
            self.server_writes(CloseConnection(1000, "answer"), CloseMessage(1000, "answer"))

    # What holds all the time

    @invariant()
    def what_is_read_is_what_was_sent_in_order(self) -> None:
        assert self.read_by_server == self.sent_by_client[: len(self.read_by_server)]
        assert self.read_by_client == self.sent_by_server[: len(self.read_by_client)]

    @invariant()
    def there_is_one_close_at_most_and_nothing_behind_it(self) -> None:
        for messages in (self.sent_by_client, self.read_by_client, self.read_by_server):
            assert not any(isinstance(message, CloseMessage) for message in messages[:-1])

    @invariant()
    def the_state_tells_what_has_happened(self) -> None:
        assert (self.session.failure is not None) is self.lost
        assert (self.session.state is State.CLOSED) is (self.lost or self.session.received is not None)
        if self.session.received is not None:
            assert self.read_by_client[-1] == self.session.received

    def teardown(self) -> None:
        """In the end all that was sent is read, and a close has been answered."""
        while not self.lost and (self.session.has_control or self.to_client or self.to_server):
            self.client_writes()
            self.server_reads(1 << 20)
            self.client_reads(1 << 20)
        if not self.lost:
            assert self.read_by_server == self.sent_by_client
            assert self.read_by_client == self.sent_by_server
            assert (self.session.received is None) is (self.session.sent is None)


TestTwoPeers = TwoPeers.TestCase
TestTwoPeers.settings = settings(steady, max_examples=60, stateful_step_count=40)
