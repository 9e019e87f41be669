"""A copy of a queue at work: nothing that was acknowledged is missing in it, and nothing of it is delivered unasked."""

from __future__ import annotations

import os

from mailserver.mail.answers import Delayed
from mailserver.mail.reply import Reply
from mailserver.queue.admin import backup
from mailserver.queue.admin.backup import NoBackup, back_up, read_manifest, restore
from mailserver.queue.admin.changes import Verb
from mailserver.queue.admin.orders import Order
from mailserver.queue.admin.selection import Selection
from mailserver.queue.mark import End, read_mark
from mailserver.queue.reader import list_entries
from mailserver.state_store.learnt_file import LearntFile, Lesson
from mailserver.state_store.records_file import open_records, record_of, write_record
from tests.queue.admin.test_orders import VerbsCase
from tests.queue.doubles import local, remote

LATER = Delayed(Reply.of(451, "4.3.0", "not now"))


class Backups(VerbsCase):
    def setUp(self):
        super().setUp()
        self.target = self.folder()

    def folder(self):
        path = os.path.abspath(self.mktemp())
        os.mkdir(path, 0o700)
        return path

    async def waiting(self, queue):
        """Two messages that wait: one in the store, one with a file; and one that is only queued."""
        ids = [await self.deferred(queue, remote(0), local(1))]
        self.relay.answers["carol"] = LATER
        ids.append(await self.commit_spooled(queue, remote()))
        while self.states(await queue.show(ids[-1])) != ["deferred"]:
            await self.turn()
        return ids

    def copied(self, folder):
        return {one.id: [part.state for part in one.destinations] for one in list_entries(folder)}

    async def test_all_that_waits_is_in_it_and_held_while_the_queue_goes_on(self):
        queue = await self.started()
        ids = await self.waiting(queue)
        found = back_up(self.directory, self.target, 1000.0)
        self.assertEqual((found.messages, found.settled_meanwhile), (2, 0))
        self.assertEqual(self.copied(self.target), {ids[0]: ["held", "held"], ids[1]: ["held"]})
        self.assertEqual(read_manifest(self.target), found)
        self.assertFalse(any(name.endswith(("-wal", "-shm")) for name in os.listdir(self.target)))
        for name in os.listdir(self.target):
            self.assertEqual(os.stat(os.path.join(self.target, name)).st_mode & 0o077, 0, name)
        self.assertEqual([self.states(await queue.show(id)) for id in ids], [["deferred", "deferred"], ["deferred"]])

    async def test_what_is_delivered_while_it_is_copied_leaves_it(self):
        queue = await self.started()
        ids = await self.waiting(queue)
        copy = backup._copy_spooled

        def delivered_before(data, target, id):
            os.unlink(os.path.join(data, "spool", id))
            return copy(data, target, id)

        self.patch(backup, "_copy_spooled", delivered_before)
        self.patch(backup, "_is_there", lambda data, id: False)
        found = back_up(self.directory, self.target, 1000.0)
        self.assertEqual((found.messages, found.settled_meanwhile), (1, 1))
        self.assertEqual(list(self.copied(self.target)), ids[:1])

    async def test_a_file_that_the_queue_itself_misses_is_still_told(self):
        queue = await self.started()
        ids = await self.waiting(queue)
        os.unlink(queue.spool_path(ids[1]))
        found = back_up(self.directory, self.target, 1000.0)
        self.assertEqual((found.messages, found.settled_meanwhile, found.damaged), (2, 0, 1))
        self.assertEqual(list(self.copied(self.target)), ids)

    async def test_a_restored_queue_waits_until_it_is_released_and_then_delivers_everything(self):
        queue = await self.started()
        ids = await self.waiting(queue)
        back_up(self.directory, self.target, 1000.0)
        await self.stop(queue)
        new = self.folder()
        found = restore(self.target, new)
        self.assertEqual(found.messages, 2)
        self.assertIs(read_mark(new), End.CHANGED)
        self.directory = new
        self.relay.answers.clear()
        self.delivery.answers.clear()
        self.relay.parcels.clear()
        self.delivery.parcels.clear()
        queue = await self.started()
        self.clock.advance(10_000)
        for _ in range(5):
            await self.turn()
        self.assertEqual((self.relay.parcels, self.delivery.parcels), ([], []))
        self.assertEqual(queue.depth, 2)
        await queue.verbs.carry_out(Order(Verb.RELEASE, Selection(), "root"), after=0)
        while queue.depth:
            self.clock.advance(1)
            await self.turn()
        self.assertEqual(sorted({one[0] for one in self.relay.parcels}), sorted(ids))
        self.assertEqual([one[0] for one in self.delivery.parcels], ids[:1])

    async def test_a_folder_with_something_in_it_is_no_place(self):
        queue = await self.started()
        await self.waiting(queue)
        back_up(self.directory, self.target, 1000.0)
        with self.assertRaises(NoBackup):
            back_up(self.directory, self.target, 1000.0)
        with self.assertRaisesRegex(NoBackup, "there is a queue in"):
            restore(self.target, self.directory)

    async def test_one_that_was_broken_off_is_none(self):
        queue = await self.started()
        await self.waiting(queue)
        self.patch(backup, "_count", lambda folder: 1 / 0)
        with self.assertRaises(ZeroDivisionError):
            back_up(self.directory, self.target, 1000.0)
        with self.assertRaisesRegex(NoBackup, "no whole backup"):
            restore(self.target, self.folder())

    async def test_a_restore_that_was_cut_off_in_a_file_leaves_no_half_of_it_and_can_be_said_again(self):
        queue = await self.started()
        [id] = [await self.deferred(queue, remote(0))]
        with open(os.path.join(self.directory, "state.db"), "wb"):
            pass  # an empty database
        back_up(self.directory, self.target, 1000.0)
        whole, new = backup.copy_file, self.folder()

        def half(source, target):
            whole(source, target)
            if os.path.basename(source) == cut:
                os.truncate(target, 10)
                raise OSError(5, "cut off")

        self.patch(backup, "copy_file", half)
        for cut in ("state.db", "queue.db"):
            self.assertRaises(OSError, restore, self.target, new)
            self.assertNotIn(cut, os.listdir(new))
        cut = ""
        restore(self.target, new)
        self.assertEqual(self.copied(new), {id: ["held"]})
        self.assertEqual(sorted(os.listdir(new)), ["queue.db", "queue.mark", "spool", "state.db"])

    def test_records_are_copied_and_come_back_and_those_that_are_there_are_not_overwritten(self):
        data, new = self.folder(), self.folder()
        connection = open_records(os.path.join(data, "records.db"))
        self.addCleanup(connection.close)
        with connection:
            write_record(connection, "lists/people", "k", b"v")
        back_up(data, self.target, 1.0)  # it stands in the write-ahead log yet
        with connection:
            write_record(connection, "lists/people", "k", b"newer")
        restore(self.target, new)
        for folder, value in ((new, b"v"), (data, b"newer")):
            copy = open_records(os.path.join(folder, "records.db"))
            self.assertEqual(record_of(copy, "lists/people", "k"), value)
            copy.close()
        restore(self.target, data)
        self.assertEqual(record_of(connection, "lists/people", "k"), b"newer")

    def test_what_was_learnt_goes_along_and_where_it_is_damaged_the_rest_does_all_the_same(self):
        data, new = self.folder(), self.folder()
        learnt = LearntFile.open(os.path.join(data, "bayes.db"))
        self.addCleanup(learnt.close)
        learnt.learn("", [Lesson("spam", b"0" * 16, (1, 2))], now=1.0, vocabulary_most=1000)
        for name in ("bayes-second.db", "state.db"):
            with open(os.path.join(data, name), "wb") as file:
                file.write(b"no database" * 1000 if name != "state.db" else b"")
        self.assertEqual(back_up(data, self.target, 1.0).left_out, ["bayes-second.db"])
        restore(self.target, new)
        self.assertEqual(sorted(os.listdir(new)), ["bayes.db", "spool", "state.db"])
        copy = LearntFile.open(os.path.join(new, "bayes.db"))
        self.addCleanup(copy.close)
        self.assertEqual(copy.counts(copy.owners()[0].number, [1, 2, 3]), {1: (1, 0), 2: (1, 0)})

    def test_where_there_has_never_been_a_queue_there_is_nothing_to_hold(self):
        data = self.folder()
        self.assertEqual(back_up(data, self.target, 1.0).messages, 0)
        self.assertEqual(restore(self.target, self.folder()).messages, 0)
