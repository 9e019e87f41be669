"""What senders are told of: reports through the queue, in virtual time, over crashes and troubles."""

import email
import itertools
import os
from dataclasses import replace
from unittest import mock

from twisted.internet.defer import Deferred, gatherResults, succeed

from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Local, Mailbox, Refused, Remote
from mailserver.mail.content import Content
from mailserver.mail.envelope import MailParameters, Recipient, RecipientParameters
from mailserver.mail.faults import StorageBroken
from mailserver.mail.parcel import Destination
from mailserver.mail.reply import Reply
from mailserver.queue.admin.backup import back_up, restore
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.orders import Order, StoppedQueue
from mailserver.queue.admin.selection import Selection
from mailserver.queue.entry import number_of
from mailserver.queue.reader import list_entries
from mailserver.queue.reports import ROUTE_AGAIN_SECONDS, ROUTE_SECONDS
from mailserver.queue.store import MessageRefused
from tests.queue.doubles import IDS, QueueCase, envelope, local, remote, stubborn

FULL = Reply.of(552, "5.2.2", "The mailbox is full")
BUSY = Reply.of(451, "4.2.1", "The mailbox is busy")
NO_USER = Reply.of(550, "5.1.1", "There is no such user here")
BOX = Mailbox("bob", "example.com")


def asking(*notify, index=0, user="alice", remotely=False, orcpt=None):
    """A destination whose recipient came with NOTIFY."""
    plain = remote(index, user) if remotely else local(index, user)
    return replace(
        plain, recipient=Recipient(plain.recipient.address, RecipientParameters(notify=frozenset(notify) or None, orcpt=orcpt))
    )


class ReportCase(QueueCase):
    """Senders are users here too, so that their reports reach `self.delivery`: what `reports` returns."""

    timeout = 20

    def setUp(self):
        super().setUp()
        self.routed = []
        self.routes = [Local(Address("bob", "example.com"), BOX)]

    def route(self, address):
        self.routed.append(str(address))
        if isinstance(self.routes, Exception):
            raise self.routes
        return succeed(self.routes)

    def make(self, **changes):
        options = {"route": self.route, "hostname": "mx.example.org", "next_id": IDS.next, "warn_seconds": 1000.0}
        return super().make(**{**options, **changes})

    async def send(self, queue, *destinations, sender=True, step="failed", data=b"Subject: x\r\n\r\nbody\r\n", **parameters):
        """Commit, and wait until the last destination has had its outcome and that is written."""
        sent = envelope(*destinations, received_at=self.clock.seconds())
        sent = replace(sent, parameters=MailParameters(**parameters), sender=sent.sender if sender else None)
        done = self.steps.wait(sent.id, step)
        await queue.commit(sent, Content.of(data), destinations)
        await done
        await self.quiet(queue)
        return sent.id

    async def bounced(self, queue, id):
        page = await queue.verbs.carry_out(Order(Verb.BOUNCE, Selection(id=id), "root"), after=0)
        self.assertEqual([one for one, _ in page.done], [id])
        await self.quiet(queue)

    async def quiet(self, queue):
        """Whatever the threads and the reporter have begun has ended."""
        for _ in range(6):
            self.clock.advance(0)
            await queue._runner.read(lambda: None)
            await queue._writer.do(lambda store: None)

    async def until(self, queue, done):
        """Let threads and timers that are due go on until this has fired."""
        while not done.called:
            await self.quiet(queue)
        return await done

    def reports(self):
        """The fields of each recipient block of each report that was delivered."""
        found = []
        for parcel in self.delivery.parcels:
            if b"multipart/report" in parcel[1]:
                message = email.message_from_bytes(parcel[1])
                blocks = [dict(block.items()) for block in message.get_payload()[1].get_payload() if block.keys()]
                found.append([(block["Action"], block["Final-Recipient"].partition("; ")[2], block["Status"]) for block in blocks[1:]])
        return found

    async def states(self, queue, id):
        entry = await queue.show(id)
        return None if entry is None else [part.state for part in entry.destinations]


