"""Files in Maildirs: where, with which mode, and what an error of one means for the others."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailserver.delivery import writer
from mailserver.delivery.batch_format import message_of, outcomes_of
from mailserver.delivery.maildir_format import Body
from mailserver.delivery.names import PathTemplate, number_of_mailbox
from mailserver.delivery.open_maildirs import TRUSTED_SECONDS, Maildirs
from mailserver.delivery.writer import MaildirWriter, NobodyWaits
from mailserver.mail.answers import Delayed, Delivered, Mailbox, Outcome
from mailserver.mail.content import Content
from mailserver.mail.edits import DropHeader, apply_edits
from mailserver.mail.parcel import Parcel
from tests.any_octets import any_octets
from tests.delivery.messages import ALICE, BOB, DATA, files_below, only, parcel, read, remote_parcel
from tests.descriptors import open_descriptors

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
        self.report = self.writer.write([message_of(one, HOST) for one in parcels])
        return [outcomes_of(one, results) for one, results in zip(parcels, self.report.results, strict=True)]

    def files(self) -> list[str]:
        return files_below(self.data) if os.path.isdir(self.data) else []

    def path(self, place: str, user: str = "alice") -> str:
        return f"{self.data}/mail/example.org/{user}/{place}"

    def breaks(self, name: str, error: int, when: Callable[..., bool] = lambda *_: True) -> None:
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
        name = f"mail/example.org/alice/new/1700000000.0123456789ABCDEF_{number_of_mailbox('alice')}.mx.example.org,S=85,W=90"
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

    def test_tags_of_others_make_place_for_those_of_this_copy(self) -> None:
        data = b"X-Spam-Flag: NO\r\nSubject: one\r\n\r\nX-Spam-Flag: text\r\n"
        two = parcel(ALICE, BOB, content=data)
        first, second = two.destinations
        destinations = (replace(first, lines=b"X-Spam-Flag: YES\r\nX-Spam-Level: 9\r\n"), second)
        self.deliver(replace(two, destinations=destinations))
        start = b"Return-Path: <carol@example.net>\nDelivered-To: %s@example.org\n"
        rest = b"Subject: one\n\nX-Spam-Flag: text\n"
        for user, tags in (("alice", b"X-Spam-Flag: YES\nX-Spam-Level: 9\n"), ("bob", b"")):
            self.assertEqual(read(only(self.files_of(user, "new"))), start % user.encode() + tags + rest)

    def test_each_mailbox_has_a_file_of_its_own(self) -> None:
        self.deliver(parcel(ALICE, BOB, Mailbox("alice", "example.net")))
        self.assertEqual(
            ["/".join(name.split("/")[1:3]) for name in self.files()], ["example.net/alice", "example.org/alice", "example.org/bob"]
        )

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

    def test_drafts_of_attempts_that_were_cut_off_are_removed_and_those_of_other_messages_are_not(self) -> None:
        self.deliver(parcel(BOB))
        own = f"1700000000.0000000000000002_{number_of_mailbox('bob')}.mx.example.org"
        other = f"1700000000.0000000000000003_{number_of_mailbox('bob')}.mx.example.org.7"
        for name in (own, f"{own}.7", f"{own}.{os.getpid()}", other):  # of an older version, of another process, of our number
            with open(self.path(f"tmp/{name}", "bob"), "w") as file:
                file.write("half")
        [outcomes] = self.deliver(parcel(BOB, id="0000000000000002", again=True))
        self.assertIsInstance(outcomes[0], Delivered)
        self.assertEqual(os.listdir(self.path("tmp", "bob")), [other])

    @given(any_octets(100), st.booleans(), st.integers(1, 100))
    def test_the_sizes_in_the_name_are_those_of_the_file(self, octets: bytes, binary: bool, piece: int) -> None:
        for in_memory in (True, False):
            pieces = [octets[at : at + piece] for at in range(0, len(octets), piece)]
            body = Body(lambda pieces=pieces: pieces, binary=binary, in_memory=in_memory)  # type: ignore[misc]
            with tempfile.TemporaryFile() as file:
                sizes = body.write(file.fileno(), b"A: 1\n")
                file.seek(0)
                written = file.read()
            self.assertEqual(sizes, (len(written), len(re.sub(rb"(?<!\r)\n", b"\r\n", written))))

    def test_the_report_names_devices_files_and_new_directories(self) -> None:
        self.deliver(parcel(ALICE))
        _, devices, files, directories = self.report
        self.assertEqual(devices, {os.stat(self.data).st_dev: self.path("").rstrip("/")})
        self.assertEqual(files, [(self.path("").rstrip("/"), f"new/{os.listdir(self.path('new'))[0]}")])
        self.assertIn(os.path.dirname(self.data), directories)
        self.assertIn(f"{self.data}/mail/example.org", directories)


class OneCopy(WriterCase):
    """One for each mailbox and folder, however many ways lead there."""

    tagged = Mailbox("alice", "example.org", ("x",), folder_must_exist=True)
    junk = Mailbox("alice", "example.org", junk=True)

    def copies(self) -> dict[str, int]:
        """How many files stand in each folder of alice's."""
        counts: dict[str, int] = {}
        for name in self.files():
            if "/alice/" in name and ("/new/" in name or "/cur/" in name):
                folder = name.split("/alice/")[1].split("/")[0] if "/alice/." in name else "inbox"
                counts[folder] = counts.get(folder, 0) + 1
        return counts

    def delivered(self, *mailboxes: Mailbox, again: bool = False, **more: Any) -> None:
        [outcomes] = self.deliver(parcel(*mailboxes, again=again, **more))
        self.assertEqual([type(outcomes[n]) for n in range(len(mailboxes))], [Delivered] * len(mailboxes))

    def test_the_same_mailbox_several_times_is_one_file_and_an_answer_for_each(self) -> None:
        self.delivered(ALICE, BOB, ALICE, ALICE)
        self.assertEqual(len(self.files()), 2)

    def test_a_tag_without_its_folder_and_the_inbox_are_one_file(self) -> None:
        for again in (False, True):
            self.delivered(ALICE, self.tagged, again=again)
            self.assertEqual(self.copies(), {"inbox": 1})
        self.delivered(self.tagged, ALICE, id="0000000000000002")
        self.assertEqual(self.copies(), {"inbox": 2})

    def test_a_tag_with_its_folder_and_the_inbox_are_two(self) -> None:
        os.makedirs(self.path(".x"))
        self.delivered(ALICE, self.tagged)
        self.assertEqual(self.copies(), {"inbox": 1, ".x": 1})

    def test_a_folder_that_a_rule_made_and_the_tag_of_its_name_are_one_file(self) -> None:
        self.delivered(Mailbox("alice", "example.org", ("x",)), self.tagged)
        self.assertEqual(self.copies(), {".x": 1})

    def test_the_first_recipient_writes_the_header_fields(self) -> None:
        self.delivered(self.tagged, ALICE)
        [name] = self.files()
        self.assertIn(b"Delivered-To: alice@example.org\nSubject", read(f"{self.data}/{name}"))

    def test_what_is_put_aside_is_no_second_copy_of_what_stands_where_it_was_meant_to(self) -> None:
        for again in (False, True):
            self.delivered(self.tagged, self.junk, again=again)
            self.assertEqual(self.copies(), {"inbox": 1})

    def test_what_is_put_aside_goes_to_junk_beside_a_copy_in_another_folder(self) -> None:
        os.makedirs(self.path(".x"))
        self.delivered(self.tagged, self.junk)
        self.assertEqual(self.copies(), {".x": 1, ".Junk": 1})

    def test_all_recipients_that_were_put_aside_are_one_copy_in_junk(self) -> None:
        self.delivered(self.junk, Mailbox("alice", "example.org", ("x",), folder_must_exist=True, junk=True))
        self.assertEqual(self.copies(), {".Junk": 1})

    def test_a_way_that_comes_later_finds_the_copy_of_an_earlier_one(self) -> None:
        self.delivered(ALICE)
        for late in (self.tagged, self.junk, ALICE):
            self.delivered(late, again=True)
            self.assertEqual(self.copies(), {"inbox": 1})

    def test_one_maildir_for_several_domains_gets_one_copy(self) -> None:
        maildirs = Maildirs(path_of=lambda box: f"{self.data}/{box.user}", open_at_most=4)
        boxes = ALICE, Mailbox("alice", "example.net"), Mailbox("alice", "example.com", junk=True)
        MaildirWriter(maildirs=maildirs).write([message_of(parcel(*boxes), HOST)])
        maildirs.close()
        self.assertEqual(len(files_below(self.data)), 1)

    def test_a_way_that_fails_leaves_the_writing_to_the_next(self) -> None:
        calls: list[object] = []

        def first(*arguments: object) -> bool:
            calls.append(arguments)
            return len(calls) == 1

        self.breaks("writev", errno.EDQUOT, first)
        [outcomes] = self.deliver(parcel(ALICE, self.tagged, BOB))
        self.assertEqual([type(outcomes[n]) for n in range(3)], [Delayed, Delivered, Delivered])
        self.assertEqual(self.copies(), {"inbox": 1})

    def test_what_an_older_release_took_keeps_its_names_and_copies(self) -> None:
        old = parcel(ALICE, BOB, ALICE)
        old = replace(old, destinations=tuple([replace(one, named_by_index=True) for one in old.destinations]))
        self.deliver(old)
        self.assertEqual([name.split("_")[1][0] for name in self.files()], ["0", "2", "1"])
        [torn, _, _] = self.files()
        with open(f"{self.data}/{torn}", "wb") as file:
            file.write(b"torn")
        self.deliver(replace(old, again=True))
        self.assertEqual([name.split("_")[1][0] for name in self.files()], ["0", "2", "1"])
        self.assertIn(b"hello", read(f"{self.data}/{torn}"))


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

    def test_a_folder_that_is_made_later_gets_the_mail_of_its_tag(self) -> None:
        tagged = Mailbox("alice", "example.org", ("python",), False, True)
        self.deliver(parcel(tagged))
        os.mkdir(self.path(".Python"))
        self.now += TRUSTED_SECONDS + 0.1
        self.deliver(parcel(tagged, id="0000000000000002"))
        self.assertEqual([len(os.listdir(self.path(place))) for place in ("new", ".Python/new")], [1, 1])
        opened = self.maildirs.find(tagged)
        self.now += TRUSTED_SECONDS + 0.1
        self.assertIs(self.maildirs.find(tagged), opened)  # one that was found stays open

    def test_a_tag_finds_its_folder_in_any_case(self) -> None:
        self.deliver(parcel(Mailbox("alice", "example.org", ("Lists", "Python"))))
        self.deliver(parcel(Mailbox("alice", "example.org", ("lists", "python"), False, True), id="0000000000000002"))
        self.assertEqual(len(os.listdir(self.path(".Lists.Python/new"))), 2)

    def test_a_tag_that_names_no_folder_leads_to_the_inbox(self) -> None:
        self.deliver(parcel(ALICE))
        with open(self.path(".file"), "w"):
            pass
        os.mkdir(self.path("elsewhere"))
        os.symlink(self.path("elsewhere"), self.path(".link"))
        for n, tag in enumerate(("file", "FILE", "link", "Link", "none", "x" * 300)):
            [outcomes] = self.deliver(parcel(Mailbox("alice", "example.org", (tag,), False, True), id=f"{n:016}"))
            self.assertIsInstance(outcomes[0], Delivered, tag)
        self.assertEqual(len(os.listdir(self.path("new"))), 7)
        self.assertEqual(os.listdir(self.path("elsewhere")), [])

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


