"""Notes to postmaster: what is told, how often, and what becomes of them where nothing can be written."""

import email

from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.address import Address
from mailserver.mail.answers import Failed, Local, Mailbox, Refused, Remote
from mailserver.mail.envelope import Peer, Recipient
from mailserver.mail.faults import StorageBroken, StorageFull
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.postmaster import problems as problems_module
from mailserver.postmaster.notes import LOOK_SECONDS, WAITING_MOST, Notes, Problem, note_octets
from mailserver.postmaster.problems import Problems
from mailserver.relay.heard_meanings import HeardMeanings
from mailserver.testing import MemoryState
from tests.at_once import at_once
from tests.queue.doubles import IDS, local
from tests.queue.test_reports import FULL, ReportCase

DAY = 86_400.0
NOBODY = Refused(Reply.of(550, "5.1.1", "Nobody"), "there is nobody")
BOX = Local(Address("alice", "example.org"), Mailbox("alice", "example.org"))


class NoteCase(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.clock.rightNow = 1_800_000_000.0
        self.state = MemoryState(self.clock)
        self.found = []
        self.sent = []
        self.steps = []
        self.routes = [BOX]
        self.has_room = True
        self.signing = "well"
        self.commits = lambda: succeed(None)
        self.ids = iter(range(10**6))
        self.notes = self.make()

    def make(self):
        async def problems():
            return self.found

        return Notes(
            hostname="mx.example.org",
            clock=self.clock,
            state=self.state,
            problems=problems,
            route=self.route,
            commit=self.commit,
            has_room=lambda octets: self.has_room,
            next_id=lambda: f"{next(self.ids):016}",
            note=lambda id, step, **fields: self.steps.append((id, step, fields)),
            sign=self.sign,
        )

    async def sign(self, envelope, content):
        if isinstance(self.signing, Exception):
            raise self.signing
        if self.signing == "never":
            await Deferred()
        return content.with_prefix(b"DKIM-Signature: x\r\n") if self.signing == "well" else None

    def route(self, address):
        self.assertEqual(address, Address("postmaster", ""))
        return fail(self.routes) if isinstance(self.routes, Exception) else succeed(self.routes)

    def commit(self, envelope, content, destinations):
        done = self.commits()
        done.addCallback(lambda _: self.sent.append((envelope, email.message_from_bytes(content.prefix + content.data), destinations)))
        return done

    def minutes(self, count):
        self.clock.pump([LOOK_SECONDS] * count)

    def subjects(self):
        return [message["Subject"].removeprefix("mx.example.org: ") for _, message, _ in self.sent]


def forwarded(alias, domain="example.org", quiet=True):
    """It leaves by an alias."""
    recipient = Recipient(Address(alias, domain))
    return Destination(0, recipient, Remote(Address("carol", "elsewhere.example")), quiet=quiet)


def problem(kind="disk", subject="", title="full", **more):
    return Problem(kind, subject, title, ("So it is.",), **more)


class Telling(NoteCase):
    def test_a_note_is_a_message_from_the_server_that_nobody_answers(self):
        self.found = [problem()]
        self.notes.start()
        self.minutes(1)
        ((envelope, message, destinations),) = self.sent
        self.assertIsNone(envelope.sender)
        self.assertEqual(envelope.peer, Peer("127.0.0.1", 0, "report", "mx.example.org"))
        ((id, step, fields),) = self.steps
        self.assertEqual((id, step, fields["sender"], fields["recipients"]), (envelope.id, "accepted", "", ["postmaster"]))
        self.assertEqual([destination.route for destination in destinations], [BOX])
        self.assertEqual(message["To"], "<postmaster@mx.example.org>")
        self.assertEqual(message["From"], '"Mail server" <MAILER-DAEMON@mx.example.org>')
        self.assertEqual(message["Auto-Submitted"], "auto-generated")
        self.assertIn("So it is.", message.get_payload())
        self.assertTrue(at_once(self.notes.is_own(envelope.id)))
        self.assertFalse(at_once(self.notes.is_own("Z" * 16)))

    def test_it_is_signed_where_it_can_be_and_waits_for_no_signer(self):
        self.notes.start()
        for number, (signing, fields) in enumerate((("well", 1), ("not now", 0), (ValueError("no"), 0), ("never", 0))):
            self.signing = signing
            self.found = [problem(subject=str(number))]
            self.minutes(1)
            self.clock.pump([1] * 30)
            self.assertEqual(len(self.sent[-1][1].get_all("DKIM-Signature", [])), fields, signing)
            self.assertEqual(len(self.sent), number + 1)
        self.flushLoggedErrors(ValueError, TimeoutError)

    def test_one_of_a_kind_and_subject_is_enough_for_a_day(self):
        self.found = [problem(), problem("process", "pam", "pam"), problem("process", "root", "root")]
        self.notes.start()
        self.minutes(24 * 60)
        self.assertEqual(self.subjects(), ["full", "pam", "root"])
        self.minutes(2)
        self.assertEqual(self.subjects(), ["full", "pam", "root"] * 2)

    def test_a_clock_that_was_a_year_ahead_silences_nothing(self):
        self.found = [problem()]
        for is_restart in (False, True):
            self.sent.clear()
            self.clock.advance(366 * DAY)
            notes = self.make()
            self.successResultOf(Deferred.fromCoroutine(notes.look()))
            self.clock.rightNow -= 366 * DAY
            notes = self.make() if is_restart else notes
            for _ in range(2):
                self.successResultOf(Deferred.fromCoroutine(notes.look()))
            self.assertEqual(self.subjects(), ["full"] * 2)
            self.clock.advance(2 * DAY)

    def test_a_restart_does_not_repeat_it(self):
        self.found = [problem()]
        self.notes.start()
        self.minutes(1)
        self.notes.stop()
        again = self.make()
        again.start()
        self.minutes(3)
        self.assertEqual(self.subjects(), ["full"])
        self.assertTrue(at_once(again.is_own(self.sent[0][0].id)))

    def test_after_the_stop_there_is_none(self):
        waits = Deferred()
        self.commits = lambda: waits
        self.found = [problem(), problem("store")]
        self.notes.start()
        self.minutes(1)
        self.notes.stop()
        waits.callback(None)
        self.minutes(3)
        self.assertEqual(len(self.sent), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_between_two_looks_a_stop_leaves_no_timer(self):
        self.notes.stop()  # before the start, too
        self.notes = self.make()
        self.notes.start()
        self.notes.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_told_cannot_end_a_line(self):
        octets = note_octets(
            problem(title="x~\r\nBcc: eve@example.net\u2028é\x7f"), id="1" * 16, hostname="mx.example.org", made_at=0.0
        )
        self.assertIn(b"\r\nSubject: mx.example.org: x~??Bcc: eve@example.net???\r\n", octets)


class WhereItCannotBeWritten(NoteCase):
    def waits_and_is_told_later(self, mend):
        self.found = [problem()]
        self.notes.start()
        self.minutes(1)
        self.found = []  # the problem is over, and was one all the same
        self.minutes(5)
        self.assertEqual(self.sent, [])
        mend()
        self.minutes(1)
        self.assertEqual(self.subjects(), ["full"])
        self.minutes(10)
        self.assertEqual(self.subjects(), ["full"])

    def test_a_full_disk_is_told_of_when_there_is_room(self):
        self.has_room = False
        self.waits_and_is_told_later(lambda: setattr(self, "has_room", True))

    def test_a_store_that_refuses_it_gets_it_later(self):
        for fault in (StorageFull("full"), StorageBroken("broken")):
            self.sent.clear()
            self.state = MemoryState(self.clock)
            self.notes.stop()
            self.notes = self.make()
            self.commits = lambda fault=fault: fail(fault)
            with capturedLogs() as events:
                self.waits_and_is_told_later(lambda: setattr(self, "commits", lambda: succeed(None)))
            self.assertEqual([event["why"] for event in events], [str(fault)], "once, not with each look")

    def test_a_postmaster_who_cannot_be_found_gets_it_later(self):
        self.routes = OSError("the directory is away")
        self.waits_and_is_told_later(lambda: setattr(self, "routes", [NOBODY, BOX]))

    def test_a_postmaster_who_does_not_exist_gets_none(self):
        self.routes = [NOBODY]
        self.waits_and_is_told_later(lambda: setattr(self, "routes", [BOX]))

    def test_what_waits_is_bounded(self):
        self.has_room = False
        self.notes.start()
        self.found = [problem("process", str(number)) for number in range(WAITING_MOST + 30)]
        self.minutes(2)
        self.found, self.has_room = [], True
        self.minutes(1)
        self.assertEqual(len(self.sent), WAITING_MOST)

    def test_a_state_store_that_does_not_answer_costs_no_second_note(self):
        def broken(key):
            raise StorageBroken("state.db")

        self.state.get = broken
        self.found = [problem()]
        self.notes.start()
        self.minutes(100)
        self.assertEqual(self.subjects(), ["full"])

    def test_a_fault_of_ours_ends_no_look(self):
        self.commits = lambda: fail(ValueError("ours"))
        self.found = [problem()]
        self.notes.start()
        self.minutes(1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.commits = lambda: succeed(None)
        self.minutes(1)
        self.assertEqual(self.subjects(), ["full"])


class WithAQueue(ReportCase):
    """The problems of a real queue, and the notes in it."""

    def setUp(self):
        super().setUp()
        self.missing = {}
        self.doubts, self.relay_doubts = [], []
        self.meanings = HeardMeanings()
        self.state = MemoryState(self.clock)

    def notes_of(self, queue, names=True, routes={}):
        problems = Problems(
            clock=self.clock,
            queue=queue,
            missing=lambda: self.missing,
            doubts=lambda: self.doubts,
            relay_doubts=lambda: self.relay_doubts,
            meanings_heard=self.meanings.taken,
            is_own=lambda id: notes.is_own(id),
            names=names,
            domain_table=lambda domain: "*.eu.example" if domain.endswith(".eu.example") else domain,
        )
        notes = Notes(
            hostname="mx.example.org",
            clock=self.clock,
            state=self.state,
            problems=problems,
            route=lambda address: succeed(routes.get(str(address), [BOX])),
            commit=queue.commit,
            has_room=lambda octets: queue.writable and queue.room_for(octets),
            next_id=IDS.next,
            note=self.steps.note,
        )
        return notes

    async def told(self, queue, notes):
        """What a look leads to: the notes that reached the mailbox."""
        before = len(self.delivery.parcels)
        await notes.look()
        await self.quiet(queue)
        return [email.message_from_bytes(parcel[1]) for parcel in self.delivery.parcels[before:]]

    async def test_failures_of_which_no_sender_can_be_told_are_told_together(self):
        self.delivery.answers["dave"] = Failed(FULL)
        queue = await self.started()
        notes = self.notes_of(queue)
        ids = [await self.send(queue, local(0, "dave"), sender=False) for _ in range(2)]
        (message,) = await self.told(queue, notes)
        self.assertEqual(message["Subject"], "mx.example.org: 2 undeliverable without a sender who could be told")
        for id in ids:
            self.assertIn(f"{id}\r\n    dave@example.org: 552 5.2.2", message.get_payload())
        late = await self.send(queue, local(0, "dave"), sender=False)
        self.assertEqual(await self.told(queue, notes), [])
        self.clock.advance(DAY)
        (message,) = await self.told(queue, notes)
        self.assertIn(late, message.get_payload())
        self.assertNotIn(ids[0], message.get_payload())

    async def test_forwards_that_are_refused_go_to_the_aliass_postmaster_once_a_day_and_to_no_sender(self):
        self.relay.answers["sales"] = self.relay.answers["info"] = Failed(FULL)
        queue = await self.started()
        notes = self.notes_of(queue)
        plain = forwarded("sales", quiet=False)
        spam = [await self.send(queue, forwarded("sales")) for _ in range(25)]
        other = await self.send(queue, forwarded("info", "example.net"))
        self.assertEqual(self.reports(), [])
        self.assertEqual({(await queue.show(id)).state for id in (*spam, other)}, {"failed"})
        found = {message["To"]: message for message in await self.told(queue, notes)}
        self.assertEqual(set(found), {"<postmaster@example.org>", "<postmaster@example.net>"})
        text = found["<postmaster@example.org>"].get_payload()
        self.assertEqual(found["<postmaster@example.org>"]["Subject"], "mx.example.org: 25 forwarded messages were refused")
        self.assertEqual(text.count("sales@example.org to carol@elsewhere.example: 552 5.2.2 The mailbox is full"), 20)
        self.assertIn("... and 5 more", text)
        self.assertIn(other, found["<postmaster@example.net>"].get_payload())
        late = await self.send(queue, forwarded("sales"))
        for _ in range(3):
            self.assertEqual(await self.told(queue, notes), [])
        self.clock.advance(DAY)
        (message,) = await self.told(queue, notes)
        self.assertIn(late, message.get_payload())
        self.assertNotIn(spam[0], message.get_payload())
        await self.send(queue, plain)  # its sender is known
        self.assertEqual(len(self.reports()), 1)

    async def test_what_an_operator_means_is_told_once_a_day_for_each_meaning(self):
        queue = await self.started()
        notes = self.notes_of(queue)
        dmarc = Reply.heard(550, "5.7.509", ("Access denied, \x1b[31mexample.org does not pass DMARC",))
        self.meanings.add(dmarc, "mx.outlook.example")
        (message,) = await self.told(queue, notes)
        self.assertEqual(message["Subject"], "mx.example.org: Microsoft refuses or delays mail")
        self.assertIn("    550 5.7.509 Access denied, ?[31mexample.org", message.get_payload())
        self.assertIn("it may be forged, or a forward", message.get_payload())
        self.meanings.add(dmarc, "mx.outlook.example")
        self.meanings.add(Reply.heard(421, "4.7.0", ("[TSS04] deferred",)), "mx.yahoo.example")
        (message,) = await self.told(queue, notes)
        self.assertIn("Yahoo", message["Subject"])
        self.clock.advance(DAY)
        self.meanings.add(dmarc, "mx.outlook.example")
        silent = self.notes_of(queue, names=False)
        (message,) = await self.told(queue, silent)
        self.assertNotIn("Access denied", message.get_payload())

    async def test_all_domains_of_one_table_have_one_note(self):
        queue = await self.started()
        notes = self.notes_of(queue)
        for n in range(3):
            self.relay.answers["sales"] = Failed(FULL)
            await self.send(queue, forwarded("sales", f"{n}.eu.example"))
        (message,) = await self.told(queue, notes)
        self.assertEqual((message["To"], message["Subject"][-31:]), ("<postmaster@0.eu.example>", "forwarded messages were refused"))
        self.assertIn("aliases of *.eu.example send on", message.get_payload())

    async def test_a_domain_without_postmaster_has_the_hosts(self):
        self.relay.answers["sales"] = Failed(FULL)
        queue = await self.started()
        notes = self.notes_of(queue, routes={"postmaster@example.org": [NOBODY]})
        await self.send(queue, forwarded("sales"))
        self.assertEqual(len(await self.told(queue, notes)), 1)

    async def test_a_log_in_that_does_not_work_is_told_once_a_day_however_its_words_change(self):
        queue = await self.started()
        notes = self.notes_of(queue)
        for n in range(5):
            self.relay_doubts = [f"The log-in at smtp.example does not work, and mail for other hosts waits: {n}"]
            told = await self.told(queue, notes)
            self.assertEqual(len(told), 1 if n == 0 else 0)
            if told:
                self.assertEqual(told[0]["Subject"], "mx.example.org: the log-in at the smarthost needs attention")
                self.assertIn("waits: 0", told[0].get_payload())
                self.assertIn("mailserver smarthost login", told[0].get_payload())
        self.clock.advance(DAY)
        self.assertEqual(len(await self.told(queue, notes)), 1)
        self.relay_doubts = []
        self.clock.advance(DAY)
        self.assertEqual(await self.told(queue, notes), [])

    async def test_a_report_that_reaches_nobody_is_among_them(self):
        self.delivery.answers["dave"] = self.delivery.answers["bob"] = Failed(FULL)
        queue = await self.started()
        notes = self.notes_of(queue, names=False)
        await self.send(queue, local(0, "dave"))
        await self.quiet(queue)
        (message,) = await self.told(queue, notes)
        self.assertIn("1 undeliverable", message["Subject"])
        self.assertNotIn("bob", message.get_payload())

    async def test_of_many_some_are_named_each_with_its_first_recipient_and_the_others_are_counted(self):
        self.patch(problems_module, "NAMED", 2)
        self.delivery.answers["dave"] = self.delivery.answers["erin"] = Failed(FULL)
        queue = await self.started()
        for count in (2, 3):
            for _ in range(count):
                await self.send(queue, local(0, "dave"), local(1, "erin"), sender=False)
            (message,) = await self.told(queue, self.notes_of(queue))
            text = message.get_payload()
            self.assertEqual((text.count("dave@"), text.count("erin@")), (2, 0))
            self.assertEqual([line for line in text.splitlines() if "more" in line], ["... and 1 more"] * (count - 2))
            self.clock.advance(2 * DAY)

    async def test_a_store_that_was_broken_is_told_of_when_it_works(self):
        queue = await self.started()
        notes = self.notes_of(queue)
        self.assertEqual(await self.told(queue, notes), [])
        queue._health.works = False
        self.assertEqual(await self.told(queue, notes), [])
        queue._health.works = True
        (message,) = await self.told(queue, notes)
        self.assertEqual(message["Subject"], "mx.example.org: the store of the queue was broken")

    async def test_a_sender_who_does_not_exist_is_among_them(self):
        self.delivery.answers["dave"] = Failed(FULL)
        self.routes = [NOBODY]
        queue = await self.started()
        await self.send(queue, local(0, "dave"))
        await self.quiet(queue)
        self.assertEqual(len(await self.told(queue, self.notes_of(queue))), 1)

    async def test_a_note_that_fails_makes_no_other(self):
        self.delivery.answers["postmaster"] = Failed(FULL)
        queue = await self.started()
        notes = self.notes_of(queue)
        self.doubts = ["mx.pem: the certificate expires soon"]
        await self.told(queue, notes)
        self.clock.advance(1)
        await self.quiet(queue)
        self.assertEqual([entry.state for entry in await queue.list()], ["failed"])
        self.assertEqual(len(queue.undeliverable.untold), 1)
        self.assertEqual(await self.told(queue, notes), [])
        self.assertEqual(len(queue.undeliverable.untold), 0)
        self.assertEqual(len(await queue.list()), 1)

    async def test_a_full_disk_is_told_of_when_there_is_room(self):
        queue = await self.started()
        notes = self.notes_of(queue)
        queue.change_limits(minimum_free_bytes=1 << 60, memory_window_octets=1 << 20)
        self.assertEqual(await self.told(queue, notes), [])
        self.clock.advance(60)
        self.assertEqual(await self.told(queue, notes), [])
        queue.change_limits(minimum_free_bytes=0, memory_window_octets=1 << 20)
        self.clock.advance(60)
        (message,) = await self.told(queue, notes)
        self.assertIn("the disk of the queue was full", message["Subject"])
        self.clock.advance(DAY + 60)
        self.assertEqual(await self.told(queue, notes), [])

    async def test_a_disk_that_was_full_between_two_looks_is_told_of(self):
        queue = await self.started()
        notes = self.notes_of(queue)
        queue.room.shut(3.0)
        self.clock.advance(30)
        self.assertEqual(len(await self.told(queue, notes)), 1)

    async def test_a_process_is_told_of_when_it_has_been_missing_for_a_minute(self):
        queue = await self.started()
        notes = self.notes_of(queue)
        self.missing = {"delivery.courier": "it has died", "accounts.pam": ""}
        self.assertEqual(await self.told(queue, notes), [])
        self.missing = {"delivery.courier": "", "accounts.pam": ""}
        self.clock.advance(60)
        self.assertEqual(await self.told(queue, notes), [])
        self.missing = {"delivery.courier": "it has died", "accounts.pam": ""}
        self.assertEqual(await self.told(queue, notes), [])
        self.clock.advance(60)
        (message,) = await self.told(queue, notes)
        self.assertEqual(message["Subject"], "mx.example.org: the process delivery.courier is missing")
        self.assertIn("It is started again and again", message.get_payload())

    async def test_the_process_that_has_roots_rights_comes_with_a_restart_alone(self):
        queue = await self.started()
        notes = self.notes_of(queue)
        self.missing = {"root": "it has died"}
        self.assertEqual(await self.told(queue, notes), [])
        self.clock.advance(60)
        (message,) = await self.told(queue, notes)
        self.assertIn("Restart the server.", message.get_payload())

    async def test_a_doubtful_certificate_is_told_of_by_its_doubt(self):
        queue = await self.started()
        self.doubts = ["a.pem: the certificate expires soon, 2027-01-20", "b.pem: the certificate has expired, 2027-01-01"]
        notes = self.notes_of(queue)
        found = await self.told(queue, notes)
        self.assertEqual([message.get_payload().splitlines()[2] for message in found], self.doubts)
        self.assertEqual(await self.told(queue, notes), [])
