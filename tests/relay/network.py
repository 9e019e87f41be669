"""A network in memory, in virtual time: hosts that take connections, refuse them or do not answer, and peers that follow a script."""

from collections import defaultdict

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError, TimeoutError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope, MailParameters, Recipient
from mailserver.mail.envelope import Peer as Client
from mailserver.mail.parcel import Destination
from mailserver.plugins.awaiting import now_or_later
from mailserver.relay.connections import Connections
from mailserver.relay.conversion_forms import EightBit
from mailserver.relay.delivery import ConnectSettings, Relay
from mailserver.relay.hosts import HostBook, domain_hosts
from mailserver.relay.pool import PoolLimits
from mailserver.relay.security import TLSMode
from mailserver.smtp.client.session import ClientLimits
from mailserver.testing import FakeResolver

CLOSE, STALL, KEEP, DRIP = "close", "stall", "keep the message and close", "an octet in ten seconds, and no end"
OFFERS = ("PIPELINING", "8BITMIME", "SIZE 10000000", "DSN")
SENDER = Address("sender", "example.net")
MESSAGE = b"Subject: x\r\n\r\n.a line with a dot\r\n"


class Peer:
    """An SMTP server that does what its script says at each stage: a reply, `CLOSE`, `STALL` or `DRIP`; else what a sink does.

    Stages are greeting, EHLO, MAIL, RCPT, DATA, END, RSET, QUIT.  A script's value may be a list, for one use after the other
    (the last stays), or a function of the command line.
    """

    def __init__(self, script=None, offers=OFFERS):
        self.script = {key: list(value) if isinstance(value, list) else value for key, value in (script or {}).items()}
        self.offers = offers
        self.connections = []
        self.early = ""  # said, before hanging up, when 100,000 octets of content have come
        self.deaf = False  # reads no content: the transport's buffer stays full
        self.messages = []  # (sender, recipients, content), once the end of the content was read
        self.commands = []

    @property
    def open(self):
        return sum(not connection.lost for connection in self.connections)

    def answer(self, stage, line, usual):
        value = self.script.get(stage, usual)
        if isinstance(value, list):
            value = value.pop(0) if len(value) > 1 else value[0]
        if callable(value):
            value = value(line)
        return usual if value is None else value

    def connected(self, transport):
        self.connections.append(transport)
        transport.peer = Session(self, transport)
        transport.peer.say("greeting", "", "220 peer.example ESMTP")


class Session:
    def __init__(self, peer, transport):
        self.peer, self.transport = peer, transport
        self.buffer = b""
        self.reading_content = self.stalled = False
        self.sender, self.recipients = None, []

    def say(self, stage, line, usual):
        """Return whether the conversation goes on."""
        reply = self.peer.answer(stage, line, usual)
        if reply is STALL:
            self.stalled = True
        elif reply is DRIP:
            self.stalled = True
            self.drip()
        elif reply is CLOSE or reply is KEEP:
            self.transport.hang_up()
            return reply is KEEP
        else:
            self.transport.hear(reply.encode() + b"\r\n")
            if reply.startswith("421"):
                self.transport.hang_up()
            return reply[:1] in "23"
        return False

    def drip(self, octets=b""):
        """A reply of many lines, "250-x" and so on, one octet at a time."""
        octets = octets or b"250-x\r\n"
        if not self.transport.lost:
            self.transport.hear(octets[:1])
            self.transport.clock.callLater(10, self.drip, octets[1:])

    def receive(self, data):
        self.buffer += data
        while not (self.stalled or self.transport.lost):
            if self.reading_content:
                content, end, rest = (b"\r\n" + self.buffer).partition(b"\r\n.\r\n")
                if not end:
                    if self.peer.early and len(self.buffer) > 100_000:
                        self.transport.hear(self.peer.early.encode() + b"\r\n")
                        self.transport.hang_up()
                    return
                self.buffer, self.reading_content = rest, False
                whole = (content[2:] + b"\r\n").replace(b"\r\n..", b"\r\n.").removeprefix(b".")
                message = (self.sender, tuple(self.recipients), whole)
                if self.say("END", "", "250 2.0.0 Kept"):
                    self.peer.messages.append(message)
                self.recipients = []
                continue
            line, end, rest = self.buffer.partition(b"\r\n")
            if not end:
                return
            self.buffer = rest
            self.command(line.decode())

    def command(self, line):
        self.peer.commands.append(line)
        verb = line.split()[0].split(":")[0].upper()
        if verb == "EHLO":
            self.say(
                "EHLO",
                line,
                "\r\n".join([f"250-{one}" for one in ("peer.example", *self.peer.offers)]) + "\r\n250 HELP",
            )
        elif verb == "MAIL":
            if self.say("MAIL", line, "250 2.1.0 Sender ok"):
                self.sender, self.recipients = line[11:].split(">")[0], []
        elif verb == "RCPT":
            if self.say("RCPT", line, "250 2.1.5 Recipient ok"):
                self.recipients.append(line[9:].split(">")[0])
        elif verb == "DATA":
            usual = "354 Go ahead" if self.recipients else "554 5.5.1 No recipients"
            self.reading_content = self.say("DATA", line, usual)
        elif verb == "QUIT":
            self.say("QUIT", line, "221 2.0.0 Bye")
            self.transport.hang_up()
        else:
            self.say(verb, line, "250 2.0.0 Ok")


