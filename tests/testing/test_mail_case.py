"""A whole server in memory: what a plugin's author asks of it."""

from __future__ import annotations

import os
from typing import Any

from zope.interface import implementer

from mailserver.api import (
    AddHeader,
    ConfigurationError,
    Delayed,
    Failed,
    IAttemptFilter,
    IComponentFactory,
    IContentFilter,
    IModifier,
    IObserver,
    IRecipientContentFilter,
    IReportPolicy,
    ISenderFilter,
    Options,
    Pass,
    Postpone,
    Proceed,
    Quarantine,
    Refuse,
    Reply,
    SendReport,
    SuppressReport,
    TLSFacts,
)
from mailserver.testing import MailCase

ALICES = b"From: alice@example.org\nSubject: Hello\n\nHow are you?\n"
BUSY = Reply.of(450, "4.2.1", "Busy")


def made_by(name: str, provides: Any, make: Any, options: Any = Options) -> Any:
    members = {
        "name": name, "summary": name, "api_version": "1.0", "provides": provides, "options": options,
        "build": lambda self, options, services: make(services),
    }  # fmt: skip
    return implementer(IComponentFactory)(type("Factory", (), members))()


@implementer(ISenderFilter)
class Resolves:
    def __init__(self, services: Any) -> None:
        self.resolver = services.resolver

    async def judge_sender(self, envelope: Any) -> Any:
        answer = await self.resolver.query(envelope.sender.domain_key, "MX")
        return Pass() if answer.records else Refuse("no MX")


@implementer(IRecipientContentFilter)
class BobsWords:
    async def judge_content_for(self, envelope: Any, content: Any, recipient: Any) -> Any:
        wrong = recipient.address.local == "bob" and "buy" in (content.headers.get("subject") or "").lower()
        return Quarantine("bob buys nothing") if wrong else Pass()


@implementer(IModifier)
class Marks:
    async def edits(self, envelope: Any, content: Any) -> Any:
        return [AddHeader("X-Mark", envelope.peer.hello)]


@implementer(IContentFilter)
class Slow:
    def __init__(self, services: Any) -> None:
        self.clock = services.clock

    async def judge_content(self, envelope: Any, content: Any) -> Any:
        from twisted.internet.task import deferLater

        await deferLater(self.clock, 5)
        return Refuse("after five seconds")


@implementer(IObserver)
class Watches:
    def __init__(self, services: Any) -> None:
        self.seen: list[str] = []

    def observe(self, step: Any) -> None:
        self.seen.append(step["step"])


RESOLVES = made_by("resolves", ISenderFilter, Resolves)
BOB = made_by("bob", IRecipientContentFilter, lambda _: BobsWords())
MARKS = made_by("marks", IModifier, lambda _: Marks())
SLOW = made_by("slow", IContentFilter, Slow)
WATCHES = made_by("watches", IObserver, Watches)


class Going(MailCase):
    def test_a_message_goes_into_its_mailbox(self) -> None:
        self.serve()
        sent = self.send()
        self.assertEqual((sent.code, sent.last.enhanced), (250, "2.0.0"))
        [message] = self.mailbox("alice@example.org")
        self.assertTrue(message.endswith(b"\r\n\r\nHow are you?\r\n"), message)
        self.assertIn(b"Received: from client.example.net", message)
        self.assertEqual([one.id for one in self.taken], [sent.id])

    def test_who_does_not_exist_is_refused_and_a_stranger_may_not_relay(self) -> None:
        self.serve()
        sent = self.send(recipients=["nobody@example.org", "a@elsewhere.example", "bob@example.org"])
        self.assertEqual([one.code for one in sent.recipients.values()], [550, 550, 250])
        self.assertEqual(len(self.mailbox("bob@example.org")), 1)

    def test_a_user_sends_to_another_host(self) -> None:
        self.serve()
        message = b"From: alice@example.org\nSubject: out\n\nText\n"
        sent = self.send(message, service="submission", login="alice@example.org", sender="alice@example.org", recipients=["a@elsewhere.example"])
        self.assertEqual(sent.code, 250, sent)
        [gone] = self.sent_to("a@elsewhere.example")
        self.assertIn(b"Message-ID:", gone)

    def test_lmtp_has_a_reply_for_each_recipient(self) -> None:
        self.serve()
        sent = self.send(service="lmtp", address="unix", recipients=["alice@example.org", "bob@example.org"])
        self.assertEqual([one.code for one in sent.data], [250, 250])

    def test_what_is_delayed_is_tried_again_on_schedule(self) -> None:
        self.serve('[queue]\nretry = ["1m", "5m"]\n')
        self.server.component("memory", "delivery").answers["alice@example.org"] = [Delayed(BUSY), Delayed(BUSY)]
        self.send()
        self.assertEqual([type(one.outcome).__name__ for one in self.attempts], ["Delayed"])
        began = self.clock.seconds()
        for seconds in (60, 299, 1):
            self.clock.advance(seconds)
        self.assertEqual([(one.when - began, type(one.outcome).__name__) for one in self.attempts], [(0, "Delayed"), (60, "Delayed"), (360, "Delivered")])

    def test_a_disk_without_room_is_told(self) -> None:
        self.serve()
        self.server.queue.room = 0
        self.assertEqual(self.send().code, 452)

    def test_a_fault_of_the_configuration_is_told_as_at_a_start(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "nowhere"):
            self.serve('[[filter]]\nuse = "nowhere"\n')


