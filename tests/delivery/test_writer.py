"""Files in Maildirs: where, with which mode, and what an error of one means for the others."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailserver.delivery.letters import letter_of, outcomes_of
from mailserver.delivery.maildirs import Maildirs
from mailserver.delivery.names import PathTemplate
from mailserver.delivery.writer import MaildirWriter
from mailserver.mail.answers import Deferred, Delivered, Mailbox, Outcome
from mailserver.mail.content import Content
from mailserver.mail.edits import DropHeader, apply_edits
from mailserver.mail.parcel import Parcel
from tests.delivery.messages import ALICE, BOB, DATA, files_below, only, parcel, read, remote_parcel

HOST = "mx.example.org"


class WriterCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = os.path.abspath(self.mktemp())
        self.now = 0.0
        self.start()

    def start(self, open_at_most: int = 256) -> None:
        template = PathTemplate("{data}/mail/{domain}/{user}", data_directory=self.data)
        self.maildirs = Maildirs(
            path_of=lambda box: template.path(user=box.user, domain=box.domain),
            open_at_most=open_at_most,
            seconds=lambda: self.now,
        )
        self.addCleanup(self.maildirs.close)
        self.writer = MaildirWriter(maildirs=self.maildirs, syncs_files=True)

    def deliver(self, *parcels: Parcel) -> list[dict[int, Outcome]]:
        self.report = self.writer.write([letter_of(one, HOST) for one in parcels])
        return [outcomes_of(one, results) for one, results in zip(parcels, self.report[0], strict=True)]

    def files(self) -> list[str]:
        return files_below(self.data) if os.path.isdir(self.data) else []

    def path(self, place: str, user: str = "alice") -> str:
        return f"{self.data}/mail/example.org/{user}/{place}"

    def fail(self, name: str, error: int, when: Callable[..., bool] = lambda *_: True) -> None:  # type: ignore[override]
        """Make a function of `os` fail."""
        real = getattr(os, name)

        def failing(*arguments: Any, **named: Any) -> Any:
            if when(*arguments):
                raise OSError(error, os.strerror(error))
            return real(*arguments, **named)

        self.patch(os, name, failing)


class Files(WriterCase):
    def test_a_message_stands_in_new_under_a_name_made_of_its_id(self) -> None:
        [outcomes] = self.deliver(parcel(ALICE))
        name = "mail/example.org/alice/new/1700000000.0123456789ABCDEF_0.mx.example.org"
        self.assertEqual(self.files(), [name])
        self.assertEqual(outcomes, {0: Delivered(f"{self.data}/{name}")})
        self.assertEqual(
            read(f"{self.data}/{name}"),
            b"Return-Path: <carol@example.net>\nDelivered-To: alice@example.org\nSubject: one\n\nhello\n",
        )

    def test_a_foreign_return_path_makes_place_for_ours(self) -> None:
        data = b"Return-Path: <x@y.example>\r\nSubject: one\r\nreturn-path :\r\n <z@y.example>\r\n\r\nReturn-Path: text\r\n"
        path = os.path.abspath(self.mktemp())
        with open(path, "wb") as spooled:
            spooled.write(data)
        expected = b"Return-Path: <carol@example.net>\nDelivered-To: alice@example.org\nA: 1\nSubject: one\n\nReturn-Path: text\n"
        for content in (Content.of(data, prefix=b"A: 1\r\n"), Content.at(path, len(data), prefix=b"A: 1\r\n")):
            self.deliver(parcel(ALICE, content=content))
            self.assertEqual(read(only(self.files_of("alice", "new"))), expected)

    def test_each_destination_has_a_file_of_its_own(self) -> None:
        self.deliver(parcel(ALICE, BOB, Mailbox("alice", "example.net")))
        self.assertEqual([name.split("_")[1][0] for name in self.files()], ["2", "0", "1"])

    def test_files_are_0600_and_directories_0700_whatever_the_umask(self) -> None:
        self.addCleanup(os.umask, os.umask(0))
        self.deliver(parcel(Mailbox("alice", "example.org", ("Junk",))))
        for directory, names, files in os.walk(self.data):
            for name in (*names, *files):
                mode = os.stat(os.path.join(directory, name)).st_mode
                self.assertEqual(stat.S_IMODE(mode), 0o700 if stat.S_ISDIR(mode) else 0o600, name)
        self.assertEqual(stat.S_IMODE(os.stat(self.data).st_mode), 0o700)

    def test_the_prefix_stands_between_the_delivery_fields_and_the_message(self) -> None:
        self.deliver(parcel(ALICE, content=Content.of(DATA, prefix=b"Received: by us\r\n\twith us\r\n")))
        written = read(only(self.files_of("alice", "new")))
        self.assertTrue(written.endswith(b"alice@example.org\nReceived: by us\n\twith us\nSubject: one\n\nhello\n"))

    def files_of(self, user: str, part: str) -> list[str]:
        return [os.path.join(self.path(part, user), name) for name in os.listdir(self.path(part, user))]

    def test_a_spooled_content_without_a_dropped_header_has_its_head_once(self) -> None:
        path = os.path.abspath(self.mktemp())
        with open(path, "wb") as spooled:
            spooled.write(b"A: 1\r\nB: 2\r\n\r\nbody\r\n")
        content = apply_edits(Content.at(path, 20), [DropHeader("A")])
        self.deliver(parcel(ALICE, content=content))
        self.assertTrue(read(only(self.files_of("alice", "new"))).endswith(b"alice@example.org\nB: 2\n\nbody\n"))

    def test_a_spooled_content_is_read_from_its_file_in_pieces(self) -> None:
        spooled = self.mktemp()
        data = b"x" * 65535 + b"\r\n" + b"y" * 200000 + b"\r\n"
        with open(spooled, "wb") as file:
            file.write(data)
        self.deliver(parcel(ALICE, BOB, content=Content.at(spooled, len(data))))
        for user in ("alice", "bob"):
            self.assertTrue(read(only(self.files_of(user, "new"))).endswith(data.replace(b"\r\n", b"\n")))

    def test_a_draft_of_an_attempt_that_was_cut_off_is_replaced(self) -> None:
        self.deliver(parcel(BOB))
        draft = self.path("tmp", "bob") + "/1700000000.0000000000000002_0.mx.example.org"
        with open(draft, "w") as file:
            file.write("half")
        [outcomes] = self.deliver(parcel(BOB, id="0000000000000002"))
        self.assertIsInstance(outcomes[0], Delivered)
        self.assertFalse(os.path.exists(draft))

    def test_the_report_names_devices_files_and_new_directories(self) -> None:
        self.deliver(parcel(ALICE))
        _, devices, files, directories = self.report
        self.assertEqual(devices, {os.stat(self.data).st_dev: self.path("").rstrip("/")})
        self.assertEqual(files, [(self.path("").rstrip("/"), "new/1700000000.0123456789ABCDEF_0.mx.example.org")])
        self.assertIn(os.path.dirname(self.data), directories)
        self.assertIn(f"{self.data}/mail/example.org", directories)


class Folders(WriterCase):
    def test_a_quarantined_message_makes_the_junk_folder(self) -> None:
        self.deliver(parcel(Mailbox("alice", "example.org", ("Junk",))))
        self.assertTrue(os.path.exists(self.path(".Junk/maildirfolder")))
        self.assertEqual(len(os.listdir(self.path(".Junk/new"))), 1)
        self.assertEqual(os.listdir(self.path("new")), [])

    def test_a_tag_without_a_folder_leads_to_the_inbox(self) -> None:
        [outcomes] = self.deliver(parcel(Mailbox("alice", "example.org", ("python",), False, True)))
        self.assertEqual(len(os.listdir(self.path("new"))), 1)
        self.assertFalse(os.path.exists(self.path(".python")))
        self.assertIn("/alice/new/", str(outcomes[0]))

    def test_a_tag_finds_its_folder_in_any_case(self) -> None:
        self.deliver(parcel(Mailbox("alice", "example.org", ("Lists", "Python"))))
        self.deliver(parcel(Mailbox("alice", "example.org", ("lists", "python"), False, True), id="0000000000000002"))
        self.assertEqual(len(os.listdir(self.path(".Lists.Python/new"))), 2)

    def test_a_tag_cannot_name_a_file(self) -> None:
        self.deliver(parcel(ALICE))
        with open(self.path(".python"), "w"):
            pass
        [outcomes] = self.deliver(parcel(Mailbox("alice", "example.org", ("python",), False, True), id="0000000000000002"))
        self.assertIsInstance(outcomes[0], Deferred)

    @settings(max_examples=60)
    @given(
        user=st.text(min_size=1, max_size=10) | st.sampled_from(["..", "../../x", "/etc", ".", "a/b", "new"]),
        folder=st.lists(st.text(min_size=1, max_size=6) | st.sampled_from(["..", "../x", "/"]), max_size=2).map(tuple),
        must_exist=st.booleans(),
    )
    def test_nothing_is_written_outside_the_root(self, user: str, folder: tuple[str, ...], must_exist: bool) -> None:
        self.data = os.path.abspath(self.mktemp()) + "/in/side"
        self.start()
        [outcomes] = self.deliver(parcel(Mailbox(user, "example.org", folder, False, must_exist)))
        self.assertIsInstance(outcomes[0], Delivered)
        outer = os.path.dirname(os.path.dirname(self.data))
        found = only([name for name in files_below(outer) if not name.endswith("maildirfolder")])
        self.assertTrue(found.startswith("in/side/mail/example.org/"))
        self.assertEqual(found.count("/"), 7 if folder and not must_exist else 6)


class Again(WriterCase):
    def test_a_file_in_new_is_replaced(self) -> None:
        self.deliver(parcel(ALICE))
        name = only(os.listdir(self.path("new")))
        with open(self.path(f"new/{name}"), "w"):  # as after a power failure: the file is there, its data are not
            pass
        self.deliver(parcel(ALICE, again=True))
        self.assertEqual(os.listdir(self.path("new")), [name])
        self.assertIn(b"hello", read(self.path(f"new/{name}")))

    def test_a_file_that_was_read_keeps_its_place_and_flags(self) -> None:
        self.deliver(parcel(ALICE))
        name = only(os.listdir(self.path("new")))
        os.rename(self.path(f"new/{name}"), self.path(f"cur/{name}:2,FS"))
        with open(self.path(f"cur/{name}:2,FS"), "w"):
            pass
        self.deliver(parcel(ALICE, again=True))
        self.assertEqual(os.listdir(self.path("new")), [])
        self.assertEqual(os.listdir(self.path("cur")), [f"{name}:2,FS"])
        self.assertIn(b"hello", read(self.path(f"cur/{name}:2,FS")))

    def test_a_message_that_was_not_there_yet_is_delivered(self) -> None:
        self.deliver(parcel(ALICE, again=True))
        self.assertEqual(len(os.listdir(self.path("new"))), 1)

    def test_it_is_synced_before_it_replaces_what_may_be_good(self) -> None:
        synced: list[int] = []
        self.patch(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
        self.deliver(parcel(ALICE))
        self.assertEqual(synced, [])
        self.deliver(parcel(ALICE, again=True))
        self.assertEqual(len(synced), 1)
        self.assertGreater(synced[0], len(DATA))


class Troubles(WriterCase):
    def test_one_mailbox_that_is_no_directory_does_not_touch_the_others(self) -> None:
        os.makedirs(f"{self.data}/mail/example.org")
        with open(self.path("").rstrip("/"), "w"):
            pass
        first, second = self.deliver(parcel(ALICE, BOB), parcel(BOB, id="0000000000000002"))
        self.assertEqual(getattr(first[0], "reply", None) and first[0].reply.enhanced, "4.2.0")  # type: ignore[union-attr]
        self.assertIsInstance(first[1], Delivered)
        self.assertIsInstance(second[0], Delivered)

    def test_the_reply_to_each_error_says_whose_it_is(self) -> None:
        for error, enhanced in (
            (errno.ENOSPC, "4.3.1"),
            (errno.EDQUOT, "4.2.2"),
            (errno.EACCES, "4.2.0"),
            (errno.EIO, "4.3.0"),
            (errno.EROFS, "4.3.0"),
        ):
            self.fail("writev", error)
            [outcomes] = self.deliver(parcel(ALICE))
            outcome = outcomes[0]
            assert isinstance(outcome, Deferred)
            self.assertEqual(outcome.reply.enhanced, enhanced)
            self.assertEqual(outcome.note, os.strerror(error))
            self.assertEqual(self.files(), [], "no draft is left")

    def test_a_failed_rename_leaves_neither_draft_nor_message(self) -> None:
        self.fail("rename", errno.EIO)
        [outcomes] = self.deliver(parcel(ALICE))
        self.assertIsInstance(outcomes[0], Deferred)
        self.assertEqual(self.files(), [])

    def test_a_spool_file_that_is_gone_defers_its_message_alone(self) -> None:
        lost, good = self.deliver(
            parcel(ALICE, content=Content.at("/nonexistent/spool", 10)), parcel(ALICE, id="0000000000000002")
        )
        self.assertIsInstance(lost[0], Deferred)
        self.assertIsInstance(good[0], Delivered)

    def test_an_error_of_our_own_defers_its_message_alone(self) -> None:
        broken = letter_of(parcel(ALICE), HOST)
        copy = broken[-1][0]
        broken = (*broken[:-1], [(copy[0], None, *copy[2:])])  # type: ignore[list-item]
        report = self.writer.write([broken, letter_of(parcel(BOB), HOST)])
        self.assertEqual([results[0][1] for results in report[0]], [-1, 0])
        self.assertIn("TypeError", report[0][0][0][2])

    def test_a_destination_on_another_host_is_not_ours(self) -> None:
        from mailserver.mail.address import Address

        [outcomes] = self.deliver(remote_parcel(Address("x", "elsewhere.example")))
        outcome = outcomes[0]
        assert isinstance(outcome, Deferred)
        self.assertEqual(outcome.reply.enhanced, "4.3.5")

    def test_a_full_file_system_defers_and_leaves_no_half_message(self) -> None:
        tiny = self.mktemp()
        os.mkdir(tiny)
        if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=64k none {tiny} 2>/dev/null") != 0:
            raise SkipTest("needs root and tmpfs")
        self.addCleanup(os.system, f"umount {tiny}")
        self.addCleanup(self.maildirs.close)
        self.data = os.path.abspath(tiny)
        self.start()
        self.addCleanup(self.maildirs.close)
        content = Content.of(b"x" * 30000)
        results = [self.deliver(parcel(ALICE, content=content, id=f"{n:016}"))[0][0] for n in range(4)]
        delivered = [outcome for outcome in results if isinstance(outcome, Delivered)]
        full = [outcome for outcome in results if isinstance(outcome, Deferred)]
        self.assertTrue(delivered and full)
        self.assertEqual({outcome.reply.enhanced for outcome in full}, {"4.3.1"})
        sizes = {os.path.getsize(self.path(f"new/{name}")) for name in os.listdir(self.path("new"))}
        self.assertEqual(len(os.listdir(self.path("new"))), len(delivered))
        self.assertTrue(all(size > 30000 for size in sizes))
        self.assertEqual(os.listdir(self.path("tmp")), [])


class OpenMaildirs(WriterCase):
    def test_a_removed_maildir_is_made_again(self) -> None:
        import shutil

        self.deliver(parcel(ALICE))
        shutil.rmtree(self.path(""))
        [outcomes] = self.deliver(parcel(ALICE, id="0000000000000002"))
        self.assertIsInstance(outcomes[0], Delivered)
        self.assertEqual(len(os.listdir(self.path("new"))), 1)

    def test_a_maildir_that_was_moved_away_is_noticed_after_a_second(self) -> None:
        self.deliver(parcel(ALICE))
        os.rename(self.path("").rstrip("/"), self.path("", "moved").rstrip("/"))
        self.now += 1.5
        self.deliver(parcel(ALICE, id="0000000000000002"))
        self.assertEqual(len(os.listdir(self.path("new"))), 1)
        self.assertEqual(len(os.listdir(self.path("new", "moved"))), 1)

    def test_no_more_than_the_bound_are_kept_open(self) -> None:
        self.start(open_at_most=3)
        before = len(os.listdir("/proc/self/fd"))
        for n in range(20):
            self.deliver(parcel(Mailbox(f"user{n}", "example.org"), id=f"{n:016}"))
        self.assertLessEqual(len(os.listdir("/proc/self/fd")) - before, 3)
        self.assertEqual(len(self.files()), 20)
