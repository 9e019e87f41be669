"""What a transaction answers: relaying, recipients, filters, edits, loops, what is recorded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any
from unittest.mock import AsyncMock

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.interfaces import (
    IContentFilter,
    IModifier,
    IPeerFilter,
    IRecipientContentFilter,
    IRecipientFilter,
    ISenderFilter,
)
from mailserver.mail.address import Address
from mailserver.mail.answers import Defer, Discard, Finding, Local, Mailbox, Pass, Quarantine, Refuse, Verdict
from mailserver.mail.edits import AddHeader, Edit
from mailserver.mail.faults import StorageBroken, StorageFull
from mailserver.mail.reply import Reply
from mailserver.mail.route_map import one_of
from mailserver.mail.set_apart import Hold, Holder, HoldKind, for_judges, held_by
from mailserver.receive import transaction
from mailserver.receive.judging import BoundFilter
from mailserver.receive.profile import ConnectionLimits
from mailserver.receive.spooling import Spooling
from mailserver.receive.transaction import ROUTES_MOST
from tests.receive.connections import Listener

MAIL = b"MAIL FROM:<carol@example.net>\r\n"


@implementer(IContentFilter)
class Content:
    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict

    async def judge_content(self, envelope: Any, content: Any) -> Verdict:
        return self.verdict


@implementer(IRecipientFilter)
class NotBob:
    async def judge_recipient(self, envelope: Any, recipient: Any) -> Verdict:
        return Refuse("not bob") if recipient.address.local == "bob" else Pass()


@implementer(IRecipientContentFilter)
class ForEach:
    def __init__(self, **verdicts: Verdict) -> None:
        self.verdicts = verdicts

    async def judge_content_for(self, envelope: Any, content: Any, recipient: Any) -> Verdict:
        return self.verdicts.get(recipient.address.local, Pass())


class TransactionCase(SynchronousTestCase):
    def listener(self, *components: object, on_error: Any = "defer", **options: Any) -> Listener:
        filters = [BoundFilter(f"filter{n}", component, on_error=on_error) for n, component in enumerate(components)]
        listener = Listener(self.mktemp(), filters=filters, **options)
        self.addCleanup(listener.factory._stop_checking)
        return listener

    def say(self, listener: Listener, octets: bytes, address: str = "203.0.113.9") -> list[int]:
        protocol, wire = listener.greeted(address)
        protocol.dataReceived(octets)
        return wire.codes()

    def send(self, listener: Listener, *recipients: str, data: bytes = b"Subject: one\r\n\r\nhello\r\n") -> list[int]:
        rcpt = b"".join(b"RCPT TO:<%s>\r\n" % recipient.encode() for recipient in recipients)
        return self.say(listener, MAIL + rcpt + b"DATA\r\n" + data + b".\r\n")

    def mailboxes(self, listener: Listener) -> list[tuple[str, tuple[str, ...]]]:
        [(_, _, destinations)] = listener.store.taken
        return [(one.route.mailbox.user, one.route.mailbox.place) for one in destinations]  # type: ignore[union-attr]


class Recipients(TransactionCase):
    def test_an_unknown_recipient_hears_550_and_the_others_get_their_mail(self) -> None:
        listener = self.listener()
        self.assertEqual(self.send(listener, "nobody@example.org", "alice@example.org"), [250, 550, 250, 354, 250])
        self.assertEqual(self.mailboxes(listener), [("alice", ())])

    def test_each_refusal_has_the_id_under_which_it_can_be_asked_for(self) -> None:
        listener = self.listener()
        protocol, wire = listener.greeted()
        before = len(wire.value())
        protocol.dataReceived(MAIL + b"RCPT TO:<nobody@example.org>\r\nRCPT TO:<x@elsewhere.example>\r\n")
        refused = [(id, fields["reply"]) for id, step, fields in listener.steps if step == "refused"]
        self.assertEqual(len(refused), 2)
        for id, reply in refused:
            self.assertEqual(reply.count(id), 1, reply)
            self.assertIn(reply, wire.value()[before:].decode())

    def test_a_stranger_cannot_relay(self) -> None:
        listener = self.listener(relays=True)
        self.assertEqual(self.say(listener, MAIL + b"RCPT TO:<x@elsewhere.example>\r\n"), [250, 550])
        self.assertEqual(listener.step("refused")["why"], "relaying denied")

    def test_a_relay_network_can_where_there_is_a_relay(self) -> None:
        rcpt = MAIL + b"RCPT TO:<x@elsewhere.example>\r\n"
        self.assertEqual(self.say(self.listener(relays=True), rcpt, "192.0.2.1"), [250, 250])
        self.assertEqual(self.say(self.listener(relays=False), rcpt, "192.0.2.1"), [250, 550])

    def test_anybody_can_send_to_a_domain_that_this_host_is_second_for(self) -> None:
        second = {"relays": True, "is_second_for": one_of(("primary.example",))}
        rcpt = MAIL + b"RCPT TO:<x@primary.example>\r\nRCPT TO:<x@elsewhere.example>\r\n"
        self.assertEqual(self.say(self.listener(**second), rcpt), [250, 250, 550])
        self.assertEqual(self.say(self.listener(**second | {"relays": False}), rcpt), [250, 550, 550])

    def test_an_alias_to_another_host_is_the_administrators_will_and_no_relaying(self) -> None:
        self.assertEqual(self.say(self.listener(relays=True), MAIL + b"RCPT TO:<away@example.org>\r\n"), [250, 250])

    def test_the_recipient_after_the_last_hears_452(self) -> None:
        listener = self.listener(limits=ConnectionLimits(recipients=1))
        self.assertEqual(self.send(listener, "alice@example.org", "bob@example.org"), [250, 250, 452, 354, 250])

    def test_recipients_too_many_are_no_errors_up_to_a_thousand_and_the_others_go_on(self) -> None:
        listener = self.listener(limits=ConnectionLimits(recipients=2))
        many = ["alice@example.org"] * 1002
        self.assertEqual(self.send(listener, *many), [250, 250, 250, *[452] * 1000, 354, 250])
        self.assertEqual(len(listener.store.taken), 1)

    def test_recipients_whose_aliases_lead_too_many_ways_are_for_another_transaction(self) -> None:
        listener = self.listener()

        async def routes(address: Address) -> Sequence[Local]:
            count = ROUTES_MOST + 1 if address.local == "everybody" else ROUTES_MOST // 3
            return [Local(address, Mailbox(f"user{n}", "example.org")) for n in range(count)]

        listener.router.route = routes  # type: ignore[method-assign]
        self.assertEqual(self.send(listener, *["all@example.org"] * 5), [250, *[250] * 3, 452, 452, 354, 250])
        self.assertEqual(len(listener.store.taken[0][2]), ROUTES_MOST // 3 * 3)
        self.assertEqual(listener.step("refused")["why"], "they lead too many ways")
        self.assertEqual(self.send(listener, "everybody@example.org", "all@example.org"), [250, 250, 452, 354, 250])

    def test_beyond_a_thousand_each_recipient_too_many_is_an_error(self) -> None:
        listener = self.listener(limits=ConnectionLimits(recipients=1))
        codes = self.send(listener, *["alice@example.org"] * 1100)
        self.assertLess(len(codes), 1030)
        self.assertEqual(listener.store.taken, [])

    def test_so_is_each_that_leads_too_many_ways(self) -> None:
        self.patch(transaction, "SURPLUS_MOST", 5)
        routes = [Local(Address("a", "example.org"), Mailbox("a", "example.org"))] * (ROUTES_MOST // 2 + 1)
        for listener in (self.listener(), self.listener(ForEach())):
            listener.router.route = AsyncMock(return_value=routes)  # type: ignore[method-assign]
            codes = self.send(listener, *["all@example.org"] * 200)
            self.assertLess(len(codes), 35)
            self.assertEqual(listener.store.taken, [])

    def test_a_router_that_fails_defers(self) -> None:
        for error in (RuntimeError("the directory is down"), SystemExit(1), asyncio.CancelledError()):
            listener = self.listener()
            listener.router.error = error
            self.assertEqual(self.say(listener, MAIL + b"RCPT TO:<alice@example.org>\r\n"), [250, 451])
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 1)

    def test_a_router_that_fails_later_defers(self) -> None:
        listener = self.listener()
        listener.router.later = later = Deferred()
        protocol, wire = listener.greeted()
        protocol.dataReceived(MAIL + b"RCPT TO:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\n")
        later.errback(RuntimeError("down"))
        self.assertEqual(wire.codes(), [250, 451, 250])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_an_alias_of_several_is_several_destinations_of_one_recipient(self) -> None:
        listener = self.listener()
        self.send(listener, "team@example.org")
        [(envelope, _, destinations)] = listener.store.taken
        self.assertEqual([one.index for one in destinations], [0, 1])
        self.assertEqual(len(envelope.recipients), 1)

    def test_a_filter_refuses_one_recipient_alone(self) -> None:
        listener = self.listener(NotBob())
        self.assertEqual(self.send(listener, "alice@example.org", "bob@example.org"), [250, 250, 550, 354, 250])


class Contents(TransactionCase):
    def test_a_refusal_after_the_data_is_a_refusal(self) -> None:
        listener = self.listener(Content(Refuse("spam")))
        self.assertEqual(self.send(listener, "alice@example.org")[-1], 550)
        self.assertEqual(listener.store.taken, [])
        step = listener.step("refused")
        self.assertEqual((step["stage"], step["why"], step["sender"]), ("content", "spam", "carol@example.net"))

    def test_a_filter_may_choose_the_enhanced_code_of_its_refusal(self) -> None:
        protocol, wire = self.listener(Content(Refuse("null MX", enhanced="5.7.27"))).greeted()
        protocol.dataReceived(MAIL + b"RCPT TO:<alice@example.org>\r\nDATA\r\n\r\n.\r\n")
        self.assertIn("550 5.7.27 ", wire.said())
        for code in ("4.7.1", "5.7", "5.7.1 and more"):
            self.assertRaises(ValueError, Refuse, "why", enhanced=code)

    def test_a_filter_may_have_words_of_its_own_for_the_peer(self) -> None:
        for verdict, said in (
            (Refuse("a virus", reply=Reply.of(554, "5.7.0", "Clean your disk", "first")), "554-5.7.0 Clean your disk\r\n554 5.7.0 first ("),
            (Defer("busy", reply=Reply.of(452, "4.3.1", "My disk is full")), "452 4.3.1 My disk is full ("),
        ):
            for component in (Content(verdict), ForEach(alice=verdict)):
                protocol, wire = self.listener(component).greeted()
                protocol.dataReceived(MAIL + b"RCPT TO:<alice@example.org>\r\nDATA\r\n\r\n.\r\n")
                self.assertIn(said, wire.said())

    def test_who_has_not_asked_for_utf8_hears_none(self) -> None:
        verdict = Refuse("no", reply=Reply.of(554, "5.7.0", "Zurückgewiesen"))
        for component in (Content(verdict), ForEach(alice=verdict)):
            for parameter, said in ((b"", "554 5.7.0 Zur?ckgewiesen ("), (b" SMTPUTF8", "554 5.7.0 Zurückgewiesen (")):
                protocol, wire = self.listener(component).greeted()
                mail = b"MAIL FROM:<carol@example.net>" + parameter
                protocol.dataReceived(mail + b"\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n\r\n.\r\n")
                self.assertIn(said, wire.said())

    def test_its_words_are_checked_when_it_says_them(self) -> None:
        wrong: list[Any] = [
            "550 no", Reply.of(450, "5.7.1", "x"), Reply.of(250, "", "x"), Reply.of(550, "4.7.1", "x"), Reply.of(550, "5.7.1", "x" * 481),
            Reply.of(550, "5.7.1", *["x"] * 33), Reply.of(550.0, "5.7.1", "x"), 5,  # type: ignore[arg-type]
        ]  # fmt: skip
        for reply in wrong:
            self.assertRaises(ValueError, Refuse, "why", reply=reply)
        self.assertRaises(ValueError, Defer, "why", reply=Reply.of(421, "4.7.1", "x"))

        class Unchecked(Refuse):
            def __post_init__(self) -> None:
                pass

        for reply in wrong:
            listener = self.listener(Content(Unchecked("why", reply=reply)))
            protocol, wire = listener.greeted()
            protocol.dataReceived(MAIL + b"RCPT TO:<alice@example.org>\r\nDATA\r\n\r\n.\r\n")
            self.assertIn("550 5.7.1 Refused by policy (", wire.said())

    def test_why_a_filter_refuses_is_not_told_to_the_peer(self) -> None:
        protocol, wire = self.listener(Content(Refuse("secret reason"))).greeted()
        protocol.dataReceived(MAIL + b"RCPT TO:<alice@example.org>\r\nDATA\r\n\r\n.\r\n")
        self.assertNotIn("secret", wire.said())

    def test_a_deferral_is_a_450(self) -> None:
        self.assertEqual(self.send(self.listener(Content(Defer("busy"))), "alice@example.org")[-1], 450)

    def test_quarantine_is_for_all_recipients(self) -> None:
        listener = self.listener(Content(Quarantine("odd")))
        self.send(listener, "alice@example.org", "bob@example.org")
        self.assertEqual(self.mailboxes(listener), [("alice", ("Junk",)), ("bob", ("Junk",))])

    def test_what_one_recipient_refuses_and_another_takes_is_held_for_the_first(self) -> None:
        listener = self.listener(ForEach(bob=Refuse("bob says no")))
        self.assertEqual(self.send(listener, "alice@example.org", "bob@example.org"), [250, 250, 250, 354, 250])
        self.assertEqual(self.mailboxes(listener), [("alice", ()), ("bob", ())])
        holder = Holder("filter0", "content_for", "bob says no")
        self.assertEqual(listener.store.set_apart, [{1: Hold(HoldKind.REFUSED, "bob says no", (held_by(holder),))}])

    def test_what_one_recipient_defers_and_another_takes_is_held_undecided_for_the_first(self) -> None:
        listener = self.listener(ForEach(alice=Defer("not now")))
        self.assertEqual(self.send(listener, "alice@example.org", "bob@example.org"), [250, 250, 250, 354, 250])
        self.assertEqual(self.mailboxes(listener), [("bob", ()), ("alice", ())])
        holder = Holder("filter0", "content_for", "not now")
        self.assertEqual(listener.store.set_apart, [{1: Hold(HoldKind.UNDECIDED, "not now", (held_by(holder),))}])

    def test_without_a_yes_one_later_is_the_answer_and_nothing_is_committed(self) -> None:
        own_words = Reply.of(450, "4.2.1", "bob is on holiday")
        for later in (Defer("not now"), Defer("not now", reply=own_words)):
            listener = self.listener(ForEach(alice=Refuse("no"), bob=later))
            protocol, wire = listener.greeted()
            protocol.dataReceived(MAIL + b"RCPT TO:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n\r\n.\r\n")
            self.assertIn("451 4.7.1 Not now for any of the recipients", wire.said())
            self.assertNotIn("holiday", wire.said())
            self.assertEqual(listener.store.taken, [])
        listener = self.listener(ForEach(alice=Defer("no"), bob=Defer("not now")))
        self.assertEqual(self.send(listener, "alice@example.org", "bob@example.org")[-1], 450)
        listener = self.listener(ForEach(alice=Refuse("no", enhanced="5.7.27"), bob=Refuse("no")))
        self.assertEqual(self.send(listener, "alice@example.org", "bob@example.org")[-1], 550)
        self.assertEqual(listener.store.taken, [])

    def test_all_recipients_are_asked_side_by_side_under_one_deadline(self) -> None:
        for service in ("mx", "lmtp"):
            asked: list[Deferred[Verdict]] = []

            @implementer(IRecipientContentFilter)
            class Slow:
                def judge_content_for(self, *_: Any, asked: list[Deferred[Verdict]] = asked) -> Deferred[Verdict]:
                    asked.append(Deferred())
                    return asked[-1]

            listener = self.listener(Slow(), service=service)
            protocol, wire = listener.greeted()
            protocol.dataReceived(MAIL + b"RCPT TO:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n\r\n.\r\n")
            self.assertEqual(len(asked), 2)
            asked[1].callback(Pass())
            listener.clock.advance(10.1)  # alice's is late, which defers
            answers = {"mx": [250], "lmtp": [450, 250]}[service]
            self.assertEqual(wire.codes()[-len(answers) :], answers)
            self.assertEqual(len(listener.store.taken), 1)

    def test_with_prdr_each_has_a_reply_where_yes_and_no_meet_and_nothing_is_held(self) -> None:
        three = b"".join(b"RCPT TO:<%s@example.org>\r\n" % name for name in (b"alice", b"bob", b"postmaster"))
        mail = MAIL.replace(b">\r", b"> PRDR\r") + three + b"DATA\r\n\r\n.\r\n"
        for verdicts, codes in (
            ({"bob": Refuse("no")}, [353, 250, 550, 250, 250]),
            ({"bob": Refuse("no"), "alice": Defer("later"), "postmaster": Quarantine("odd")}, [353, 450, 550, 250, 250]),
            ({"bob": Quarantine("odd"), "alice": Discard("spam")}, [250]),
            ({"bob": Refuse("no"), "alice": Refuse("no"), "postmaster": Refuse("no")}, [550]),
            ({"bob": Refuse("no"), "alice": Defer("later"), "postmaster": Refuse("no")}, [353, 450, 550, 550, 451]),
        ):
            listener = self.listener(ForEach(**verdicts))
            self.assertEqual(self.say(listener, mail)[5:], codes, verdicts)
            self.assertEqual(sum(map(len, listener.store.set_apart)), 0)
            self.assertEqual(bool(listener.store.taken), min(codes[-1:]) == 250)

    def test_with_prdr_a_commit_that_fails_is_a_later_for_whoever_had_a_yes(self) -> None:
        listener = self.listener(ForEach(bob=Refuse("no")))
        listener.store.answer = StorageBroken("the disk")
        mail = MAIL.replace(b">\r", b"> PRDR\r") + b"RCPT TO:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\n"
        self.assertEqual(self.say(listener, mail + b"DATA\r\n\r\n.\r\n")[4:], [353, 451, 550, 451])

    def test_prdr_is_offered_where_recipients_judge_the_content(self) -> None:
        for filters, service, offered in (((ForEach(),), "mx", True), ((Content(Pass()),), "mx", False), ((ForEach(),), "lmtp", False)):
            listener = self.listener(*filters, service=service)
            protocol, wire = listener.greeted()
            wire.said()
            protocol.dataReceived(b"LHLO a\r\n" if service == "lmtp" else b"EHLO a\r\n")
            self.assertEqual("PRDR" in wire.said(), offered)

    def test_the_tags_of_a_finding_are_for_those_whom_it_concerns(self) -> None:
        def tagged(value: str) -> Pass:
            return Pass(findings=(Finding("x", tags=(AddHeader("X-Spam-Note", value),)),))

        listener = self.listener(Content(tagged("all")), ForEach(alice=tagged("alice"), bob=Pass()), relays=True)
        self.assertEqual(self.send(listener, "alice@example.org", "bob@example.org", "away@example.org")[-1], 250)
        [(_, octets, destinations)] = listener.store.taken
        lines = {one.recipient.address.local: one.lines for one in destinations}
        every, own = b"X-Spam-Note: all\r\n", b"X-Spam-Note: alice\r\n"
        self.assertEqual(lines, {"alice": every + own, "bob": every, "away": b""})
        self.assertNotIn(b"X-Spam-Note", octets)

    def test_tags_that_a_modifier_writes_stay_at_local_delivery(self) -> None:
        @implementer(IModifier)
        class Tagging:
            async def edits(self, envelope: Any, content: Any) -> Sequence[Edit]:
                return [AddHeader("X-Spam-Flag", "YES"), AddHeader("X-Other", "1")]

        listener = self.listener(Tagging())
        self.send(listener, "alice@example.org", data=b"X-Spam-Flag: NO\r\n\r\nx\r\n")
        [(_, octets, (destination,))] = listener.store.taken
        self.assertEqual(destination.lines, b"X-Spam-Flag: YES\r\n")
        self.assertIn(b"X-Spam-Flag: YES\r\n", octets)

    def test_tags_that_are_too_many_are_left_out_and_told(self) -> None:
        many = tuple([AddHeader(f"X-{n}", "y" * 900) for n in range(10)])
        listener = self.listener(Content(Pass(findings=(Finding("x", tags=many),))))
        self.send(listener, "alice@example.org")
        told = [fields["why"] for _, step, fields in listener.steps if step == "filter" and fields["stage"] == "tags"]
        self.assertEqual(told, ["6 tags are left out: a copy has no more than 4096 octets of them"])

    def test_tags_that_are_none_are_the_filters_failure(self) -> None:
        for tags in ("X-Spam: 1", (("X-Spam", "1"),), [AddHeader("A", "b")] * 51, 7):
            listener = self.listener(Content(Pass(findings=(Finding("x", tags=tags),))))  # type: ignore[arg-type]
            self.assertEqual(self.send(listener, "alice@example.org")[-1], 450, tags)

    def test_where_all_refuse_in_lmtp_nobody_is_told_that_it_was_accepted(self) -> None:
        listener = self.listener(ForEach(alice=Refuse("no"), bob=Refuse("no")), service="lmtp")
        self.send(listener, "alice@example.org", "bob@example.org")
        self.assertNotIn("accepted", [step for _, step, _ in listener.steps])

    def test_in_lmtp_each_recipient_has_its_own_verdict(self) -> None:
        listener = self.listener(ForEach(bob=Refuse("no"), postmaster=Quarantine("odd")), service="lmtp")
        codes = self.send(listener, "alice@example.org", "bob@example.org", "postmaster@example.org")
        self.assertEqual(codes[-3:], [250, 550, 250])
        self.assertEqual(self.mailboxes(listener), [("alice", ()), ("postmaster", ("Junk",))])

    def test_where_every_recipient_refuses_nothing_is_committed(self) -> None:
        listener = self.listener(ForEach(alice=Refuse("no"), bob=Refuse("no")), service="lmtp")
        self.assertEqual(self.send(listener, "alice@example.org", "bob@example.org")[-2:], [550, 550])
        self.assertEqual(listener.store.taken, [])

    def test_a_message_that_goes_round_is_refused(self) -> None:
        listener = self.listener(limits=ConnectionLimits(hops=3))
        data = b"Received: by a\r\n" * 4 + b"\r\nhello\r\n"
        self.assertEqual(self.send(listener, "alice@example.org", data=data)[-1], 554)
        data = b"Received: by a\r\n" * 3 + b"\r\nhello\r\n"
        self.assertEqual(self.send(listener, "alice@example.org", data=data)[-1], 250, "as many as may be")

    def test_each_finding_stands_on_the_messages_road(self) -> None:
        listener = self.listener(Content(Quarantine("odd")))
        self.send(listener, "alice@example.org")
        finding = listener.step("filter")
        self.assertEqual((finding["filter"], finding["verdict"], finding["why"]), ("filter0", "Quarantine", "odd"))


@implementer(IPeerFilter, ISenderFilter, IRecipientFilter, IContentFilter)
class Puts:
    """Puts aside at the stages (and for the recipients) that it is made for."""

    def __init__(self, *stages: str) -> None:
        self.stages = stages

    def answer(self, stage: str) -> Verdict:
        return Quarantine(f"odd {stage}") if stage in self.stages else Pass()

    async def judge_peer(self, peer: Any) -> Verdict:
        return self.answer(peer.hello or "connect")

    async def judge_sender(self, envelope: Any) -> Verdict:
        return self.answer(str(envelope.sender))

    async def judge_recipient(self, envelope: Any, recipient: Any) -> Verdict:
        return self.answer(recipient.address.local)

    async def judge_content(self, envelope: Any, content: Any) -> Verdict:
        return self.answer("content")


    def test_what_is_binary_is_known_as_such_and_nothing_else(self) -> None:
        seen: list[bool] = []
        for body in (b"BINARYMIME", b"8BITMIME", b"7BIT"):
            listener = self.listener()
            commit = listener.store.commit

            def noted(envelope: Any, content: Any, *more: Any, commit: Any = commit) -> Any:
                seen.append(content.binary)
                return commit(envelope, content, *more)

            listener.store.commit = noted  # type: ignore[method-assign]
            mail = MAIL.replace(b">\r", b"> BODY=" + body + b"\r") + b"RCPT TO:<alice@example.org>\r\n"
            self.assertEqual(self.say(listener, mail + b"BDAT 17 LAST\r\nSubject: x\r\n\r\n\0\n\r")[-1], 250, body)
        self.assertEqual(seen, [True, False, False])


class PuttingAside(TransactionCase):
    """Three recipients each time: two mailboxes and another host."""

    three = ("alice@example.org", "bob@example.org", "away@example.org")

    def aside(self, listener: Listener, message: int = -1) -> dict[str, str]:
        """What became of each recipient: "" where nothing is special."""
        _, _, destinations = listener.store.taken[message]
        held = {index: one.why for index, one in listener.store.set_apart[message].items()}
        return {
            one.recipient.address.local: "/".join(one.route.mailbox.place) if isinstance(one.route, Local) else held.get(one.index, "")
            for one in destinations
        }

    def sent(self, *stages: str) -> Listener:
        listener = self.listener(Puts(*stages), relays=True)
        self.assertEqual(self.send(listener, *self.three), [250, 250, 250, 250, 354, 250])
        return listener

    def test_without_such_a_verdict_nothing_is_put_aside(self) -> None:
        self.assertEqual(self.aside(self.sent()), {"alice": "", "bob": "", "away": ""})

    def test_a_verdict_on_the_peer_the_sender_or_the_content_is_for_all_recipients(self) -> None:
        for stage in ("connect", "client.example", "carol@example.net", "content"):
            listener = self.sent(stage)
            self.assertEqual(self.aside(listener), {"alice": "Junk", "bob": "Junk", "away": f"odd {stage}"})
            self.assertEqual(listener.step("junk"), {"recipients": list(self.three[:2]), "why": f"odd {stage}"})

    def test_a_verdict_on_a_recipient_is_for_this_one_alone(self) -> None:
        self.assertEqual(self.aside(self.sent("bob")), {"alice": "", "bob": "Junk", "away": ""})
        self.assertEqual(self.aside(self.sent("alice")), {"alice": "Junk", "bob": "", "away": ""})
        self.assertEqual(self.aside(self.sent("away")), {"alice": "", "bob": "", "away": "odd away"})

    def test_a_verdict_on_the_peer_holds_for_every_message_of_the_connection(self) -> None:
        for stage in ("connect", "client.example"):
            listener = self.listener(Puts(stage), relays=True)
            octets = MAIL + b"RCPT TO:<alice@example.org>\r\nDATA\r\n\r\n.\r\n"
            self.assertEqual(self.say(listener, octets * 3)[-1], 250)
            self.assertEqual([self.aside(listener, n) for n in range(3)], [{"alice": "Junk"}] * 3)

    def test_a_verdict_on_a_name_given_before_is_not_talked_away_by_another_name(self) -> None:
        listener = self.listener(Puts("client.example"))
        octets = MAIL + b"RCPT TO:<alice@example.org>\r\nDATA\r\n\r\n.\r\n"
        self.say(listener, b"EHLO other.example\r\n" + octets)
        self.assertEqual(self.aside(listener), {"alice": "Junk"})

    def test_a_verdict_on_the_sender_ends_with_the_message(self) -> None:
        listener = self.listener(Puts("carol@example.net"))
        rest = b"RCPT TO:<alice@example.org>\r\nDATA\r\n\r\n.\r\n"
        self.say(listener, MAIL + rest + b"MAIL FROM:<dora@example.net>\r\n" + rest)
        self.assertEqual([self.aside(listener, n) for n in range(2)], [{"alice": "Junk"}, {"alice": ""}])

    def test_a_recipient_who_was_put_aside_and_refused_leaves_nothing_for_the_next(self) -> None:
        listener = self.listener(Puts("nobody"), relays=True)
        self.send(listener, "nobody@example.org", *self.three)
        self.assertEqual(self.aside(listener), {"alice": "", "bob": "", "away": ""})

    def test_in_lmtp_each_recipients_judge_puts_only_its_own_copy_aside(self) -> None:
        listener = self.listener(ForEach(bob=Quarantine("odd"), alice=Refuse("no")), service="lmtp", relays=True)
        self.assertEqual(self.send(listener, *self.three)[-3:], [550, 250, 250])
        self.assertEqual(self.aside(listener), {"away": "", "bob": "Junk"})

    def test_who_judges_an_undecided_copy_again_knows_what_was_said_before_and_only_that(self) -> None:
        for stage in ("carol@example.net", "bob", "content"):
            found = Defer("not yet", findings=(Finding("spam", 4.0),))
            listener = self.listener(Puts(stage), ForEach(bob=found), relays=True)
            self.assertEqual(self.send(listener, *self.three)[-1], 250)
            [hold] = [one for one in listener.store.set_apart[-1].values() if one.kind is HoldKind.UNDECIDED]
            self.assertEqual(for_judges(hold.findings), (Finding("put_aside", 0.0, f"odd {stage}", source="mailserver"),))

    def test_of_several_ways_to_one_place_the_mildest_verdict_holds_and_comes_first(self) -> None:
        listener = self.listener(Puts("alice"))
        self.send(listener, "alice@example.org", "bob@example.org", "team@example.org")
        [(envelope, _, destinations)] = listener.store.taken
        self.assertEqual(envelope.recipients[0].address.local, "alice")
        self.assertEqual(
            [(one.index, one.recipient.address.local, one.route.mailbox.user, one.route.mailbox.junk) for one in destinations],  # type: ignore[union-attr]
            [(0, "bob", "bob", False), (1, "team", "alice", False), (2, "team", "bob", False), (3, "alice", "alice", False)],
        )

    def test_a_verdict_of_a_derived_class_refuses(self) -> None:
        class NotWelcome(Refuse):
            pass

        listener = self.listener(Content(NotWelcome("no")))
        self.assertEqual(self.send(listener, *self.three[:2])[-1], 550)
        self.assertEqual(listener.store.taken, [])


class Posting:
    """A user's message whose accounting fails at `fails_at`."""

    def __init__(self, fails_at: str) -> None:
        self.fails_at = fails_at
        self.settled: list[bool] = []

    def posting(self, id: str, peer: Any, note: Any) -> Posting:
        return self

    async def mail(self, sender: Any) -> None:
        return None

    async def recipient(self, address: Any) -> None:
        return None

    async def content(self, content: Any, *, smtputf8: bool = False, signs: bool = False) -> Any:
        return content

    async def charge(self) -> None:
        return None

    def settle(self, accepted: bool) -> None:
        self.settled.append(accepted)
        if self.fails_at == "settle":
            raise OSError("state.db cannot be written")


