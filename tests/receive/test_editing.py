"""Modifiers, one after another, on the wire: what is committed, what the peer hears, what the road has."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from mailserver.interfaces import IModifier, IRecipientContentFilter, ISigner
from mailserver.mail.address import Address
from mailserver.mail.answers import Defer, Discard, Pass, Quarantine, Refuse
from mailserver.mail.content import Content
from mailserver.mail.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DropHeader,
    InsertHeader,
    PutAside,
    ReplaceBody,
    ReplaceRecipient,
)
from mailserver.mail.envelope import Envelope, Peer, RecipientParameters
from mailserver.receive.editing import signed
from mailserver.receive.judging import BoundFilter, Judging
from mailserver.receive.new_body import CRLFLines
from mailserver.receive.profile import ConnectionLimits
from tests.receive.connections import Listener
from tests.receive.test_protocol import ConnectionCase

ALICE, BOB, EVE = (Address(name, "example.org") for name in ("alice", "bob", "eve"))
POSTMASTER = Address("postmaster", "example.org")
TEXT = b"Subject: one\r\nX-Old: 1\r\nX-Old: 2\r\n\r\nhello\r\n"


@implementer(IModifier)
class Edits:
    """Answers with the same edits, or with what it is given to call; keeps what it has seen."""

    def __init__(self, *edits: Any, answer: Any = None) -> None:
        self.answer = edits if answer is None else answer
        self.seen: list[tuple[Any, bytes]] = []

    async def edits(self, envelope: Any, content: Any) -> Any:
        self.seen.append((envelope, b"".join(content.chunks())))
        answer = self.answer() if callable(self.answer) else self.answer
        return await answer if isinstance(answer, Deferred) else answer


@implementer(ISigner)
class Signs:
    def __init__(self, *edits: Any) -> None:
        self.answer = edits
        self.seen: list[bytes] = []

    async def sign(self, envelope: Any, content: Any) -> Any:
        self.seen.append(b"".join(content.chunks()))
        return self.answer


@implementer(IRecipientContentFilter)
class NotBob:
    async def judge_content_for(self, envelope: Any, content: Any, recipient: Any) -> Any:
        return Refuse("no") if recipient.address == BOB else Pass()


class EditingCase(ConnectionCase):
    def edited(self, *components: Any, memory_octets: int = 1_000_000, **options: Any) -> Listener:
        filters = [one if isinstance(one, BoundFilter) else BoundFilter(f"filter{n}", one) for n, one in enumerate(components)]
        return self.listener(filters=filters, memory_octets=memory_octets, **options)

    def send(self, listener: Listener, *recipients: str, text: bytes = TEXT) -> int:
        protocol, wire = listener.greeted()
        rcpt = b"".join([b"RCPT TO:<%s@example.org>\r\n" % one.encode() for one in recipients or ("alice",)])
        protocol.dataReceived(b"MAIL FROM:<a@example.net>\r\n" + rcpt + b"DATA\r\n" + text + b".\r\n")
        return wire.codes()[-1]

    def taken(self, listener: Listener) -> tuple[bytes, bytes]:
        """Header section without our Received, and body, of the one message that was committed."""
        ((_, octets, _),) = listener.store.taken
        head, _, body = octets.partition(b"\r\n\r\n")
        fields = [one for one in head.split(b"\r\n") if not one.startswith((b"Received:", b"\t", b" "))]
        return b"|".join(fields), body

    def users(self, listener: Listener) -> list[str]:
        ((_, _, destinations),) = listener.store.taken
        return [one.route.address.local for one in destinations]

    def files(self, listener: Listener) -> list[str]:
        return sorted(os.listdir(listener.store.directory))

    def steps(self, listener: Listener) -> list[dict[str, Any]]:
        return [fields for _, step, fields in listener.steps if step == "filter"]


class Pipeline(EditingCase):
    def test_each_modifier_sees_what_those_before_it_have_made(self) -> None:
        second = Edits(ChangeHeader("X-New", 0, "changed"), DropHeader("X-Old"))
        third = Edits()
        listener = self.edited(
            BoundFilter("third", third, level=2),
            BoundFilter("first", Edits(AddHeader("X-New", "yes"), ReplaceBody(b"new\n"))),
            BoundFilter("second", second, cost=5),
        )
        self.assertEqual(self.send(listener), 250)
        self.assertIn(b"X-New: yes\r\nReceived: ", second.seen[0][1])
        self.assertTrue(second.seen[0][1].endswith(b"X-Old: 2\r\n\r\nnew\r\n"))
        self.assertIn(b"X-New: changed\r\n", third.seen[0][1])
        self.assertEqual(self.taken(listener), (b"X-New: changed|Subject: one", b"new\r\n"))

    def test_recipients_and_sender_too(self) -> None:
        later = Edits(ReplaceRecipient(BOB, (ALICE,)))
        listener = self.edited(Edits(ReplaceRecipient(ALICE, (BOB,)), ChangeSender(EVE)), later)
        self.assertEqual(self.send(listener), 250)
        ((envelope, _),) = later.seen
        self.assertEqual(([one.address for one in envelope.recipients], envelope.sender), ([BOB], EVE))
        self.assertEqual(self.users(listener), ["alice"])
        ((committed, _, _),) = listener.store.taken
        self.assertEqual((committed.sender, [one.address for one in committed.recipients]), (EVE, [ALICE]))

    def test_the_null_sender_can_be_set(self) -> None:
        listener = self.edited(Edits(ChangeSender(None)))
        self.send(listener)
        self.assertIsNone(listener.store.taken[0][0].sender)

    def test_every_edit_is_on_the_road(self) -> None:
        listener = self.edited(Edits(AddHeader("X-New", "yes"), InsertHeader(1, "X-B", "c"), ReplaceBody(b"x")), Edits())
        self.send(listener)
        (step,) = self.steps(listener)
        self.assertEqual(step["edits"], ["AddHeader X-New: yes", "InsertHeader X-B at 1: c", "ReplaceBody"])
        self.assertEqual((step["filter"], step["stage"], step["verdict"]), ("filter0", "edits", "Pass"))

    def test_edits_in_the_shadow_are_recorded_and_not_made(self) -> None:
        later = Edits()
        listener = self.edited(BoundFilter("shadow", Edits(DropHeader("Subject")), shadow=True), later)
        self.assertEqual(self.send(listener), 250)
        self.assertIn(b"Subject: one", self.taken(listener)[0])
        self.assertIn(b"Subject: one", later.seen[0][1])
        (step,) = self.steps(listener)
        self.assertEqual((step["shadow"], step["edits"]), (True, ["DropHeader Subject"]))

    def test_a_modifier_that_waits_keeps_its_place(self) -> None:
        answer: Deferred[Any] = Deferred()
        second = Edits(AddHeader("X-B", "2"))
        listener = self.edited(Edits(answer=lambda: answer), second)
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"MAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n" + TEXT + b".\r\n")
        self.assertEqual(second.seen, [])
        answer.callback([AddHeader("X-A", "1")])
        self.assertEqual(wire.codes()[-1], 250)
        self.assertEqual(self.taken(listener)[0], b"X-B: 2|X-A: 1|Subject: one|X-Old: 1|X-Old: 2")

    def test_discard_in_place_of_edits_throws_the_message_away(self) -> None:
        later = Edits()
        listener = self.edited(Edits(answer=Discard("virus")), later)
        self.assertEqual(self.send(listener, "alice", "bob"), 250)
        self.assertEqual((listener.store.taken, later.seen), ([], []))
        discarded = [fields["recipients"] for _, step, fields in listener.steps if step == "discarded"]
        self.assertEqual(discarded, [["alice@example.org"], ["bob@example.org"]])

    def test_what_a_content_filter_has_refused_for_one_is_edited_for_the_others(self) -> None:
        listener = self.edited(NotBob(), Edits(AddHeader("X-New", "yes")), service="lmtp")
        protocol, wire = listener.connect()
        wire.clear()
        protocol.dataReceived(
            b"LHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n" + TEXT + b".\r\n"
        )
        self.assertEqual(wire.codes()[-2:], [250, 550])
        self.assertEqual(self.users(listener), ["alice"])
        self.assertTrue(self.taken(listener)[0].startswith(b"X-New: yes"))


class Outcomes(EditingCase):
    def test_a_modifier_may_refuse_or_defer_in_place_of_edits(self) -> None:
        for answer, codes in ((Refuse("a virus", "5.7.9"), b"550 5.7.9 "), (Defer("later"), b"450 4.7.1 ")):
            later = Edits()
            listener = self.edited(Edits(AddHeader("X-New", "yes")), Edits(answer=answer), later)
            protocol, wire = listener.greeted()
            protocol.dataReceived(b"MAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n" + TEXT + b".\r\n")
            self.assertIn(codes, wire.value())
            self.assertEqual((listener.store.taken, later.seen, self.files(listener)), ([], [], []))

    def test_what_is_put_aside_by_an_edit_is_for_everybody_and_changed_all_the_same(self) -> None:
        listener = self.edited(Edits(PutAside("odd"), AddHeader("X-New", "yes")))
        self.assertEqual(self.send(listener, "alice", "bob"), 250)
        ((_, _, destinations),) = listener.store.taken
        self.assertEqual([one.route.mailbox.junk for one in destinations], [True, True])
        self.assertTrue(self.taken(listener)[0].startswith(b"X-New: yes"))

    def test_in_the_shadow_nothing_is_put_aside(self) -> None:
        listener = self.edited(BoundFilter("shadow", Edits(PutAside("odd")), shadow=True))
        self.assertEqual(self.send(listener), 250)
        self.assertFalse(listener.store.taken[0][2][0].route.mailbox.junk)


class Added(EditingCase):
    def test_a_recipient_who_is_added_gets_a_copy_with_parameters_of_his_own(self) -> None:
        later = Edits()
        never = RecipientParameters(notify=frozenset({"NEVER"}))
        listener = self.edited(Edits(AddRecipient(BOB, never)), later)
        self.assertEqual(self.send(listener), 250)
        ((envelope, _, destinations),) = listener.store.taken
        self.assertEqual([one.recipient.address for one in destinations], [ALICE, BOB])
        self.assertEqual(destinations[1].recipient.parameters, never)
        self.assertEqual([one.address for one in envelope.recipients], [ALICE])
        self.assertEqual([one.address for one in later.seen[0][0].recipients], [ALICE, BOB])

    def test_what_becomes_of_the_others_copies_is_nothing_to_him(self) -> None:
        for service, codes in (("mx", [250]), ("lmtp", [250, 550])):
            listener = self.edited(NotBob(), Edits(AddRecipient(POSTMASTER)), service=service)
            protocol, wire = listener.connect()
            wire.clear()
            hello = b"LHLO" if service == "lmtp" else b"EHLO"
            protocol.dataReceived(
                hello + b" c.example\r\nMAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
                + TEXT + b".\r\n"
            )
            self.assertEqual(wire.codes()[-len(codes) :], codes)
            self.assertIn("postmaster", self.users(listener))

    def test_where_everybody_else_refuses_he_gets_none_since_the_sender_hears_no(self) -> None:
        listener = self.edited(NotBob(), Edits(AddRecipient(POSTMASTER)), service="lmtp")
        protocol, wire = listener.connect()
        protocol.dataReceived(b"LHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n" + TEXT + b".\r\n")
        self.assertEqual((wire.codes()[-1], listener.store.taken), (550, []))

    def test_he_may_be_replaced_and_stay_the_only_one(self) -> None:
        listener = self.edited(Edits(AddRecipient(BOB)), Edits(ReplaceRecipient(BOB, (POSTMASTER,)), ReplaceRecipient(ALICE, ())))
        self.assertEqual(self.send(listener), 250)
        self.assertEqual(self.users(listener), ["postmaster"])

    def test_a_message_that_is_put_aside_is_so_for_him(self) -> None:
        listener = self.edited(Edits(AddRecipient(BOB), PutAside("odd")))
        self.send(listener)
        self.assertEqual([one.route.mailbox.junk for one in listener.store.taken[0][2]], [True, True])


class Faults(EditingCase):
    def test_who_is_added_counts_among_the_recipients_and_needs_a_route(self) -> None:
        self.assertFails("more than 2 recipients", AddRecipient(BOB), AddRecipient(POSTMASTER), limits=ConnectionLimits(recipients=2))
        self.assertFails("it has no route", AddRecipient(Address("nobody", "example.org")))

    def assertFails(self, what: str, *edits: Any, answer: Any = None, **options: Any) -> None:
        for on_error, code in (("defer", 450), ("refuse", 550), ("skip", 250)):
            later = Edits(AddHeader("X-Later", "yes"))
            bad = BoundFilter("bad", Edits(AddHeader("X-Half", "1"), *edits, answer=answer), on_error=on_error)  # type: ignore[arg-type]
            listener = self.edited(bad, later, **options)
            self.assertEqual(self.send(listener), code, what)
            step = self.steps(listener)[0]
            self.assertRegex(step["error"], what)
            if on_error == "skip":  # none of its edits is made, and the others go on
                self.assertEqual(self.taken(listener)[0], b"X-Later: yes|Subject: one|X-Old: 1|X-Old: 2")
                self.assertEqual(self.users(listener), ["alice"])
            else:
                self.assertEqual((listener.store.taken, later.seen), ([], []))
            self.assertLessEqual(len(self.files(listener)), 1)

    def test_an_edit_that_applies_to_nothing_is_the_modifiers_failure(self) -> None:
        self.assertFails("there is no field X-Not 0", ChangeHeader("X-Not", 0, "x"))
        self.assertFails("there is no field X-Old 2", ChangeHeader("X-Old", 2, None))
        self.assertFails("bob@example.org is to be replaced and is no recipient", ReplaceRecipient(BOB, (EVE,)))

    def test_so_is_one_that_leads_nowhere_or_leaves_nobody(self) -> None:
        self.assertFails("it has no route", ReplaceRecipient(ALICE, (Address("nobody", "example.org"),)))
        self.assertFails("who wants that answers with Discard", ReplaceRecipient(ALICE, ()))

    def test_so_is_what_is_beyond_a_bound(self) -> None:
        limits = ConnectionLimits(header_octets=2000, message_octets=5000, recipients=2)
        self.assertFails("more than 2000 octets", *[AddHeader("X-Long", "x" * 900)] * 3, limits=limits)
        self.assertFails("more than 5000 octets", ReplaceBody(b"x" * 5000), limits=limits)
        self.assertFails("more than 2 recipients", ReplaceRecipient(ALICE, (BOB, ALICE, BOB)), limits=limits)

    def test_so_is_what_are_no_edits(self) -> None:
        for answer in ("X-Header: 1", [AddHeader("A", "1"), "X"], Pass(), Quarantine("no"), [None], {"A": 1}, AddHeader("A", "1")):
            self.assertFails("Error", answer=answer)
        self.assertFails("more than 1000 edits", answer=[AddHeader("A", "1")] * 1001)

    def test_one_of_several_recipients_may_be_left_out(self) -> None:
        listener = self.edited(Edits(ReplaceRecipient(ALICE, ())))
        self.assertEqual(self.send(listener, "alice", "bob"), 250)
        self.assertEqual(self.users(listener), ["bob"])

    def test_a_router_that_fails_is_not_the_modifiers_failure(self) -> None:
        listener = self.edited(BoundFilter("m", Edits(ReplaceRecipient(ALICE, (BOB,))), on_error="skip"))
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"MAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n")
        listener.router.error = RuntimeError("the directory is down")
        protocol.dataReceived(TEXT + b".\r\n")
        self.assertEqual(wire.codes()[-1], 451)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(listener.store.taken, [])


class Bodies(EditingCase):
    def body(self, make: Callable[[], Any], *, memory_octets: int, text: bytes = TEXT) -> bytes:
        listener = self.edited(Edits(answer=lambda: [ReplaceBody(make())]), memory_octets=memory_octets)
        self.assertEqual(self.send(listener, text=text), 250, self.steps(listener))
        self.assertLessEqual(len(self.files(listener)), 1)
        head, body = self.taken(listener)
        self.assertEqual(head, b"Subject: one|X-Old: 1|X-Old: 2")
        return body

    def test_they_come_whole_or_in_pieces_that_may_be_waited_for(self) -> None:
        async def later() -> AsyncIterator[bytes]:
            for piece in (b"one\r", b"\ntwo", b"\n"):
                yield piece

        for make in (lambda: b"one\ntwo\n", lambda: [b"one", b"\r\n", b"two"], lambda: iter([b"one\rtwo\r"]), later):
            for memory_octets in (1_000_000, 1):
                self.assertEqual(self.body(make, memory_octets=memory_octets), b"one\r\ntwo\r\n")  # type: ignore[arg-type]

    def test_a_large_one_goes_into_the_messages_file(self) -> None:
        large = [b"x" * 70 + b"\n"] * 5000
        for text in (TEXT, TEXT + b"y\r\n" * 100_000):  # which came in memory, or in a file
            body = self.body(lambda: large, memory_octets=10_000, text=text)
            self.assertEqual(body, (b"x" * 70 + b"\r\n") * 5000)

    def test_a_small_one_in_place_of_a_large_one_leaves_no_file(self) -> None:
        listener = self.edited(Edits(ReplaceBody(b"small")), memory_octets=10_000)
        self.assertEqual(self.send(listener, text=TEXT + b"y\r\n" * 100_000), 250)
        self.assertEqual((self.taken(listener)[1], self.files(listener)), (b"small\r\n", []))

    def test_one_from_a_file(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"from a file\n")
        listener = self.edited(Edits(ReplaceBody(path=path)))
        self.assertEqual(self.send(listener), 250)
        self.assertEqual(self.taken(listener)[1], b"from a file\r\n")

    def test_an_empty_one(self) -> None:
        self.assertEqual(self.body(lambda: b"", memory_octets=1000), b"")

    def test_one_that_breaks_is_the_modifiers_failure_and_the_message_stays_as_it_was(self) -> None:
        def breaks(kind: Any) -> Any:
            yield b"x" * 100_000
            raise kind("broken")

        for make in (lambda: breaks(ValueError), lambda: ["text"], lambda: [None], lambda: breaks(SystemExit)):
            for text in (TEXT, TEXT + b"y\r\n" * 10_000):
                bound = BoundFilter("m", Edits(answer=lambda make=make: [ReplaceBody(make())]), on_error="skip")
                listener = self.edited(bound, memory_octets=10_000)
                self.assertEqual(self.send(listener, text=text), 250)
                self.assertTrue(listener.store.taken[0][1].endswith(text))
                self.assertEqual(len(self.files(listener)), int(len(text) > 10_000))

    def test_one_that_is_never_complete_has_the_modifiers_deadline(self) -> None:
        async def never() -> AsyncIterator[bytes]:
            yield b"x" * 100_000
            await Deferred()

        listener = self.edited(
            BoundFilter("m", Edits(answer=lambda: [ReplaceBody(never())]), on_error="skip", deadline_seconds=3), memory_octets=1000
        )
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"MAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n" + TEXT + b".\r\n")
        listener.clock.advance(3)
        self.assertEqual(wire.codes()[-1], 250)
        self.assertEqual(self.taken(listener)[1], b"hello\r\n")
        self.assertEqual(self.files(listener), [])

    def test_pieces_without_octets_keep_nobody_from_his_turn(self) -> None:
        def empty() -> Any:
            yield from [b""] * 20_000
            self.fail("asked for more before anybody else had a turn")

        listener = self.edited(BoundFilter("m", Edits(answer=lambda: [ReplaceBody(empty())]), on_error="skip", deadline_seconds=3))
        protocol, wire = listener.greeted()
        protocol.dataReceived(b"MAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n" + TEXT + b".\r\n")
        self.assertEqual(wire.codes()[-1], 354)
        listener.clock.advance(3)
        self.assertEqual(wire.codes()[-1], 250)
        self.assertEqual(self.taken(listener)[1], b"hello\r\n")

    def test_a_path_that_leads_to_no_file_holds_nobody_up(self) -> None:
        pipe = self.mktemp()
        os.mkfifo(pipe)
        with open(os.open(pipe, os.O_RDWR), "rb"):  # with a writer, who writes nothing
            for path in (pipe, "/dev/zero", "/", "/no/such/file"):
                bound = BoundFilter("m", Edits(ReplaceBody(path=path)), on_error="skip")
                listener = self.edited(bound)
                self.assertIn(self.send(listener), (250, 451))
                self.assertEqual(self.files(listener), [])

    def test_what_is_refused_after_it_leaves_no_file(self) -> None:
        listener = self.edited(Edits(answer=lambda: [ReplaceBody(b"x" * 100_000)]), memory_octets=1000)
        listener.store.answer = KeyError("a fault of ours")
        self.assertEqual(self.send(listener), 451)
        self.assertEqual(self.files(listener), [])
        self.flushLoggedErrors(KeyError)

    def test_lines_end_with_crlf_however_they_are_cut(self) -> None:
        octets = b"a\nb\r\nc\rd\r\n\r\n\ne"
        for cut in range(len(octets)):
            lines = CRLFLines()
            got = lines.convert(octets[:cut]) + lines.convert(octets[cut:]) + lines.end()
            self.assertEqual(got, b"a\r\nb\r\nc\r\nd\r\n\r\n\r\ne\r\n")
        self.assertEqual(CRLFLines().end(), b"")


class Signers(EditingCase):
    def test_they_see_the_octets_that_are_committed_and_only_put_fields_in_front(self) -> None:
        first, second = Signs(AddHeader("X-Sig", "1")), Signs(AddHeader("X-Seal", "2"))
        listener = self.edited(BoundFilter("second", second, level=9), first, BoundFilter("m", Edits(ReplaceBody(b"new")), level=5))
        self.assertEqual(self.send(listener), 250)
        ((_, octets, _),) = listener.store.taken
        self.assertEqual(octets, b"X-Seal: 2\r\nX-Sig: 1\r\n" + first.seen[0])
        self.assertEqual(second.seen, [b"X-Sig: 1\r\n" + first.seen[0]])
        self.assertTrue(first.seen[0].startswith(b"Received: "))
        self.assertTrue(first.seen[0].endswith(b"\r\n\r\nnew\r\n"))

    def test_any_other_edit_is_the_signers_failure(self) -> None:
        for edit in (DropHeader("Subject"), ReplaceBody(b"x"), ChangeSender(None), InsertHeader(0, "A", "b")):
            listener = self.edited(Signs(edit))
            self.assertEqual(self.send(listener), 450)
            self.assertIn("a signature is an AddHeader", self.steps(listener)[0]["error"])


class EightBits(EditingCase):
    """What is signed has none, so that no host on its way has to encode it."""

    HEAD = b"Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n"
    TEXT = HEAD + b"\r\ngr\xc3\xbcn\r\n"
    SIGNED = b"DKIM-Signature: v=1"

    def signer(self, name: str = "DKIM-Signature") -> Signs:
        return Signs(AddHeader(name, "v=1"))

    def test_what_only_we_have_signed_is_encoded_and_signed_as_it_then_is(self) -> None:
        for memory_octets in (1_000_000, 10):
            for name in ("DKIM-Signature", "ARC-Seal"):
                signer = self.signer(name)
                listener = self.edited(signer, memory_octets=memory_octets)
                self.assertEqual(self.send(listener, text=self.TEXT), 250)
                head, body = self.taken(listener)
                self.assertEqual((head.count(name.encode()), body), (1, b"gr=C3=BCn\r\n"))
                self.assertEqual(len(signer.seen), 2)
                self.assertTrue(signer.seen[1].endswith(b"\r\n\r\n" + body))

    def test_so_is_what_a_modifier_has_put_there(self) -> None:
        signer = self.signer()
        listener = self.edited(Edits(ReplaceBody("schön\n".encode())), signer)
        self.assertEqual(self.send(listener, text=self.HEAD + b"\r\nascii\r\n"), 250)
        self.assertEqual(self.taken(listener)[1], b"sch=C3=B6n\r\n")
        self.assertTrue(signer.seen[1].endswith(b"sch=C3=B6n\r\n"))

    def test_what_nobody_signs_or_somebody_else_has_signed_or_sealed_stays_as_it_came(self) -> None:
        sealed = b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\ngr\xc3\xbcn\r\n--b--\r\n"
        for signer, text in (
            (self.signer("X-Sig"), self.TEXT),
            (Signs(), self.TEXT),
            (self.signer(), self.SIGNED + b"\r\n" + self.TEXT),
            (self.signer(), b"ARC-Seal: i=1\r\n" + self.TEXT),
            (self.signer(), sealed),
            (self.signer(), self.HEAD + b"\r\nascii\r\n"),
        ):
            listener = self.edited(signer)
            self.assertEqual(self.send(listener, text=text), 250)
            ((_, octets, _),) = listener.store.taken
            self.assertTrue(octets.endswith(text), octets)
            self.assertEqual(len(signer.seen), 1)

    def test_a_signer_that_cannot_sign_the_second_time_defers(self) -> None:
        signer = Signs()
        turns = iter([(AddHeader("DKIM-Signature", "v=1"),), "nonsense"])

        async def sign(envelope: Any, content: Any) -> Any:
            return next(turns)

        signer.sign = sign  # type: ignore[method-assign]
        self.assertEqual(self.send(self.edited(signer), text=self.TEXT), 450)


class OurOwnMail(EditingCase):
    def signed(self, *filters: BoundFilter) -> Any:
        judging = Judging(filters, clock=Clock())
        envelope = Envelope("0" * 16, Peer("127.0.0.1", 0, "report"), None, (), 0.0)
        return self.successResultOf(Deferred.fromCoroutine(signed(judging, envelope, Content.of(TEXT))))

    def test_it_is_signed_by_those_who_sign_the_mail_of_users(self) -> None:
        one, two, other = (Signs(AddHeader("X-Sig", name)) for name in ("1", "2", "3"))
        content, judgement = self.signed(
            BoundFilter("two", two, level=1),
            BoundFilter("one", one, services=frozenset({"submission"})),
            BoundFilter("other", other, services=frozenset({"mx"})),
            BoundFilter("shadow", Signs(AddHeader("X-Sig", "4")), shadow=True),
        )
        self.assertEqual(b"".join(content.chunks()), b"X-Sig: 2\r\nX-Sig: 1\r\n" + TEXT)
        self.assertEqual(other.seen, [])
        self.assertEqual([answer.filter for answer in judgement.answers], ["one", "shadow", "two"])

    def test_without_signers_it_stays_as_it_is(self) -> None:
        content, _ = self.signed()
        self.assertEqual(b"".join(content.chunks()), TEXT)

    def test_where_one_cannot_it_is_not_sent_unsigned_unless_it_may_be_skipped(self) -> None:
        for on_error in ("defer", "refuse"):
            content, judgement = self.signed(BoundFilter("bad", Signs("nonsense"), on_error=on_error))  # type: ignore[arg-type]
            self.assertIsNone(content)
            self.assertIn("TypeError", judgement.answers[0].error)
        content, _ = self.signed(BoundFilter("bad", Signs("nonsense"), on_error="skip"))
        self.assertEqual(b"".join(content.chunks()), TEXT)