class Judging(MailCase):
    def test_filters_ask_the_tests_zones(self) -> None:
        self.resolver.zones["good.example"] = {"MX": ["10 mx.good.example"]}
        self.resolver.failing.add("dead.example")
        self.serve('[[filter]]\nuse = "resolves"\n', RESOLVES)
        codes = [self.send(sender=f"a@{name}.example").mail.code for name in ("good", "bad", "dead")]
        self.assertEqual(codes, [250, 550, 450])

    def test_each_recipient_has_his_own_verdict(self) -> None:
        self.serve('[[filter]]\nuse = "bob"\n', BOB)
        for recipient in ("alice@example.org", "bob@example.org"):
            self.assertEqual(self.send(b"Subject: Buy now\n\nx\n", recipients=[recipient]).code, 250)
        counts = [len(self.mailbox(f"{one}@example.org", folder)) for one in ("alice", "bob") for folder in ("", "Junk")]
        self.assertEqual(counts, [1, 0, 0, 1])
        self.assertEqual(self.verdicts(), [("bob", "content_for", "Quarantine")])

    def test_edits_are_seen_as_the_server_makes_them(self) -> None:
        self.serve('[[filter]]\nuse = "marks"\n', MARKS)
        self.send(hello="client.example.net")
        [message] = self.mailbox("alice@example.org")
        self.assertTrue(message.startswith(b"X-Mark: client.example.net\r\n"), message)

    def test_a_slow_filter_takes_the_tests_time(self) -> None:
        self.serve('[[filter]]\nuse = "slow"\n', SLOW)
        dialogue = self.connect()
        for line in ("MAIL FROM:<a@example.net>", "RCPT TO:<alice@example.org>", "DATA"):
            dialogue.must(line)
        dialogue.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        self.assertIsNone(dialogue.heard())
        self.clock.advance(5)
        reply = dialogue.heard()
        self.assertEqual(reply and reply.code, 550)

    def test_one_that_is_late_counts_as_its_table_says(self) -> None:
        self.serve('[[filter]]\nuse = "slow"\ndeadline = "2s"\non_error = "skip"\n', SLOW)
        dialogue = self.connect()
        for line in ("MAIL FROM:<a@example.net>", "RCPT TO:<alice@example.org>", "DATA"):
            dialogue.must(line)
        dialogue.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        self.clock.advance(2)
        reply = dialogue.heard()
        self.assertEqual(reply and reply.code, 250)

    def test_observers_see_the_steps_that_the_test_sees(self) -> None:
        self.serve('[[filter]]\nuse = "watches"\n', WATCHES)
        sent = self.send()
        self.mailbox("alice@example.org")
        seen = self.component("watches").seen
        self.assertEqual(seen, [one["step"] for one in self.server.steps_seen])
        self.assertIn("delivered", [one["step"] for one in self.road(sent.id)])


