"""Which files users have moved into Junk and out of it, and which only look so."""

from __future__ import annotations

import imaplib
import os
import pwd
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailserver.delivery.names import PathTemplate
from mailserver.filters.moved_mail import MailboxPaths, Moved, TooManyFiles, look, mark_of
from mailserver.state_store.learnt_file import Swept

NOW = 1_700_000_000.0
HOUR = 3600.0


class MaildirCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.maildir = Path(self.mktemp()).absolute()
        for folder in ("", ".Junk", ".Trash", ".work", ".Junk.old"):
            for part in ("new", "cur", "tmp"):
                (self.maildir / folder / part).mkdir(parents=True)
        self.before: Swept | None = None

    def put(self, name: str, folder: str = "", part: str = "cur", *, written: float = NOW - HOUR, text: str = "") -> Path:
        path = self.maildir / folder / part / name
        path.write_text(text or f"Subject: {name}\n\nhello\n")
        os.utime(path, (written, written))
        return path

    def move(self, name: str, there: str, to: str = "") -> None:
        (old,) = [one for part in ("new", "cur") for one in self.maildir.glob(f"**/{part}/{name}*")]
        old.rename(self.maildir / there / "cur" / (to or old.name))

    def look(self, now: float = NOW, most: int = 100) -> Moved:
        found = look(str(self.maildir), self.before, now=now, junk="Junk", trash=("Trash",), most=most)
        self.before = found.swept
        return found

    def assertMoved(self, found: Moved, spam: tuple[str, ...] = (), ham: tuple[str, ...] = ()) -> None:
        def subjects(messages: list[bytes]) -> list[str]:
            return sorted([one.partition(b"\r\n")[0].removeprefix(b"Subject: ").decode() for one in messages])

        self.assertEqual((subjects(found.spam), subjects(found.ham)), (sorted(spam), sorted(ham)))


class Moves(MaildirCase):
    def test_at_the_first_look_nothing_was_moved(self) -> None:
        self.put("a", ".Junk")
        self.put("b")
        self.assertMoved(self.look())
        self.assertMoved(self.look(NOW + 60))

    def test_what_was_moved_into_junk_is_spam_and_what_was_moved_out_is_none(self) -> None:
        self.put("a:2,S")
        self.put("b:2,", ".Junk")
        self.put("c", ".Junk", "new")
        self.look()
        self.move("a", ".Junk")
        self.move("b", "")
        self.move("c", ".work", "c:2,S")
        self.assertMoved(self.look(NOW + 60), ("a:2,S",), ("b:2,", "c"))
        self.assertMoved(self.look(NOW + 120))

    def test_what_the_filters_put_into_junk_teaches_nothing(self) -> None:
        self.look()
        self.put("a", ".Junk", "new", written=NOW + 30)
        self.put("b", ".Junk", "new", written=NOW - 20)  # begun before the last look, and in its place after it
        self.assertMoved(self.look(NOW + 60))
        self.assertMoved(self.look(NOW + HOUR))

    def test_other_flags_and_another_part_of_the_folder_are_no_move(self) -> None:
        self.put("a", ".Junk", "new")
        self.put("b:2,", ".Junk")
        self.look()
        self.move("a", ".Junk", "a:2,S")
        self.move("b", ".Junk", "b:2,FRS")
        self.assertMoved(self.look(NOW + 60))

    def test_another_name_in_junk_is_no_move(self) -> None:
        self.put("a", ".Junk")
        self.look()
        self.move("a", ".Junk", "renamed")
        self.assertMoved(self.look(NOW + 60))

    def test_the_same_file_under_another_name_is_the_same_message(self) -> None:
        """So Dovecot moves: a second name, then the first one goes."""
        first = self.put("a", ".Junk")
        self.look()
        os.link(first, self.maildir / "cur" / "other:2,S")
        first.unlink()
        self.assertMoved(self.look(NOW + 60), (), ("a",))

    def test_another_file_that_has_got_its_number_is_not(self) -> None:
        first = self.put("a", ".Junk")
        self.look()
        os.link(first, self.maildir / "cur" / "other")
        first.unlink()
        (self.maildir / "cur" / "other").write_text("Subject: another\n\nmessage\n")
        self.assertMoved(self.look(NOW + 60))

    def test_what_was_deleted_or_thrown_away_teaches_nothing(self) -> None:
        for name in ("a", "b", "c"):
            self.put(name, ".Junk")
        self.put("d")
        self.look()
        self.move("a", ".Trash")
        (self.maildir / ".Junk" / "cur" / "b").unlink()
        self.move("c", ".Junk.old")
        self.move("d", ".Trash")
        self.assertMoved(self.look(NOW + 60))

    def test_a_junk_folder_that_was_not_there_is_an_empty_one(self) -> None:
        for part in ("new", "cur", "tmp"):
            (self.maildir / ".Junk" / part).rmdir()
        (self.maildir / ".Junk").rmdir()
        self.put("a")
        self.look()
        self.assertEqual(mark_of(str(self.maildir), "Junk"), (0, 0))
        (self.maildir / ".Junk" / "cur").mkdir(parents=True)
        self.move("a", ".Junk")
        self.assertNotEqual(mark_of(str(self.maildir), "Junk"), (0, 0))
        self.assertMoved(self.look(NOW + 60), ("a",))

    def test_a_clock_that_was_set_back_makes_nothing_of_it(self) -> None:
        self.look(NOW + 10 * HOUR)
        self.put("a", ".Junk")
        self.assertMoved(self.look(NOW))
        self.assertMoved(self.look(NOW + 60))


