"""Mail that a component reads itself: the address that each domain has, the delivery, and what becomes of failures."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailserver.delivery import readers as module
from mailserver.delivery.readers import (
    AGAIN_SECONDS,
    MOMENT_SECONDS,
    READ_SECONDS,
    Reader,
    WithReaders,
    readers_by_address,
)
from mailserver.interfaces import IBatchDelivery, IComponentFactory, IContentFilter, IMailReader
from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Local, Mailbox, Pass
from mailserver.mail.content import Content
from mailserver.mail.envelope import Recipient
from mailserver.mail.envelope_codec import decode_envelope, encode_envelope
from mailserver.mail.parcel import Destination, Parcel
from mailserver.mail.reply import Reply
from mailserver.plugins.asking import Asking
from mailserver.plugins.catalogue import PluginError
from mailserver.plugins.generation import Generation
from mailserver.testing import FilterCase, MailCase

NO = Failed(Reply.of(550, "5.7.1", "No"), reports=False)


@implementer(IContentFilter, IMailReader)
class Suggestions:
    """Reads the mail for ``suggestions``."""

    reads = ("suggestions",)

    def __init__(self) -> None:
        self.read_mail: list[tuple[str, bytes]] = []
        self.answer: Any = Delivered("read")

    async def judge_content(self, envelope: Any, content: Any) -> Any:
        return Pass()

    async def read(self, envelope: Any, content: Content, address: Address) -> Any:
        self.read_mail.append((str(address), b"".join(content.chunks())))
        if isinstance(self.answer, Exception):
            raise self.answer
        return await self.answer if isinstance(self.answer, Deferred) else self.answer


@implementer(IComponentFactory)
class Factory:
    name = "suggestions"
    summary = "Reads suggestions."
    api_version = "1.0"
    provides = IContentFilter

    from mailserver.config import Options as options

    def build(self, options: Any, services: Any) -> Suggestions:
        return Suggestions()


FILTER = '[[filter]]\nuse = "suggestions"\n'
ALIASES = '[domain."example.org"]\n[domain."example.org".aliases]\nideas = ["suggestions@example.org", "bob@example.org"]\n'


class Mail(MailCase):
    def read(self) -> list[str]:
        self.settle()
        return [address for address, _ in self.component("suggestions").read_mail]

    def settle(self) -> None:
        self._settle()

    def test_the_address_is_in_each_domain_and_a_mailbox_has_nothing_of_it(self) -> None:
        self.serve(FILTER + '[domain."example.org"]\n[domain."example.com"]\n', Factory())
        for domain in ("example.org", "example.com"):
            self.assertEqual(self.send(recipients=[f"Suggestions@{domain}", "alice@example.org"]).code, 250)
        self.assertEqual(self.read(), ["Suggestions@example.org", "Suggestions@example.com"])
        self.assertEqual(len(self.mailbox("alice@example.org")), 2)
        self.assertEqual({type(one.outcome) for one in self.attempts}, {Delivered})
        self.assertEqual(self.send(recipients=["suggestions@elsewhere.example"]).code, 550)
        is_own = self.server.policy.router.is_own
        self.assertEqual([is_own(one) for one in ("Example.ORG", "elsewhere.example", "a..b", "")], [True, False, False, False])

    def test_an_alias_leads_there_and_a_tag_does(self) -> None:
        self.serve(ALIASES + FILTER, Factory())
        self.send(recipients=["ideas@example.org", "suggestions+tag@example.org"])
        self.assertEqual(self.read(), ["suggestions@example.org", "suggestions+tag@example.org"])
        self.assertEqual(len(self.mailbox("bob@example.org")), 1)

    def test_without_the_component_there_is_no_such_address(self) -> None:
        self.serve()
        self.assertEqual(self.send(recipients=["suggestions@example.org"]).code, 550)

    def test_whoever_has_the_name_has_the_mail(self) -> None:
        mine = '[domain."example.org"]\n[domain."example.org".aliases]\nsuggestions = ["alice@example.org"]\n'
        self.serve(mine + FILTER, Factory())
        self.send(recipients=["suggestions@example.org"])
        self.assertEqual(self.read(), [])
        self.assertEqual(len(self.mailbox("alice@example.org")), 1)
        [fault] = [one for one in self.answer(self.server.policy.router.faults()) if "suggestions" in one]
        self.assertIn("an account or alias has its mail", fault)


class Outcomes(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.reader, self.generation, self.given = Suggestions(), Generation(), list[Any]()

        @implementer(IBatchDelivery)
        class Local_:
            stores = True
            error: Exception | None = None

            async def deliver(its, envelope: Any, content: Any, destinations: Any) -> Any:
                self.given.append([one.index for one in destinations])
                if its.error is not None:
                    raise its.error
                return {one.index: Delivered("kept") for one in destinations}

            async def deliver_batch(its, parcels: Any) -> Any:
                return [await its.deliver(one.envelope, one.content, one.destinations) for one in parcels]

            async def flush(its) -> None:
                """Nothing."""

        self.local = Local_()
        self.tried: list[str] = []
        self.delivery = WithReaders(self.local, clock=self.clock, again=self.again)
        self.asking = Asking("filter suggestions", self.clock)
        self.delivery.use({"suggestions": Reader(self.reader, self.asking)}, self.generation)

    async def again(self, id: str) -> None:
        self.tried.append(id)
        if len(self.tried) > 1:
            raise OSError("no disk")

    def to(self, index: int, local: str, reader: str = "") -> Destination:
        address = Address(local, "example.org")
        return Destination(index, Recipient(address), Local(address, Mailbox(local, "example.org", reader=reader)))

    def parcel(self, *destinations: Destination) -> Parcel:
        return Parcel(self.envelope(), self.content(b"From: a@b.example\n\n"), destinations)

    def batch(self, *parcels: Parcel) -> Any:
        return self.answer(self.delivery.deliver_batch(parcels))

    def test_each_goes_to_its_own_and_outcomes_keep_their_order(self) -> None:
        own, other = self.to(0, "suggestions", "suggestions"), self.to(1, "alice")
        self.assertEqual(
            self.batch(self.parcel(own, other), self.parcel(other), self.parcel(own)),
            [{0: Delivered("read"), 1: Delivered("kept")}, {1: Delivered("kept")}, {0: Delivered("read")}],
        )
        self.assertEqual(self.given, [[1], [1]])
        self.assertTrue(IBatchDelivery.providedBy(self.delivery))
        self.assertTrue(self.delivery.stores)

    def test_one_address_is_read_once_for_all_destinations(self) -> None:
        outcomes = self.batch(self.parcel(self.to(0, "suggestions", "suggestions"), self.to(1, "suggestions", "suggestions")))
        self.assertEqual((outcomes, len(self.reader.read_mail)), ([{0: Delivered("read"), 1: Delivered("read")}], 1))

    def test_an_address_in_other_letters_is_the_same(self) -> None:
        several = [self.to(n, local, "suggestions") for n, local in enumerate(("suggestions", "Suggestions", "SUGGESTIONS"))]
        self.assertEqual(self.batch(self.parcel(*several)), [dict.fromkeys(range(3), Delivered("read"))])
        self.assertEqual(len(self.reader.read_mail), 1)

    def test_many_addresses_of_one_message_take_a_moment_together(self) -> None:
        self.reader.answer = Deferred()
        several = [self.to(n, f"suggestions+{n}", "suggestions") for n in range(30)]
        seen = self.asked(self.parcel(*several, self.to(30, "alice")))
        self.clock.advance(MOMENT_SECONDS)
        self.assertEqual({type(seen[0][0][n]) for n in range(30)}, {Delayed})
        self.assertEqual(seen[0][0][30], Delivered("kept"))

    def test_what_was_read_is_not_read_again_because_the_delivery_has_failed(self) -> None:
        parcel = self.parcel(self.to(0, "suggestions", "suggestions"), self.to(1, "alice"))
        for asked in (lambda: self.delivery.deliver_batch([parcel]), lambda: self.delivery.deliver(*self.parts(parcel))):
            self.reader.read_mail.clear()
            self.local.error = OSError("no disk")
            seen: list[Any] = []
            Deferred.fromCoroutine(asked()).addErrback(seen.append)
            self.assertIs(type(seen[0].value), OSError)
            self.local.error = None
            self.assertEqual(self.batch(parcel), [{0: Delivered("read"), 1: Delivered("kept")}])
            self.assertEqual(len(self.reader.read_mail), 1)

    def test_a_readers_trouble_is_a_delay_of_its_own_mail(self) -> None:
        for answer in (ValueError("broken"), None, "yes", 5):
            self.reader.answer = answer
            [outcomes] = self.batch(self.parcel(self.to(0, "suggestions", "suggestions"), self.to(1, "alice")))
            self.assertIs(type(outcomes[0]), Delayed)
            self.assertEqual(outcomes[1], Delivered("kept"))
        self.flushLoggedErrors()
        self.reader.answer = NO
        [outcomes] = self.batch(self.parcel(self.to(0, "suggestions", "suggestions")))
        self.assertEqual(outcomes[0], NO)

    def asked(self, parcel: Parcel) -> list[Any]:
        """The answer to be, in the list once it is there."""
        seen: list[Any] = []
        Deferred.fromCoroutine(self.delivery.deliver_batch([parcel])).addBoth(seen.append)
        return seen

    def test_mail_of_others_waits_for_a_moment_and_the_reading_goes_on(self) -> None:
        self.reader.answer = Deferred()
        parcel = self.parcel(self.to(0, "suggestions", "suggestions"), self.to(1, "alice"))
        seen = self.asked(parcel)
        self.assertEqual((seen, self.given, self.generation.uses), ([], [[1]], 1))
        self.clock.advance(MOMENT_SECONDS)
        self.assertIs(type(seen[0][0][0]), Delayed)
        self.assertEqual((seen[0][0][1], self.generation.uses), (Delivered("kept"), 1))
        self.assertEqual(self.asked(parcel)[0][0][0].note, "it is being read")
        self.reader.answer.callback(Delivered("at last"))
        self.assertEqual((self.generation.uses, self.tried), (0, []))
        self.clock.advance(AGAIN_SECONDS)
        self.assertEqual(self.tried, [parcel.envelope.id])
        self.assertEqual(self.asked(parcel)[0][0][0], Delivered("at last"))
        self.assertEqual(len(self.reader.read_mail), 1)

    def test_one_who_does_not_answer_is_given_up_in_time_and_asked_again(self) -> None:
        self.reader.answer = Deferred()
        parcel = self.parcel(self.to(0, "suggestions", "suggestions"))
        self.asked(parcel)
        self.clock.advance(READ_SECONDS)
        self.assertEqual(self.generation.uses, 0)
        self.assertRegex(self.asked(parcel)[0][0][0].note, "not ended within")
        self.reader.answer = Delivered("read")
        self.assertEqual(self.asked(parcel)[0][0][0], Delivered("read"))

    def test_so_many_are_read_at_once_and_a_queue_that_fails_breaks_nothing(self) -> None:
        self.patch(module, "READING_MOST", 2)
        parcels = [self.parcel(self.to(0, "suggestions", "suggestions")) for _ in range(3)]
        answers: list[Deferred[Any]] = [Deferred(), Deferred()]
        seen = []
        for parcel, self.reader.answer in zip(parcels, [*answers, None], strict=True):
            seen.append(self.asked(parcel))
        self.assertRegex(seen[2][0][0][0].note, "2 others")
        self.clock.advance(MOMENT_SECONDS)
        self.reader.answer = Delivered("read")
        for answer in answers:
            answer.callback(Delivered("at last"))
        self.clock.advance(AGAIN_SECONDS)
        self.assertEqual(len(self.tried), 2)
        self.assertEqual([self.asked(one)[0][0][0].note for one in parcels], ["at last", "at last", "read"])

    def test_one_who_is_not_there_any_more_is_waited_for(self) -> None:
        self.delivery.use({}, Generation())
        [outcomes] = self.batch(self.parcel(self.to(0, "suggestions", "suggestions")))
        self.assertIs(type(outcomes[0]), Delayed)
        self.assertIn("suggestions", outcomes[0].note)

    def test_the_deliverys_error_is_raised_as_ever(self) -> None:
        self.local.error = OSError("no disk")
        parcel = self.parcel(self.to(0, "suggestions", "suggestions"), self.to(1, "alice"))
        for asked in (lambda: self.delivery.deliver_batch([parcel]), lambda: self.delivery.deliver(*self.parts(parcel))):
            seen: list[Any] = []
            Deferred.fromCoroutine(asked()).addErrback(seen.append)
            self.assertIs(type(seen[0].value), OSError)

    def parts(self, parcel: Parcel) -> Any:
        return parcel.envelope, parcel.content, parcel.destinations

    def test_the_queue_keeps_whose_it_is(self) -> None:
        for junk in (False, True):
            destination = self.to(0, "suggestions", "suggestions")
            mailbox = Mailbox("suggestions", "example.org", junk=junk, reader="suggestions")
            kept = Destination(0, destination.recipient, Local(destination.route.address, mailbox))
            self.assertEqual(decode_envelope(encode_envelope(self.envelope(), (kept,)))[1][0].route, kept.route)

    def test_what_is_no_local_part_is_told(self) -> None:
        for wrong in ("Upper", "a@b", "", 5):
            self.reader.reads = (wrong,)  # type: ignore[assignment]
            with self.assertRaises(PluginError):
                readers_by_address([("suggestions", self.reader)])