class Dialogues(MailCase):
    def test_a_dialogue_is_as_its_file_has_it(self) -> None:
        self.serve()
        dialogue = self.connect(hello="")
        dialogue.heard()
        for line in ("HELO client.example.net", "MAIL FROM:<a@example.net>", "RCPT TO:<alice@example.org>", "DATA"):
            dialogue.must(line)
        dialogue.content(b"Subject: x\n\nx\n")
        dialogue.must("QUIT")
        self.assertTrue(dialogue.closed)
        path = os.path.join(self.mktemp(), "golden.txt")
        with self.assertRaisesRegex(self.failureException, "there is no"):
            self.assertGolden(dialogue, path)
        self.patch(os, "environ", {**os.environ, "MAILSERVER_GOLDEN": "update"})
        self.assertGolden(dialogue, path)
        self.patch(os, "environ", {**os.environ, "MAILSERVER_GOLDEN": ""})
        self.assertGolden(dialogue, path)
        with open(path) as file:
            text = file.read()
        self.assertIn("C: MAIL FROM:<a@example.net>\nS: 250 2.1.0", text)
        self.assertRegex(text, "S: 250 2.0.0 .*<id>")
        dialogue.said[1] += "?"
        with self.assertRaisesRegex(self.failureException, "says otherwise"):
            self.assertGolden(dialogue, path)


@implementer(IAttemptFilter)
class Labels:
    async def before_attempt(self, envelope: Any, content: Any, destination: Any) -> Any:
        if destination.route.address.domain == "later.example":
            return Postpone("not today")
        return Proceed((AddHeader("X-Out", destination.route.address.domain),))


@implementer(ISenderFilter)
class Keeps:
    def __init__(self, services: Any) -> None:
        self.records = services.records

    async def judge_sender(self, envelope: Any) -> Any:
        await self.records.put(str(envelope.sender), b"seen")
        return Pass()


class GoingOut(MailCase):
    def test_who_is_asked_before_an_attempt_is_asked_here_too(self) -> None:
        self.serve('[[filter]]\nuse = "labels"\n', made_by("labels", IAttemptFilter, lambda _: Labels()))
        message = b"From: alice@example.org\nSubject: out\n\nText\n"
        self.send(
            message, service="submission", login="alice@example.org", sender="alice@example.org",
            recipients=["a@now.example", "a@later.example"],
        )  # fmt: skip
        [gone] = self.sent_to("a@now.example")
        self.assertTrue(gone.startswith(b"X-Out: now.example\r\n"), gone)
        self.assertEqual(self.sent_to("a@later.example"), [])
        self.assertEqual(sorted(type(one.outcome).__name__ for one in self.attempts), ["Delayed", "Delivered"])

    def test_each_component_has_records_and_facts_of_its_own(self) -> None:
        tables = '[[filter]]\nuse = "keeps"\nname = "one"\n[[filter]]\nuse = "keeps"\nname = "two"\n'
        self.serve(tables, made_by("keeps", ISenderFilter, Keeps))
        self.send(sender="a@example.net")
        for name in ("one", "two"):
            self.assertEqual(self.answer(self.server.records(name).get("a@example.net")), b"seen")
        self.assertIsNot(self.server.records("one"), self.server.records("two"))


@implementer(ISenderFilter)
class WantsTLS:
    async def judge_sender(self, envelope: Any) -> Any:
        tls = envelope.peer.tls
        return Refuse("in the clear") if tls is None else Pass() if tls.version == "TLSv1.3" else Quarantine("old TLS")


class Encrypted(MailCase):
    def setUp(self) -> None:
        super().setUp()
        self.serve('[[filter]]\nuse = "wants"\n', made_by("wants", ISenderFilter, lambda services: WantsTLS()))

    def test_what_the_handshake_shows_is_the_peers(self) -> None:
        self.assertEqual(self.send().code, 550)
        self.assertEqual(self.send(tls=True).code, 250)
        self.assertEqual(self.send(tls=TLSFacts("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256")).code, 250)
        self.assertEqual((len(self.mailbox("alice@example.org")), len(self.mailbox("alice@example.org", "Junk"))), (1, 1))
        self.assertEqual([one["version"] for one in self.steps("encrypted")], ["TLSv1.3", "TLSv1.2"])

    def test_a_dialogue_may_begin_it_itself_and_what_was_said_before_is_forgotten(self) -> None:
        dialogue = self.connect(hello="", tls=True)
        dialogue.heard()
        self.assertIn("STARTTLS", dialogue.must("EHLO a.example").text)
        self.assertEqual(dialogue.must("MAIL FROM:<a@example.net>").code, 550)
        self.assertNotIn("STARTTLS", dialogue.start_tls("b.example").text)
        self.assertEqual(dialogue.must("MAIL FROM:<a@example.net>").code, 250)

    def test_without_it_no_listener_offers_it_and_a_login_works_over_it(self) -> None:
        dialogue = self.connect(hello="")
        dialogue.heard()
        self.assertNotIn("STARTTLS", dialogue.must("EHLO a.example").text)
        alice = {"service": "submission", "login": "alice@example.org", "sender": "alice@example.org"}
        self.assertEqual(self.send(ALICES, tls=True, **alice).code, 250)