class Bounds(MaildirCase):
    def test_what_is_too_much_for_one_look_is_found_by_the_next_ones(self) -> None:
        for n in range(5):
            self.put(f"s{n}")
            self.put(f"h{n}", ".Junk")
        self.look()
        for n in range(5):
            self.move(f"s{n}", ".Junk")
            self.move(f"h{n}", "")
        spam, ham, looks = [], [], []
        for n in range(1, 6):
            found = self.look(NOW + n * 60, most=3)
            spam, ham = spam + found.spam, ham + found.ham
            looks.append(found.is_all)
        self.assertEqual((len(spam), len(ham), len(set(spam)), len(set(ham))), (5, 5, 5, 5))
        self.assertEqual(looks, [False, False, False, True, True])

    def test_so_are_those_that_have_another_name_now(self) -> None:
        for n in range(4):
            self.put(f"h{n}", ".Junk")
        self.look()
        for n in range(4):
            self.move(f"h{n}", "", f"other{n}")
        found = [self.look(NOW + n * 60, most=3) for n in (1, 2, 3)]
        self.assertEqual([(len(one.ham), one.is_all) for one in found], [(3, False), (1, True), (0, True)])
        self.assertEqual(len({octets for one in found for octets in one.ham}), 4)

    def test_no_directory_stays_open(self) -> None:
        self.put("a")
        self.put("b", ".Junk")
        self.look()
        self.move("a", ".Junk")
        self.move("b", "")
        self.look(NOW + 60)
        links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        places = [os.readlink(one) for one in links if os.path.islink(one)]
        self.assertEqual([one for one in places if one.startswith(str(self.maildir))], [])

    def test_a_junk_folder_beyond_the_bound_is_not_looked_at(self) -> None:
        self.patch(__import__("mailserver.filters.moved_mail", fromlist=["x"]), "JUNK_MOST", 3)
        for n in range(4):
            self.put(f"a{n}", ".Junk")
        self.assertRaises(TooManyFiles, self.look)

    def test_long_messages_are_read_from_their_start_alone(self) -> None:
        self.put("a", text="Subject: a\n\n" + "x" * 1_000_000)
        self.look()
        self.move("a", ".Junk")
        (octets,) = self.look(NOW + 60).spam
        self.assertLess(len(octets), 300_000)


