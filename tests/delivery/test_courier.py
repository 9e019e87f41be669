"""Mail into homes, with the users' own identities."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import stat
import tempfile
from dataclasses import replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mailserver.delivery import courier, courier_client
from mailserver.delivery.batch_format import BatchCopy, BatchMessage, message_of
from mailserver.delivery.courier import CourierRequest, parse_request
from mailserver.delivery.courier_client import CourierClient, HomeDelivery, _each_copy, _for_all
from mailserver.interfaces import IBatchDelivery, IConcurrentDelivery, IMayBeMissing
from mailserver.mail.answers import Delayed, Delivered, Mailbox
from mailserver.mail.content import Content
from mailserver.mail.parcel import Parcel
from mailserver.processes import privileged
from mailserver.processes.kept import KeptProcess
from mailserver.processes.privileged import RequestError
from mailserver.processes.small import keep_here
from mailserver.processes.spawning import ProcessStart, begin
from mailserver.processes.version import version
from tests.delivery.messages import DATA, only, parcel, read, run_at_once
from tests.descriptors import open_descriptors

NOBODY = pwd.getpwnam("nobody")
HOST = "mx.example.org"


def home_box(user: str, *folder: str, must_exist: bool = False) -> Mailbox:
    return Mailbox(user, "example.org", folder, True, must_exist)


GOOD: dict[str, Any] = {
    "user": "alice",
    "domain": "example.org",
    "folder": ["Junk"],
    "must_exist": False,
    "junk": False,
    "name": "1700000000.0123456789ABCDEF_0.mx.example.org",
    "fields": "Return-Path: <>\n",
    "binary": False,
    "again": False,
}


class Requests(SynchronousTestCase):
    """The courier believes nothing."""

    def test_a_good_one_is_taken(self) -> None:
        self.assertEqual(
            parse_request(json.dumps(GOOD).encode()),
            CourierRequest(home_box("alice", "Junk"), GOOD["name"], b"Return-Path: <>\n", False, False),
        )

    def test_every_other_shape_is_refused(self) -> None:
        for change in (
            {"user": "../root"},
            {"user": ""},
            {"user": None},
            {"user": "a\0"},
            {"user": "-x"},
            {"domain": "a/b"},
            {"folder": 3},
            {"folder": [1]},
            {"folder": ["x"] * 17},
            {"folder": ["x" * 300]},
            {"folder": [""]},
            {"name": "../../../etc/cron.d/x"},
            {"name": "1.a_0.x/../y"},
            {"name": ".."},
            {"fields": 7},
            {"fields": "\u0100"},
        ):
            with self.assertRaises(RequestError, msg=str(change)):
                parse_request(json.dumps(GOOD | change).encode())
        for octets in (b"", b"[]", b"7", b"{}", b"\xff", b"[" * 100000):
            with self.assertRaises(RequestError):
                parse_request(octets)

    def test_nor_is_it_believed_without_a_look(self) -> None:
        self.assertEqual(courier.answer_of(b'[7, "path"]'), (7, "path"))
        for octets in (b"", b"7", b"{}", b"[]", b"[1]", b'[1, "x", 2]', b'["1", "x"]', b"[1, 2]", b'[true, "x"]', b"\xff"):
            with self.assertRaises(ValueError, msg=repr(octets)):
                courier.answer_of(octets)


class RootCase(SynchronousTestCase):
    """A real courier as root, and real users."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("needs root, as only root can change its identity")
        self.base = tempfile.mkdtemp(prefix="courier-test-")
        self.addCleanup(shutil.rmtree, self.base)
        os.chmod(self.base, 0o755)
        self.homes = {}
        for user, uid in (("nobody", NOBODY.pw_uid), ("daemonic", 1), ("other", 54321)):
            self.homes[user] = f"{self.base}/{user}"
            os.mkdir(self.homes[user], 0o700)
            os.chown(self.homes[user], uid, NOBODY.pw_gid)
        self.users = [
            f"nobody:{NOBODY.pw_uid}:{NOBODY.pw_gid}:{self.homes['nobody']}",
            f"daemonic:1:{NOBODY.pw_gid}:{self.homes['daemonic']}",
            f"other:54321:54321:{self.homes['other']}",
            f"homeless:{NOBODY.pw_uid}:{NOBODY.pw_gid}:/nonexistent",
            f"root:0:0:{self.base}",
        ]
        self.courier = self.started()

    def started(self) -> CourierClient:
        start = ProcessStart("tests.delivery.courier_for_nobody", (*self.users, "{home}/Maildir", "1000"))
        made = KeptProcess(name="courier", begin=lambda: begin(start, version()))
        self.addCleanup(made.close)
        return CourierClient(made)

    def kill(self) -> None:
        process = self.courier.process._process
        assert process is not None
        process.kill()
        process.wait()

    def deliver(self, one: Parcel) -> list[tuple[int, int, str]]:
        message = message_of(one, HOST)
        return [self.asked(copy, message) for copy in message.copies]

    def asked(self, copy: BatchCopy, message: BatchMessage) -> tuple[int, int, str]:
        ours, theirs = socket.socketpair()
        with ours:
            try:
                self.courier.hand_over(copy, message, theirs)
            except OSError as error:
                return copy.destination, -1, str(error)
            ours.settimeout(30)
            return (copy.destination, *courier.answer_of(ours.recv(65536)))

    def new(self, user: str = "nobody", maildir: str = "Maildir") -> list[str]:
        path = f"{self.homes[user]}/{maildir}/new"
        return [f"{path}/{name}" for name in os.listdir(path)] if os.path.isdir(path) else []


