"""Root acts as somebody else for a while."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.observe import LogFile
from mailserver.processes.identity import acting_as, as_owner_of
from tests.requires import require_root

NOBODY = pwd.getpwnam("nobody")


def whole() -> tuple[int, int, list[int]]:
    return os.geteuid(), os.getegid(), sorted(os.getgroups())


class Acting(SynchronousTestCase):
    def setUp(self) -> None:
        require_root("to act as somebody else")
        self.before = whole()

    def tearDown(self) -> None:
        self.assertEqual(whole(), self.before)

    def test_user_group_and_groups_are_his_and_afterwards_ours_again(self) -> None:
        own = sorted(os.getgrouplist("nobody", NOBODY.pw_gid))
        with acting_as(NOBODY.pw_uid):
            self.assertEqual(whole(), (NOBODY.pw_uid, NOBODY.pw_gid, own))
        with acting_as(54321, 54322):  # nobody knows him
            self.assertEqual(whole(), (54321, 54322, [54322]))
        with self.assertRaises(ZeroDivisionError), acting_as(NOBODY.pw_uid, 54322):
            self.assertEqual(os.getegid(), 54322)
            1 // 0

    def test_what_files_are_read_with_is_there_although_he_may_not_read_where_it_lies(self) -> None:
        code = (
            "import sys; from mailserver.processes.identity import acting_as\n"
            f"with acting_as({NOBODY.pw_uid}): print('encodings.ascii' in sys.modules, 'encodings.idna' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
        self.assertEqual(done.stdout, "True True\n", done.stderr)

    def test_root_and_no_user_change_nothing(self) -> None:
        for uid in (-1, 0):
            with acting_as(uid, 5):
                self.assertEqual(whole(), self.before)
        with as_owner_of("/nonexistent"):
            self.assertEqual(whole(), self.before)

    def test_the_owner_is_the_folders(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        os.chown(folder, 54321, 54322)
        with as_owner_of(folder):
            self.assertEqual(whole(), (54321, 54322, [54322]))


class Log(SynchronousTestCase):
    """The log of a server that is root for a moment."""

    def setUp(self) -> None:
        require_root("a log for another user")
        top = Path("/tmp") / f"mailserver-{os.urandom(6).hex()}"  # where others may go
        self.secret, self.folder = top / "secret", top / "logs"
        for path in (top, self.secret, self.folder):
            path.mkdir(mode=0o755)
        self.secret.chmod(0o700)
        os.chown(self.folder, NOBODY.pw_uid, NOBODY.pw_gid)
        self.addCleanup(os.system, f"rm -r {top}")
        self.path = self.folder / "log"

    def opened(self) -> LogFile:
        found = LogFile(str(self.path), owner=(NOBODY.pw_uid, NOBODY.pw_gid))
        self.addCleanup(found.close)
        return found

    def test_it_belongs_to_the_servers_user_so_that_he_can_open_the_next_one(self) -> None:
        log = self.opened()
        self.assertEqual(self.path.stat().st_uid, NOBODY.pw_uid)
        os.rename(self.path, f"{self.path}.1")
        with acting_as(NOBODY.pw_uid):
            log.reopen()
            log.write(b"one\n")
        self.assertEqual(self.path.read_bytes(), b"one\n")

    def test_a_link_leads_no_further_than_he_could_go(self) -> None:
        victim = self.secret / "victim"
        victim.write_bytes(b"root's\n")
        for target in (victim, self.secret / "new", Path("/etc/mailserver-test-new")):
            self.path.symlink_to(target)
            log = self.opened()  # the link was moved aside, as he could have done
            log.write(b"line\n")
            self.assertFalse(self.path.is_symlink())
            self.assertEqual((victim.read_bytes(), os.listdir(self.secret)), (b"root's\n", ["victim"]))
            self.path.unlink()
        self.assertFalse(os.path.exists("/etc/mailserver-test-new"))

    def test_one_that_root_has_left_there_is_moved_aside_and_kept(self) -> None:
        self.path.write_bytes(b"earlier\n")
        self.path.chmod(0o640)
        self.opened().write(b"line\n")
        self.assertEqual((self.path.read_bytes(), self.path.stat().st_uid), (b"line\n", NOBODY.pw_uid))
        [old] = self.folder.glob("log.*")
        self.assertEqual((old.read_bytes(), stat.S_IMODE(old.stat().st_mode)), (b"earlier\n", 0o640))

    def test_where_he_may_not_write_the_start_fails(self) -> None:
        os.chown(self.folder, 0, 0)
        self.assertRaises(PermissionError, self.opened)
        self.path.touch()
        self.assertRaises(PermissionError, self.opened)
        self.assertEqual(os.listdir(self.folder), ["log"])
        os.chown(self.path, NOBODY.pw_uid, 0)
        self.opened().write(b"line\n")