class Traps(MaildirCase):
    def test_links_that_a_user_has_put_there_lead_nowhere(self) -> None:
        secret = Path(self.mktemp()).absolute()
        (secret / "cur").mkdir(parents=True)
        (secret / "cur" / "s").write_text("Subject: secret\n\nwords\n")
        os.utime(secret / "cur" / "s", (NOW - HOUR, NOW - HOUR))
        self.put("b", ".Junk")
        self.look()
        (self.maildir / ".Junk" / "cur" / "link").symlink_to(secret / "cur" / "s")
        (self.maildir / ".Junk" / "cur" / "b").unlink()
        (self.maildir / ".linked").symlink_to(secret)
        (secret / "cur" / "b").write_text("Subject: b\n\n")
        os.mkfifo(self.maildir / ".Junk" / "cur" / "pipe")
        os.mkdir(self.maildir / ".Junk" / "cur" / "folder")
        self.assertMoved(self.look(NOW + 60))
        (self.maildir / ".Junk" / "cur").rename(self.maildir / "away")
        (self.maildir / ".Junk" / "cur").symlink_to(secret / "cur")
        self.assertMoved(self.look(NOW + 120))

    def test_one_file_that_cannot_be_read_spoils_no_other(self) -> None:
        for name in ("a", "b", "c"):
            self.put(name)
        self.look()
        for name in ("a", "b", "c"):
            self.move(name, ".Junk")
        opened = os.open

        def refusing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if path == "b":
                raise PermissionError(13, "not yours", path)
            return opened(path, flags, mode, dir_fd=dir_fd)

        self.patch(os, "open", refusing)
        self.assertMoved(self.look(NOW + 60), ("a", "c"))
        self.assertMoved(self.look(NOW + 120))

    def test_names_that_are_no_text_are_left_alone(self) -> None:
        self.look()
        path = os.fsencode(self.maildir / ".Junk" / "cur") + b"/\xff\xfe"
        with open(path, "wb") as file:
            file.write(b"Subject: x\n\n")
        os.utime(path, (NOW - HOUR, NOW - HOUR))
        self.assertMoved(self.look(NOW + 60))

    def test_a_mailbox_that_is_gone_says_so(self) -> None:
        self.maildir.rename(self.maildir.with_name("elsewhere"))
        self.assertRaises(FileNotFoundError, self.look)


