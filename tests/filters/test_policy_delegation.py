"""A policy service of Postfix's: what it is asked, what its actions mean, and what happens to its connections."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from mailserver.filters.policy_client import PolicyClient, PolicyFailed, action_in
from mailserver.filters.policy_delegation import factory, verdict_of
from mailserver.mail.answers import Accept, Defer, Discard, Pass, Quarantine, Refuse
from mailserver.mail.edits import AddHeader
from mailserver.mail.envelope import MailParameters, TLSFacts
from mailserver.testing import FilterCase
from tests.requires import require_tool

reactor: Any = the_reactor
Answer = Callable[["Service", dict[str, str]], None]


class Service(Protocol):
    """Reads questions and hands each to the test."""

    factory: Any

    def __init__(self) -> None:
        self.octets = b""

    def connectionMade(self) -> None:
        self.factory.open.append(self)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self.octets += data
        while b"\n\n" in self.octets:
            question, _, self.octets = self.octets.partition(b"\n\n")
            asked = dict(line.split("=", 1) for line in question.decode().split("\n"))
            self.factory.asked.append(asked)
            self.factory.answer(self, asked)

    def say(self, octets: bytes) -> None:
        transport: Any = self.transport
        transport.write(octets)


def action(text: str) -> Answer:
    return lambda service, asked: service.say(f"action={text}\n\n".encode())


class ServiceCase(TestCase):
    timeout = 30

    def setUp(self) -> None:
        super().setUp()
        self.service: Any = Factory.forProtocol(Service)
        self.service.open, self.service.asked, self.service.answer = [], [], action("DUNNO")
        port = reactor.listenTCP(0, self.service, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.endpoint = f"tcp:127.0.0.1:{port.getHost().port}"

    def client(self, **changes: Any) -> PolicyClient:
        options = {"endpoint": self.endpoint, "connections": 3, "seconds": 5.0, "reactor": reactor, "clock": reactor, **changes}
        client = PolicyClient(**options)
        self.addCleanup(client.stop)
        return client

    def begin(self, client: PolicyClient, **attributes: str) -> Deferred[str]:
        return Deferred.fromCoroutine(client.ask(attributes or {"request": "smtpd_access_policy"}))


class Connections(ServiceCase):
    async def test_one_serves_many_questions(self) -> None:
        client = self.client()
        for n in range(5):
            self.assertEqual(await client.ask({"n": f"{n}"}), "DUNNO")
        self.assertEqual(len(self.service.open), 1)
        self.assertEqual([asked["n"] for asked in self.service.asked], ["0", "1", "2", "3", "4"])

    async def test_so_many_are_asked_at_once_and_the_rest_wait_their_turn(self) -> None:
        held: list[Any] = []
        self.service.answer = lambda service, asked: held.append(service)
        client = self.client()
        answers = [self.begin(client, n=f"{n}") for n in range(9)]
        while len(held) < 3:
            await turn()
        self.assertEqual(len(self.service.open), 3)
        self.service.answer = action("OK")
        for service in held:
            service.say(b"action=OK\n\n")
        self.assertEqual(await gatherResults(answers), ["OK"] * 9)
        self.assertEqual(len(self.service.open), 3)

    async def test_one_that_was_closed_meanwhile_costs_one_more_try(self) -> None:
        client = self.client()
        await client.ask({"n": "1"})
        first = None

        def answer(service: Any, asked: Any) -> None:
            nonlocal first
            if first is None:
                first = asked
                service.transport.loseConnection()
            else:
                action("OK")(service, asked)

        self.service.answer = answer
        self.assertEqual(await client.ask({"n": "2"}), "OK")
        self.assertEqual([asked["n"] for asked in self.service.asked], ["1", "2", "2"])

    async def test_a_service_that_always_closes_is_asked_once_on_a_new_connection(self) -> None:
        self.service.answer = lambda service, asked: service.transport.loseConnection()
        await self.assertFailure(self.begin(self.client()), PolicyFailed)
        self.assertEqual(len(self.service.asked), 1)

    async def test_what_is_no_answer_is_a_failure_and_ends_the_connection(self) -> None:
        client = self.client()
        for octets in (b"\n\n", b"reaction=OK\n\n", b"action=\n\n", b"action=\xff\n\n", b"x" * 70_000):
            self.service.answer = lambda service, asked, octets=octets: service.say(octets)
            await self.assertFailure(self.begin(client), PolicyFailed)
        self.service.answer = lambda service, asked: service.say(b"action=DUNNO\n\naction=REJECT\n\n")
        self.assertEqual(await client.ask({"n": "x"}), "DUNNO")
        self.service.answer = action("OK")
        self.assertEqual(await client.ask({"n": "x"}), "OK", "nobody takes the second answer for his own")

    async def test_whoever_waits_no_longer_leaves_no_answer_to_the_next(self) -> None:
        self.service.answer = lambda service, asked: None
        client = self.client(connections=1)
        late = self.begin(client)
        while not self.service.asked:
            await turn()
        late.cancel()
        await self.assertFailure(late, CancelledError)
        self.service.answer = action("OK")
        self.assertEqual(await client.ask({"n": "x"}), "OK")

    async def test_one_that_is_silent_is_late(self) -> None:
        self.service.answer = lambda service, asked: None
        self.assertIn("no answer", str(await self.assertFailure(self.begin(self.client(seconds=0.05)), PolicyFailed)))

    async def test_a_value_ends_no_line(self) -> None:
        await self.client().ask({"helo_name": "a\nrecipient=root\n\n\x00\ud800ü"})
        self.assertEqual(self.service.asked, [{"helo_name": "a?recipient=root????ü"}])


def turn() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    reactor.callLater(0.001, done.callback, None)
    return done


class Actions(FilterCase):
    def test_each_is_a_verdict(self) -> None:
        for words, verdict in (
            ("DUNNO", Pass()),
            ("dunno", Pass()),
            ("OK", Accept("the policy service says so")),
            ("250", Accept("the policy service says so")),
            ("REJECT", Refuse("the policy service says so")),
            ("REJECT Service unavailable; [192.0.2.1] blocked", Refuse("Service unavailable; [192.0.2.1] blocked")),
            ("REJECT 5.7.23 SPF fail", Refuse("SPF fail", enhanced="5.7.23")),
            ("550 5.7.23 SPF fail", Refuse("SPF fail", enhanced="5.7.23")),
            ("521 go", Refuse("go")),
            ("DEFER_IF_PERMIT Service temporarily unavailable", Defer("Service temporarily unavailable")),
            ("defer_if_permit 4.7.24 SPF: DNS", Defer("SPF: DNS", enhanced="4.7.24")),
            ("DEFER 5.7.1 odd", Defer("odd")),
            ("450 4.2.0 Greylisted", Defer("Greylisted", enhanced="4.2.0")),
            ("HOLD look at it", Quarantine("look at it")),
            ("DISCARD away", Discard("away")),
        ):
            verb, _, rest = words.partition(" ")
            self.assertEqual(verdict_of(verb, rest), verdict, words)
        self.assertEqual(verdict_of("WARN", "odd client").findings[0].evidence, "odd client")
        for words in ("FILTER smtp:[192.0.2.1]", "REDIRECT root@example.org", "BCC a@b.example", "DEFER_IF_REJECT x", "permit_mynetworks", "", "６００"):
            verb, _, rest = words.partition(" ")
            with self.assertRaises(PolicyFailed):
                verdict_of(verb, rest)

    def test_the_last_line_of_an_answer_need_not_be_the_action(self) -> None:
        self.assertEqual(action_in(b"x=1\naction = OK now \ny=2"), "OK now")

    def test_options_are_checked(self) -> None:
        self.build(factory, endpoint="unix:/run/policy")
        with self.assertRaises(Exception):
            self.build(factory, endpoint="nothing:at:all")
        with self.assertRaises(Exception):
            self.build(factory, endpoint="unix:/run/policy", stages=["MAIL"])


# What smtpd of Postfix 3.7.11 sent at RCPT, in its order.
POSTFIX = (
    "request protocol_state protocol_name client_address client_name client_port reverse_client_name server_address server_port helo_name"
    " sender recipient recipient_count queue_id instance size etrn_domain stress sasl_method sasl_username sasl_sender ccert_subject"
    " ccert_issuer ccert_fingerprint ccert_pubkey_fingerprint encryption_protocol encryption_cipher encryption_keysize policy_context"
)


class Filter(ServiceCase, FilterCase):
    def built(self, **options: Any) -> Any:
        component = self.build(factory, endpoint=self.endpoint, **options)
        self.addCleanup(component.stop)
        return component

    async def test_what_postfix_would_say_is_asked_at_each_stage(self) -> None:
        component = self.built(stages=["RCPT", "DATA", "END-OF-MESSAGE"])
        self.resolver.zones |= {"25.2.0.192.in-addr.arpa": {"PTR": ["client.example.net"]}, "client.example.net": {"A": ["192.0.2.25"]}}
        peer = self.peer(login="alice@example.org", tls=TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", client_certificate="ab"))
        envelope = self.envelope(None, ["a@example.org", "b@example.org"], peer=peer, parameters=MailParameters(size=1000))
        await component.judge_recipient(envelope, self.recipient("c@example.org"))
        await component.judge_content(envelope, self.content(b"Subject: x\n\n1234\n"))
        rcpt, data, end = self.service.asked
        self.assertEqual([one["protocol_state"] for one in (rcpt, data, end)], ["RCPT", "DATA", "END-OF-MESSAGE"])
        self.assertEqual(list(rcpt), POSTFIX.split())
        for name, value in {
            "request": "smtpd_access_policy", "protocol_name": "ESMTP", "client_address": "192.0.2.25", "client_name": "client.example.net",
            "helo_name": "client.example.net", "sender": "", "recipient": "c@example.org", "recipient_count": "0", "size": "1000",
            "sasl_username": "alice@example.org", "encryption_protocol": "TLSv1.3", "ccert_fingerprint": "ab", "instance": envelope.id,
        }.items():  # fmt: skip
            self.assertEqual((name, rcpt[name]), (name, value))
        self.assertEqual((data["recipient"], data["recipient_count"], data["size"], end["size"]), ("", "2", "1000", "20"))
        self.resolver.failing.add("25.2.0.192.in-addr.arpa")
        await component.judge_recipient(self.envelope(), self.recipient())  # on another connection
        self.assertEqual(self.service.asked[-1]["client_name"], "unknown")

    async def test_a_field_goes_above_its_message_and_no_other(self) -> None:
        component = self.built()
        self.service.answer = action("PREPEND Received-SPF: Pass (mailfrom) identity=mailfrom; client-ip=192.0.2.25")
        one, other = self.envelope(), self.envelope()
        self.assertEqual(await component.judge_recipient(one, self.recipient()), Pass())
        self.assertEqual(await component.edits(other, self.content()), ())
        self.assertEqual(
            list(await component.edits(one, self.content())),
            [AddHeader("Received-SPF", "Pass (mailfrom) identity=mailfrom; client-ip=192.0.2.25")],
        )
        self.assertEqual(await component.edits(one, self.content()), ())
        self.service.answer = action("PREPEND nothing")
        await self.assertFailure(Deferred.fromCoroutine(component.judge_recipient(one, self.recipient())), PolicyFailed)

    async def test_fields_of_one_message_are_bounded(self) -> None:
        component, envelope = self.built(), self.envelope()
        self.service.answer = action("PREPEND X-Policy: yes")
        for _ in range(100):
            await component.judge_recipient(envelope, self.recipient())
        fault = await self.assertFailure(Deferred.fromCoroutine(component.judge_recipient(envelope, self.recipient())), PolicyFailed)
        self.assertIn("more than 100 fields", str(fault))
        self.assertEqual(len(await component.edits(envelope, self.content())), 100)

    async def test_a_stage_that_is_not_wanted_asks_nothing(self) -> None:
        component = self.built(stages=["END-OF-MESSAGE"])
        self.assertEqual(await component.judge_recipient(self.envelope(), self.recipient()), Pass())
        self.assertEqual(self.service.asked, [])
        self.service.answer = action("DISCARD away")
        self.assertEqual(await component.judge_content(self.envelope(), self.content()), Discard("away"))


class WithPolicydSpf(ServiceCase, FilterCase):
    """The real one of Debian, behind a socket."""

    def setUp(self) -> None:
        super().setUp()
        self.program = require_tool("policyd-spf")
        self.children: list[subprocess.Popen[bytes]] = []
        import socket

        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        self.endpoint = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    self.children.append(
                        subprocess.Popen([self.program], stdin=peer, stdout=peer, stderr=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C.UTF-8"})
                    )

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()

        def end() -> None:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for child in self.children:
                child.kill()
                child.wait()

        self.addCleanup(end)

    async def test_its_field_for_a_local_client_is_put_above_the_message(self) -> None:
        component = self.build(factory, endpoint=self.endpoint, client_names=False)
        self.addCleanup(component.stop)
        for _ in range(2):
            envelope = self.envelope(peer=self.peer("127.0.0.1"))
            self.assertEqual(await component.judge_recipient(envelope, self.recipient()), Pass())
            [field] = await component.edits(envelope, self.content())
            self.assertIn("127.0.0.1", field.value)
            self.assertRegex(field.name, r"X-Comment|Received-SPF|Authentication-Results")
        self.assertEqual(len(self.children), 1, "one connection serves both")