class AfterTheCommit(TransactionCase):
    """Nothing that follows a durable commit changes the answer, or takes the message's file away."""

    large = b"Subject: large\r\n\r\n" + b"x" * 2000 + b"\r\n"

    def send_large(self, listener: Listener) -> list[int]:
        return self.send(listener, "alice@example.org", "bob@example.org", data=self.large)

    def files(self, listener: Listener) -> int:
        return len(os.listdir(listener.store.directory))

    def test_an_account_that_cannot_be_settled_changes_nothing(self) -> None:
        listener = self.listener(memory_octets=1000, submission=Posting("settle"))
        self.assertEqual(self.send_large(listener)[-1], 250)
        self.assertEqual(self.files(listener), 1)
        self.assertEqual(listener.step("accepted")["recipients"], ["alice@example.org", "bob@example.org"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_a_road_that_cannot_be_written_changes_nothing(self) -> None:
        listener = self.listener(memory_octets=1000)
        note = listener.note

        def failing(id: str, step: str, **fields: Any) -> None:
            if step == "accepted":
                raise RuntimeError("an observer")
            note(id, step, **fields)

        object.__setattr__(listener.profile, "note", failing)
        self.assertEqual(self.send_large(listener)[-1], 250)
        self.assertEqual(self.files(listener), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_memory_that_cannot_be_let_go_changes_nothing(self) -> None:
        def release(_: Spooling) -> None:
            raise ValueError("release")

        self.patch(Spooling, "release", release)
        listener = self.listener(memory_octets=1000)
        self.assertEqual(self.send_large(listener)[-1], 250)
        self.assertEqual(self.files(listener), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_in_lmtp_everybody_keeps_the_answer(self) -> None:
        listener = self.listener(ForEach(bob=Refuse("no")), service="lmtp", submission=Posting("settle"))
        self.assertEqual(
            self.send(listener, "alice@example.org", "bob@example.org", "postmaster@example.org")[-3:], [250, 550, 250]
        )
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_a_commit_that_fails_leaves_no_file_and_is_not_charged(self) -> None:
        for error, code in ((StorageFull("full"), 452), (StorageBroken("broken"), 451), (KeyError("a fault of ours"), 451)):
            posting = Posting("")
            listener = self.listener(memory_octets=1000, submission=posting)
            listener.store.answer = error
            self.assertEqual(self.send_large(listener)[-1], code)
            self.assertEqual((self.files(listener), posting.settled), (0, [False]))
            self.assertEqual(listener.step("refused")["stage"], "commit")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_refund_that_fails_leaves_the_reason_of_the_failed_commit(self) -> None:
        listener = self.listener(memory_octets=1000, submission=Posting("settle"))
        listener.store.answer = StorageFull("full")
        self.assertEqual(self.send_large(listener)[-1], 452)
        self.assertEqual(self.files(listener), 0)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_a_commit_of_which_nobody_knows_keeps_its_file(self) -> None:
        listener = self.listener(memory_octets=1000)
        listener.store.answer = CancelledError()
        self.assertEqual(self.send_large(listener)[-1], 451)
        self.assertEqual(self.files(listener), 1)
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1)

    def test_a_commit_that_may_come_back_leaves_its_file_to_the_queue(self) -> None:
        for error, code in ((StorageFull("quota"), 452), (StorageBroken("the sync failed"), 451)):
            error.may_come_back = True
            listener = self.listener(memory_octets=1000)
            listener.store.answer = error
            self.assertEqual(self.send_large(listener)[-1], code)
            self.assertEqual(self.files(listener), 1)

    def test_a_file_that_cannot_be_removed_leaves_the_refusal_as_it_is(self) -> None:
        def unlink(path: str) -> None:
            raise PermissionError(path)

        listener = self.listener(Content(Refuse("spam")), memory_octets=1000)
        self.patch(os, "unlink", unlink)
        self.assertEqual(self.send_large(listener)[-1], 550)
        self.assertEqual(len(self.flushLoggedErrors(PermissionError)), 1)


@implementer(IContentFilter)
class Reads:
    """Remembers what filters see."""

    def __init__(self) -> None:
        self.seen: list[tuple[list[str], bytes]] = []

    async def judge_content(self, envelope: Any, content: Any) -> Verdict:
        self.seen.append(([field.name.decode() for field in content.headers], content.head))
        return Pass()


class Mended(TransactionCase):
    """Header sections that many programs get wrong, on each way in, in memory and in a file."""

    def test_text_without_an_empty_line_is_text_for_filters_and_readers(self) -> None:
        data = b"From me Mon Nov 30\r\nSubject : alarm\r\nTo: bob@example.org\r\nDisk full on srv1\r\nAt: 12:00\r\n"
        mended = b"X-Mailbox-Line: From me Mon Nov 30\r\nSubject : alarm\r\nTo: bob@example.org\r\n\r\nDisk full on srv1\r\nAt: 12:00\r\n"
        for service, address in (("mx", "203.0.113.9"), ("submission", "192.0.2.7"), ("lmtp", "203.0.113.9")):
            for memory_octets in (1_000_000, 1):
                reads = Reads()
                listener = self.listener(reads, service=service, memory_octets=memory_octets)
                codes = self.say(listener, MAIL + b"RCPT TO:<bob@example.org>\r\nDATA\r\n" + data + b".\r\n", address)
                self.assertEqual(codes, [250, 250, 354, 250])
                ((_, octets, _),) = listener.store.taken
                self.assertTrue(octets.endswith(b"\r\n" + mended), octets)
                ((names, head),) = reads.seen
                self.assertEqual(names, ["x-mailbox-line", "subject", "to"])
                self.assertTrue(head.endswith(b"bob@example.org\r\n\r\n"))
                done = [fields["what"] for _, step, fields in listener.steps if step == "mended"]
                self.assertEqual(done, ["the separator line of an mbox is a field", "an empty line before the text"])

    def test_a_text_longer_than_the_header_limit_is_no_header(self) -> None:
        listener = self.listener(limits=ConnectionLimits(header_octets=1000))
        self.assertEqual(self.send(listener, "bob@example.org", data=b"Subject: x\r\n" + b"words of a report\r\n" * 100), [250, 250, 354, 250])

    def test_blind_copies_of_mail_in_transit_stay(self) -> None:
        listener = self.listener()
        data = b"Subject: x\r\nBcc: a@b.example\r\nReturn-Path: <c@d.example>\r\n\r\nhello\r\n"
        self.send(listener, "bob@example.org", data=data)
        self.assertTrue(listener.store.taken[0][1].endswith(data))