class Links(WriterCase):
    """The path is the administrator's.  What stands below it may be anybody's."""

    def setUp(self) -> None:
        super().setUp()
        self.deliver(parcel(ALICE, BOB))
        self.outside = os.path.abspath(self.mktemp())
        for part in ("tmp", "new", "cur"):
            os.makedirs(f"{self.outside}/{part}")
        self.now += 2.0  # seconds: the open directories are looked at again

    def refuses(self, mailbox: Mailbox, again: bool = False) -> None:
        first, other = self.deliver(parcel(mailbox, id="0000000000000002", again=again), parcel(BOB, id="0000000000000003"))
        outcome = first[0]
        assert isinstance(outcome, Delayed), outcome
        self.assertEqual(outcome.reply.enhanced, "4.2.0")
        self.assertIsInstance(other[0], Delivered)
        self.assertEqual(files_below(self.outside), [])

    def test_none_is_followed_in_the_place_of_a_part(self) -> None:
        for part in ("new", "tmp"):
            os.rename(self.path(part), self.path(f"{part}-before"))
            os.symlink(f"{self.outside}/{part}", self.path(part))
            self.start()
            self.refuses(ALICE)
            os.unlink(self.path(part))
            os.rename(self.path(f"{part}-before"), self.path(part))

    def test_one_that_comes_while_the_maildir_is_open_is_not_followed_either(self) -> None:
        os.rename(self.path("new"), self.path("before"))
        os.symlink(f"{self.outside}/new", self.path("new"))
        self.refuses(ALICE)

    def test_none_is_followed_where_an_earlier_file_is_looked_for(self) -> None:
        os.rmdir(self.path("cur"))
        os.symlink(f"{self.outside}/cur", self.path("cur"))
        self.refuses(ALICE, again=True)

    def test_none_is_followed_in_the_place_of_a_folder(self) -> None:
        for part in ("tmp", "new", "cur"):
            os.rmdir(f"{self.outside}/{part}")
        os.symlink(self.outside, self.path(".Junk"))
        self.refuses(Mailbox("alice", "example.org", ("Junk",)))
        self.assertEqual(os.listdir(self.outside), [], "no new/ was made there")

    def test_the_maildir_itself_may_be_one(self) -> None:
        os.symlink(self.outside, self.path("", "linked").rstrip("/"))
        [outcomes] = self.deliver(parcel(Mailbox("linked", "example.org"), id="0000000000000002"))
        self.assertIsInstance(outcomes[0], Delivered)
        self.assertEqual(len(os.listdir(f"{self.outside}/new")), 1)