class AsRoot(RootCase):
    def test_the_file_belongs_to_its_user_and_to_nobody_else(self) -> None:
        [(index, error, path)] = self.deliver(parcel(home_box("nobody")))
        self.assertEqual((index, error), (0, 0), path)
        self.assertEqual(self.new(), [path])
        for place in (path, os.path.dirname(path), f"{self.homes['nobody']}/Maildir"):
            found = os.stat(place)
            self.assertEqual((found.st_uid, found.st_gid), (NOBODY.pw_uid, NOBODY.pw_gid), place)
            self.assertEqual(stat.S_IMODE(found.st_mode), 0o700 if stat.S_ISDIR(found.st_mode) else 0o600)
        self.assertEqual(
            read(path), b"Return-Path: <carol@example.net>\nDelivered-To: nobody@example.org\nSubject: one\n\nhello\n"
        )

    def test_users_that_must_not_get_mail_get_none(self) -> None:
        for user in ("root", "daemonic", "unknown"):
            [(_, error, _)] = self.deliver(parcel(home_box(user)))
            self.assertNotEqual(error, 0, user)
        self.assertEqual(self.new("daemonic"), [])

    def test_a_link_out_of_the_home_leads_nowhere_that_the_user_could_not_go(self) -> None:
        outside = f"{self.base}/outside"
        os.mkdir(outside, 0o700)
        os.symlink(outside, f"{self.homes['nobody']}/Maildir")
        [(_, error, note)] = self.deliver(parcel(home_box("nobody")))
        self.assertNotEqual(error, 0, note)
        self.assertEqual(os.listdir(outside), [])

    def test_a_user_cannot_have_a_message_written_to_another_users_file(self) -> None:
        os.makedirs(f"{self.homes['nobody']}/Maildir/new")
        os.symlink(self.homes["other"], f"{self.homes['nobody']}/Maildir/tmp")
        for place in ("Maildir", "Maildir/new"):
            os.chown(f"{self.homes['nobody']}/{place}", NOBODY.pw_uid, NOBODY.pw_gid)
        [(_, error, _)] = self.deliver(parcel(home_box("nobody")))
        self.assertNotEqual(error, 0)
        self.assertEqual(os.listdir(self.homes["other"]), [])

    def test_a_user_without_a_home_is_deferred_and_others_are_not(self) -> None:
        first, second = self.deliver(parcel(home_box("homeless"), home_box("nobody")))
        self.assertNotEqual(first[1], 0)
        self.assertEqual(second[1], 0)

    def test_a_spooled_message_is_read_through_its_descriptor_alone(self) -> None:
        path = f"{self.base}/spooled"  # which the user may not open
        data = b"x" * 200_000 + b"\r\n"
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o600)
        content = Content.at(path, len(data), prefix=b"Received: by us\r\n")
        first, second = self.deliver(parcel(home_box("nobody"), home_box("other"), content=content))
        self.assertEqual((first[1], second[1]), (0, 0), (first, second))
        for name in (*self.new(), *self.new("other")):
            self.assertTrue(read(name).endswith(b"Received: by us\n" + data.replace(b"\r\n", b"\n")))

    def test_a_long_prefix_travels_with_the_content(self) -> None:
        prefix = b"X-Long: " + b"y" * 50_000 + b"\r\n"
        self.deliver(parcel(home_box("nobody"), content=Content.of(DATA, prefix=prefix)))
        self.assertIn(prefix.replace(b"\r\n", b"\n") + b"Subject: one\n", read(only(self.new())))

    def test_folders_and_tags_work_as_in_other_maildirs(self) -> None:
        self.deliver(parcel(home_box("nobody", "Junk")))
        self.deliver(parcel(home_box("nobody", "tag", must_exist=True), id="0000000000000002"))
        self.assertEqual(len(self.new(maildir="Maildir/.Junk")), 1)
        self.assertEqual(len(self.new()), 1)

    def copies(self, *mailboxes: Mailbox, id: str = "0123456789ABCDEF", again: bool = False) -> list[int]:
        """Deliver to several mailboxes of a message; how many files nobody has then in the inbox, x and Junk."""
        message = message_of(parcel(*mailboxes, id=id, again=again), HOST)
        results = [self.asked(copy, own) for copy, own in _each_copy(message)]
        self.assertEqual([result[1] for result in results], [0] * len(results), results)
        self.assertEqual([result[0] for result in _for_all(message, results)], list(range(len(mailboxes))))
        return [len(self.new(maildir=f"Maildir{folder}")) for folder in ("", "/.x", "/.Junk")]

    def test_recipients_that_share_a_folder_are_one_file_with_the_lines_of_the_first(self) -> None:
        tagged = home_box("nobody", "x", must_exist=True)
        junk = replace(home_box("nobody"), junk=True)
        for again in (False, True):
            self.assertEqual(self.copies(tagged, home_box("nobody"), home_box("nobody"), junk, again=again), [1, 0, 0])
        os.makedirs(f"{self.homes['nobody']}/Maildir/.x/new")
        os.chown(f"{self.homes['nobody']}/Maildir/.x", NOBODY.pw_uid, NOBODY.pw_gid)
        os.chown(f"{self.homes['nobody']}/Maildir/.x/new", NOBODY.pw_uid, NOBODY.pw_gid)
        self.assertEqual(self.copies(home_box("nobody"), tagged, id="0000000000000002"), [2, 1, 0])
        self.assertEqual(self.copies(tagged, junk, id="0000000000000003"), [2, 2, 1])

    def test_a_message_delivered_again_replaces_the_first(self) -> None:
        self.deliver(parcel(home_box("nobody")))
        [name] = self.new()
        moved = name.replace("/new/", "/cur/") + ":2,S"
        os.rename(name, moved)
        [(_, error, path)] = self.deliver(parcel(home_box("nobody"), again=True))
        self.assertEqual((error, path), (0, moved))
        self.assertEqual(self.new(), [])

    def test_a_courier_that_died_is_started_again(self) -> None:
        self.kill()
        [(_, error, note)] = self.deliver(parcel(home_box("nobody")))
        self.assertEqual(error, 0, note)

    def test_one_that_died_after_the_privileges_were_dropped_stays_away_and_mail_waits(self) -> None:
        self.courier = CourierClient(keep_here("courier", ProcessStart("mailserver.delivery.courier", ("{home}/Maildir", "1000"))))
        self.addCleanup(self.courier.process.close)
        self.kill()
        self.patch(os, "geteuid", lambda: 1000)
        [(_, error, note)] = self.deliver(parcel(home_box("nobody")))
        self.assertNotEqual(error, 0)
        self.assertIn("restart the server", note)

    def test_it_ends_with_the_server(self) -> None:
        process, control = self.courier.process._process, self.courier.process._control
        assert process is not None and control is not None
        control.close()
        self.assertEqual(process.wait(10), 0)

    def test_what_is_no_request_ends_it(self) -> None:
        for octets in (b"\xff\xff\xff\xff", privileged.LENGTH.pack(privileged.REQUEST_OCTETS + 1), privileged.LENGTH.pack(4) + b"null"):
            made = self.started().process
            assert made._process is not None and made._control is not None
            made._control.sendall(octets)
            self.assertEqual(made._process.wait(10), 0)

    def test_a_request_for_nothing_is_answered_and_the_next_one_served(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, open(os.devnull) as nothing:
            self.courier.process.send(b"null", [theirs.fileno(), nothing.fileno()])
            theirs.close()
            ours.settimeout(10)
            self.assertEqual(json.loads(ours.recv(1000))[0], -1)
        self.assertEqual(self.deliver(parcel(home_box("nobody")))[0][1], 0)

    def test_a_server_that_does_not_wait_any_more_gets_no_file(self) -> None:
        ours, theirs = socket.socketpair()
        ours.close()
        with theirs, tempfile.TemporaryFile() as content:
            request = parse_request(json.dumps(GOOD | {"user": "other", "folder": []}).encode())
            template = courier.PathTemplate("{home}/Maildir", data_directory="/")
            with self.assertRaises(TimeoutError):
                courier.write(request, self.homes["other"], template, theirs.fileno(), content.fileno())
        self.assertEqual(self.new("other"), [])
        self.assertEqual(os.listdir(f"{self.homes['other']}/Maildir/tmp"), [])


class Component(TestCase):
    """The delivery with a courier that is one call."""

    timeout = 30.0

    def setUp(self) -> None:
        self.asked: list[str] = []
        self.clock = Clock()
        self.delivery = HomeDelivery(
            template="{home}/Maildir",
            uid_min=1000,
            hostname=HOST,
            clock=self.clock,
            run_in_thread=run_at_once,
            reactor=reactor,
            keep=self.keep,
            identity=lambda: 0,
        )
        self.missing = ""
        self.again: list[tuple[str, bool]] = []
        self.hanging: list[int] = []
        self.addCleanup(lambda: [os.close(reply) for reply in self.hanging])

    def keep(self, kind: str, start: ProcessStart) -> Any:
        self.asked.append(f"{kind}: {start.module} {' '.join(start.arguments)}")
        return self

    def send(self, request: bytes, descriptors: list[int]) -> None:
        user = json.loads(request)["user"]
        self.again.append((user, json.loads(request)["again"]))
        self.asked.append(user)
        if user.startswith("breaks"):
            raise OSError("it takes no request")
        if user.startswith("hangs"):
            self.hanging.append(os.dup(descriptors[0]))
            return
        os.write(descriptors[0], b'[0, "path"]' if user != "bad" else b'[-1, "no"]')

    def close(self) -> None:
        self.asked.append("close")

    async def test_one_that_was_not_started_can_be_stopped(self) -> None:
        self.assertEqual(self.delivery.missing(), "it was not started")
        await self.delivery.stop()
        self.assertEqual(self.asked, [])

    async def test_the_courier_is_started_once_with_privileges_if_there_is_a_time_for_them(self) -> None:
        self.delivery.start_privileged()
        await self.delivery.start()
        await self.delivery.stop()
        self.assertEqual(self.asked, ["courier: mailserver.delivery.courier {home}/Maildir 1000", "close"])

    def test_without_root_there_is_no_mail_into_homes_and_the_start_says_so(self) -> None:
        self.delivery._identity = lambda: 1000
        refused = self.assertRaises(OSError, self.delivery.start_privileged)
        self.assertIn("needs root at the start", str(refused))
        self.assertEqual(self.asked, [])

    def test_it_says_why_it_cannot_deliver_now(self) -> None:
        verifyObject(IMayBeMissing, self.delivery)
        self.assertEqual(self.delivery.missing(), "it was not started")
        self.delivery.start_privileged()
        self.assertEqual(self.delivery.missing(), "")
        self.missing = "it has died"
        self.assertEqual(self.delivery.missing(), "it has died")

    async def test_each_destination_gets_its_own_outcome(self) -> None:
        self.delivery.start_privileged()
        parcels = [parcel(home_box("bad"), home_box("alice")), parcel(home_box("alice"), id="0000000000000002")]
        first, second = await self.delivery.deliver_batch(parcels)
        self.assertIsInstance(first[0], Delayed)
        self.assertEqual((first[1], second[0]), (Delivered("path"), Delivered("path")))
        await self.delivery.flush()

    def begun(self, *parcels: Parcel) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.delivery.deliver_batch(parcels))

    async def test_of_several_recipients_with_one_home_all_but_the_first_look_whether_a_copy_stands_there(self) -> None:
        self.delivery.start_privileged()
        ways = parcel(home_box("alice"), home_box("bob"), home_box("alice", "lists"), home_box("alice"))
        [outcomes, _] = await self.delivery.deliver_batch([ways, parcel(home_box("alice"), id="0000000000000002")])
        self.assertEqual(sorted(outcomes), [0, 1, 2, 3])
        # The last recipient asks for what the first one has asked for.
        self.assertEqual([again for user, again in self.again if user == "alice"], [False, True, False])
        self.assertIn(("bob", False), self.again)

    async def test_a_home_that_hangs_holds_up_neither_other_users_nor_other_messages(self) -> None:
        self.delivery.start_privileged()
        hangs = self.begun(parcel(home_box("hangs"), home_box("alice")), parcel(home_box("bob"), id="0000000000000002"))
        for n in range(3, 40):
            [outcomes] = await self.begun(parcel(home_box("alice"), id=f"{n:016}"))
            self.assertIsInstance(outcomes[0], Delivered)
        self.assertNoResult(hangs)
        self.clock.advance(courier_client.WAIT_SECONDS)
        first, second = await hangs
        assert isinstance(first[0], Delayed)
        self.assertIn("does not answer", first[0].note)
        self.assertEqual((first[1], second[0]), (Delivered("path"), Delivered("path")))

    async def test_whoever_still_writes_at_the_deadline_sees_that_nobody_waits(self) -> None:
        self.delivery.start_privileged()
        hangs = self.begun(parcel(home_box("hangs")))
        self.assertTrue(privileged.server_waits(self.hanging[0]))
        self.clock.advance(courier_client.WAIT_SECONDS)
        await hangs
        self.assertFalse(privileged.server_waits(self.hanging[0]))

    async def test_a_request_that_is_not_taken_is_an_outcome_and_leaves_nothing_open(self) -> None:
        self.delivery.start_privileged()
        await self.begun(parcel(home_box("alice")))
        before = open_descriptors()
        for _ in range(3):
            [outcomes] = await self.begun(parcel(home_box("breaks"), home_box("alice")))
            self.assertIn("takes no request", outcomes[0].note)
            self.assertIsInstance(outcomes[1], Delivered)
        self.assertEqual(open_descriptors(), before)

    async def test_a_call_that_the_queue_gives_up_gives_up_what_is_under_way(self) -> None:
        self.delivery.start_privileged()
        hangs = self.begun(parcel(home_box("hangs")))
        hangs.cancel()
        [outcomes] = await hangs
        self.assertIn("did not wait", outcomes[0].note)
        self.assertFalse(privileged.server_waits(self.hanging[0]))

    async def test_the_queue_makes_many_calls_at_once_and_waits_long_enough_for_each(self) -> None:
        verifyObject(IBatchDelivery, self.delivery)
        verifyObject(IConcurrentDelivery, self.delivery)
        self.delivery.start_privileged()
        many = self.begun(*[parcel(home_box(f"hangs{n}"), id=f"{n:016}") for n in range(500)])
        waited = 0.0
        while not many.called:
            self.clock.advance(1)
            waited += 1
            await deferLater(reactor, 0)
        self.assertLess(waited, self.delivery.deadline_seconds)
        self.assertTrue(all(isinstance(outcomes[0], Delayed) for outcomes in await many))

    async def test_without_a_courier_everything_waits(self) -> None:
        [outcomes] = await self.delivery.deliver_batch([parcel(home_box("alice"))])
        self.assertIsInstance(outcomes[0], Delayed)


class OwnUser(TestCase):
    """A courier without privileges, over threads as in the server."""

    async def test_it_serves_its_own_user(self) -> None:
        own = pwd.getpwuid(os.geteuid())
        delivery = HomeDelivery(
            template="{home}/Maildir",
            uid_min=1000,
            hostname=HOST,
            clock=reactor,  # type: ignore[arg-type]
            run_in_thread=deferToThread,
            reactor=reactor,
            identity=lambda: 0,
        )
        delivery.start_privileged()
        await delivery.start()
        try:
            one = parcel(home_box(own.pw_name if own.pw_uid >= 1000 else "no-such-user"))
            if own.pw_uid >= 1000:
                raise SkipTest("would write into the real home of the person who runs this")
            outcomes = await delivery.deliver(one.envelope, one.content, one.destinations)
            outcome = outcomes[0]
            assert isinstance(outcome, Delayed)
            self.assertIn("no such user", outcome.note)
        finally:
            await delivery.stop()
