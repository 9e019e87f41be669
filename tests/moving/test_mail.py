"""``mailserver import maildir`` and ``import mbox``: each message once, with its flags and dates, however damaged the rest is."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as some

from mailserver.moving import maildir_target
from mailserver.moving.maildir_source import folder_parts
from mailserver.moving.mbox_source import MboxSource
from tests.cli.support import CommandCase, Said

USER = "alice@example.org"
BEGIN = "From bob@example.net Thu Jan  2 15:04:05 2020\n"
MOMENT = 1577977445
LETTER = "From: bob@example.net\nSubject: {}\n\nHello\n"


class Importing(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.accounts.write_text(f'[account."{USER}"]\n')
        self.patch(maildir_target, "find_syncfs", lambda: lambda fd: None)  # others write to this disk, too; a proof syncs
        self.mail = self.data / "mail" / "example.org" / "alice"

    def found(self, folder: str = "") -> dict[str, tuple[str, int, bytes]]:
        """What stands in a folder by subject: part and flags, time, octets."""
        found = {}
        for part in ("cur", "new"):
            for path in (self.mail / folder / part).iterdir():
                content = path.read_bytes()
                subject = re.search(rb"(?m)^Subject: (.*?)\r?$", content)
                name = subject[1].decode() if subject else path.name
                sizes = re.search(r",S=(\d+),W=(\d+)", path.name)
                assert sizes is not None
                self.assertEqual(int(sizes[1]), len(content))
                self.assertEqual(int(sizes[2]), len(content.replace(b"\r\n", b"\n")) + content.count(b"\n"))
                self.assertNotIn(name, found)
                found[name] = (f"{part}{path.name.partition(':2')[2]}", int(path.stat().st_mtime), content)
        return found

    def flags(self, folder: str = "") -> dict[str, str]:
        return {name: one[0] for name, one in self.found(folder).items()}


class Mbox(Importing):
    def imported(self, text: str | bytes, *more: str) -> Said:
        path = self.folder / "inbox.mbox"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        os.utime(path, (1_600_000_000, 1_600_000_000))
        return self.command("import", "mbox", str(path), USER, *more)

    def test_messages_come_with_flags_keywords_and_dates_and_without_the_fields_of_mbox_programs(self) -> None:
        said = self.imported(
            f"{BEGIN}Subject: one\nStatus: RO\nX-Status: AF\nX-Keywords: $Forwarded work\nX-UID: 7\n\nHello\n\n"
            f"From eve@example.net Thu Jan  2 15:04:05 2020 +0100\nSubject: two\nStatus: O\n\nHello\n\n"
            f"{BEGIN}Subject: three\nX-Status: DT\n\nHello"
        )
        self.assertEqual((said.code, said.err), (0, ""))
        found = self.found()
        self.assertEqual(self.flags(), {"one": "cur,FRSab", "two": "cur,", "three": "cur,DT"})
        self.assertEqual([found[one][1] for one in ("one", "two")], [MOMENT, MOMENT - 3600])
        self.assertEqual(found["one"][2], b"Subject: one\n\nHello\n")
        self.assertEqual(found["three"][2], b"Subject: three\n\nHello\n")
        self.assertEqual((self.mail / "dovecot-keywords").read_text(), "0 $Forwarded\n1 work\n")

    def test_a_message_that_nobody_has_seen_is_new_and_the_date_field_counts_where_the_line_has_none(self) -> None:
        self.imported("From bob 12:00 2020\nSubject: one\nDate: Thu, 2 Jan 2020 15:04:05 +0000\n\nHello\n")
        self.assertEqual({name: one[:2] for name, one in self.found().items()}, {"one": ("new", MOMENT)})

    def test_lines_that_begin_with_from_are_text_where_they_begin_no_message(self) -> None:
        body = "\nFrom here on it is text\n\n>From the start\n>>From twice\n\nFrom bob@example.net at 12:00, in 2020, we met\nx\n"
        self.imported(f"{BEGIN}{LETTER.format('one')}{body}\n{BEGIN}{LETTER.format('two')}")
        found = self.found()
        self.assertEqual(sorted(found), ["one", "two"])
        self.assertIn(
            b"\n>From the start\n>>From twice\n", found["one"][2]
        )  # there are unquoted ones: nothing was quoted

    def test_quoted_lines_lose_one_sign(self) -> None:
        self.imported(
            f"{BEGIN}{LETTER.format('one')}>From me\n>>From you\n> From\n\n{BEGIN}{LETTER.format('two')}>From end"
        )
        found = self.found()
        self.assertTrue(found["one"][2].endswith(b"Hello\nFrom me\n>From you\n> From\n"), found)
        self.assertTrue(found["two"][2].endswith(b"Hello\nFrom end\n"))

    def test_a_content_length_that_is_right_is_believed_and_a_wrong_one_is_not(self) -> None:
        body = f"Hello\n\n{BEGIN}Subject: inside\n\nno message\n"
        self.imported(
            f"{BEGIN}Subject: one\nContent-Length: {len(body)}\n\n{body}\n"
            f"{BEGIN}Subject: two\nContent-Length: 99999\n\nHello\n\n{BEGIN}Subject: three\nContent-Length: 3\n\nHello\n"
        )
        found = self.found()
        self.assertEqual(sorted(found), ["one", "three", "two"])
        self.assertEqual(found["one"][2], f"Subject: one\n\n{body}".encode())

    def test_crlf_becomes_lf_and_the_folders_own_message_is_left_out(self) -> None:
        self.imported(
            f"{BEGIN}Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1 2\n\nThis text is part of the format\n\n"
            + f"{BEGIN}{LETTER.format('one')}\n{BEGIN}{LETTER.format('two')}".replace("\n", "\r\n")
        )
        found = self.found()
        self.assertEqual(sorted(found), ["one", "two"])
        self.assertEqual(found["one"][2], LETTER.format("one").encode())

    def test_damage_is_told_with_its_offset_and_the_rest_is_imported(self) -> None:
        said = self.imported(
            b"garbage\n" + BEGIN.encode() + LETTER.format("one").encode() + b"a\0b\n\n" + BEGIN.encode()
        )
        self.assertEqual(said.code, 1)
        self.assertIn("offset 0: no message begins here; 8 octets are left out", said.out)
        self.assertIn("offset 8: it has NUL octets", said.out)
        self.assertEqual(sorted(self.found()), ["one"])
        nothing = self.imported("no mail at all\n", "--folder", "Old.mail")
        self.assertEqual(nothing.code, 1)
        self.assertIn("is it an mbox file?", nothing.out)

    def test_a_second_run_imports_nothing_twice_and_takes_what_has_come_since(self) -> None:
        text = f"{BEGIN}{LETTER.format('one')}\n{BEGIN}{LETTER.format('one')}\n"
        self.assertIn("2 messages imported", self.command_of(text))
        for path in [*(self.mail / "new").iterdir()]:
            path.unlink()  # the user has removed them
        said = self.command_of(text.replace("Subject", "Status: RO\nSubject") + f"{BEGIN}{LETTER.format('two')}")
        self.assertIn("1 messages imported into 1 folders, 2 had been imported before", said)
        self.assertEqual(self.flags(), {"two": "new"})

    def command_of(self, text: str) -> str:
        return self.imported(text).out

    def test_a_run_that_was_cut_off_before_its_book_was_written_is_completed(self) -> None:
        text = f"{BEGIN}{LETTER.format('one')}\n{BEGIN}{LETTER.format('two')}"
        self.imported(text)
        (self.mail / "mailserver-imported").write_text("0123")  # of the last one, cut off
        self.assertIn("0 messages imported into 0 folders, 2 had been", self.imported(text).out)
        self.assertEqual(sorted(self.found()), ["one", "two"])
        self.assertEqual(len((self.mail / "mailserver-imported").read_text().split()), 3)

    def test_an_equal_message_for_another_folder_is_another_one(self) -> None:
        text = f"{BEGIN}{LETTER.format('one')}"
        self.imported(text)
        self.assertIn("1 messages imported", self.imported(text, "--folder", "Sent").out)
        self.assertIn("0 messages imported", self.imported(text, "--folder", "Sent").out)
        self.assertEqual((self.flags(), self.flags(".Sent")), ({"one": "new"}, {"one": "new"}))

    def test_the_account_has_to_exist_and_the_folder_to_be_one(self) -> None:
        self.assertEqual(self.imported("", "--folder", "a/b").code, 2)
        path = str(self.folder / "inbox.mbox")
        said = self.command("import", "mbox", path, "nobody@example.org")
        self.assertEqual((said.code, "there is no account nobody@example.org" in said.err), (1, True))
        self.assertEqual(self.command("import", "mbox", path + "x", USER).code, 74)

    @given(
        some.lists(
            some.lists(some.sampled_from(["Hello", "", "From here", ">From me", ">>From", "x: y", " "]), max_size=6),
            min_size=1,
            max_size=4,
        )
    )
    def test_whatever_was_quoted_comes_out_as_it_went_in(self, bodies: Sequence[Sequence[str]]) -> None:
        contents = [f"Subject: {n}\n\n" + "".join(f"{line}\n" for line in body) for n, body in enumerate(bodies)]
        text = "".join(BEGIN + re.sub(r"(?m)^(>*From )", r">\1", one) + "\n" for one in contents)
        path = self.folder / "any.mbox"
        path.write_text(text)
        source = MboxSource(str(path), lambda trouble: self.fail(str(trouble)))
        try:
            self.assertEqual([b"".join(one.octets()).decode() for one in source], contents)
        finally:
            source.close()


class Maildir(Importing):
    def message(self, name: str, content: str, folder: str = "", seconds: int = MOMENT) -> Path:
        path = self.folder / "old" / folder / name
        for part in ("cur", "new", "tmp"):
            (self.folder / "old" / folder / part).mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        os.utime(path, (seconds, seconds))
        return path

    def imported(self, *more: str) -> Said:
        return self.command("import", "maildir", str(self.folder / "old"), USER, *more)

    def test_folders_flags_keywords_dates_and_subscriptions_come_along(self) -> None:
        self.message("cur/1.a.host:2,FSRab", LETTER.format("one"))
        self.message("new/2.b.host", LETTER.format("two"), seconds=MOMENT + 9)
        self.message("cur/3.c.host,S=1:2,DT", "Subject: three\r\n\r\nHi\r\n", ".Entw&APw-rfe.2020")
        (self.folder / "old" / "dovecot-keywords").write_text("0 $Forwarded\n1 NonJunk\n")
        (self.folder / "old" / "subscriptions").write_text("Sent\n")
        said = self.imported()
        self.assertEqual((said.code, said.err), (0, ""))
        self.assertEqual(
            {name: one[:2] for name, one in self.found().items()},
            {"one": ("cur,FRSab", MOMENT), "two": ("new", MOMENT + 9)},
        )
        self.assertEqual(self.flags(".Entw&APw-rfe.2020"), {"three": "cur,DT"})
        self.assertEqual((self.mail / "subscriptions").read_text(), "Sent\n")

    def test_folders_in_folders_are_folders_too_and_all_can_go_below_one(self) -> None:
        self.message("cur/1.a:2,S", LETTER.format("one"), "Lists/python")
        self.message("cur/2.b:2,", LETTER.format("two"))
        self.imported("--folder", "Old")
        self.assertEqual((self.flags(".Old"), self.flags(".Old.Lists.python")), ({"two": "cur,"}, {"one": "cur,S"}))

    def test_keywords_of_the_account_keep_their_letters(self) -> None:
        self.mail.mkdir(parents=True)
        (self.mail / "dovecot-keywords").write_text("0 mine\n1 NonJunk\n")
        (self.folder / "old").mkdir()
        (self.folder / "old" / "dovecot-keywords").write_text("0 NonJunk\n1 new\n")
        self.message("cur/1.a:2,ab", LETTER.format("one"))
        self.imported()
        self.assertEqual(self.flags(), {"one": "cur,bc"})
        self.assertEqual((self.mail / "dovecot-keywords").read_text(), "0 mine\n1 NonJunk\n2 new\n")

    def test_links_and_what_is_no_file_are_told_and_not_followed(self) -> None:
        self.message("cur/1.a:2,", LETTER.format("one"))
        (self.folder / "secret").write_text("Subject: secret\n\n")
        os.symlink(self.folder / "secret", self.folder / "old" / "cur" / "2.b:2,")
        os.symlink("/etc", self.folder / "old" / ".Sent")
        os.mkfifo(self.folder / "old" / "cur" / "3.c:2,")
        said = self.imported()
        self.assertEqual((said.code, sorted(self.found())), (1, ["one"]))
        self.assertEqual(said.out.count("is no file, and no link is followed"), 2)

    def test_what_was_moved_in_the_old_store_or_got_flags_is_not_imported_again(self) -> None:
        path = self.message("new/1.a.host", LETTER.format("one"))
        self.imported()
        self.message("cur/x", "", ".Archive").unlink()
        path.rename(self.folder / "old" / ".Archive" / "cur" / "1.a.host:2,S")
        self.message("new/2.b.host", LETTER.format("two"))
        self.assertIn("1 messages imported into 1 folders, 1 had been imported before", self.imported().out)
        self.assertEqual(self.flags(), {"one": "new", "two": "new"})

    def test_what_is_no_maildir_is_refused(self) -> None:
        (self.folder / "old").mkdir()
        said = self.imported()
        self.assertEqual((said.code, "is no Maildir" in said.err), (1, True))

    def test_names_of_folders_are_decoded(self) -> None:
        for name, parts in {
            ".a.b": ("a", "b"),
            ".A &- B": ("A & B",),
            ".&ZeVnLIqe-": ("日本語",),
            ".bad&x": ("bad&x",),
            ".&A-": ("&A-",),
        }.items():
            self.assertEqual(folder_parts(name), parts)


class Planted(Importing):
    """What users may have put where root reads and writes."""

    def test_an_mbox_that_is_a_pipe_a_device_or_a_folder_is_refused_and_does_not_wait(self) -> None:
        os.mkfifo(self.folder / "pipe")
        for path in (str(self.folder / "pipe"), "/dev/zero", "/dev/tty", str(self.folder)):
            with self.subTest(path):
                said = self.command("import", "mbox", path, USER)
                self.assertEqual((said.code, said.err.startswith("mailserver: ")), (74, True), said)

    def test_pipes_and_folders_in_the_place_of_small_files_of_a_maildir_do_not_hold_it_up(self) -> None:
        old = self.folder / "old"
        (old / "cur").mkdir(parents=True)
        (old / "cur" / "1.a:2,Sa").write_text(LETTER.format("one"))
        os.mkfifo(old / "subscriptions")
        (old / "dovecot-keywords").mkdir()
        self.assertEqual(self.command("import", "maildir", str(old), USER).code, 0)
        self.assertEqual(self.flags(), {"one": "cur,S"})
        for name in ("subscriptions", maildir_target.IMPORTED):
            with self.subTest(name):
                (old / "subscriptions").unlink(missing_ok=True)
                (old / "subscriptions").write_text("Sent\n")
                (self.mail / name).unlink(missing_ok=True)
                os.mkfifo(self.mail / name)
                said = self.command("import", "maildir", str(old), USER)
                self.assertEqual((said.code, "is no file" in said.err), (74, True), said)
                (self.mail / name).unlink()

    def test_a_second_import_at_once_is_told_and_changes_nothing(self) -> None:
        old = self.folder / "old"
        (old / "cur").mkdir(parents=True)
        self.command("import", "maildir", str(old), USER)
        (old / "cur" / "1.a:2,S").write_text(LETTER.format("one"))
        with open(self.mail / maildir_target.IMPORTED, "rb") as book:
            fcntl.flock(book, fcntl.LOCK_EX)
            said = self.command("import", "maildir", str(old), USER)
        self.assertEqual((said.code, "another import into this Maildir runs" in said.err), (74, True), said)
        self.assertEqual(self.found(), {})
        self.assertEqual(self.command("import", "maildir", str(old), USER).code, 0)

    def test_keywords_with_numbers_that_are_none_are_passed_over(self) -> None:
        old = self.folder / "old"
        (old / "cur").mkdir(parents=True)
        (old / "cur" / "1.a:2,Sab").write_text(LETTER.format("one"))
        (old / "dovecot-keywords").write_text("\u00b2 odd\n" + "9" * 5000 + " long\n-1 less\n1 work\n99 more\n")
        self.assertEqual(self.command("import", "maildir", str(old), USER).code, 0)
        self.assertEqual((self.mail / "dovecot-keywords").read_text(), "0 work\n")

    def test_root_is_not_led_by_a_users_link_to_the_mail_of_another(self) -> None:
        if os.geteuid() != 0:
            return
        secret, link = self.folder / "bob.mbox", self.folder / "alice.mbox"
        secret.write_text(f"{BEGIN}{LETTER.format('of bob')}")
        os.chown(secret, 65533, 65533)
        link.symlink_to(secret)
        os.chown(link, 65534, 65534, follow_symlinks=False)
        said = self.command("import", "mbox", str(link), USER)
        self.assertEqual((said.code, "is a link of user 65534 to what belongs to user 65533" in said.err), (1, True), said)
        os.chown(link, 65533, 65533, follow_symlinks=False)
        self.assertEqual(self.command("import", "mbox", str(link), USER).code, 0)
        old, way = self.folder / "old", self.folder / "way"
        (old / "cur").mkdir(parents=True)
        way.symlink_to(old)
        os.chown(way, 65534, 65534, follow_symlinks=False)
        self.assertEqual(self.command("import", "maildir", str(way), USER).code, 1)