class GivenUp(WriterCase):
    """An attempt that nobody waits for any more does not come to its end."""

    def start(self, open_at_most: int = 256) -> None:
        super().start(open_at_most)
        self.writer = MaildirWriter(maildirs=self.maildirs, go_on=self.go_on)
        self.asked: list[list[str]] = []
        self.waits = lambda: True

    def go_on(self) -> None:
        self.asked.append(self.files())
        if not self.waits():
            raise NobodyWaits

    def test_it_asks_before_each_rename_and_ends_there(self) -> None:
        self.waits = lambda: len(self.asked) < 3
        with self.assertRaises(NobodyWaits):
            self.deliver(parcel(ALICE, BOB), parcel(ALICE, id="0000000000000002"), parcel(BOB, id="0000000000000003"))
        self.assertEqual([sum("/new/" in name for name in files) for files in self.asked], [0, 1, 2])
        self.assertTrue(all(sum("/tmp/" in name for name in files) == 1 for files in self.asked))
        self.assertEqual(len(self.files()), 2, "no draft is left")

    def test_one_that_is_stopped_before_its_rename_cannot_make_it_after_the_next_attempt(self) -> None:
        outcomes: list[Outcome] = []

        def next_attempt() -> None:
            """While we stand between the question and the rename."""
            self.waits = lambda: False
            with self.patched(os, "getpid", lambda: 7):
                other = WriterCase.start
                maildirs, writer = self.maildirs, self.writer
                other(self)
                outcomes.extend(self.deliver(parcel(ALICE, again=True))[0].values())
                self.maildirs, self.writer = maildirs, writer

        real = os.rename

        def rename(*arguments: Any, **named: Any) -> None:
            self.patch(os, "rename", real)
            next_attempt()
            real(*arguments, **named)

        self.patch(os, "rename", rename)
        with self.assertRaises(NobodyWaits):
            self.deliver(parcel(ALICE))
        self.assertIsInstance(outcomes[0], Delivered)
        self.assertEqual(len(os.listdir(self.path("new"))), 1)
        self.assertEqual(os.listdir(self.path("tmp")), [])

    @contextlib.contextmanager
    def patched(self, *arguments: Any) -> Iterator[None]:
        patch = self.patch(*arguments)
        try:
            yield
        finally:
            patch.restore()


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

    def test_a_file_with_other_fields_takes_the_place_and_the_flags_and_has_its_own_sizes_in_its_name(self) -> None:
        self.deliver(parcel(ALICE))
        name = only(os.listdir(self.path("new")))
        for place, flags in (("new", ""), ("cur", ":2,FS")):
            os.rename(self.path(f"new/{name}"), self.path(f"{place}/{name}{flags}"))
            self.deliver(parcel(ALICE, again=True, sender=None))
            shorter = name.replace("S=85,W=90", "S=68,W=73")
            self.assertEqual(self.files(), [f"mail/example.org/alice/{place}/{shorter}{flags}"])
            self.assertTrue(read(self.path(f"{place}/{shorter}{flags}")).startswith(b"Return-Path: <>\n"))
            os.rename(self.path(f"{place}/{shorter}{flags}"), self.path(f"new/{name}"))

    def test_it_is_never_there_twice_nor_missing_while_it_is_replaced(self) -> None:
        self.deliver(parcel(ALICE))
        seen: list[int] = []
        for function in ("rename", "unlink", "open"):
            real = getattr(os, function)

            def looking(*arguments: Any, real: Any = real, **named: Any) -> Any:
                try:
                    return real(*arguments, **named)
                finally:
                    seen.append(len(os.listdir(self.path("new"))))

            self.patch(os, function, looking)
        self.deliver(parcel(ALICE, again=True, sender=None))
        self.assertEqual(set(seen), {1})

    def test_a_file_of_an_older_version_is_replaced_under_its_own_name(self) -> None:
        self.deliver(parcel(ALICE))
        name = only(os.listdir(self.path("new")))
        older = name.partition(",")[0]
        os.rename(self.path(f"new/{name}"), self.path(f"cur/{older}:2,S"))
        self.deliver(parcel(ALICE, again=True, sender=None))
        self.assertEqual(self.files(), [f"mail/example.org/alice/cur/{older}:2,S"])

    def test_a_file_that_a_mail_program_moves_meanwhile_is_found_again(self) -> None:
        self.deliver(parcel(ALICE))
        name = only(os.listdir(self.path("new")))
        real = writer._places

        def places(maildir: Any) -> Any:
            found = real(maildir)
            if os.path.exists(self.path(f"new/{name}")):
                os.rename(self.path(f"new/{name}"), self.path(f"cur/{name}:2,S"))
            return found

        self.patch(writer, "_places", places)
        self.deliver(parcel(ALICE, again=True, sender=None))
        self.assertEqual(self.files(), ["mail/example.org/alice/cur/" + name.replace("S=85,W=90", "S=68,W=73") + ":2,S"])

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
            self.breaks("writev", error)
            [outcomes] = self.deliver(parcel(ALICE))
            outcome = outcomes[0]
            assert isinstance(outcome, Delayed)
            self.assertEqual(outcome.reply.enhanced, enhanced)
            self.assertEqual(outcome.note, os.strerror(error))
            self.assertEqual(self.files(), [], "no draft is left")

    def test_a_failed_rename_leaves_neither_draft_nor_message(self) -> None:
        self.breaks("rename", errno.EIO)
        [outcomes] = self.deliver(parcel(ALICE))
        self.assertIsInstance(outcomes[0], Delayed)
        self.assertEqual(self.files(), [])

    def test_a_spool_file_that_is_gone_defers_its_message_alone(self) -> None:
        lost, good = self.deliver(
            parcel(ALICE, content=Content.at("/nonexistent/spool", 10)), parcel(ALICE, id="0000000000000002")
        )
        self.assertIsInstance(lost[0], Delayed)
        self.assertIsInstance(good[0], Delivered)

    def test_an_error_of_our_own_defers_its_message_alone(self) -> None:
        broken = message_of(parcel(ALICE), HOST)
        [copy] = broken.copies
        broken = broken._replace(copies=[copy._replace(user=None)])  # type: ignore[arg-type]
        report = self.writer.write([broken, message_of(parcel(BOB), HOST)])
        self.assertEqual([results[0][1] for results in report.results], [-1, 0])
        self.assertIn("TypeError", report.results[0][0][2])

    def test_a_destination_on_another_host_is_not_ours(self) -> None:
        from mailserver.mail.address import Address

        [outcomes] = self.deliver(remote_parcel(Address("x", "elsewhere.example")))
        outcome = outcomes[0]
        assert isinstance(outcome, Delayed)
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
        full = [outcome for outcome in results if isinstance(outcome, Delayed)]
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
        before = open_descriptors()
        for n in range(20):
            self.deliver(parcel(Mailbox(f"user{n}", "example.org"), id=f"{n:016}"))
        self.assertLessEqual(open_descriptors() - before, 9)
        self.assertEqual(len(self.files()), 20)
        self.maildirs.close()
        self.assertEqual(open_descriptors(), before)

    def test_a_fault_leaves_no_descriptor_open(self) -> None:
        self.deliver(parcel(ALICE))
        self.maildirs.close()
        before = open_descriptors()
        for part in ("new", "tmp"):
            os.rename(self.path(part), self.path(f"{part}-before"))
            os.symlink("/nonexistent", self.path(part))
            for folder in ((), ("Junk",)):
                self.deliver(parcel(Mailbox("alice", "example.org", folder), id="0000000000000002"))
                self.maildirs.close()
                self.assertEqual(open_descriptors(), before)
            os.unlink(self.path(part))
            os.rename(self.path(f"{part}-before"), self.path(part))

    def test_another_fault_of_one_maildir_closes_no_other_one(self) -> None:
        self.deliver(parcel(ALICE))
        kept = dict(self.maildirs._open)
        fails = [True]
        self.breaks("open", errno.EACCES, lambda path, *_: fails and "/bob" in str(path) and fails.pop())
        [outcomes] = self.deliver(parcel(BOB))
        self.assertIsInstance(outcomes[0], Delayed)
        self.assertEqual(self.maildirs._open, kept)

    def test_where_the_system_allows_fewer_all_are_closed_and_mail_goes_on(self) -> None:
        self.deliver(parcel(ALICE))
        fails = [True]
        self.breaks("open", errno.EMFILE, lambda path, *_: fails and "/bob" in str(path) and fails.pop())
        [outcomes] = self.deliver(parcel(BOB))
        self.assertIsInstance(outcomes[0], Delivered)