@implementer(IReportPolicy)
class NotToCarol:
    async def judge_report(self, draft: Any) -> Any:
        return SuppressReport("she knows") if draft.envelope.sender.local == "carol" else SendReport("Call us.")


class Reports(MailCase):
    def owed(self) -> list[tuple[str, list[str], str]]:
        return [
            (one.draft.condition, [str(it.recipient.address) for it in one.draft.recipients], type(one.verdict).__name__)
            for one in self.reports
        ]

    def test_a_failure_is_owed_to_a_sender_unless_he_wants_none_or_a_policy_suppresses_it(self) -> None:
        self.serve('[[filter]]\nuse = "not"\n', made_by("not", IReportPolicy, lambda services: NotToCarol()))
        gone = Failed(Reply.of(550, "5.1.1", "Gone"))
        answers = self.server.component("memory", "delivery").answers
        for sender in ("eve@example.net", "carol@example.net", None):
            answers["alice@example.org"] = [gone]
            self.send(sender=sender, recipients=["alice@example.org", "bob@example.org"])
        failed = ["alice@example.org"]
        self.assertEqual(self.owed(), [("failure", failed, "SendReport"), ("failure", failed, "SuppressReport")])
        (told,) = self.reports[0].draft.recipients
        self.assertEqual(told.reply, gone.reply)
        answers["alice@example.org"] = [gone]
        dialogue = self.connect()
        for line in ("MAIL FROM:<eve@example.net>", "RCPT TO:<alice@example.org> NOTIFY=NEVER", "DATA"):
            dialogue.must(line)
        dialogue.content(b"Subject: x\n\ny\n")
        self.assertEqual(len(self.reports), 2)

    def test_so_is_a_delay_once_and_the_end_of_its_time(self) -> None:
        self.serve('[queue]\nwarn = "1h"\nexpire = "3h"\nretry = ["10m"]\n')
        self.server.component("memory", "delivery").answers["alice@example.org"] = [Delayed(BUSY)] * 100
        self.send()
        self.assertEqual(self.owed(), [])
        for _ in range(24):
            self.clock.advance(600)
        self.assertEqual([(condition, one) for condition, one, _ in self.owed()], [
            ("delay", ["alice@example.org"]), ("failure", ["alice@example.org"]),
        ])  # fmt: skip
        self.assertEqual(self.reports[0].draft.recipients[0].reply, BUSY)

    def test_a_success_is_only_where_it_was_asked_for(self) -> None:
        self.serve()
        self.send()
        dialogue = self.connect()
        for line in ("MAIL FROM:<eve@example.net>", "RCPT TO:<alice@example.org> NOTIFY=SUCCESS", "DATA"):
            dialogue.must(line)
        dialogue.content(b"Subject: x\n\ny\n")
        self.assertEqual([condition for condition, _, _ in self.owed()], ["success"])

    def test_a_user_whose_mail_one_recipient_refuses_and_whose_mail_is_held_is_told(self) -> None:
        @implementer(IRecipientContentFilter)
        class Bobs:
            async def judge_content_for(self, envelope: Any, content: Any, recipient: Any) -> Any:
                return {"bob": Refuse("no"), "carol": Quarantine("odd")}.get(recipient.address.local, Pass())

        self.serve(
            '[policy]\nquarantine = "hold"\n[[filter]]\nuse = "bobs"\n',
            made_by("bobs", IRecipientContentFilter, lambda services: Bobs()),
        )
        to = ["alice@example.org", "bob@example.org", "carol@example.org"]
        self.send(recipients=to)
        self.assertEqual(self.owed(), [])
        self.send(ALICES, recipients=to, service="submission", login="alice@example.org", sender="alice@example.org")
        self.assertEqual([(condition, one) for condition, one, _ in self.owed()], [
            ("failure", ["bob@example.org"]), ("hold", ["carol@example.org"]),
        ])  # fmt: skip
