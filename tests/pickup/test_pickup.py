"""The pickup folder: what becomes of each file, in virtual time; and who may do what in the folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest
from zope.interface import implementer

from mailserver.cli.sendmail import write_file
from mailserver.cli.sendmail_message import TypedMessage
from mailserver.interfaces import IRecipientContentFilter, ISenderFilter, TransactionEnd
from mailserver.mail.address import Address
from mailserver.mail.answers import Pass, Refuse, Verdict
from mailserver.mail.envelope import MailParameters, Peer, Recipient
from mailserver.mail.faults import StorageBroken
from mailserver.mail.set_apart import Returned
from mailserver.pickup.file_format import PickupEnvelope, pickup_name
from mailserver.pickup.folder import PIECE_OCTETS, UNFINISHED_SECONDS, PickupFolder
from mailserver.pickup.pickup import AGAIN_SECONDS, AGAIN_SECONDS_MOST, LOOK_SECONDS
from mailserver.plugins.generation import Generation
from mailserver.receive.judging import BoundFilter
from mailserver.receive.profile import ConnectionLimits
from mailserver.receive.submission.rules import Submission
from tests.pickup.case import BODY, PickupCase

NOBODY = 65534


@implementer(ISenderFilter)
class NoSender:
    async def judge_sender(self, envelope: Any) -> Verdict:
        return Refuse("no senders")


@implementer(IRecipientContentFilter)
class NotBob:
    async def judge_content_for(self, envelope: Any, content: Any, recipient: Any) -> Verdict:
        return Refuse("not bob") if recipient.address.local == "bob" else Pass()


class Files(PickupCase):
    def test_one_that_is_under_way_keeps_the_parts_with_which_it_began_over_a_reload(self) -> None:
        pickup, listener = self.started()
        listener.store.hold = True
        old = listener.profile
        self.put("alice@example.org", "nobody@example.org")
        pickup.look()
        self.assertEqual(old.generation.uses, 1)
        listener.profile = replace(old, generation=Generation(), router=None)  # type: ignore[arg-type]
        while listener.store.waiting:  # the message, then its report, which has to find its way
            self.assertEqual(old.generation.uses, 1)
            listener.store.waiting.pop().callback(None)
        self.assertEqual([envelope.sender is None for envelope, _, _ in listener.store.taken], [False, True])
        self.assertEqual((old.generation.uses, listener.profile.generation.uses), (0, 0))

    def test_how_each_transaction_ends_is_told_once(self) -> None:
        ends = mock.Mock()
        pickup, _ = self.started(ends=ends)
        self.put("alice@example.org", "nobody@example.org")
        self.put("nobody@example.org", number=2)
        pickup.look()
        told = [(len(envelope.recipients), how) for (envelope, how), _ in ends.transaction.call_args_list]
        self.assertEqual(told, [(1, TransactionEnd.ACCEPTED), (0, TransactionEnd.REFUSED)])

    def test_a_file_is_found_by_the_look_each_second(self) -> None:
        _, listener = self.started()
        self.put("bob@example.org")
        self.assertEqual(listener.store.taken, [])
        listener.clock.advance(LOOK_SECONDS)
        ((envelope, octets, destinations),) = listener.store.taken
        self.assertEqual(str(envelope.sender), "alice@example.org")
        self.assertEqual(envelope.peer, Peer("local", 0, "submission", hello=f"userid {os.getuid()}", login=f"user{os.getuid()}"))
        self.assertEqual([str(one.recipient.address) for one in destinations], ["bob@example.org"])
        self.assertTrue(octets.endswith(BODY))
        self.assertEqual(self.files(), [])

    def test_its_header_is_mended_and_its_blind_copies_are_taken_away(self) -> None:
        submission = Submission(hostname="mx.example.org", clock=Clock(), rights=None, allowance=None, complete=False)
        pickup, listener = self.started(submission=submission)
        self.put("bob@example.org", body=b"Subject: x\r\nBcc: secret@x.example\r\nDisk full\r\n")
        pickup.look()
        ((_, octets, _),) = listener.store.taken
        self.assertTrue(octets.endswith(b"\r\nSubject: x\r\n\r\nDisk full\r\n"), octets)

    def test_a_ring_makes_it_look_at_once_and_the_oldest_goes_first(self) -> None:
        pickup, listener = self.started()
        self.put("bob@example.org", body=b"Subject: second\r\n\r\n", number=2)
        self.put("bob@example.org", body=b"Subject: first\r\n\r\n", number=1)
        pickup.look()
        self.assertEqual(
            [octets.split(b"\r\n")[-3] for _, octets, _ in listener.store.taken],
            [b"Subject: first", b"Subject: second"],
        )

    def test_a_store_that_cannot_take_it_now_is_asked_again(self) -> None:
        pickup, listener = self.started()
        listener.store.answer = StorageBroken("no disk")
        self.put("bob@example.org")
        pickup.look()
        self.assertEqual(len(self.files()), 1)
        listener.store.answer = None
        listener.clock.pump([LOOK_SECONDS] * int(AGAIN_SECONDS + 2))
        self.assertEqual(len(listener.store.taken), 1)
        self.assertEqual(self.files(), [])

    def test_a_router_that_fails_keeps_the_message_here(self) -> None:
        pickup, listener = self.started()
        listener.router.error = RuntimeError("no directory")
        self.put("bob@example.org")
        pickup.look()
        self.flushLoggedErrors(RuntimeError)
        self.assertEqual((len(self.files()), listener.store.taken), (1, []))

    def test_what_was_committed_before_a_crash_is_not_committed_again(self) -> None:
        pickup, listener = self.pickup()
        self.put("bob@example.org", "nobody@example.org")
        name = self.take(listener)
        self.stored.add(name.partition(".")[0])
        self.successResultOf(Deferred.fromCoroutine(pickup.start()))
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(pickup.stop())))
        ((envelope, octets, _),) = listener.store.taken
        self.assertIsNone(envelope.sender, "the report, which is still owed")
        self.assertIn(b"nobody@example.org", octets)
        self.assertEqual(self.files(), [])

    def test_what_was_taken_before_a_crash_and_not_committed_is_committed_under_its_id(self) -> None:
        pickup, listener = self.pickup()
        self.put("bob@example.org")
        name = self.take(listener)
        self.successResultOf(Deferred.fromCoroutine(pickup.start()))
        self.addCleanup(lambda: self.successResultOf(Deferred.fromCoroutine(pickup.stop())))
        self.assertEqual([envelope.id for envelope, _, _ in listener.store.taken], [name.partition(".")[0]])

    def test_more_recipients_than_the_limit_go_in_several_transactions(self) -> None:
        pickup, listener = self.started(limits=ConnectionLimits(recipients=2), relays=True)
        self.put(*[f"u{n}@elsewhere.example" for n in range(5)])
        pickup.look()
        self.assertEqual([len(destinations) for _, _, destinations in listener.store.taken], [2, 2, 1])

    def test_a_filter_that_judges_for_each_recipient_decides_for_each(self) -> None:
        pickup, listener = self.started(filters=[BoundFilter("notbob", NotBob())])
        self.put("alice@example.org", "bob@example.org")
        pickup.look()
        ((_, _, destinations),) = listener.store.taken
        self.assertEqual([str(one.recipient.address) for one in destinations], ["alice@example.org", "bob@example.org"])
        (apart,) = listener.store.set_apart
        self.assertEqual({index: (type(one), one.why) for index, one in apart.items()}, {1: (Returned, "not bob")})
        self.assertEqual(self.files(), [])

    def test_a_refused_message_of_the_null_sender_is_reported_to_nobody(self) -> None:
        pickup, listener = self.started()
        self.put("nobody@example.org", sender="")
        pickup.look()
        self.assertEqual((listener.store.taken, self.files()), ([], []))

    def test_a_refused_message_whose_sender_cannot_be_told_is_put_aside(self) -> None:
        for sender, relays in (("nobody2@example.org", False), ("nobody2@example.org", True), ("me@elsewhere.example", False)):
            pickup, listener = self.pickup(relays=relays)
            self.successResultOf(Deferred.fromCoroutine(pickup.start()))
            self.put("nobody@example.org", sender=sender)
            pickup.look()
            (name,) = self.files()
            self.assertTrue(name.startswith("bad/"))
            self.assertEqual(listener.store.taken, [])
            self.stop(pickup)
            (self.path / name).unlink()

    def test_a_report_and_what_it_is_about_find_each_other(self) -> None:
        pickup, listener = self.started()
        self.put("nobody@example.org")
        pickup.look()
        ((envelope, octets, _),) = listener.store.taken
        self.assertEqual(envelope.peer, Peer("127.0.0.1", 0, "report", "mx.example.org"))
        told = [(id, step, fields) for id, step, fields in listener.steps if step in ("reported", "accepted")]
        about = told[0][0]
        self.assertEqual(told[0][1:], ("reported", {"condition": "failure", "report": envelope.id, "recipient": "alice@example.org"}))
        accepted = {"sender": "", "recipients": ["alice@example.org"], "size": len(octets), "about": about}
        self.assertEqual(told[1:], [(envelope.id, "accepted", accepted)])

    def test_a_sender_who_is_refused_is_so_for_every_recipient(self) -> None:
        pickup, listener = self.started(filters=[BoundFilter("nosender", NoSender())])
        self.put("alice@example.org", "bob@example.org")
        pickup.look()
        ((envelope, octets, _),) = listener.store.taken
        self.assertIsNone(envelope.sender)
        self.assertEqual([octets.count(b"rfc822; %s@example.org" % name) for name in (b"alice", b"bob")], [1, 1])

    def test_without_room_for_the_data_it_waits(self) -> None:
        pickup, listener = self.started()
        listener.store.room = -1
        self.put("bob@example.org")
        pickup.look()
        self.assertEqual((len(self.files()), listener.store.taken), (1, []))
        self.assertTrue(listener.step("refused")["reply"].startswith("452 "))
        listener.store.room = 10**9
        for _ in range(int(AGAIN_SECONDS_MOST) // 60 + 1):
            listener.clock.advance(60)
        self.assertEqual((len(self.files()), len(listener.store.taken)), (0, 1))

    def test_whatever_its_line_ends_and_its_size_it_has_those_of_the_wire(self) -> None:
        pickup, listener = self.started(limits=ConnectionLimits(stray_line_ends="refuse"))  # on the wire
        large = b"Subject: x\n\n" + b"y" * 70 + b"\n" + (b"z" * 99 + b"\n") * (PIECE_OCTETS // 100)
        bodies = [b"Subject: x\n\nhello\n", b"Subject: x\n\nhello\rthere", large, large + b"end", large.replace(b"\n", b"\r\n") + b"end\r"]
        # The last octet is a piece of its own.
        line = b'{"version": 1, "sender": "alice@example.org", "recipients": ["bob@example.org"]}\n'
        bodies.append(large[: PIECE_OCTETS - len(line)] + b"\n")
        for body in bodies:
            self.put("bob@example.org", body=body)
            pickup.look()
            _, octets, _ = listener.store.taken.pop()
            expected = body.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
            self.assertTrue(octets.endswith(expected), (octets[-80:], expected[-80:]))
        self.assertEqual(self.files(), [])

    def test_a_message_above_the_limit_is_refused(self) -> None:
        pickup, listener = self.started(limits=ConnectionLimits(message_octets=1000))
        self.put("bob@example.org", body=BODY + b"x" * 2000)
        pickup.look()
        ((envelope, octets, _),) = listener.store.taken
        self.assertIsNone(envelope.sender)
        self.assertIn(b"5.3.4", octets)


class Folder(PickupCase):
    def test_an_unfinished_file_is_left_alone_for_a_while(self) -> None:
        pickup, _ = self.started()
        unfinished = self.path / ".half"
        unfinished.write_bytes(b"x")
        pickup.look()
        now = unfinished.stat().st_mtime
        self.assertEqual(self.folder.sweep(now + 60), 0)
        self.assertEqual(self.folder.sweep(now + UNFINISHED_SECONDS + 1), 1)
        self.assertEqual(self.files(), [])

    def test_modes_follow_who_may_use_it(self) -> None:
        for users, mode in (("owner", 0o2700), ("all", 0o3733), (f"group:{os.getgid()}", None)):
            folder = PickupFolder(str(self.path), users)
            if mode is None:
                self.assertRaises(FileNotFoundError, folder.make)
                continue
            folder.make()
            self.assertEqual(self.path.stat().st_mode & 0o7777, mode)
            self.assertEqual((self.path / "taken").stat().st_mode & 0o777, 0o700)

    def test_a_file_with_a_second_name_is_no_message(self) -> None:
        pickup, listener = self.started()
        self.put("bob@example.org")
        (name,) = self.files()
        os.link(self.path / name, self.path / ".second")
        pickup.look()
        self.assertEqual(listener.store.taken, [])
        self.assertEqual(sum(one.startswith("bad/") for one in self.files()), 1)

    def test_another_user_may_hand_over_but_neither_list_nor_remove(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("needs root, to become another user")
        top = Path(tempfile.mkdtemp())  # the test's own folder is closed to others
        self.addCleanup(shutil.rmtree, top)
        top.chmod(0o755)
        self.path = top / "pickup"
        self.folder = PickupFolder(str(self.path), "all")
        self.folder.make()
        self.put("bob@example.org")
        (name,) = self.files()
        (self.path / name).chmod(0o640)  # as sendmail leaves it
        mine = pickup_name(9, bytes(16))

        def attempts() -> list[str]:
            write_file(
                str(self.path / mine),
                line_of("bob@example.org"),
                [b"Subject: from nobody"],
                TypedMessage.read(iter(())),
                1000,
            )
            return [
                outcome(lambda: os.listdir(self.path)),
                outcome(lambda: os.unlink(self.path / name)),
                outcome(lambda: os.listdir(self.path / "taken")),
                outcome(lambda: (self.path / name).read_bytes()),
            ]

        self.assertEqual(as_nobody(attempts), ["PermissionError"] * 4)
        self.assertEqual((self.path / mine).stat().st_gid, self.path.stat().st_gid, "the server's group may read it")
        _, listener = self.started()
        self.assertEqual([envelope.peer.hello for envelope, _, _ in listener.store.taken][1:], [f"userid {NOBODY}"])


def line_of(recipient: str) -> PickupEnvelope:
    return PickupEnvelope(None, (Recipient(Address.parse(recipient)),), MailParameters(body="8BITMIME"))


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "done"


def as_nobody(work: Callable[[], list[str]]) -> list[str]:
    """What `work` returns in a child that is the user nobody; a new program could not be started by that user here."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            said = work()
        except BaseException as error:
            said = [repr(error)]
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        said = json.loads(answer.read())
    os.waitpid(child, 0)
    return said