class Failures(ReportCase):
    async def test_a_failure_is_told_to_the_sender_and_the_message_is_done(self):
        self.delivery.answers["alice"] = Failed(FULL, "secret path", peer="lmtp.example.org", phase="RCPT")
        queue = await self.started()
        id = await self.send(queue, local())
        self.assertEqual(self.reports(), [[("failed", "alice@example.org", "5.2.2")]])
        self.assertEqual(self.routed, ["bob@example.com"])
        report = self.delivery.parcels[-1][1]
        self.assertIn(b"To: <bob@example.com>\r\n", report)
        self.assertIn(b"Remote-MTA: dns; lmtp.example.org\r\n", report)
        self.assertNotIn(b"secret path", report)
        self.assertNotIn(b"one of the addresses that it stands for", report)
        self.assertEqual(self.steps.of(id), ["failed", "reported", "settled"])
        report_id = next(fields["report"] for i, step, fields in self.steps.noted if (i, step) == (id, "reported"))
        settled = self.steps.wait(report_id, "settled")
        self.clock.advance(1)
        await self.until(queue, settled)
        self.assertEqual(list_entries(self.directory), [])
        self.assertEqual((queue.depth, queue.counts.failed, queue.counts.settled), (0, 1, 2))

    async def test_what_a_person_bounces_is_told_to_its_sender_at_once_and_done(self):
        self.delivery.answers["alice"] = Delayed(BUSY)
        self.delivery.answers["dave"] = Delayed(BUSY)
        queue = await self.started()
        id = await self.send(queue, local(0), asking("NEVER", index=1, user="dave"), step="deferred")
        settled = self.steps.wait(id, "settled")
        await self.bounced(queue, id)
        await self.until(queue, settled)
        self.assertEqual(self.reports(), [[("failed", "alice@example.org", "5.0.0")]])
        self.assertIn(b"Returned by the postmaster of this host", self.delivery.parcels[-1][1])
        self.assertNotIn(b"dave", self.delivery.parcels[-1][1])
        self.assertNotIn(b"Remote-MTA", self.delivery.parcels[-1][1])
        self.assertEqual(self.steps.of(id)[-3:], ["bounced", "reported", "settled"])
        self.assertIsNone(await queue.show(id))

    async def test_a_bounce_outlives_a_crash_at_once_after_the_answer(self):
        self.delivery.answers["alice"] = Delayed(BUSY)
        queue = await self.started()
        id = await self.send(queue, local(), step="deferred")
        queue._reporter.recorded = lambda attempts: None  # it does not come to it
        await self.bounced(queue, id)
        self.assertEqual(self.reports(), [])
        await self.crash(queue)
        settled = self.steps.wait(id, "settled")
        queue = await self.started()
        await self.until(queue, settled)
        self.assertEqual(self.reports(), [[("failed", "alice@example.org", "5.0.0")]])

    async def test_the_bounce_of_a_report_tells_nobody_and_stays_to_be_dropped(self):
        self.delivery.answers["alice"] = Delayed(BUSY)
        queue = await self.started()
        id = await self.send(queue, local(), sender=False, step="deferred")
        await self.bounced(queue, id)
        self.assertEqual(await self.states(queue, id), ["failed"])
        self.assertEqual(self.reports(), [])

    async def test_those_that_failed_together_are_told_together(self):
        for user in ("alice", "carol"):
            self.delivery.answers[user] = Failed(FULL)
        queue = await self.started()
        await self.send(queue, local(0), local(1, "dave"), local(2, "carol"))
        self.assertEqual(self.reports(), [[("failed", "alice@example.org", "5.2.2"), ("failed", "carol@example.org", "5.2.2")]])

    async def test_the_message_goes_on_for_the_others(self):
        self.delivery.answers["alice"] = Failed(FULL)
        self.delivery.answers["dave"] = Delayed(BUSY)
        queue = await self.started()
        id = await self.send(queue, local(0), local(1, "dave"))
        self.assertEqual(await self.states(queue, id), ["returned", "deferred"])
        self.delivery.answers.clear()
        delivered, settled = self.steps.wait(id, "delivered"), self.steps.wait(id, "settled")
        self.clock.advance(70)
        await self.until(queue, delivered)
        self.clock.advance(1)
        await self.until(queue, settled)
        self.assertIsNone(await queue.show(id))
        self.assertEqual(len(self.reports()), 1)

    async def test_what_is_delivered_after_the_report_ends_the_message(self):
        self.relay.answers["carol"] = Failed(NO_USER)
        self.delivery.hold = True
        queue = await self.started()
        id = await self.send(queue, local(0), remote(1))
        self.assertEqual(await self.states(queue, id), ["queued", "returned"])
        settled = self.steps.wait(id, "settled")
        self.delivery.hold = False
        self.delivery.let_go()
        self.clock.advance(1)
        await self.until(queue, settled)
        self.assertIsNone(await queue.show(id))

    async def test_ret_envid_and_orcpt_reach_the_report(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        await self.send(queue, asking("FAILURE", orcpt=("rfc822", "a@b.example")), ret="FULL", envid="QQ314")
        report = self.delivery.parcels[-1][1]
        for words in (b"Original-Envelope-Id: QQ314", b"Original-Recipient: rfc822; a@b.example", b"message/rfc822", b"\r\n\r\nbody\r\n"):
            self.assertIn(words, report)

    async def test_an_alias_is_told_of_by_the_name_that_the_sender_gave(self):
        recipient = Recipient(Address("sales", "example.org"))
        routes = [Remote(Address(user, "hidden.example")) for user in ("x", "y")]
        self.relay.answers["sales"] = Failed(NO_USER)
        queue = await self.started()
        await self.send(queue, *[Destination(index, recipient, route) for index, route in enumerate(routes)])
        self.assertEqual(self.reports(), [[("failed", "sales@example.org", "5.1.1")]])
        self.assertIn(b"one of the addresses that it stands for", self.delivery.parcels[-1][1])
        self.assertNotIn(b"hidden.example", self.delivery.parcels[-1][1])

    async def test_a_report_for_another_host_takes_the_remote_active_queue(self):
        self.routes = [Remote(Address("bob", "example.com"))]
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        await self.send(queue, local())
        self.assertIn(b"multipart/report", self.relay.parcels[0][1])

    async def test_a_message_in_a_file_is_told_of_and_its_file_removed(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        id = await self.commit_spooled(queue, data=b"Subject: big\r\n\r\n" + b"x" * 100_000)
        while "settled" not in self.steps.of(id):
            await self.quiet(queue)
        self.assertIn(b"Subject: big", self.delivery.parcels[-1][1])
        self.assertEqual(os.listdir(os.path.join(self.directory, "spool")), [])


class Wishes(ReportCase):
    async def test_never_and_no_failure_mean_silence_rfc3461_4_1(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        for notify in (("NEVER",), ("SUCCESS", "DELAY")):
            id = await self.send(queue, asking(*notify))
            self.assertIsNone(await queue.show(id), notify)
        self.assertEqual((self.reports(), self.routed), ([], []))

    async def test_success_is_told_where_it_was_asked_for(self):
        queue = await self.started()
        id = await self.send(queue, asking("SUCCESS"), local(1, "dave"), step="delivered")
        settled = self.steps.wait(id, "settled")
        self.assertEqual(self.reports(), [], "not before it is durable")
        self.clock.advance(1)
        await self.until(queue, settled)
        await self.quiet(queue)
        self.assertEqual(self.reports(), [[("delivered", "alice@example.org", "2.0.0")]])

    async def test_a_host_without_dsn_makes_it_relayed(self):
        queue = await self.started()
        id = await self.send(queue, asking("SUCCESS", remotely=True, user="carol"), step="delivered")
        settled = self.steps.wait(id, "settled")
        self.clock.advance(1)
        await self.until(queue, settled)
        await self.quiet(queue)
        self.assertEqual(self.reports(), [[("relayed", "carol@elsewhere.example", "2.0.0")]])

    async def test_a_host_that_sends_reports_itself_is_left_to_it(self):
        self.relay.answers["carol"] = Delivered("250 OK", notifies=True)
        queue = await self.started()
        id = await self.send(queue, asking("SUCCESS", remotely=True, user="carol"), step="delivered")
        settled = self.steps.wait(id, "settled")
        self.clock.advance(1)
        await self.until(queue, settled)
        await self.quiet(queue)
        self.assertEqual(self.reports(), [])

    async def test_a_success_that_is_owed_survives_a_crash(self):
        queue = await self.started()
        self.routes = RuntimeError("no directory")
        id = await self.send(queue, asking("SUCCESS"), local(1, "dave"), step="delivered")
        self.clock.advance(1)
        await self.quiet(queue)
        await self.crash(queue)
        self.routes = [Local(Address("bob", "example.com"), BOX)]
        queue = await self.started()
        settled = self.steps.wait(id, "settled")
        self.clock.advance(60)
        await self.until(queue, settled)
        await self.quiet(queue)
        self.assertEqual(self.reports(), [[("delivered", "alice@example.org", "2.0.0")]])


    async def test_a_success_that_was_owed_at_a_backup_is_told_when_a_person_releases_it_and_once(self):
        queue = await self.started()
        self.routes = RuntimeError("no directory")
        id = await self.send(queue, asking("SUCCESS"), local(1, "dave"), step="delivered")
        self.clock.advance(1)
        await self.quiet(queue)
        copy, elsewhere = (os.path.abspath(self.mktemp()) for _ in range(2))
        os.mkdir(copy)
        os.mkdir(elsewhere)
        self.assertEqual(back_up(self.directory, copy, 1000.0).reports, 1)
        await self.crash(queue)
        self.assertEqual(restore(copy, elsewhere).reports, 1)
        self.directory = elsewhere
        self.routes = [Local(Address("bob", "example.com"), BOX)]
        queue = await self.started()
        for _ in range(3):
            self.clock.advance(4000)
            await self.quiet(queue)
        self.assertEqual((self.reports(), await self.states(queue, id)), ([], ["held", "delivered"]))
        page = await queue.verbs.carry_out(Order(Verb.BOUNCE, Selection(id=id), "root"), after=0)
        self.assertEqual((page.done, len(page.left)), ([], 1), "it was delivered")
        settled = self.steps.wait(id, "settled")
        await queue.verbs.carry_out(Order(Verb.RELEASE, Selection(id=id), "root"), after=0)
        await self.until(queue, settled)
        await self.quiet(queue)
        self.assertEqual(self.reports(), [[("delivered", "alice@example.org", "2.0.0")]])

    async def test_a_held_report_is_dropped_with_its_message(self):
        queue = await self.started()
        self.routes = RuntimeError("no directory")
        id = await self.send(queue, asking("SUCCESS"), step="delivered")
        self.clock.advance(1)
        await self.quiet(queue)
        copy = os.path.abspath(self.mktemp())
        os.mkdir(copy)
        back_up(self.directory, copy, 1000.0)
        with StoppedQueue.opened(copy) as stopped:
            page = stopped.carry_out(Order(Verb.DROP, Selection(), "root"), after=0, now=2000.0, note=lambda *_, **__: None)
        self.assertEqual((page.done, list_entries(copy)), ([(id, ("alice@example.org",))], []))


class NobodyToTell(ReportCase):
    async def test_the_null_sender_gets_no_report_and_its_failure_stays_visible(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        id = await self.send(queue, asking("SUCCESS", "FAILURE", "DELAY"), sender=False)
        self.assertEqual(await self.states(queue, id), ["failed"])
        self.assertEqual((self.reports(), self.routed), ([], []))
        await self.stop(queue)
        queue = await self.started()
        await self.quiet(queue)
        self.assertEqual(await self.states(queue, id), ["failed"])

    async def test_a_report_that_fails_stays_visible_and_makes_no_other(self):
        self.delivery.answers["alice"] = self.delivery.answers["bob"] = Failed(FULL)
        queue = await self.started()
        await self.send(queue, local())
        await self.quiet(queue)
        (entry,) = await queue.list()
        self.assertEqual((entry.sender, entry.state, entry.destinations[0].recipient), ("", "failed", "bob@example.com"))
        self.assertEqual(queue.depth, 1)

    async def test_a_sender_who_does_not_exist_leaves_the_failure_visible(self):
        self.routes = [Refused(NO_USER, "there is no user bob@example.com")]
        self.delivery.answers["alice"] = Failed(FULL, "over quota")
        queue = await self.started()
        id = await self.send(queue, local())
        (part,) = (await queue.show(id)).destinations
        self.assertEqual(part.state, "failed")
        self.assertEqual(part.note, "over quota; its sender cannot be told: there is no user bob@example.com")
        self.clock.advance(1000)
        await self.quiet(queue)
        self.assertEqual(len(self.routed), 1)

    async def test_of_such_failures_only_so_many_are_kept(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started(undeliverable_messages=2)
        ids = [await self.send(queue, local(), sender=False) for _ in range(4)]
        await self.quiet(queue)
        self.assertEqual([entry.id for entry in await queue.list()], ids[2:])
        self.assertEqual(queue.depth, 2)

    async def test_of_such_failures_the_old_ones_go_at_the_start(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        id = await self.send(queue, local(), sender=False)
        await self.stop(queue)
        queue = await self.started(undeliverable_seconds=60.0)
        await self.quiet(queue)
        self.assertIsNone(await queue.show(id))
        self.assertEqual(queue.depth, 0)


class Delays(ReportCase):
    async def test_a_delay_is_told_once(self):
        self.delivery.answers["alice"] = Delayed(BUSY)
        queue = await self.started(expire_seconds=100_000)
        id = await self.send(queue, local(), step="deferred")
        for _ in range(20):
            self.clock.advance(100)
            await self.quiet(queue)
        self.assertEqual(self.reports(), [[("delayed", "alice@example.org", "4.2.1")]])
        self.assertEqual(await self.states(queue, id), ["deferred"])
        await self.stop(queue)
        queue = await self.started(expire_seconds=100_000)
        for _ in range(20):
            self.clock.advance(100)
            await self.quiet(queue)
        self.assertEqual(len(self.reports()), 1, "a restart does not repeat it")

    async def test_no_delay_is_told_where_it_was_not_asked_for_or_to_the_null_sender(self):
        self.delivery.answers["alice"] = Delayed(BUSY)
        queue = await self.started(expire_seconds=100_000)
        await self.send(queue, asking("FAILURE"), step="deferred")
        await self.send(queue, asking("NEVER"), step="deferred")
        await self.send(queue, local(), step="deferred", sender=False)
        for _ in range(20):
            self.clock.advance(100)
            await self.quiet(queue)
        self.assertEqual(self.reports(), [])

    async def test_a_message_that_was_delivered_in_time_is_not_called_late(self):
        self.delivery.answers["alice"] = Delayed(BUSY)
        queue = await self.started(expire_seconds=100_000)
        await self.send(queue, local(), step="deferred")
        self.delivery.answers.clear()
        for _ in range(20):
            self.clock.advance(100)
            await self.quiet(queue)
        self.assertEqual(self.reports(), [])
        self.assertEqual(queue.depth, 0)


class Troubles(ReportCase):
    async def test_a_router_that_cannot_tell_is_asked_again(self):
        self.routes = RuntimeError("the directory is away")
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        id = await self.send(queue, local())
        self.assertEqual(await self.states(queue, id), ["failed"])
        self.routes = [Local(Address("bob", "example.com"), BOX)]
        settled = self.steps.wait(id, "settled")
        self.clock.advance(60)
        await self.until(queue, settled)
        self.assertEqual(len(self.routed), 2)
        await self.quiet(queue)
        self.assertEqual(len(self.reports()), 1)

    async def test_a_crash_before_the_report_is_committed_leaves_it_owed(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        queue._reporter._commit = lambda reports, marks: succeed(None)
        id = await self.send(queue, local())
        self.assertEqual(await self.states(queue, id), ["failed"])
        await self.crash(queue)
        settled = self.steps.wait(id, "settled")
        queue = await self.started()
        await self.until(queue, settled)
        await self.quiet(queue)
        self.assertEqual(len(self.reports()), 1)

    async def test_a_crash_after_the_report_is_committed_repeats_nothing(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        self.delivery.answers["bob"] = Delayed(BUSY)
        await self.send(queue, local())
        await self.crash(queue)
        queue = await self.started()
        await self.quiet(queue)
        (entry,) = await queue.list()
        self.assertEqual((entry.sender, entry.destinations[0].recipient), ("", "bob@example.com"))

    async def test_a_store_that_fails_gets_the_report_later(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        good, queue._reporter._do = queue._reporter._do, lambda work: queue._writer.do(broken)
        id = await self.send(queue, local())
        self.assertEqual(await self.states(queue, id), ["failed"])
        queue._reporter._do = good
        settled = self.steps.wait(id, "settled")
        self.clock.advance(5)
        await self.until(queue, settled)
        await self.quiet(queue)
        self.assertEqual(len(self.reports()), 1)

    async def test_a_report_that_cannot_be_written_does_not_stand_in_the_way_of_others(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        with mock.patch("mailserver.queue.reports.failure_report", side_effect=ZeroDivisionError):
            id = await self.send(queue, local())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await self.send(queue, local())
        self.assertEqual(len(self.reports()), 1)
        settled = self.steps.wait(id, "settled")
        self.clock.advance(3600)
        await self.until(queue, settled)
        self.assertEqual(len(self.reports()), 2)

    async def test_a_message_whose_file_cannot_be_read_does_not_stand_in_the_way_of_others(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        with mock.patch("mailserver.queue.reports.original_of", side_effect=OSError(5, "I/O error")):
            damaged = await self.send(queue, local())
        self.clock.advance(1)
        await self.send(queue, local())
        self.assertEqual(len(self.reports()), 1)
        self.assertEqual((await queue.show(damaged)).note, "its file cannot be read: [Errno 5] I/O error")
        await self.stop(queue)
        queue = await self.started()
        await self.quiet(queue)
        self.assertEqual(len(self.reports()), 2, "the next start tries once more")

    async def test_a_hundred_failures_are_told_of_in_pages(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        ids = [IDS.next() for _ in range(100)]
        settled = gatherResults([self.steps.wait(id, "settled") for id in ids])
        for id in ids:
            await queue.commit(envelope(local(), id=id, received_at=self.clock.seconds()), Content.of(b"A: b\r\n\r\n"), (local(),))
        await self.until(queue, settled)
        await self.quiet(queue)
        self.assertEqual(len(self.reports()), 100)


class StrangeOutcomes(ReportCase):
    async def test_a_failure_in_words_that_no_report_can_hold_is_told_in_others(self):
        reply = Reply.of(550, "5.1.1", "x")
        object.__setattr__(reply, "lines", ("caf\udce9\r\nAction: delivered", "\x1b[31m"))
        self.delivery.answers["alice"] = Failed(reply, "n\udce9", "p\udce9er\r\nX: y", "RC\udcffPT", ("\udcff",))
        queue = await self.started()
        id = await self.send(queue, local())
        await self.quiet(queue)
        self.assertEqual(self.reports(), [[("failed", "alice@example.org", "5.1.1")]])
        self.assertIn("reported", self.steps.of(id))


class StrangeRoutes(ReportCase):
    """Whoever says where a report goes is a plugin: whatever it answers, other senders are told."""

    def route(self, address):
        return succeed(self.strange if address.local == "eve" else self.routes)

    async def fail_for(self, queue, user):
        destination = local()
        sent = replace(envelope(destination, received_at=self.clock.seconds()), sender=Address(user, "example.com"))
        failed = self.steps.wait(sent.id, "failed")
        await queue.commit(sent, Content.of(b"x"), (destination,))
        await failed
        return sent.id

    async def told_beside(self, strange):
        self.strange = strange
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        ids = [await self.fail_for(queue, user) for user in ("bob", "eve", "dan")]
        await self.quiet(queue)
        await self.quiet(queue)
        for id in (ids[0], ids[2]):
            self.assertIn("reported", self.steps.of(id))
        return await queue.show(ids[1])

    async def test_no_sequence(self):
        entry = await self.told_beside(None)
        self.assertEqual(entry.state, "failed")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    async def test_no_routes(self):
        entry = await self.told_beside(["a mailbox"])
        self.assertEqual(entry.state, "failed")
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    async def test_an_answer_that_never_comes_and_does_not_let_itself_be_cancelled(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        self.patch(queue._reporter, "_route", lambda address: Deferred.fromCoroutine(stubborn()))
        id = await self.fail_for(queue, "eve")
        await self.quiet(queue)
        self.clock.advance(ROUTE_SECONDS)
        self.patch(queue._reporter, "_route", self.route)
        other = await self.fail_for(queue, "bob")
        await self.quiet(queue)
        self.assertIn("reported", self.steps.of(other))
        self.clock.advance(ROUTE_AGAIN_SECONDS)
        self.strange = self.routes
        await self.quiet(queue)
        self.assertIn("reported", self.steps.of(id))

    async def test_a_reason_that_no_store_holds(self):
        entry = await self.told_beside([Refused(NO_USER, "caf\udce9")])
        self.assertIn("its sender cannot be told: caf\\udce9", entry.destinations[0].note)

    async def test_a_report_that_the_store_refuses_is_made_later_and_no_other(self):
        self.delivery.answers["alice"] = Failed(FULL)
        queue = await self.started()
        store, refused = queue._writer._store, []
        report = store.report

        def picky(packed, marks):
            if any(mark.number == bad for mark in marks) and packed:
                refused.append(bad)
                raise MessageRefused("no")
            return report(packed, marks)

        ids = [IDS.next() for _ in range(3)]
        bad = number_of(ids[1])
        with mock.patch.object(store, "report", picky):
            for id in ids:
                failed = self.steps.wait(id, "failed")
                await self.commit(queue, id=id)
                await failed
            await self.quiet(queue)
            await self.quiet(queue)
        self.assertEqual(["reported" in self.steps.of(id) for id in ids], [True, False, True])
        self.assertGreater(len(self.flushLoggedErrors(MessageRefused)), 0)
        reported = self.steps.wait(ids[1], "reported")
        self.clock.advance(3601)
        await self.until(queue, reported)


def broken(store):
    raise StorageBroken("I/O error")


class AWeek(ReportCase):
    async def test_a_week_of_retries(self):
        retry, day = [60, 300, 900, 3600, 14400], 86_400
        refused = Delayed(Reply.of(451, "4.4.1", "No connection"), "timed out", peer="mx.elsewhere.example", phase="CONNECT")
        self.relay.answers["carol"] = refused
        queue = await self.started(retry_seconds=retry, expire_seconds=7 * day, warn_seconds=14_400)
        tries = []
        self.relay._outcomes = lambda *args: (tries.append(self.clock.seconds()), {0: refused})[1]
        began = self.clock.seconds()
        id = await self.send(queue, remote(), step="deferred")
        told = {}
        while queue._reporter is not None and (due := await self.next_moment(queue, id)) is not None:
            self.clock.advance(max(0, due - self.clock.seconds()))
            await self.quiet(queue)
            for _, step, fields in self.steps.noted:
                if step == "reported" and fields["condition"] not in told:
                    told[fields["condition"]] = self.clock.seconds() - began
            if "failed" in self.steps.of(id):
                entry_of_last_days = None
                break
            entry_of_last_days = await queue.show(id)
        pauses = [after - before for before, after in itertools.pairwise(tries)]
        for place, pause in enumerate(pauses[:-1]):
            expected = retry[min(place, len(retry) - 1)]
            self.assertTrue(0.9 * expected <= pause <= 1.1 * expected + 1, (place, pause))
        self.assertGreater(len({round(pause) for pause in pauses[5:]}), 10, "no two pauses need be the same")
        self.assertAlmostEqual(tries[-1] - began, 7 * day, delta=1)
        self.assertEqual(self.steps.of(id).count("deferred"), len(tries) - 1)
        self.assertEqual(self.reports(), [[("delayed", "carol@elsewhere.example", "4.4.1")], [("failed", "carol@elsewhere.example", "4.4.1")]])
        self.assertAlmostEqual(told["delay"], 14_400, delta=2)
        self.assertAlmostEqual(told["failure"], 7 * day, delta=2)
        self.assertIn(b"until its time was over", self.delivery.parcels[-1][1])
        self.assertIsNone(entry_of_last_days)

    async def next_moment(self, queue, id):
        entry = await queue.show(id)
        if entry is None:
            return None
        calls = [call.getTime() for call in self.clock.getDelayedCalls()]
        return min([entry.destinations[0].due or 0, *[when for when in calls if when > self.clock.seconds()]])

    async def test_the_last_attempts_are_kept_and_shown(self):
        queue = await self.started(retry_seconds=[60], expire_seconds=100_000)
        for number in range(13):
            self.relay.answers["carol"] = Delayed(BUSY, f"try {number}", peer=f"mx{number}.example", phase="RCPT")
            if number == 0:
                id = await self.send(queue, remote(), step="deferred")
            else:
                deferred = self.steps.wait(id, "deferred")
                self.clock.advance(67)
                await self.until(queue, deferred)
                await self.quiet(queue)
        (part,) = (await queue.show(id)).destinations
        self.assertEqual(part.attempts, 13)
        self.assertEqual([trial.note for trial in part.history], [f"try {number}" for number in range(3, 13)])
        last = part.history[-1]
        self.assertEqual((last.peer, last.phase, last.reply), ("mx12.example", "RCPT", str(BUSY)))
        self.assertAlmostEqual(last.made_at, self.clock.seconds(), delta=70)
        self.assertEqual((await queue.list())[0].destinations[0].history, ())