class WithDovecot(MaildirCase):
    """Its IMAP server over standard input, as a user who has logged in meets it."""

    IMAP = "/usr/lib/dovecot/imap"

    def setUp(self) -> None:
        super().setUp()
        if not os.path.exists(self.IMAP):
            if os.environ.get("CI") == "true":
                self.fail("dovecot-imapd is not installed; .ci/run has to install it")
            raise SkipTest("dovecot-imapd is not installed")
        top = Path(tempfile.mkdtemp(prefix="dovecot"))
        self.addCleanup(shutil.rmtree, top, ignore_errors=True)
        self.maildir = Path(shutil.move(str(self.maildir), str(top / "Maildir")))
        self.config = top / "conf"
        self.config.write_text(
            f"base_dir = {top}/run\nstate_dir = {top}/run\nlog_path = {top}/log\nmail_location = maildir:{self.maildir}\n"
            "ssl = no\nfirst_valid_uid = 1\n"
        )

    def imap(self) -> imaplib.IMAP4_stream:
        command = f"env USER=nobody HOME={self.config.parent} {self.IMAP} -c {self.config}"
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for folder, _, files in os.walk(self.config.parent):
                for path in (folder, *[os.path.join(folder, name) for name in files]):
                    os.chown(path, nobody.pw_uid, nobody.pw_gid)
            command = f"setpriv --reuid={nobody.pw_uid} --regid={nobody.pw_gid} --clear-groups {command}"
        return imaplib.IMAP4_stream(f"{command} 2>{self.config.parent}/errors")

    def test_what_it_moves_is_moved_under_whichever_name(self) -> None:
        for n in range(3):
            self.put(f"170000000{n}.S{n}_5.mx.example.org,S=25,W=28", part="new", text=f"Subject: spam{n}\n\nhello\n")
            self.put(f"170000000{n}.H{n}_5.mx.example.org,S=24,W=27", ".Junk", "new", text=f"Subject: ham{n}\n\nhello\n")
        self.look()
        client = self.imap()
        self.patch(imaplib, "Commands", {**imaplib.Commands, "MOVE": ("SELECTED",)})
        client.select("Junk")  # which numbers what stands there
        client.select("INBOX")
        self.assertEqual(client.uid("STORE", "1:*", "+FLAGS", "(\\Seen)")[0], "OK")
        self.assertEqual(client._simple_command("MOVE", "1", "Junk")[0], "OK")  # type: ignore[attr-defined]
        self.assertEqual(client.uid("COPY", "2", "Junk")[0], "OK")
        client.uid("STORE", "2", "+FLAGS", "(\\Deleted)")
        client.expunge()
        client.select("Junk")
        for number, to in (("1", "INBOX"), ("2", "work"), ("3", "Trash")):
            self.assertEqual(client.uid("COPY", number, to)[0], "OK")
        client.uid("STORE", "1:3", "+FLAGS", "(\\Deleted)")
        client.expunge()
        client.logout()
        self.assertMoved(self.look(NOW + 60), ("spam0", "spam1"), ("ham0", "ham1"))
        self.assertMoved(self.look(NOW + 120))


class Paths(SynchronousTestCase):
    def test_they_are_those_that_the_delivery_makes(self) -> None:
        data = os.path.abspath(self.mktemp())
        users = [("alice", "example.org"), ("o'brien+x", "example.org"), (".dot", "example.net"), ("b\u00fc%/x", "example.net")]
        for path in ("{data}/mail/{domain}/{user}", "{data}/by-user/{user}@{domain}/Maildir", "{data}/flat/x-{user}/{domain}"):
            template = PathTemplate(path, data_directory=data)
            for user, domain in users:
                os.makedirs(template.path(user=user, domain=domain))
            os.makedirs(os.path.join(template.root, "odd"), exist_ok=True)
            found = dict(MailboxPaths(path, data))
            self.assertEqual(
                found, {f"{user}@{domain}": template.path(user=user, domain=domain) for user, domain in users}, path
            )
        template = PathTemplate("{data}/twice/{user}/{domain}/{user}", data_directory=data)
        os.makedirs(template.path(user="alice", domain="example.org"))
        os.makedirs(os.path.join(template.root, "alice", "example.org", "bob"))
        os.makedirs(os.path.join(data, "both", "alice-alice"))
        os.makedirs(os.path.join(data, "both", "alice-bob"))
        self.assertEqual(list(dict(MailboxPaths("{data}/twice/{user}/{domain}/{user}", data))), ["alice@example.org"])
        self.assertEqual(list(dict(MailboxPaths("{data}/both/{user}-{user}", data))), ["alice"])
        template = PathTemplate("{data}/plain/{user}", data_directory=data)
        os.makedirs(template.path(user="alice", domain=""))
        os.symlink(template.path(user="alice", domain=""), os.path.join(data, "plain", "former"))
        self.assertEqual(dict(MailboxPaths("{data}/plain/{user}", data)), {"alice": os.path.join(data, "plain/alice")})

    def test_without_a_root_or_a_user_there_are_none(self) -> None:
        self.assertRaises(FileNotFoundError, list, MailboxPaths("{data}/mail/{user}", "/nowhere"))
        for path in ("{data}/mail", "mail/{user}", "{home}/Maildir"):
            self.assertRaises(ValueError, MailboxPaths, path, "/data")