class Transport:
    """One connection, seen from the relay's side; octets arrive in a later turn of the clock."""

    def __init__(self, clock, protocol, peer):
        self.clock, self.protocol = clock, protocol
        self.lost = False
        self.producer = None
        protocol.makeConnection(self)
        clock.callLater(0, peer.connected, self)

    # what the relay does
    def write(self, data):
        if not self.lost:
            self.clock.callLater(0, lambda: self.lost or self.peer.receive(data))
            if self.producer is not None and not self.peer.peer.deaf:
                self.clock.callLater(0, lambda: self.producer and self.producer.resumeProducing())

    def registerProducer(self, producer, streaming):
        self.producer = producer
        producer.resumeProducing()

    def unregisterProducer(self):
        self.producer = None

    closing_seconds = 0.0

    def loseConnection(self):
        self.clock.callLater(self.closing_seconds, self.end, ConnectionDone())

    def abortConnection(self):
        self.clock.callLater(0, self.end, ConnectionLost())

    # what the peer does
    def hear(self, data):
        self.clock.callLater(0, lambda: self.lost or self.protocol.dataReceived(data))

    def hang_up(self):
        self.clock.callLater(0, self.end, ConnectionDone())

    def end(self, reason):
        if not self.lost:
            self.lost = True
            self.protocol.connectionLost(Failure(reason))


class Network:
    """`peers` by address; an address in `silent` never answers, any other refuses."""

    def __init__(self, clock):
        self.clock = clock
        self.peers = {}
        self.silent = set()
        self.attempts = defaultdict(int)
        self.most_open = 0
        self.disconnected = 0

    def connect_tcp(self, address, port, factory, timeout, bindAddress):
        self.attempts[address] += 1
        if address in self.peers:
            self.clock.callLater(0, self.connected, address, factory)
        elif address in self.silent:
            self.clock.callLater(timeout, factory.clientConnectionFailed, None, Failure(TimeoutError()))
        else:
            self.clock.callLater(0, factory.clientConnectionFailed, None, Failure(ConnectionRefusedError()))
        return self

    def connected(self, address, factory):
        Transport(self.clock, factory.buildProtocol(None), self.peers[address])
        self.most_open = max(self.most_open, sum(peer.open for peer in self.peers.values()))

    def disconnect(self):
        """A connector's, when the relay stops."""
        self.disconnected += 1


class RelayCase(SynchronousTestCase):
    """A relay on such a network; example.org has the exchangers a.example and b.example, in this order."""

    ZONES = {
        "example.org": {"MX": ["10 a.example", "20 b.example"]},
        "a.example": {"A": ["192.0.2.1"]},
        "b.example": {"A": ["192.0.2.2"]},
    }
    A, B = "192.0.2.1", "192.0.2.2"

    def setUp(self):
        self.clock = Clock()
        self.network = Network(self.clock)
        self.relay = self.make()
        self.sent = 0

    def make(
        self,
        *,
        zones=None,
        pool=None,
        tls=TLSMode.NONE,
        own_name="us.example",
        waiting=600.0,
        eight_bit=EightBit.CONVERT,
        run_in_thread=maybeDeferred,
        room_for=None,
        settings=None,
        paces=None,
        **more,
    ):
        resolver = FakeResolver({**self.ZONES, **(zones or {})})
        self.connections = Connections(
            clock=self.clock,
            connect_tcp=self.network.connect_tcp,
            run_in_thread=run_in_thread,
            own_name=own_name,
            pool_limits=PoolLimits(**(pool or {})),
            client_limits=ClientLimits(),
            avoids_itself=True,
            waiting_seconds=waiting,
            eight_bit=eight_bit,
            room_for=room_for,
            paces=paces,
        )
        book = HostBook(
            look_up=lambda domain: domain_hosts(domain, resolver=resolver, own_names={own_name}),
            seconds=self.clock.seconds,
        )
        relay = Relay(book=book, connections=self.connections, connect_settings=ConnectSettings(tls=tls, **(settings or {})), **more)
        self.successResultOf(Deferred.fromCoroutine(relay.start()))
        self.addCleanup(lambda: self.connections._check.running and self.connections._check.stop())
        return relay

    @property
    def pool(self):
        return self.connections.pool

    def peers(self, a=None, b=None):
        """Put peers on the two hosts; None: refuses."""
        for address, peer in ((self.A, a), (self.B, b)):
            if peer is not None:
                self.network.peers[address] = peer
        return a, b

    def begin(self, *recipients, data=MESSAGE, content=None, sender=SENDER, **parameters):
        """Deliver a message; return a list that gets the outcomes, by recipient, when they are there."""
        recipients = recipients or ("user@example.org",)
        self.sent += 1
        addresses = [one if isinstance(one, Address) else Address.parse(one) for one in recipients]
        envelope = Envelope(
            f"id{self.sent}",
            Client("192.0.2.200", 1, "mx"),
            sender,
            tuple(map(Recipient, addresses)),
            self.clock.seconds(),
            MailParameters(**parameters),
        )
        destinations = [Destination(n, Recipient(address), Remote(address)) for n, address in enumerate(addresses)]
        answers = []
        answer = now_or_later(self.relay.deliver(envelope, content or Content.of(data), destinations))
        if isinstance(answer, Deferred):
            answer.addCallback(answers.append)
            self.last = answer
        else:
            answers.append(answer)
        return answers

    def turn(self, turns=60):
        """Let everything happen that needs no time."""
        for _ in range(turns):
            self.clock.advance(0)

    def pass_time(self, seconds):
        for _ in range(seconds):
            self.clock.advance(1)
            self.turn(10)

    def deliver(self, *recipients, **more):
        """Deliver a message to its end; return the outcome, or several in the order of the recipients."""
        answers = self.begin(*recipients, **more)
        self.turn()
        seconds = 0
        while not answers and seconds < 2000:
            seconds += 1
            self.pass_time(1)
        (outcomes,) = answers
        self.assertEqual(sorted(outcomes), list(range(len(outcomes))))
        ordered = [outcomes[n] for n in sorted(outcomes)]
        return ordered if len(recipients) > 1 else ordered[0]
